"""Weights of the hub on this machine, before a model is opened without the network."""

from __future__ import annotations

from pathlib import Path

from model_code.errors import DataError
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
    from httpx import HTTPError
    from huggingface_hub import snapshot_download

    assert choice.revision is not None
    dummy = isinstance(choice, VllmChoice) and choice.dummy_weights
    never = [*_NEVER, "*.safetensors"] if dummy else list(_NEVER)
    key = f"captions.captioner.model: {choice.model} at {choice.revision}"
    try:
        found = Path(
            snapshot_download(
                choice.model,
                revision=choice.revision,
                ignore_patterns=never,
                local_files_only=offline(choice),
            )
        )
    except (OSError, ValueError, HTTPError) as error:
        why = "and nothing may be fetched" if offline(choice) else "and cannot be fetched"
        raise DataError(
            f"{key} is not in the cache of the hub, {why} ({_first_line(error)})",
            fix="look at the name and the commit; without a network, fetch it beforehand (`hf download "
            f"{choice.model} --revision {choice.revision}`) into HF_HOME, or give an absolute folder",
        ) from error
    if not dummy and not any(found.glob("*.safetensors")):
        raise DataError(
            f"{key} holds no safetensors",
            fix="give a model or a commit that does: other formats may hold code, and are not read",
        )
    return found


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
