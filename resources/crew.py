"""More processes for a stage of many independent pieces of work, such as fits.

A member opens the same stage from the lake (`python -m assets.member`) and does pieces that nobody
else has claimed. Pieces are claimed by file locks, and handed over as files in the stage's workspace:
nothing is sent between processes, and what a killed one leaves counts as if it had never been.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from model_code.errors import CityloomError

Say = Callable[[str], None]

VARIABLE = "CITYLOOM_WORKERS"
# A member takes some seconds to start: shorter work is done before it could help.
_WATCHED_S, _WORTH_S = 4.0, 15.0


def workers() -> int:
    """How many processes may work on one stage: `$CITYLOOM_WORKERS`, or as many as there are cores;
    one where a GPU does the work."""
    if said := os.environ.get(VARIABLE):
        if not said.isdigit() or int(said) < 1:
            raise CityloomError(
                f"${VARIABLE} is {said!r}", fix="give a whole number from 1 up, or unset it"
            )
        return int(said)
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Crew:
    """The processes that share one stage's pieces of work.

    Args:
        command: starts a member; None in a member, which starts no others.
        say: is told what members say, and what became of one that failed.
    """

    def __init__(self, command: Sequence[str] | None, say: Say) -> None:
        self._command, self._say = command, say
        self._members: list[tuple[subprocess.Popen[str], threading.Thread]] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._began, self._done, self._left = 0.0, 0, 0
        self._asked, self._closing = not self.leads, False

    @property
    def leads(self) -> bool:
        """Whether this process is the run's own, and no member."""
        return self._command is not None

    def work(
        self,
        folder: Path,
        names: Sequence[str],
        do: Callable[[str], None],
        done: Callable[[str], bool],
    ) -> bool:
        """Do every piece in `names` once, here or in a member; a member returns when nothing is left
        to claim. `do` leaves its result in `folder`, from which `done` tells whether it is there.
        Returns whether this process leads, so that all of them are there and it goes on; a member
        is done."""
        folder.mkdir(parents=True, exist_ok=True)
        todo = [name for name in names if not done(name)]
        self._began, self._done, self._left = time.monotonic(), 0, len(todo)
        for name in todo:
            with _claim(folder, name) as mine:
                if mine and not done(name):
                    do(name)
                    self._done += 1
            self._left -= 1
            self.beat()
        if not self.leads:
            return False
        for name in todo:  # what members are at, or have not done after all
            while not done(name):
                with _claim(folder, name, patience_s=1.0) as mine:
                    if mine and not done(name):
                        do(name)
                self.beat()
        return True

    def beat(self) -> None:
        """To be called now and then during the work: says what members say, and starts them once it
        is clear that they pay."""
        while not self._lines.empty():
            self._say(self._lines.get())
        spent = time.monotonic() - self._began
        if self._asked or spent < _WATCHED_S or self._left < 2:
            return
        # Before the first piece is done, the time it has taken so far is the least it takes.
        if spent / max(self._done, 1) * (self._left - 1) > _WORTH_S:
            self._asked = True
            for number in range(1, min(workers(), self._left)):
                self._start(number)

    def close(self) -> None:
        """End what still runs, and say what is left to be said."""
        self._asked = self._closing = True
        for member, listener in self._members:
            member.kill()
            listener.join()
            for pipe in (member.stdin, member.stdout):
                assert pipe is not None
                pipe.close()
        self._members.clear()
        self.beat()

    def _start(self, number: int) -> None:
        assert self._command is not None
        member = subprocess.Popen(  # noqa: S603
            self._command,
            stdin=subprocess.PIPE,  # closed by the system when this process ends, however it ends
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        listener = threading.Thread(target=self._listen, args=(number, member), daemon=True)
        listener.start()
        self._members.append((member, listener))

    def _listen(self, number: int, member: subprocess.Popen[str]) -> None:
        assert member.stdout is not None
        for line in member.stdout:
            self._lines.put(f"process {number + 1}: {line.rstrip()}")
        if member.wait() and not self._closing:
            self._lines.put(f"process {number + 1} failed; what it had claimed is done again")


def end_with_parent() -> None:
    """In a member: end as soon as the process that started it has ended."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _claim(folder: Path, name: str, patience_s: float = 0.0) -> Iterator[bool]:
    """Whether the piece could be claimed; the claim ends with the block, or with the process."""
    lock = FileLock(folder / f".{name}.lock")
    try:
        lock.acquire(timeout=patience_s)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
