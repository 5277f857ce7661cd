"""Bins of a number: which one a value lies in, and what value stands for each. C bins, L values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["equal_width", "quantile"]


@dataclass(frozen=True)
class Bins:
    """`edges` [C - 1] between the bins, ascending; the first and the last bin are open. `centres` [C]
    stand for them."""

    edges: NDArray[np.float64]
    centres: NDArray[np.float64]

    @classmethod
    def fit(cls, values: NDArray[Any], count: int = 10, kind: Kind = "equal_width") -> Bins:
        """`count` bins of the finite ones of `values`, of equal width between their least and greatest,
        or with as many values each. A bin's centre is its midpoint; of an open bin it is the mean of
        the values in it (its edge, if there is none).

        Raises:
            ValueError: no value is finite.
        """
        known = np.asarray(values, np.float64)[np.isfinite(values)]
        if not known.size:
            raise ValueError("there is no value to make bins of")
        if kind == "quantile":
            edges = np.quantile(known, np.arange(1, count) / count)
        else:
            edges = np.linspace(known.min(), known.max(), count + 1)[1:-1]
        centres = np.empty(count)
        centres[1:-1] = (edges[:-1] + edges[1:]) / 2
        code = np.searchsorted(edges, known, side="right")
        for end, edge in ((0, edges[0]), (count - 1, edges[-1])):
            own = known[code == end]
            centres[end] = own.mean() if own.size else edge
        return cls(edges, centres)

    def of(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """The bin of each value, 0 to C - 1; a value on an edge lies above it. NaN gives the last."""
        return np.searchsorted(self.edges, values, side="right").astype(np.int64)
