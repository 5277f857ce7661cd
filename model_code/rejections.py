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
        self._parts: list[tuple[str, np.ndarray, str, Sequence[str], np.ndarray]] = []

    def add(
        self,
        source: str,
        rows: Iterable[int] | np.ndarray,
        reason: str,
        detail: str | Sequence[str] = "",
        items: int | np.ndarray = 1,
    ) -> None:
        """Note `rows` (positions in `source`) with one reason; `detail` is one text for all rows or
        one a row; `items` is how many things a row stands for."""
        positions = np.asarray(list(rows) if not isinstance(rows, np.ndarray) else rows, np.int64)
        if not len(positions):
            return
        details = [detail] * len(positions) if isinstance(detail, str) else list(detail)
        counts = np.broadcast_to(np.asarray(items, np.int64), positions.shape)
        self._parts.append((source, positions, reason, details, counts))

    def __len__(self) -> int:
        return sum(len(part[1]) for part in self._parts)

    @property
    def items(self) -> int:
        """How many things the rejected rows stand for."""
        return int(sum(part[4].sum() for part in self._parts))

    def frame(self) -> pd.DataFrame:
        """Columns source, row, reason, detail, items."""
        import pandas as pd

        return pd.DataFrame(
            {
                "source": [s for s, rows, *_ in self._parts for _ in rows],
                "row": np.concatenate([p[1] for p in self._parts] or [np.empty(0, np.int64)]),
                "reason": [p[2] for p in self._parts for _ in p[1]],
                "detail": [d for p in self._parts for d in p[3]],
                "items": np.concatenate([p[4] for p in self._parts] or [np.empty(0, np.int64)]),
            }
        )
