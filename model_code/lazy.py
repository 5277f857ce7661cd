"""Sequences of what is too large to hold: an item is made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class Lazy(Sequence[T]):
    """What `make` makes of each number in `at`, anew each time that it is asked for; a part is lazy, too."""

    def __init__(self, at: Sequence[int], make: Callable[[int], T]) -> None:
        self._at, self._make = at, make

    def __len__(self) -> int:
        return len(self._at)

    @overload
    def __getitem__(self, i: int) -> T: ...

    @overload
    def __getitem__(self, i: slice) -> Lazy[T]: ...

    def __getitem__(self, i: int | slice) -> T | Lazy[T]:
        if isinstance(i, slice):
            return Lazy(self._at[i], self._make)
        return self._make(int(self._at[i]))
