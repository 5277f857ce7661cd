"""Batches that shrink when memory runs out, or where an ask of theirs fails, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from model_code.backends import Answer, Ask, CaptionerStopped
from model_code.errors import CityloomError
from model_code.text.answers import keepable

_TOLD = 300  # characters of an error that a row keeps
_ROW = 4  # asks in a row that fail alike, before it is asked whether they are at fault

Do = Callable[[Sequence[Ask]], list[Answer]]


class _Counted(Protocol):
    """What was said to an ask, and what it took."""

    @property
    def tokens_in(self) -> int: ...
    @property
    def tokens_out(self) -> int: ...


T = TypeVar("T", bound=_Counted)


class Halving:
    """Does asks in batches of at most `size`; a batch that memory does not hold is done in halves,
    as are all after it. So is one at which vLLM's engine dies, which seldom says why. Where it dies with
    an ask alone, that ask is at fault and no batch was too large: what comes after is done as before.

    Attributes:
        size: of a batch now.
        halved: how often it was.
        died: asks with which alone an engine died.
    """

    def __init__(self, size: int) -> None:
        self.size, self.halved, self.died = size, 0, 0
        self._row = 0  # asks that an engine died with alone, since it last answered

    def run(
        self, asks: Sequence[Ask], do: Do, smaller: Callable[[int], None] = lambda size: None
    ) -> list[Answer]:
        """One answer an ask, in order; one that alone is too large, or kills the engine, is an error.

        Args:
            do: answers a batch.
            smaller: is told the new size before the batch is tried again.

        Raises:
            CaptionerStopped: `do` says so, or cannot go on after it has answered a part; it holds the
                answers of all batches.
        """
        found: list[Answer] = []
        before: tuple[int, int] | None = (
            None  # size and halvings, before an engine died in this call
        )
        while len(found) < len(asks):
            batch = asks[len(found) : len(found) + self.size]
            try:
                new = do(batch)
            except CaptionerStopped as stopped:
                stopped.answers = [*found, *stopped.answers]
                raise
            except Exception as error:
                full, died = out_of_memory(error), engine_died(error)
                if isinstance(error, CityloomError) or not (full or died):
                    if not found:
                        raise
                    raise _after_a_part(error, found) from error
                if len(batch) > 1:
                    if not full:
                        before = before or (self.size, self.halved)
                    # `do` may have made it smaller since the batch was cut.
                    self.halve(min(self.size, len(batch)))
                elif full:
                    found.append(Answer(error="out of memory with this ask alone", final=True))
                else:
                    found.append(Answer(error="vLLM's engine dies with this ask alone", final=True))
                    self.died, self._row = self.died + 1, self._row + 1
                    if self._row >= _ROW:
                        raise _dies_always(error, found) from error
                    self.size, self.halved = before or (self.size, self.halved)
                    before = None
            else:
                found += new
                if any(answer.requests for answer in new):
                    self._row = 0
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
        notes = {"batch": self.size, "out_of_memory": self.halved}
        return notes | ({"engine_died": self.died} if self.died else {})


def _dies_always(error: Exception, found: Sequence[Answer]) -> CaptionerStopped:
    return CaptionerStopped(
        f"vLLM's engine died with {_ROW} asks in a row, each alone ({_line(error)})",
        fix="look at what vLLM says above this line; lower captions.captioner.max_model_len or "
        "gpu_memory_utilization, or name another model, then run again: what has an answer is kept",
        answers=found,
    )


def _after_a_part(error: Exception, found: Sequence[Answer]) -> CaptionerStopped:
    """An error that would take along what was answered before it."""
    if isinstance(error, CityloomError):
        return CaptionerStopped(error.what, fix=error.fix, answers=found)
    return CaptionerStopped(
        f"the captioner is gone ({_line(error)})",
        fix="look at what captions.captioner rests on, then run again: what has an answer is kept",
        answers=found,
    )


def _line(error: Exception) -> str:
    """An error on one short line."""
    return " ".join(keepable(f"{type(error).__name__}: {error}").split())[:_TOLD]


@dataclass(frozen=True)
class Failure:
    """Why an ask that was made alone has no answer.

    `final`: asking again in this run cannot help. Tokens are those of asking once more what had been
    answered, to tell whose fault it is.
    """

    why: str
    final: bool
    tokens_in: int = 0
    tokens_out: int = 0


class Apart:
    """Does asks together; where that fails, the halves are done by themselves, so that an ask that fails
    does not take the others along.

    Where `_ROW` asks in a row fail alike, an ask that was answered before is made once more: if it fails as
    well, no ask is at fault but what answers them. One object serves all batches of a captioner, for its
    last answer may be of an earlier one.

    Args:
        rises: whether an error is about more than an ask; one that a user can mend always is.
    """

    def __init__(self, rises: Callable[[Exception], bool]) -> None:
        self._rises = rises
        self._answered: Ask | None = None
        self._kind: type[Exception] | None = None
        self._row = 0  # asks that failed with `_kind` since the last answer or touchstone

    def run(
        self,
        asks: Sequence[Ask],
        do: Callable[[Sequence[Ask]], Sequence[T]],
        failed: Callable[[Failure], T],
    ) -> Iterator[T]:
        """What `do` brings, an ask in order; `failed` makes what stands for an ask that fails alone.

        Raises:
            CaptionerStopped: what answers is gone; it holds no answers, for they have been given.
        """
        fault: _Fault | None = None
        found: Sequence[T] = ()
        try:
            found = do(asks)
        except Exception as error:
            fault = self._fault(error)
        # What follows is here, where nothing holds the failed batch any more.
        if fault is None:
            if asks:
                self._answered, self._row = asks[-1], 0
            yield from found
        elif len(asks) == 1:
            spent = self._judged(fault, do)
            yield failed(
                Failure(
                    fault.why,
                    not fault.passing,
                    sum(one.tokens_in for one in spent),
                    sum(one.tokens_out for one in spent),
                )
            )
        else:
            half = len(asks) // 2
            yield from self.run(asks[:half], do, failed)
            yield from self.run(asks[half:], do, failed)

    def _fault(self, error: Exception) -> _Fault:
        if isinstance(error, CityloomError) or self._rises(error):
            raise error
        why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return _Fault(type(error), " ".join(keepable(why).split())[:_TOLD], passing(error))

    def _judged(self, fault: _Fault, do: Callable[[Sequence[Ask]], Sequence[T]]) -> Sequence[T]:
        """What was answered to find out that the ask is at fault, if it had to be.

        Raises:
            CaptionerStopped: it is not.
        """
        self._row = self._row + 1 if fault.kind is self._kind else 1
        self._kind = fault.kind
        if self._row < _ROW:
            return ()
        if self._answered is None:
            # Nothing is known to have an answer; so long, only what is never about an ask tells.
            if fault.passing:
                raise _stopped(f"{self._row} asks in a row failed, and none was answered", fault)
            return ()
        again: _Fault | None = None
        found: Sequence[T] = ()
        try:
            found = do([self._answered])
        except Exception as error:
            again = self._fault(error)
        if again is not None:
            what = f"{self._row} asks in a row failed, and so does one that was answered before"
            raise _stopped(what, again)
        self._row = 0
        return found


@dataclass(frozen=True)
class _Fault:
    """What is kept of an exception: itself it would hold the batch."""

    kind: type[Exception]
    why: str
    passing: bool


def _stopped(what: str, fault: _Fault) -> CaptionerStopped:
    return CaptionerStopped(
        f"the captioner is gone: {what} ({fault.why})",
        fix="look at what captions.captioner rests on (its server, its device, its files), then run "
        "again: what has an answer is kept",
    )


def passing(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that something was not reached (a broken connection, a
    time-out, a file): another time it may be. Of an error that came while another was handled, which may
    have nothing to do with it, connections and time-outs count: clients wrap them so."""
    kinds: tuple[type[OSError], ...] = (OSError,)
    while error is not None:
        if isinstance(error, kinds):
            return True
        if error.__cause__ is None:
            kinds = (ConnectionError, TimeoutError)
        error = error.__cause__ or error.__context__
    return False


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
