"""Weights of the hub on this machine, before a model is opened without the network."""

from __future__ import annotations

import json
from pathlib import Path

from model_code.errors import DataError
from model_code.hub import fetching, snapshot
from model_code.text.captioner_config import VllmChoice, Weights
from resources.captioners.identity import folder_of, offline

# Other copies of the same weights, and formats that may hold code.
_NEVER = ("*.bin", "*.ckpt", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.pt", "*.pth", "original/*")


def folder(choice: Weights) -> Path:
    """The folder of a model: its own, or that of the hub's cache, into which the commit is fetched unless it
    is there. Nothing is fetched where the config or HF_HUB_OFFLINE says so.

    Raises:
        DataError: it is not there, and cannot be fetched, or holds no safetensors.
    """
    if (own := folder_of(choice)) is not None:
        return own
    assert choice.revision is not None
    dummy = isinstance(choice, VllmChoice) and choice.dummy_weights
    never = [*_NEVER, "*.safetensors"] if dummy else _NEVER
    key = "captions.captioner.model"
    found = snapshot(choice.model, choice.revision, key, never=never, offline=offline(choice))
    if not dummy and not _whole(found):
        raise DataError(
            f"{key}: {choice.model} at {choice.revision} holds no safetensors, or not all, in the cache "
            "of the hub",
            fix=f"if only a part was fetched, fetch all (`{fetching(choice.model, choice.revision)}`); "
            "else give a model or a commit that has them: other formats may hold code, and are not read",
        )
    return found


def _whole(folder: Path) -> bool:
    """Whether the weights are there, of a model in shards all that its index names. What else the commit has
    is known only where its list of files was fetched."""
    index, shards = folder / "model.safetensors.index.json", set[str]()
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return any(folder.glob("*.safetensors")) and all((folder / s).is_file() for s in shards)
