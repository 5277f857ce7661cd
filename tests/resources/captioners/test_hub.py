"""Weights of captioners: the hub's own client, and a server of ours that speaks its protocol."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_code.errors import DataError
from model_code.text.captioner_config import TransformersChoice
from resources.captioners import hub
from tests.model_code.hub_server import COMMIT, run, serving

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "pytorch_model.bin": b"a pickle"}
PLAIN = {"config.json": b"{}", "pytorch_model.bin": b"a pickle"}

ASKING = """
from model_code.errors import DataError
from model_code.text.captioner_config import VllmChoice
from resources.captioners import hub
for choice in given:
    try:
        print(sorted(p.name for p in hub.folder(VllmChoice(kind="vllm", **choice)).iterdir()))
    except DataError as error:
        print(" ".join(str(error).split()))
"""


def test_a_commit_of_the_hub_is_fetched_once_and_then_needs_no_network(tmp_path: Path) -> None:
    vlm = {"model": "small/vlm", "revision": COMMIT}
    with serving({"small/vlm": FILES, "small/pickled": PLAIN}) as server:
        closed, found, pickled, dummy, other = run(
            tmp_path,
            server.url,
            ASKING,
            {**vlm, "offline": True},
            vlm,
            {**vlm, "model": "small/pickled"},
            {**vlm, "model": "small/pickled", "dummy_weights": True},
            {**vlm, "revision": "d" * 40},
        )
        sent, url = list(server.sent), server.url
    assert "small/vlm at ccc" in closed and "nothing may be fetched" in closed
    assert found == "['config.json', 'model.safetensors']"
    assert "holds no safetensors" in pickled and dummy == "['config.json']"
    assert "captions.captioner.model: small/vlm at ddd" in other and "cannot be fetched" in other
    assert sorted(sent) == ["config.json", "config.json", "model.safetensors"]  # no pickle

    # The server is gone.
    again, offline, never = run(
        tmp_path, url, ASKING, vlm, {**vlm, "offline": True}, {**vlm, "model": "small/other"}
    )
    assert again == offline == found
    assert "captions.captioner.model: small/other at ccc" in never
    assert "hf download small/other --revision ccc" in never and "HF_HOME" in never


def test_a_part_of_a_commit_is_not_taken_for_all_of_it(tmp_path: Path) -> None:
    """As when other code fetched a file or two of it: without the list of files the hub's client cannot
    tell."""
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    held = {
        "none": ["config.json"],
        "shard": ["config.json", "model-1.safetensors"],
        "both": ["config.json", "model-1.safetensors", "model-2.safetensors"],
    }
    for name, files in held.items():
        folder = tmp_path / "hub" / f"models--small--{name}" / "snapshots" / COMMIT
        folder.mkdir(parents=True)
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        for file in files:
            (folder / file).write_bytes(b"{}")
    given = [{"model": f"small/{name}", "revision": COMMIT, "offline": True} for name in held]
    none, shard, both = run(tmp_path, "http://nowhere.invalid", ASKING, *given)
    for name, told in (("none", none), ("shard", shard)):
        assert "holds no safetensors, or not all" in told
        assert f"hf download small/{name} --revision {COMMIT}" in told
    assert "model-2.safetensors" in both


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    choice = TransformersChoice(kind="transformers", model=str(tmp_path))
    with pytest.raises(DataError, match=r"captions\.captioner\.model: .* holds no config\.json"):
        hub.folder(choice)
    (tmp_path / "config.json").write_text("{}")
    assert hub.folder(choice) == tmp_path
