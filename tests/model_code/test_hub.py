from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_code.errors import DataError
from model_code.hub import name_of, not_loaded, place_of, revision_of, source_of, stamp
from model_code.vision.model_choices import Pinned
from tests.model_code.hub_server import COMMIT, run, serving

ASKING = """
from model_code.errors import DataError
from model_code.hub import snapshot
for name, how in given:
    try:
        found = snapshot(name, "c" * 40, "some.key", **how)
        print(sorted(path.name for path in found.iterdir()))
    except DataError as error:
        print(" ".join(str(error).split()))
"""
FILES = {"config.json": b"{}", "vocab.txt": b"a", "model.safetensors": b"weights"}


def test_only_what_is_wanted_is_fetched(tmp_path: Path) -> None:
    with serving({"a/b": FILES, "c/d": FILES}) as server:
        some, other, missing = run(
            tmp_path, server.url, ASKING,
            ("a/b", {"only": ["*.json", "*.txt"]}), ("c/d", {"never": ["*.txt"]}), ("e/f", {}),
        )  # fmt: skip
    assert some == "['config.json', 'vocab.txt']"
    assert other == "['config.json', 'model.safetensors']"
    assert sorted(server.sent) == ["config.json", "config.json", "model.safetensors", "vocab.txt"]
    assert missing.startswith(f"some.key: e/f at {COMMIT} is not in the cache of the hub")
    (told,) = run(tmp_path, server.url, ASKING, ("g/h", {"offline": True}))
    assert "nothing may be fetched" in told and f"hf download g/h --revision {COMMIT}" in told


def test_a_folder_is_known_by_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    large, small = tmp_path / "unet" / "model.safetensors", tmp_path / "config.json"
    content = bytearray(torch.arange(3 << 20, dtype=torch.int32).numpy().tobytes())
    large.write_bytes(content)
    small.write_text("{}")
    first = stamp(tmp_path)
    assert stamp(tmp_path) == first
    small.write_text('{"a": 1}')
    assert stamp(tmp_path) != first
    small.write_text("{}")
    content[-1] ^= 1
    large.write_bytes(content)
    assert stamp(tmp_path) != first
    content[-1] ^= 1
    large.write_bytes(content)
    large.rename(tmp_path / "model.safetensors")
    assert stamp(tmp_path) != first
    with pytest.raises(DataError, match="save_pretrained"):
        stamp(tmp_path / "nowhere")


def test_a_choice_is_known_by_its_commit_or_by_its_folder(tmp_path: Path) -> None:
    on_hub = Pinned(model="a/b", revision=COMMIT)
    assert (name_of(on_hub), revision_of(on_hub), place_of(on_hub)) == ("a/b", COMMIT, "a/b")
    assert source_of(on_hub) == {"revision": COMMIT}
    (tmp_path / "config.json").write_text("{}")
    local = Pinned(model=str(tmp_path))
    assert (name_of(local), revision_of(local)) == (tmp_path.name, stamp(tmp_path))
    assert place_of(local) == str(tmp_path) and source_of(local) == {"local_files_only": True}


NOT_REACHED = """
import os
os.environ["HF_HUB_OFFLINE"] = "1"
from model_code.errors import DataError
from model_code.text.sentence_model import SentenceModel
from model_code.vision.model_choices import OpenClip, Sdxl, SentenceTransformers, Transformers
from model_code.vision.open_clip_models import _fetched, arguments_of
from model_code.vision.sdxl import SdxlPainter
from model_code.vision.segmenters import TransformersSegmenter

pinned = {"model": "some/model", "revision": "c" * 40}
clip = OpenClip(kind="open_clip", model="ViT-B-32", pretrained="laion2b_s34b_b79k")
for load in (
    SdxlPainter(Sdxl(kind="sdxl", **pinned), (32, 32))._load,
    TransformersSegmenter(Transformers(kind="transformers", classes="ade20k", **pinned))._load,
    SentenceModel(SentenceTransformers(kind="sentence_transformers", **pinned))._load,
    lambda: _fetched(clip, arguments_of(clip)[1]),
):
    try:
        load()
    except DataError as error:
        print(" ".join(str(error).split()))
"""


def test_a_hub_that_is_not_reached_is_told_by_each_model_with_its_key(tmp_path: Path) -> None:
    told = run(tmp_path, "http://127.0.0.1:9", NOT_REACHED)
    keys = ("painter.model", "segmenter.VIEW.model", "text_embedding.model", "clip.pretrained")
    assert len(told) == len(keys)
    for key, line in zip(keys, told, strict=True):
        assert line.startswith(f"captions.{key}: ") and "HF_HOME" in line
    for line in told[:3]:
        assert f"`hf download some/model --revision {COMMIT}`" in line
    assert "`hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K`" in told[3]
    assert "captions.clip.weights" in told[3]


def test_a_folder_that_is_not_loaded_speaks_of_no_hub(tmp_path: Path) -> None:
    local = Pinned(model=str(tmp_path))
    error = not_loaded(local, "some.key", OSError("no\nweights"), "mend them")
    assert (
        str(error) == f"some.key: {tmp_path.name} cannot be loaded (no weights)\n  fix: mend them"
    )
