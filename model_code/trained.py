"""How many parameters a fit trains, in however many trainings. Torch is not loaded for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol


class Parameter(Protocol):
    """What of a tensor is asked for."""

    def numel(self) -> int: ...


@dataclass
class Trained:
    """The parameters that were trained, each once: a second training may go on with the first's."""

    _known: dict[int, Parameter] = field(default_factory=dict)  # held, so that an id stays its own

    @property
    def numbers(self) -> int:
        return sum(one.numel() for one in self._known.values())

    def add(self, parameters: Iterable[Parameter]) -> None:
        self._known |= {id(one): one for one in parameters}


_counting: ContextVar[Trained | None] = ContextVar("counting", default=None)


@contextmanager
def counted() -> Iterator[Trained]:
    """Counts what is trained inside; the sum is there to be read at any time."""
    trained = Trained()
    token = _counting.set(trained)
    try:
        yield trained
    finally:
        _counting.reset(token)


def note(parameters: Iterable[Parameter]) -> None:
    """These are trained now, in whatever is `counted`."""
    if (trained := _counting.get()) is not None:
        trained.add(parameters)
