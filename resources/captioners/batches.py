"""Batches that shrink when memory runs out, or where an ask of theirs fails, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from model_code.backends import Answer, Ask
from model_code.errors import CityloomError
from model_code.text.answers import keepable

T = TypeVar("T")
_TOLD = 300  # characters of an error that a row keeps

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
                full = out_of_memory(error) or (len(batch) > 1 and engine_died(error))
                if not full or isinstance(error, CityloomError):
                    raise
                if len(batch) == 1:
                    found.append(Answer(error="out of memory with this ask alone", final=True))
                else:
                    # `do` may have made it smaller since the batch was cut.
                    self.halve(min(self.size, len(batch)))
            else:
                continue
            from model_code.vision.loading import release

            release()  # here, where nothing holds the failed batch any more
            smaller(self.size)
        return found

    def halve(self, size: int) -> None:
        """Batches of `size` are too large."""
        self.size = max(1, size // 2)
        self.halved += 1

    def notes(self) -> dict[str, Any]:
        """For an asset's metadata."""
        return {"batch": self.size, "out_of_memory": self.halved}


def each(
    asks: Sequence[Ask],
    do: Callable[[Sequence[Ask]], Sequence[T]],
    failed: Callable[[str], T],
    rises: Callable[[Exception], bool],
) -> Iterator[T]:
    """What `do` brings of a batch; where it fails, its halves are done by themselves, so that an ask that
    fails does not take the others along.

    Args:
        failed: what stands for an ask that fails alone, of why.
        rises: whether an error is about more than an ask; one that a user can mend always is.
    """
    why: str | None = None
    found = list[T]()
    try:
        found = list(do(asks))
    except Exception as error:
        if isinstance(error, CityloomError) or rises(error):
            raise
        why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    # What follows is here, where nothing holds the failed batch any more.
    if why is None:
        yield from found
    elif len(asks) == 1:
        yield failed(" ".join(keepable(why).split())[:_TOLD])
    else:
        half = len(asks) // 2
        yield from each(asks[:half], do, failed, rises)
        yield from each(asks[half:], do, failed, rises)


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


def device_lost(error: BaseException) -> bool:
    """Whether a GPU has failed so that this process cannot use it any more, whatever it is asked."""
    return type(error).__name__ == "AcceleratorError" or str(error).startswith("CUDA error")
