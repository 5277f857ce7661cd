"""Malformed answers of a model that is asked in batches: asked for again, then an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from model_code.backends import Answer, Ask
from model_code.text import answers
from model_code.text.prompts import completed
from resources.captioners.batches import device_lost, each, engine_died, out_of_memory

_WARMER = 0.2  # by which each further try is warmer


@dataclass(frozen=True)
class Said:
    """What a model said in answer to one ask; `cut`: it had not finished."""

    text: str = ""
    cut: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    error: str = ""


Say = Callable[[Sequence[Ask]], list[Said]]


def answered(asks: Sequence[Ask], say: Say, max_tries: int) -> list[Answer]:
    """One answer an ask, in order.

    Args:
        say: what the model, which is loaded, says to a batch; an error in it is final, and so is an
            exception, which is taken to be about one ask of the batch, such as a prompt longer than the
            model reads, unless memory ran out or the engine or the GPU is gone.
    """
    found = [Answer(error=answers.lacking(ask), final=True, requests=0) for ask in asks]
    waiting = [(i, completed(ask)) for i, ask in enumerate(asks) if not found[i].error]
    for number in range(1, max_tries + 1):
        if not waiting:
            break
        left = []
        replies = list(each([ask for _, ask in waiting], say, _refused, _rises))
        for (i, ask), said in zip(waiting, replies, strict=True):
            text = answers.tidy(ask, said.text, cut=said.cut)
            why = said.error or answers.problem(ask, text)
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
                final=bool(said.error),
            )
            if why and not said.error:
                warmer = ask.temperature + _WARMER
                left.append((i, replace(ask, seed=(ask.seed + 1) % 2**31, temperature=warmer)))
        waiting = left
    return found


def _refused(why: str) -> Said:
    return Said(error=f"the model refuses it ({why})")


def _rises(error: Exception) -> bool:
    return out_of_memory(error) or engine_died(error) or device_lost(error)
