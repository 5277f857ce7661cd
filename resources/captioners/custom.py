"""Captioners of the user's own: a class by the name of its module."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from model_code.backends import Answer, Ask, Captioner, CaptionerStopped, Identity
from model_code.errors import DataError
from model_code.text.captioner_config import CustomChoice
from resources.captioners.batches import Apart, Failure, device_lost


class _Guarded:
    """The user's captioner, of which one ask that it raises for does not take the others along."""

    def __init__(self, captioner: Captioner, key: str) -> None:
        self.identity = captioner.identity
        self._captioner, self._key = captioner, key
        self._loaded, self._apart = False, Apart(device_lost)

    @property
    def notes(self) -> dict[str, Any]:
        """For the asset's metadata, if it has any."""
        return dict(getattr(self._captioner, "notes", {}))

    def ready(self) -> None:
        """Load its model, if it can be told to and has not been."""
        load = getattr(self._captioner, "ready", None)
        if callable(load) and not self._loaded:
            load()
        self._loaded = True

    def caption(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer an ask, in order; what it raises for an ask that it is asked alone is an error of it.

        Raises:
            DataError: it gives more answers than asks, or fewer.
            CaptionerStopped: it says so, or answers no more what it has answered.
        """
        found: list[Answer] = []
        try:
            for answer in self._apart.run(asks, self._answers, _failed):
                found.append(answer)  # noqa: PERF402 (what came before an error stays)
        except CaptionerStopped as stopped:
            stopped.answers = [*found, *stopped.answers]
            raise
        return found

    def _answers(self, asks: Sequence[Ask]) -> list[Answer]:
        found = self._captioner.caption(asks)
        if len(found) != len(asks):
            raise DataError(
                f"{self._key} gave {len(found)} answers to {len(asks)} asks",
                fix="give one `Answer` an ask, in their order; one with `error=` where there is none",
            )
        return found


def _failed(failure: Failure) -> Answer:
    return Answer(
        error=f"the captioner fails on it ({failure.why})",
        tokens_in=failure.tokens_in,
        tokens_out=failure.tokens_out,
        final=failure.final,
    )


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
    return _Guarded(captioner, key)
