from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_code.errors import DataError
from model_code.hub import name_of, place_of, revision_of, source_of, stamp
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
