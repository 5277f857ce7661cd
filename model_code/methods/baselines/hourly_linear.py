"""Ordinary least squares from the raw encodings of the modalities to 24 hours (a baseline of LMEMR).

With more encodings than training regions it takes the solution of least norm, and fits them exactly.
"""

from __future__ import annotations

import numpy as np

from model_code.methods import HourlyConfig, MethodConfig
from model_code.methods.base import (
    NOWHERE,
    Checkpoint,
    Floats,
    Parts,
    RegionData,
    Targets,
    Workspace,
)
from model_code.methods.modalities import RawEncoded, encode, fit_encoding


class HourlyLinear(RawEncoded):
    """A linear map from raw encodings."""

    def fit(
        self,
        data: RegionData,
        targets: Targets,
        parts: Parts,
        config: MethodConfig,
        *,
        seed: int,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, HourlyConfig)
        features = self.features(data, config)
        tensors = fit_encoding(features, parts.train, config.components)
        rows = encode(features, tensors).astype(np.float64)
        for task in targets.tasks:
            values = targets.values[task.name]
            known = parts.train & np.isfinite(values).all(axis=1)
            design = np.column_stack([rows[known], np.ones(known.sum())])
            weight = np.linalg.lstsq(design, values[known], rcond=1e-6)[0]
            tensors[f"weight.{task.name}"] = weight
        return Checkpoint(tensors, {"tasks": [task.name for task in targets.tasks]})

    def predict(
        self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig
    ) -> dict[str, Floats]:
        rows = self.embed(checkpoint, data, config).astype(np.float64)
        design = np.column_stack([rows, np.ones(len(rows))])
        return {
            name: design @ checkpoint.tensors[f"weight.{name}"]
            for name in checkpoint.record["tasks"]
        }


METHOD = HourlyLinear()
