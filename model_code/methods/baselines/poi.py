"""POI counts by category: what a region holds, and nothing learned."""

from __future__ import annotations

import numpy as np

from model_code.methods import MethodConfig, PoiConfig
from model_code.methods.base import NOWHERE, Checkpoint, Floats, Mask, RegionData, Workspace


class Poi:
    """Columns are the categories that a visible region has; a category that another city lacks has
    count zero there. `share` divides by the region's POIs; a region without any has all zeros."""

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert data.poi_counts is not None
        seen = np.flatnonzero((data.poi_counts[visible] > 0).any(axis=0))
        categories = [data.poi_categories[k] for k in seen]
        return Checkpoint({}, {"categories": categories})

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        assert isinstance(config, PoiConfig)
        assert data.poi_counts is not None
        column = {c: k for k, c in enumerate(data.poi_categories)}
        counts = np.zeros((len(data), len(checkpoint.record["categories"])), np.float32)
        for k, category in enumerate(checkpoint.record["categories"]):
            if category in column:
                counts[:, k] = data.poi_counts[:, column[category]]
        if config.transform == "log1p":
            return np.log1p(counts)
        if config.transform == "share":
            return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
        return counts


METHOD = Poi()
