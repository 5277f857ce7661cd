"""Captioners of the user's own: a class by the name of its module."""

from __future__ import annotations

import importlib

from model_code.backends import Captioner, Identity
from model_code.errors import DataError
from model_code.text.captioner_config import CustomChoice


def open_custom(choice: CustomChoice) -> Captioner:
    """The user's captioner, made with the config's options.

    Raises:
        DataError: it cannot be imported or made, or does not keep the protocol.
    """
    module, _, name = choice.object.partition(":")
    key = f"captions.captioner.object: {choice.object}"
    try:
        captioner: Captioner = getattr(importlib.import_module(module), name)(**choice.options)
    except (ImportError, AttributeError, TypeError) as error:
        raise DataError(
            f"{key} cannot be made ({error})",
            fix="give package.module:Class of something that is installed or on PYTHONPATH, and the "
            "arguments of its constructor under captions.captioner.options",
        ) from error
    if not isinstance(getattr(captioner, "identity", None), Identity) or not callable(
        getattr(captioner, "caption", None)
    ):
        raise DataError(
            f"{key} is no captioner",
            fix="give it `identity` (model_code.backends.Identity) and `caption(asks)`; "
            "see docs/captioning.md",
        )
    return captioner
