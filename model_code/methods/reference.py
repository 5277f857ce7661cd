"""Every key of every method's config, as the page `docs/methods/settings.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from model_code.methods import METHODS, MethodConfig, Probed, TowerSize, Tuned, Tuning

# What a key means in every method whose config says nothing more of it.
MEANINGS = {
    "aggregate": "how many street views become one vector",
    "batch": "regions in a training step",
    "bins": "how the targets are cut into bins",
    "chip_px": "chips are brought to this size",
    "components": "principal components",
    "depth": "layers of the transformer",
    "distance": "by which regions are compared",
    "dropout": "share of the units that a training step leaves out",
    "encoder": "what reads pictures",
    "epochs": "passes over the regions that it learns from",
    "fusion": "how modalities become one vector",
    "fusion_layers": "layers of the transformer over modalities",
    "head": "what predicts from frozen embeddings; the validation regions choose its strength or its epoch",
    "heads": "of attention",
    "image_px": "chips are brought to this size",
    "inter": "contrast between modalities",
    "intra": "contrast within a modality",
    "layers": "of the network",
    "learning_rate": "of AdamW",
    "location": "places; false: without",
    "margin": "of the triplets",
    "mode": "the encoder as it is (`probe`), trained on at a small rate (`finetune`), at the heads' own "
    "(`end_to_end`), or likewise without its pretrained weights (`scratch`)",
    "n_bins": "bins of the targets",
    "objective": "what the head learns",
    "patch_px": "side of a patch",
    "poi_width": "of the embedding of POI counts",
    "pois": "POIs; false: without",
    "region_width": "of the embedding of regions",
    "satellite": "satellite chips; false: without",
    "semantics": "descriptions; false: without",
    "single_task": "a network a task, in place of one for all",
    "spatial": "what passes between neighbours",
    "street_view_weights": "what the backbone starts from",
    "street_views": "false: without",
    "temperature": "of the contrast",
    "temporal_layers": "layers of the transformer over hours",
    "text": "captions; false: without",
    "tower": "networks where no pretrained towers are given (above)",
    "transform": "of the counts",
    "trees": "of the forest",
    "tuning": "how an encoder and its heads are trained on labels (next table)",
    "walk_length": "regions of a walk",
    "weight_decay": "of AdamW; 0: Adam",
    "width": "of the embedding",
    "word_epochs": "of the words",
    "word_learning_rate": "of the words",
    "word_window": "words that are neighbours of a word",
    # of towers
    "context": "tokens of a text that are read",
    "embed_dim": "width of what both towers say",
    "image_layers": "layers of the image tower",
    "image_width": "of its tokens",
    "shrink": "pictures are read at so much less than their size",
    "text_layers": "layers of the text tower",
    "text_width": "of its tokens",
}  # fmt: skip


def page() -> str:
    """All settings of all methods, in Markdown.

    Raises:
        KeyError: a key has neither a description nor one of `MEANINGS`.
    """
    lines = [
        "# Settings of the methods",
        "",
        "Made from `model_code/methods/__init__.py` by `make tables`. They stand in a city's YAML below "
        "`methods.NAME.config`, or below `methods.NAME.variants.VARIANT`; a key that the method does not know, or a "
        "value that it cannot take, is an error that names both.",
        "",
    ]
    for title, config, left_out in (
        ("All `pretrained` methods", Probed, MethodConfig),
        ("Those of them that can be trained on with labels", Tuned, Probed),
        ("Their `tuning`", Tuning, MethodConfig),
        ("`tower`, where a method has one", TowerSize, MethodConfig),
    ):
        lines += [f"## {title}", "", *_table(config, left_out), ""]
    for name, spec in METHODS.items():
        shared = Tuned if issubclass(spec.config, Tuned) else Probed
        rows = list(
            _table(spec.config, shared if issubclass(spec.config, shared) else MethodConfig)
        )
        kind = "pretrained" if issubclass(spec.config, Probed) else "supervised"
        also = " It can be trained on with labels." if issubclass(spec.config, Tuned) else ""
        lines += [f"## `{name}`", "", f"{spec.title}, {kind}. {spec.about}{also}", ""]
        lines += [*(rows if len(rows) > 2 else ["No setting of its own."]), ""]
    return "\n".join(lines)


def _table(config: type[MethodConfig], left_out: type[MethodConfig]) -> Iterator[str]:
    """The rows of a config's keys without those of `left_out`."""
    yield "| key | default | may be | what it is |"
    yield "|---|---|---|---|"
    schema = config.model_json_schema()
    for key, field in schema.get("properties", {}).items():
        if key not in left_out.model_fields:
            about = field.get("description") or MEANINGS[key]
            default = "" if "$ref" in field else f"`{json.dumps(field.get('default'))}`"
            cells = [f"`{key}`", default, _may_be(field), about]
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _may_be(field: dict[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    if "anyOf" in field:
        return " or ".join(map(_may_be, field["anyOf"]))
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[1]
        return "a file: `path`, `sha256`" if name == "WeightsFile" else "keys of its own"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    word = _WORDS[field["type"]]
    bounds = [
        f"{told} {field[bound]:g}"
        for bound, told in _BOUNDS.items()
        if field.get(bound) is not None
    ]
    return " ".join([word, ", ".join(bounds)]).strip()


_WORDS = {
    "array": "list",
    "boolean": "`true`, `false`",
    "integer": "whole number",
    "null": "`null`",
    "number": "number",
    "object": "keys of its own",
    "string": "text",
}
_BOUNDS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "up to",
    "exclusiveMaximum": "below",
    "multipleOf": "multiple of",
}
