"""Raw rows that cannot be used: counted, kept with the reason, never dropped silently."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

# With more rows of one reason in one source, the table would be as large as what was read and say
# no more: a few stand for themselves, and one for all the others.
LISTED = 10_000
EXAMPLES = 10


class _Part(NamedTuple):
    """Rows that were noted together, with one detail for all or one each, and their items."""

    rows: np.ndarray
    detail: str | Sequence[str]
    items: np.ndarray

    def first(self, count: int) -> _Part:
        """Copies, so that the rest can go."""
        detail = self.detail if isinstance(self.detail, str) else list(self.detail[:count])
        return _Part(self.rows[:count].copy(), detail, self.items[:count].copy())


class _Sort:
    """All rows of one reason in one source: counted, and listed while they are few."""

    def __init__(self) -> None:
        self.rows, self.items = 0, 0.0
        self.parts: list[_Part] = []

    def take(self, rows: int, items: float, parts: Iterable[_Part]) -> None:
        self.rows += rows
        self.items += items
        self.parts += parts
        if self.rows > LISTED:
            listed, self.parts = self.parts, []
            room = EXAMPLES + 1
            for part in listed:
                self.parts.append(part.first(room))
                room -= len(self.parts[-1].rows)
                if not room:
                    break

    def frame(self) -> pd.DataFrame:
        """Columns row, detail, rows, items; of many, the last row stands for all that are not here."""
        import pandas as pd

        details = [
            np.full(len(p.rows), p.detail, object) if isinstance(p.detail, str) else p.detail
            for p in self.parts
        ]
        detail = np.concatenate([np.asarray(d, object) for d in details])
        items = np.concatenate([p.items for p in self.parts])
        rows = np.ones(len(items), np.int64)
        if self.rows > LISTED:
            rows[-1] = self.rows - EXAMPLES
            items[-1] = self.items - items[:-1].sum()
            detail[-1] = f"this row and {rows[-1] - 1:,} others, not listed"
        at = np.concatenate([p.rows for p in self.parts])
        return pd.DataFrame({"row": at, "detail": detail, "rows": rows, "items": items})


class Rejections:
    """Collects rejected rows of one stage; `frame()` is the table `rejected` without `stage`.

    A reason that more than `LISTED` rows of a source have is told by its first `EXAMPLES` rows, and
    one more that stands for all others: rows and items always add up to what was noted.
    """

    def __init__(self) -> None:
        self._sorts: dict[tuple[str, str], _Sort] = {}

    def add(
        self,
        source: str,
        rows: Iterable[int] | np.ndarray,
        reason: str,
        detail: str | Sequence[str] = "",
        items: float | np.ndarray = 1,
    ) -> None:
        """Note `rows` (positions in `source`) with one reason; `detail` is one text for all rows or
        one a row; `items` is how many things a row stands for (fractions where things are shared by
        area; 0 for a note without a loss)."""
        positions = np.asarray(list(rows) if not isinstance(rows, np.ndarray) else rows, np.int64)
        if not len(positions):
            return
        if not isinstance(detail, str) and len(detail) != len(positions):
            raise ValueError(f"{len(detail)} details for {len(positions)} rows of {source}")
        counts = np.broadcast_to(np.asarray(items, np.float64), positions.shape)
        part = _Part(positions, detail, counts)
        self._sort(source, reason).take(len(positions), float(counts.sum()), [part])

    def extend(self, other: Rejections) -> None:
        """Take over what another one has collected."""
        for (source, reason), found in other._sorts.items():
            self._sort(source, reason).take(found.rows, found.items, found.parts)

    def _sort(self, source: str, reason: str) -> _Sort:
        return self._sorts.setdefault((source, reason), _Sort())

    def __len__(self) -> int:
        """How many rows were noted, listed or not."""
        return sum(sort.rows for sort in self._sorts.values())

    @property
    def items(self) -> float:
        """How many things the rejected rows stand for."""
        return sum(sort.items for sort in self._sorts.values())

    def frame(self) -> pd.DataFrame:
        """Columns source, row, reason, detail, rows, items; sorts of rows in the order of noting."""
        import pandas as pd

        kinds = {"source": "str", "row": "int64", "reason": "str", "detail": "str",
                 "rows": "int64", "items": "float64"}  # fmt: skip
        parts = [
            sort.frame().assign(source=source, reason=reason)
            for (source, reason), sort in self._sorts.items()
        ]
        frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(kinds))
        return frame[list(kinds)].astype(kinds)
