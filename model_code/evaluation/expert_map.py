"""Outputs of experts in two dimensions, and how far each expert's lie together.

B regions, K experts, W width of an output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_code.evaluation.embedding_map import some_rows, two_axes

_POINTS = 800  # of one picture, so that t-SNE takes about a second
_FEWEST = 5  # regions, however many experts there are: a mean over fewer says little


def drawn_regions(candidates: NDArray[np.int64], experts: int) -> NDArray[np.int64]:
    """Some of the `candidates`: as many as give about 800 outputs of the experts and of their mixture, but five
    at least (or all)."""
    return candidates[some_rows(len(candidates), max(_POINTS // (experts + 1), _FEWEST))]


def expert_map(experts: NDArray[Any], mixture: NDArray[Any], gates: NDArray[Any]) -> pd.DataFrame:
    """All outputs of one task and branch in one picture. They are compared by direction: experts' outputs are
    of one length, and a mixture of them is shorter.

    Shapes:
        experts [B, K, W], mixture [B, W], gates [B, K] (0: shut off) -> B (K + 1) rows: region (position),
        number (of the expert; K: the mixture); weight (its gate); axis_1, axis_2; projection: `tsne`, or `pca`
        where t-SNE is not to be had; spread: squared distance of an output from the mean of the same expert's
        outputs, so that its mean over regions is 0 where the expert puts out the same for all, and 1 where
        outputs have nothing in common; own_nearest: whether, of all experts' outputs for other regions, the
        nearest is of the same expert. For the mixture the weight, and these two, are null; for a single region
        these two.

    Raises:
        DataError: an output is not finite.
    """
    count, number, _ = experts.shape
    every = np.concatenate([experts, mixture[:, None]], axis=1).astype(np.float64)
    every /= np.maximum(np.linalg.norm(every, axis=2, keepdims=True), 1e-12)
    axes, projection = two_axes(every.reshape(count * (number + 1), -1))
    weight, spread, near = np.full((3, count, number + 1), np.nan)
    weight[:, :number] = gates
    if count > 1:
        away = every[:, :number] - every[:, :number].mean(axis=0)
        spread[:, :number] = (away**2).sum(axis=2) * count / (count - 1)  # without bias
        near[:, :number] = _own_nearest(every[:, :number])
    region, expert = np.indices((count, number + 1)).reshape(2, -1)
    return pd.DataFrame(
        {
            "region": region,
            "number": expert,
            "weight": weight.ravel(),
            "axis_1": axes[:, 0].astype(np.float64),
            "axis_2": axes[:, 1].astype(np.float64),
            "projection": projection,
            "spread": spread.ravel(),
            "own_nearest": near.ravel(),
        }
    )


def _own_nearest(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of unit vectors [B, K, W], 1 where the nearest one of another region is of the same expert, 0 where it is
    not: [B, K]."""
    count, number, _ = outputs.shape
    flat = outputs.reshape(count * number, -1)
    alike = flat @ flat.T
    region, expert = np.divmod(np.arange(count * number), number)
    alike[region[:, None] == region] = -np.inf
    same: NDArray[np.bool_] = expert[alike.argmax(axis=1)] == expert
    return same.reshape(count, number).astype(np.float64)
