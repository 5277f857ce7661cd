"""How far a long piece of work is, in one form wherever it is said."""

from __future__ import annotations

import time
from collections.abc import Callable

Say = Callable[[str], None]  # is told a line

_WIDTH = 10
_EVERY_S = 5.0


def bar(done: int, total: int, seconds: float, *, before: int = 0) -> str:
    """`[######----] 60 % · 384 of 640 · 38/s · 0:07 left`.

    Args:
        done: items that are finished, of `total`.
        seconds: what the items after the first `before` took.
        before: items that were finished already when the clock started.
    """
    share = done / total if total else 1.0
    filled = int(_WIDTH * share)
    parts = [
        f"[{'#' * filled}{'-' * (_WIDTH - filled)}] {int(100 * share)} %",
        f"{done:,} of {total:,}",
    ]
    if done > before and seconds > 0:
        rate = (done - before) / seconds
        parts += [_speed(rate), f"{clock((total - done) / rate)} left"]
    return " · ".join(parts)


def _speed(rate: float) -> str:
    if rate < 0.1:
        return f"{1 / rate:,.0f} s each"
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"


def silent(line: str) -> None:
    """Where nobody listens."""


def clock(seconds: float) -> str:
    """`0:07`, `12:30` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Meter:
    """Says the bar of a piece of work, a line every few seconds at the most."""

    def __init__(self, say: Say, about: str, total: int, *, every_s: float = _EVERY_S) -> None:
        self._say, self._about, self._total, self._every_s = say, about, total, every_s
        self._started = self._said = time.monotonic()

    def at(self, done: int) -> None:
        """So many items are finished."""
        now = time.monotonic()
        if now - self._said >= self._every_s:
            self._say(f"{self._about}: {bar(done, self._total, now - self._started)}")
            self._said = now
