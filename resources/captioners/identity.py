"""Who answers, known without loading a model: what kept rows rest on, and what a dry run needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from model_code.backends import Identity
from model_code.errors import DataError
from model_code.hub import name_of, revision_of
from model_code.text.captioner_config import (
    OpenAiChoice,
    TransformersChoice,
    VllmChoice,
    Weights,
)


def identity_of(choice: OpenAiChoice | VllmChoice | TransformersChoice) -> Identity:
    """Model, revision, and the settings that change what it says.

    Raises:
        DataError: a folder of weights that is not there.
    """
    settings: dict[str, Any] = {"max_tokens": choice.max_tokens}
    if isinstance(choice, OpenAiChoice):
        if choice.request:
            settings["request"] = choice.request
        return Identity(choice.model, choice.revision, settings)
    settings["dtype"] = choice.dtype
    if isinstance(choice, VllmChoice):
        settings["max_model_len"] = choice.max_model_len
        if choice.dummy_weights:
            settings["dummy_weights"] = True
    folder_of(choice)  # told before any row is kept under the stamp of a folder that holds no model
    return Identity(name_of(choice), revision_of(choice), settings)


def folder_of(choice: Weights) -> Path | None:
    """The folder of a model that lies on this machine."""
    path = Path(choice.model).expanduser()
    if not path.is_absolute():
        return None
    if not (path / "config.json").is_file():
        raise DataError(
            f"captions.captioner.model: {path} holds no config.json",
            fix="give a folder that save_pretrained has written, or a name on the hub",
        )
    return path


def offline(choice: Weights) -> bool:
    """Whether nothing may be fetched."""
    said = os.environ.get("HF_HUB_OFFLINE", "").strip().lower()
    return choice.offline or said in ("1", "on", "yes", "true")
