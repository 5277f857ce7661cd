"""Stages of many independent fits: each is kept as soon as it is there, and long ones are shared."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from assets.stage import Context
from model_code.progress import bar
from resources.disk import writing
from resources.lake import Writer, checkpoint_writers

if TYPE_CHECKING:
    from model_code.methods.base import Checkpoint

_EVERY_S = 5.0
_ENDS = (".safetensors", ".json")


def finished(ctx: Context, name: str) -> bool:
    """Whether a checkpoint has been kept, by whichever process or run."""
    return (ctx.work / f"{name}.json").exists()


class Progress:
    """Says how far a stage's fits are, a line every few seconds at the most. What is finished is
    counted by its files, since other processes may work on the stage too."""

    def __init__(self, ctx: Context, jobs: Sequence[str]) -> None:
        assert ctx.crew is not None
        self._ctx, self._jobs, self._beat = ctx, jobs, ctx.crew.beat
        self._before = self._done()
        self._started = self._said = time.monotonic()

    def _done(self) -> int:
        return sum(finished(self._ctx, job) for job in self._jobs)

    def line(self, text: str) -> None:
        """What a fit says of itself."""
        self._beat()
        now = time.monotonic()
        if now - self._said >= _EVERY_S:
            far = bar(self._done(), len(self._jobs), now - self._started, before=self._before)
            self._ctx.progress(f"{far} · {text}")
            self._said = now


def fit_together(
    ctx: Context, jobs: Sequence[str], fit: Callable[[str], Iterable[tuple[str, Checkpoint]]]
) -> None:
    """Do every job once, here or in another process; what a killed run has finished stands. `fit`
    gives the checkpoints of a job by name, last the one that has the job's own name.

    Raises:
        LakeWriteError: the disk is full, or may not be written.
    """
    assert ctx.crew is not None

    def do(job: str) -> None:
        for name, checkpoint in fit(job):
            with writing(ctx.name, ctx.asset, ctx.work):
                _keep(ctx.work, checkpoint_writers(name, checkpoint))

    ctx.crew.work(ctx.work, jobs, do, partial(finished, ctx))


def kept(ctx: Context, names: Sequence[str]) -> dict[str, Writer]:
    """The files of checkpoints that `fit_together` has left."""
    files = (f"{name}{end}" for name in names for end in _ENDS)
    return {file: partial(shutil.copyfile, ctx.work / file) for file in files}


def _keep(folder: Path, writers: dict[str, Writer]) -> None:
    """Keep a fit where a rerun finds it: the record comes last, and whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for end in _ENDS:
        name = next(name for name in writers if name.endswith(end))
        temporary = folder / f".{name}"
        try:
            writers[name](temporary)
            temporary.replace(folder / name)
        finally:
            temporary.unlink(missing_ok=True)
