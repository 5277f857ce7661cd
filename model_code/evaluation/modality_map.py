"""States of the modalities of regions in two dimensions, and how often a region's states find one another.

N regions, M modalities, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_code.evaluation.embedding_map import TSNE_MOST_REGIONS, some_rows, two_axes

TSNE_FEWEST = 30  # regions; with fewer, principal components are drawn


def modality_map(
    states: NDArray[Any], present: NDArray[np.bool_], modalities: Sequence[str]
) -> pd.DataFrame:
    """States of the modalities in two dimensions, of some regions where there are many.
    Vectors are compared by direction, as the contrast does.

    Returns:
        region (position), modality; axis_1, axis_2; projection: `tsne`, or `pca` for few regions;
        match_share: in what share of the other modalities the nearest state is the region's own (NaN:
        it has no other).
    """
    count, modes, _ = states.shape
    chosen = some_rows(count, TSNE_MOST_REGIONS // modes)
    vectors, there = states[chosen].astype(np.float64), present[chosen]
    vectors /= np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-12)
    region, modality = np.nonzero(there)
    axes, projection = two_axes(vectors[region, modality], tsne=count >= TSNE_FEWEST)
    return pd.DataFrame(
        {
            "region": chosen[region],
            "modality": np.array(modalities, dtype=object)[modality],
            "axis_1": axes[:, 0].astype(np.float64),
            "axis_2": axes[:, 1].astype(np.float64),
            "projection": projection,
            "match_share": own_match(vectors, there)[region, modality],
        }
    )


def own_match(vectors: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[Any]:
    """For unit vectors [N, M, D], in what share [N, M] of the region's other modalities the nearest
    vector is its own; NaN without a pair. Memory is N x N for one pair of modalities."""
    count, modes, _ = vectors.shape
    hits, pairs = np.zeros((count, modes)), np.zeros((count, modes))
    for one in range(modes):
        for other in range(modes):
            rows = np.flatnonzero(present[:, one] & present[:, other])
            if one == other or not len(rows):
                continue
            able = np.flatnonzero(present[:, other])
            alike = vectors[rows, one] @ vectors[able, other].T
            hits[rows, one] += able[alike.argmax(axis=1)] == rows
            pairs[rows, one] += 1
    return np.where(pairs > 0, hits / np.maximum(pairs, 1), np.nan)
