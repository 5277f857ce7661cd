"""What is special of pretrained CLIP models; what all keep is in `tests/model_code/test_backends.py`."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F

from model_code.errors import DataError
from model_code.hub import stamp
from model_code.methods.base import Checkpoint
from model_code.training import evaluating, load_arrays, state_arrays
from model_code.vision import loading
from model_code.vision.clip import (
    Towers,
    encode_image_tokens,
    encode_text_tokens,
    open_towers,
    token_counts,
)
from model_code.vision.features import BackboneFeatures
from model_code.vision.model_choices import Backbone, OpenClip
from model_code.vision.open_clip_models import (
    OPENAI_MEAN,
    OPENAI_STD,
    PretrainedClip,
    _tokenizer,
    arguments_of,
    build,
    clip_weight,
    colours,
    pretrained_checkpoint,
    why_no_towers,
)
from tests.model_code.hub_server import COMMIT, run, serving
from tests.model_code.vision import tiny_models
from tests.model_code.vision.tiny_models import CLIP_MODEL

TEXTS = ["A wide road!", "", "trees, and much water; 1% of it is sand", "road " * 100, "!!! a ! b"]


def pictures(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def choice(path: Path, **changes: Any) -> OpenClip:
    given = {"kind": "open_clip", "model": CLIP_MODEL, "held_out": 5}
    weights = tiny_models.open_clip_state(path, changes.get("model"))
    return OpenClip.model_validate({**given, "weights": weights, **changes})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("clip") / "RemoteCLIP-like.pt"
    return pretrained_checkpoint(choice(path), pictures(), TEXTS)


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> Any:
    torch.manual_seed(0)
    return open_clip.CLIP(**CLIP_MODEL).eval()  # the same seed as the file's


def normal(images: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (
        open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))  # fmt: skip
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std


def test_scores_are_those_of_open_clip_itself(checkpoint: Checkpoint, model: Any) -> None:
    clip = PretrainedClip(checkpoint.record, lambda: checkpoint)
    with torch.no_grad():
        images = F.normalize(model.encode_image(normal(pictures())), dim=-1)
        words = F.normalize(model.encode_text(open_clip.tokenize(TEXTS)), dim=-1)
    np.testing.assert_allclose(clip.encode_images(pictures()), images.numpy(), atol=1e-5)
    np.testing.assert_allclose(clip.encode_texts(TEXTS), words.numpy(), atol=1e-5)


def test_towers_of_methods_are_those_of_open_clip_itself(
    checkpoint: Checkpoint, model: Any
) -> None:
    towers = open_towers(checkpoint)
    np.testing.assert_array_equal(towers.tokenize(TEXTS).numpy(), open_clip.tokenize(TEXTS).numpy())
    with torch.no_grad():
        images, words = (
            model.encode_image(normal(pictures())),
            model.encode_text(open_clip.tokenize(TEXTS)),
        )
    pooled, patches = encode_image_tokens(towers, list(pictures()))
    np.testing.assert_allclose(pooled, images.numpy(), atol=1e-5)
    assert patches.shape == (5, 16, 32)
    pooled, tokens, mask = encode_text_tokens(towers, TEXTS)
    np.testing.assert_allclose(pooled, words.numpy(), atol=1e-5)
    counts = np.minimum(token_counts(TEXTS), 77)
    assert mask.sum(axis=1).tolist() == counts.tolist()  # "!" is token 0, and no padding
    assert not tokens[~mask].any() and towers.embed_dim == 16 and towers.context == 77


def test_towers_are_trained_on_and_come_back(checkpoint: Checkpoint) -> None:
    towers = open_towers(checkpoint)
    other = Towers(checkpoint.record["model"], checkpoint.tensors["vocabulary"])
    load_arrays(other, state_arrays(towers))
    with evaluating(other), evaluating(towers):
        ids = towers.tokenize(TEXTS)
        torch.testing.assert_close(other.text(ids)[0], towers.text(ids)[0])
    pooled, _ = towers.image(torch.from_numpy(pictures()))
    pooled.sum().backward()
    assert towers.clip.visual.conv1.weight.grad.abs().sum() > 0


def test_the_weight_puts_matched_pairs_where_it_should(checkpoint: Checkpoint) -> None:
    record = checkpoint.record
    clip = PretrainedClip(record, lambda: checkpoint)
    own = np.einsum("bd,bd->b", clip.encode_images(pictures()), clip.encode_texts(TEXTS))
    assert clip.weight == clip_weight(own, 0.6) and record["held_out"] == 5
    assert record["matched_cosine"] == pytest.approx(own.mean(), abs=1e-6)


def test_the_model_that_was_weighed_gives_its_room_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, released, use = list[loading.Memory](), list[int](), loading.Memory.use

    def noted(self: loading.Memory, model: Any) -> Any:
        used.append(self)
        return use(self, model)

    monkeypatch.setattr(loading.Memory, "use", noted)
    monkeypatch.setattr(loading, "release", lambda: released.append(1))
    pretrained_checkpoint(choice(tmp_path / "a.pt"), pictures(), TEXTS)
    assert used and not used[0].held and released == [1]


def test_a_weight_from_the_config_is_taken(tmp_path: Path) -> None:
    record = pretrained_checkpoint(choice(tmp_path / "a.pt", weight=2.5), pictures(), TEXTS).record
    assert record["weight"] == 2.5 and "matched_cosine" not in record


@pytest.mark.parametrize("wrapped", ["state_dict", "module.", "safetensors"])
def test_files_as_they_are_published(tmp_path: Path, checkpoint: Checkpoint, wrapped: str) -> None:
    from safetensors.torch import save_file

    plain = tmp_path / "plain.pt"
    tiny_models.open_clip_state(plain)
    state, path = torch.load(plain, weights_only=True), tmp_path / "weights.pt"
    if wrapped == "state_dict":
        torch.save({"epoch": 3, "state_dict": state}, path)
    elif wrapped == "module.":
        torch.save({f"module.{name}": value for name, value in state.items()}, path)
    else:
        path = path.with_suffix(".safetensors")
        save_file(state, path)
    about = {"path": str(path), "sha256": tiny_models.file_sha256(path)}
    own = OpenClip.model_validate(
        {"kind": "open_clip", "model": CLIP_MODEL, "weights": about, "weight": 1.0}
    )
    found = pretrained_checkpoint(own, pictures(), TEXTS)
    assert found.record["digest"] == checkpoint.record["digest"]


def test_a_pretrained_tag_brings_its_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of the download, the one thing that cannot run here, a file stands in the place."""
    from model_code.vision import open_clip_models

    arguments, known = arguments_of(
        OpenClip(kind="open_clip", model="ViT-B-32", pretrained="openai")
    )
    assert arguments["quick_gelu"] is True and len(known["mean"]) == 3
    weights = tiny_models.open_clip_state(tmp_path / "file.pt")
    asked = []
    monkeypatch.setattr(
        open_clip_models,
        "arguments_of",
        lambda _: (CLIP_MODEL, {"mean": (0.1,) * 3, "std": (0.2,) * 3}),
    )
    monkeypatch.setattr(
        open_clip_models, "download_pretrained", lambda cfg: asked.append(cfg) or weights["path"]
    )
    own = OpenClip(kind="open_clip", model="ViT-B-32", pretrained="openai", weight=1.0)
    record = pretrained_checkpoint(own, pictures(), TEXTS).record
    assert asked and record["model"]["mean"] == [0.1] * 3 and record["name"] == "ViT-B-32 openai"

    pinned = own.model_copy(update={"pretrained_sha256": weights["sha256"]})
    assert pretrained_checkpoint(pinned, pictures(), TEXTS).record == record
    other = own.model_copy(update={"pretrained_sha256": "0" * 64})
    with pytest.raises(DataError, match=r"captions\.clip\.pretrained: .* not those") as caught:
        pretrained_checkpoint(other, pictures(), TEXTS)
    assert weights["sha256"] in caught.value.what
    with pytest.raises(ValueError, match="goes with `pretrained`"):
        OpenClip.model_validate({**choice(tmp_path / "own.pt").model_dump(),
                                 "pretrained_sha256": "0" * 64})  # fmt: skip


def test_what_cannot_be_is_told_with_the_way_out(tmp_path: Path) -> None:
    for model, tag, message in (
        ("ViT-B-33", "openai", "mend captions.clip.model: ViT-"),
        ("ViT-B-32", "remoteclip", "set captions.clip.pretrained to one of openai"),
    ):
        with pytest.raises(DataError, match=message):
            arguments_of(OpenClip(kind="open_clip", model=model, pretrained=tag))
    with pytest.raises(DataError, match="lack text_cfg, vision_cfg"):
        arguments_of(choice(tmp_path / "a.pt").model_copy(update={"model": {"embed_dim": 16}}))
    other = {**CLIP_MODEL, "embed_dim": 8}
    wrong = choice(tmp_path / "b.pt").model_copy(update={"model": other})
    with pytest.raises(DataError, match=r"weights b\.pt are of another model"):
        pretrained_checkpoint(wrong, pictures(), TEXTS)


class _Runs:
    """What a malicious pickle asks for."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


def test_a_file_can_run_nothing(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"state_dict": _Runs(tmp_path / "trace")}, path)
    about = {"path": str(path), "sha256": tiny_models.file_sha256(path)}
    own = OpenClip.model_validate({"kind": "open_clip", "model": CLIP_MODEL, "weights": about})
    with pytest.raises(DataError, match="holds more than weights"):
        pretrained_checkpoint(own, pictures(), TEXTS)
    assert not (tmp_path / "trace").exists()


def test_colours_are_those_that_the_model_was_trained_on() -> None:
    def told(model: Any, known: dict[str, Any] | None = None, **given: Any) -> list[list[float]]:
        weights = {"path": "/a", "sha256": "0" * 64}
        own = {"kind": "open_clip", "model": model, "weights": weights, **given}
        return [list(side) for side in colours(OpenClip.model_validate(own), known or {})]

    assert told("ViT-B-16-SigLIP") == [[0.5] * 3] * 2
    assert told("ViT-L-14") == told(CLIP_MODEL) == [list(OPENAI_MEAN), list(OPENAI_STD)]
    known = {"mean": (0.1,) * 3, "std": (0.3,) * 3}
    assert told("ViT-B-32", known) == [[0.1] * 3, [0.3] * 3]
    given = {"mean": (0.2, 0.3, 0.4), "std": (0.5, 0.6, 0.7)}
    assert told("ViT-B-32", known, **given) == [[0.2, 0.3, 0.4], [0.5, 0.6, 0.7]]


def test_what_precision_it_computes_in_is_a_part_of_its_name(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = PretrainedClip(checkpoint.record, lambda: checkpoint).identity
    on = "cpu" if torch.cuda.is_available() else "cuda"
    monkeypatch.setattr(loading, "device", lambda: torch.device(on))
    assert PretrainedClip(checkpoint.record, lambda: checkpoint).identity != plain
    weights = {"path": "/a", "sha256": "0" * 64}
    backbone = Backbone.model_validate(
        {"kind": "backbone", "model": "resnet18", "weights": weights}
    )
    other = BackboneFeatures(backbone).identity
    monkeypatch.undo()
    assert BackboneFeatures(backbone).identity != other


def test_a_tokenizer_takes_no_leave_to_run_code(tmp_path: Path) -> None:
    """Settings of a YAML say how it cuts, and nothing of where it comes from."""
    from transformers import BertTokenizerFast

    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "road"])
    )
    BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(
        f"open({str(tmp_path / 'trace')!r}, 'w')\nfrom transformers import BertTokenizer as Own\n"
    )
    given = {"trust_remote_code": True, "code_revision": "main", "clean": "lower"}
    text = {"hf_tokenizer_name": str(tmp_path), "context_length": 8, "tokenizer_kwargs": given}
    with contextlib.suppress(ValueError):
        _tokenizer(json.dumps(text))
    assert not (tmp_path / "trace").exists()
    plain = _tokenizer(json.dumps({"tokenizer_kwargs": {"clean": "lower", "bpe_path": "/nowhere"}}))
    assert plain(["A road"]).shape == (1, 77)


SCORING = """
from pathlib import Path
import numpy as np
from model_code.errors import DataError
from model_code.hub import stamp
from model_code.vision.model_choices import OpenClip
from model_code.vision.open_clip_models import PretrainedClip, pretrained_checkpoint
pictures = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3)).astype(np.uint8)
texts = ["a road", "a", "road a"]
for choice in given:
    try:
        found = pretrained_checkpoint(OpenClip.model_validate(choice), pictures, texts)
        clip = PretrainedClip(found.record, lambda: found)
        print(found.record["model"]["text_revision"], clip.tokens(texts).tolist(), clip.encode_texts(texts).shape)
    except DataError as error:
        print(" ".join(str(error).split()))
"""


def test_a_tokenizer_of_the_hub_is_read_at_its_commit(tmp_path: Path) -> None:
    from transformers import BertTokenizerFast

    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "road"]))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    plain = CLIP_MODEL["text_cfg"]

    def given(name: str | None, revision: str | None = None) -> dict[str, Any]:
        text = {**plain, "hf_tokenizer_name": name} if name else plain
        own = choice(tmp_path / "clip.pt", model={**CLIP_MODEL, "text_cfg": text})
        return {**own.model_dump(), "text_revision": revision}

    with serving({"some/tokenizer": {**files, "model.safetensors": b"weights"}}) as server:
        hub, unpinned, local, in_vain = run(
            tmp_path / "cache", server.url, SCORING, given("some/tokenizer", COMMIT),
            given("some/tokenizer"), given(str(folder)), given(None, COMMIT),
        )  # fmt: skip
        assert "model.safetensors" not in server.sent and server.sent
    assert hub == f"{COMMIT} [4, 3, 4] (3, 16)"
    assert "some/tokenizer of the hub can change under its name" in unpinned
    assert "add captions.clip.text_revision" in unpinned
    assert local == hub.replace(COMMIT, stamp(folder))
    assert "take captions.clip.text_revision out" in in_vain
    (again,) = run(tmp_path / "cache", server.url, SCORING, given("some/tokenizer", COMMIT))
    assert again == hub  # the server is gone


def test_any_model_scores_and_some_are_towers(tmp_path: Path) -> None:
    """A ResNet of CLIP's is no tower that methods can train on, and scores captions all the same."""
    resnet = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": CLIP_MODEL["text_cfg"],
    }
    found = pretrained_checkpoint(choice(tmp_path / "rn.pt", model=resnet), pictures(), TEXTS)
    clip = PretrainedClip(found.record, lambda: found)
    assert clip.encode_images(pictures()).shape == (5, 16)
    with pytest.raises(DataError, match="no vision transformer"):
        open_towers(found)
    for name in ("ViT-B-16-SigLIP", "roberta-ViT-B-32"):
        assert "text tower" in why_no_towers(open_clip.get_model_config(name))
    assert not why_no_towers(open_clip.get_model_config("ViT-B-32"))
    with pytest.raises(DataError, match="CoCa"):
        build(open_clip.get_model_config("coca_ViT-B-32"))


@pytest.mark.parametrize("cosine", [[0.3, 0.4, 0.5], [-0.5, 0.2, 0.9, 0.8, 0.7], [0.01, 0.9, 0.9]])
def test_weights(cosine):
    weight = clip_weight(np.array(cosine), 0.5)
    assert np.clip(weight * np.array(cosine), 0, 1).mean() == pytest.approx(0.5, abs=1e-6)


def test_no_weight_reaches_where_nothing_matches():
    assert clip_weight(np.array([-0.2, -0.1, 0.3]), 0.6) == 1.0
