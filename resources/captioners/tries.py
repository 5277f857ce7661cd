"""Malformed answers of a model that is asked in batches: asked for again, then an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from model_code.backends import Answer, Ask, CaptionerStopped
from model_code.text import answers
from model_code.text.prompts import completed
from resources.captioners.batches import Apart, Failure, device_lost, engine_died, out_of_memory

_WARMER = 0.2  # by which each further try is warmer


@dataclass(frozen=True)
class Said:
    """What a model said in answer to one ask; `cut`: it had not finished. `unfit` says why a text is of no
    use, whatever it holds, though another try may be. An error is final unless it is `passing`."""

    text: str = ""
    cut: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    error: str = ""
    passing: bool = False
    unfit: str = ""


Say = Callable[[Sequence[Ask]], list[Said]]


def answered(asks: Sequence[Ask], say: Say, max_tries: int, apart: Apart) -> list[Answer]:
    """One answer an ask, in order.

    Args:
        say: what the model, which is loaded, says to a batch; an exception is taken to be about one ask of
            the batch, such as a prompt longer than the model reads, unless memory ran out or the engine or
            the GPU is gone.
        apart: of this captioner, with `rises`.

    Raises:
        CaptionerStopped: it answers no more what it has answered; holds the answers that are there.
    """
    found = [Answer(error=answers.lacking(ask), final=True, requests=0) for ask in asks]
    waiting = [(i, completed(ask)) for i, ask in enumerate(asks) if not found[i].error]
    for number in range(1, max_tries + 1):
        if not waiting:
            break
        left = []
        replies: list[Said] = []
        stopped: CaptionerStopped | None = None
        try:
            for said in apart.run([ask for _, ask in waiting], say, _refused):
                replies.append(said)  # noqa: PERF402 (what came before an error stays)
        except CaptionerStopped as error:
            stopped = error
        for (i, ask), said in zip(waiting, replies, strict=stopped is None):
            text = answers.tidy(ask, said.text, cut=said.cut)
            why = said.error or said.unfit or answers.problem(ask, text)
            if why and said.cut and not said.error:
                why = f"{why}: cut at captions.captioner.max_tokens"
            before = found[i] if number > 1 else Answer(seconds=0.0)
            found[i] = Answer(
                text="" if why else text,
                error=why,
                tokens_in=before.tokens_in + said.tokens_in,
                tokens_out=before.tokens_out + said.tokens_out,
                seconds=round(before.seconds + said.seconds, 3),
                requests=number,
                final=bool(said.error) and not said.passing,
            )
            if why and not said.error:
                warmer = ask.temperature + _WARMER
                left.append((i, replace(ask, seed=(ask.seed + 1) % 2**31, temperature=warmer)))
        if stopped is not None:
            none = {i for i, _ in waiting[len(replies) :]} if number == 1 else set[int]()
            stopped.answers = [None if i in none else answer for i, answer in enumerate(found)]
            raise stopped
        waiting = left
    return found


def _refused(failure: Failure) -> Said:
    return Said(
        error=f"the model refuses it ({failure.why})",
        tokens_in=failure.tokens_in,
        tokens_out=failure.tokens_out,
        passing=not failure.final,
    )


def rises(error: Exception) -> bool:
    """Whether an error is about the model or what it runs on, and no ask."""
    return out_of_memory(error) or engine_died(error) or device_lost(error)
