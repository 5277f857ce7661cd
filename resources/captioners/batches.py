"""Batches that shrink when memory runs out, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from model_code.backends import Answer, Ask

Do = Callable[[Sequence[Ask]], list[Answer]]


class Halving:
    """Does asks in batches of at most `size`; a batch that memory does not hold is done in halves,
    as are all after it.

    Attributes:
        size: of a batch now.
        halved: how often it was.
    """

    def __init__(self, size: int) -> None:
        self.size, self.halved = size, 0

    def run(
        self, asks: Sequence[Ask], do: Do, smaller: Callable[[int], None] = lambda size: None
    ) -> list[Answer]:
        """One answer an ask, in order; one that alone is too large is an error.

        Args:
            do: answers a batch.
            smaller: is told the new size before the batch is tried again.
        """
        found: list[Answer] = []
        while len(found) < len(asks):
            batch = asks[len(found) : len(found) + self.size]
            try:
                found += do(batch)
            except Exception as error:
                if not out_of_memory(error) and not (len(batch) > 1 and engine_died(error)):
                    raise
                if self.size == 1 or len(batch) == 1:
                    found.append(Answer(error="out of memory with this ask alone", final=True))
                else:
                    self.size = len(batch) // 2
                    self.halved += 1
            else:
                continue
            from model_code.vision.loading import release

            release()  # here, where nothing holds the failed batch any more
            smaller(self.size)
        return found

    def notes(self) -> dict[str, Any]:
        """For an asset's metadata."""
        return {"batch": self.size, "out_of_memory": self.halved}


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that a GPU's (or the host's) memory is full."""
    while error is not None:
        named = type(error).__name__ in ("OutOfMemoryError", "MemoryError")
        if named or "out of memory" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def engine_died(error: BaseException) -> bool:
    """Whether vLLM's engine is gone: it runs in a process of its own, which seldom says why, and mostly
    for want of memory."""
    said = str(error).lower()
    return type(error).__name__ == "EngineDeadError" or "engine core initialization failed" in said
