"""Raw rows that cannot be used: counted, kept with the reason, never dropped silently."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


class Rejections:
    """Collects rejected rows of one stage; `frame()` is the table `rejected` without `stage`."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, np.ndarray, str, str | Sequence[str], np.ndarray]] = []

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
        self._parts.append((source, positions, reason, detail, counts))

    def extend(self, other: Rejections) -> None:
        """Take over what another one has collected."""
        self._parts += other._parts

    def __len__(self) -> int:
        return sum(len(part[1]) for part in self._parts)

    @property
    def items(self) -> float:
        """How many things the rejected rows stand for."""
        return float(sum(part[4].sum() for part in self._parts))

    def frame(self) -> pd.DataFrame:
        """Columns source, row, reason, detail, items."""
        import pandas as pd

        def column(part: int) -> np.ndarray:
            # One text for all rows of a call stands once in memory, whatever their number.
            columns = [
                np.full(len(p[1]), p[part], object) if isinstance(p[part], str) else p[part]
                for p in self._parts
            ]
            return np.concatenate([np.asarray(c, object) for c in columns])

        if not self._parts:
            texts = {name: np.empty(0, object) for name in ("source", "reason", "detail")}
            rows, items = np.empty(0, np.int64), np.empty(0)
        else:
            texts = {"source": column(0), "reason": column(2), "detail": column(3)}
            rows = np.concatenate([p[1] for p in self._parts])
            items = np.concatenate([p[4] for p in self._parts])
        return pd.DataFrame(
            {
                "source": pd.Series(texts["source"], dtype="str"),
                "row": rows,
                "reason": pd.Series(texts["reason"], dtype="str"),
                "detail": pd.Series(texts["detail"], dtype="str"),
                "items": items,
            }
        )
