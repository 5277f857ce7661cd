"""Outputs of experts in two dimensions, and how far each expert's lie together.

B regions, K experts, W width of an output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_code.evaluation.embedding_map import TSNE_FEWEST_REGIONS, embedding_map

POINTS = 800  # of one picture, so that t-SNE takes about a second


def drawn_regions(regions: int, experts: int) -> NDArray[np.int64]:
    """Positions of regions spread over all, as many as give `POINTS` outputs of the experts and of their
    mixture, but no fewer than t-SNE's five."""
    most = max(POINTS // (experts + 1), TSNE_FEWEST_REGIONS)
    return np.unique(np.linspace(0, regions - 1, min(regions, most)).round().astype(np.int64))


def expert_map(experts: NDArray[Any], mixture: NDArray[Any]) -> pd.DataFrame:
    """All outputs of one task and branch in one picture.

    Shapes:
        experts [B, K, W], mixture [B, W] -> B (K + 1) rows: region (position), number (of the expert; K:
        the mixture); axis_1, axis_2; projection: `tsne`, or `pca` where t-SNE cannot be had; spread: of an
        expert's output, its squared distance from the mean of that expert's, over its squared length (so
        that the mean over regions is 0 where the expert says the same of all, and 1 where its outputs
        cancel); own_nearest: whether the nearest expert's output for another region is of the same expert.
        Both are null for the mixture, own_nearest also for a single region.
    """
    count, number, _ = experts.shape
    every = np.concatenate([experts, mixture[:, None]], axis=1).astype(np.float64)
    axes = embedding_map(every.reshape(count * (number + 1), -1))
    projection = "tsne" if axes["tsne_1"].notna().all() else "pca"
    away = ((every - every.mean(axis=0)) ** 2).sum(axis=2)
    spread = away / np.maximum((every**2).sum(axis=2), 1e-12)
    spread[:, number] = np.nan
    near = np.full((count, number + 1), np.nan)
    if count > 1:
        near[:, :number] = _own_nearest(every[:, :number])
    region, expert = np.indices((count, number + 1)).reshape(2, -1)
    return pd.DataFrame(
        {
            "region": region,
            "number": expert,
            "axis_1": axes[f"{projection}_1"].to_numpy(np.float64),
            "axis_2": axes[f"{projection}_2"].to_numpy(np.float64),
            "projection": projection,
            "spread": spread.ravel(),
            "own_nearest": near.ravel(),
        }
    )


def _own_nearest(experts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of outputs [B, K, W], 1 where the nearest one of another region is of the same expert, 0 where it is
    not: [B, K]."""
    count, number, _ = experts.shape
    flat = experts.reshape(count * number, -1)
    squares = (flat**2).sum(axis=1)
    apart = squares[:, None] - 2 * flat @ flat.T + squares
    region, expert = np.divmod(np.arange(count * number), number)
    apart[region[:, None] == region] = np.inf
    same: NDArray[np.bool_] = expert[apart.argmin(axis=1)] == expert
    return same.reshape(count, number).astype(np.float64)
