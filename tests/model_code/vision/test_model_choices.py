from __future__ import annotations

import json
from typing import Any

import pytest

from model_code.city import Captions, load_city
from model_code.errors import ConfigError
from model_code.vision.clip_config import ClipConfig
from model_code.vision.model_choices import Embedded, Hashed, Nothing, of_view
from tests.tiny import ROOT

COMMIT = "a" * 40
STREETS = {
    "kind": "transformers",
    "model": "nvidia/segformer",
    "revision": COMMIT,
    "classes": "ade20k",
}
COVER = {"kind": "mmsegmentation", "config": "a.py", "checkpoint": "/a.pth", "sha256": "0" * 64,
         "classes": "loveda"}  # fmt: skip
SDXL = {"kind": "sdxl", "model": "stabilityai/sdxl", "revision": COMMIT}
CLIP = {"kind": "open_clip", "model": "ViT-B-32", "pretrained": "openai"}


def captions(**given: Any) -> Captions:
    """As a city's YAML is read."""
    return Captions.model_validate_json(json.dumps(given), strict=True)


def test_bare_words_and_defaults_are_what_runs_anywhere() -> None:
    plain, said = captions(), captions(segmenter="embedded", painter="embedded", clip={"pairs": 64})
    assert plain.segmenter == said.segmenter == plain.painter == said.painter == Embedded()
    assert plain.clip == ClipConfig() and said.clip == ClipConfig(pairs=64)
    for view in ("satellite", "street_view"):
        assert (
            of_view(plain.segmenter, view) == Embedded() and of_view(plain.clip, view) == plain.clip
        )
        assert of_view(captions(segmenter="none").segmenter, view) == Nothing()


def test_a_segmenter_and_towers_for_each_view() -> None:
    own = captions(
        segmenter={"street_view": STREETS, "satellite": COVER},
        clip={"satellite": CLIP},
        painter={**SDXL, "size_px": [768, 1024]},
    )
    assert of_view(own.segmenter, "street_view").kind == "transformers"
    assert of_view(own.segmenter, "satellite").kind == "mmsegmentation"
    assert of_view(own.clip, "satellite").pretrained == "openai"
    assert of_view(own.clip, "street_view") == ClipConfig()
    assert own.painter.size_px == (768, 1024)
    alone = captions(segmenter={"street_view": STREETS}).segmenter
    assert of_view(alone, "satellite") == Nothing()


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"segmenter": "embeded"}, "segmenter.kind", "did you mean 'embedded'"),
        ({"segmenter": STREETS}, "segmenter.kind", "a mapping of satellite and street_view"),
        ({"segmenter": {"satellite": {**STREETS}}}, "segmenter", "mean nothing in pictures"),
        ({"segmenter": {"street_view": {**COVER}}}, "segmenter", "mean nothing in pictures"),
        ({"segmenter": {"street_view": {**STREETS, "bach": 3}}}, "segmenter.street_view.bach", "batch"),
        ({"painter": {**SDXL, "revision": None}}, "painter", "add `revision:`"),
        ({"painter": {**SDXL, "revision": "main"}}, "painter.revision", "40 hex digits"),
        ({"painter": {**SDXL, "size_px": [100, 100]}}, "painter.size_px.0", "multiple of 8"),
        ({"painter": {**SDXL, "scheduler": "Euler"}}, "painter.scheduler", "EulerDiscreteScheduler"),
        ({"painter": {"model": "x"}}, "painter.kind", "one of embedded, sdxl"),
        ({"clip": {"pairs": 1}}, "clip.pairs", "greater than or equal to 2"),
        ({"clip": {**CLIP, "pretrained": None}}, "clip", "give either `pretrained: TAG`"),
        ({"clip": {**CLIP, "model": {"embed_dim": 8}}}, "clip", "goes with a model's name"),
        ({"clip": {**CLIP, "mean": [0.5, 0.5, 0.5]}}, "clip", "give both `mean` and `std`"),
        ({"memory_gib": 0}, "memory_gib", "greater than 0"),
        (
            {"text_embedding": {"kind": "sentence_transformers", "model": "Qwen/Qwen3"}},
            "text_embedding", "add `revision:`",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_its_key(
    changes: dict[str, Any], key: str, message: str, tmp_path: Any
) -> None:
    import yaml

    config = yaml.safe_load((ROOT / "cities" / "demo.yaml").read_text())
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump({**config, "captions": {**config["captions"], **changes}}))
    with pytest.raises(ConfigError) as caught:
        load_city(path)
    assert any(p.key == f"captions.{key}" for p in caught.value.problems), str(caught.value)
    assert message in str(caught.value)


def test_sentences() -> None:
    own = {"kind": "sentence_transformers", "model": "Qwen/Qwen3", "revision": COMMIT, "width": 256}
    assert captions().text_embedding == captions(text_embedding="hashed").text_embedding == Hashed()
    assert captions(text_embedding=own).text_embedding.width == 256


def test_an_encoder_of_pictures_and_a_method_that_reads_it(tmp_path: Any) -> None:
    import yaml

    config = yaml.safe_load((ROOT / "cities" / "demo.yaml").read_text())
    config |= {"methods": {"features": {}}, "transfer": {}}
    path, weights = tmp_path / "demo.yaml", {"path": "/a", "sha256": "0" * 64}
    backbone = {"kind": "backbone", "model": "timm/resnet152", "weights": weights}
    for encoder, kind in (("clip", "clip"), (backbone, "backbone")):
        path.write_text(yaml.safe_dump({**config, "image_encoder": encoder}))
        assert load_city(path).image_encoder.kind == kind
    for encoder, message in (
        (None, "add `image_encoder: clip`"),
        ({**backbone, "model": "resnet50"}, "timm/resnet50"),
        ({**backbone, "model": "towers"}, "write the word `clip`"),
    ):
        path.write_text(
            yaml.safe_dump({**config, **({"image_encoder": encoder} if encoder else {})})
        )
        with pytest.raises(ConfigError, match=message):
            load_city(path)
