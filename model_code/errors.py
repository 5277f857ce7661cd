"""Every error that a user can cause, each saying what is wrong, where, and what to change."""

from __future__ import annotations

from collections.abc import Sequence


class CityloomError(Exception):
    """Base of all errors that carry advice; `fix` is one sentence that says what to change."""

    def __init__(self, what: str, *, fix: str = "") -> None:
        self.what = what
        self.fix = fix
        super().__init__(f"{what}\n  fix: {fix}" if fix else what)


class ConfigError(CityloomError):
    """A city's YAML cannot be used; holds every problem found, not the first one only."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = list(problems)
        lines = [f"{source}: {len(self.problems)} problem(s)"]
        lines += [f"  {p.key}: {p.what}\n      fix: {p.fix}" for p in self.problems]
        super().__init__("\n".join(lines))


class Problem:
    """One thing wrong in a config: its key (dotted), what is wrong, and what to write instead."""

    def __init__(self, key: str, what: str, fix: str) -> None:
        self.key, self.what, self.fix = key, what, fix

    def __repr__(self) -> str:
        return f"Problem({self.key!r}, {self.what!r}, {self.fix!r})"


class UnknownCityError(CityloomError):
    """A run names no city, or one that has no usable YAML."""


class DataError(CityloomError):
    """A raw file or a table holds something that cannot be used."""


class ContractError(DataError):
    """A table breaks its contract in `model_code.tables`."""


class MissingTableError(CityloomError):
    """A table or checkpoint that was asked for is not in the lake."""


class CorruptTableError(CityloomError):
    """A file in the lake is not the one that was written (wrong digest, truncated, unreadable)."""


class ReplacedTableError(CityloomError):
    """Another run has put a new version in place of the one that is being read."""


class LakeWriteError(CityloomError):
    """The lake cannot be written: disk full, quota used up, no right to write."""


class LakeVersionError(CityloomError):
    """The lake was written with another layout than this version reads."""


class LockedError(CityloomError):
    """Another process holds the lock of this asset and city for longer than the time-out."""


class BudgetError(CityloomError):
    """What the config allows to be spent is spent; what was done so far is kept."""


class MissingExtraError(CityloomError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package!r} is not installed",
            fix=f"install the extra: uv sync --inexact --extra {extra}",
        )
