"""A random forest from the raw encodings of the modalities to 24 hours (a baseline of LMEMR, which has
500 trees).

A checkpoint holds the trees as arrays over all their nodes: T trees, K nodes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_code.methods import HourlyForestConfig, MethodConfig
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


def fit_trees(rows: Floats, values: Floats, config: HourlyForestConfig, seed: int) -> Any:
    """Trees of rows [n, W] and values [n, 24] as arrays: `root` [T]; `left`, `right` (-1 in a leaf),
    `column` and `threshold` [K]; `value` [K, 24]."""
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        config.trees, min_samples_leaf=config.min_leaf, max_features=1 / 3, random_state=seed
    )
    trees = [tree.tree_ for tree in forest.fit(rows, values).estimators_]
    first = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(tree, name) for tree in trees])

    owner = np.repeat(first, [tree.node_count for tree in trees])
    left, right = joined("children_left"), joined("children_right")
    return {
        "root": first.astype(np.int64),
        "left": np.where(left < 0, -1, left + owner),
        "right": np.where(right < 0, -1, right + owner),
        "column": np.maximum(joined("feature"), 0),
        "threshold": joined("threshold"),
        "value": joined("value")[:, :, 0].astype(np.float32),
    }


def predict_trees(rows: Floats, trees: dict[str, NDArray[Any]]) -> Floats:
    """Means over the trees of the leaves that rows [N, W] reach: [N, 24]."""
    total = np.zeros((len(rows), trees["value"].shape[1]))
    rows = np.asarray(rows, np.float32)
    for root in trees["root"]:
        node = np.full(len(rows), root)
        inner = np.arange(len(rows))
        while (inner := inner[trees["left"][node[inner]] >= 0]).size:
            at = node[inner]
            low = rows[inner, trees["column"][at]] <= trees["threshold"][at]
            node[inner] = np.where(low, trees["left"][at], trees["right"][at])
        total += trees["value"][node]
    return np.asarray(total / len(trees["root"]))


class HourlyForest(RawEncoded):
    """A forest from raw encodings."""

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
        assert isinstance(config, HourlyForestConfig)
        features = self.features(data, config)
        tensors = fit_encoding(features, parts.train, config.components)
        rows = encode(features, tensors)
        for task in targets.tasks:
            values = targets.values[task.name]
            known = parts.train & np.isfinite(values).all(axis=1)
            trees = fit_trees(rows[known], values[known], config, seed)
            tensors |= {f"{task.name}.{name}": array for name, array in trees.items()}
        return Checkpoint(tensors, {"tasks": [task.name for task in targets.tasks]})

    def predict(
        self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig
    ) -> dict[str, Floats]:
        rows = self.embed(checkpoint, data, config)
        return {
            name: predict_trees(
                rows,
                {
                    key.removeprefix(f"{name}."): array
                    for key, array in checkpoint.tensors.items()
                    if key.startswith(f"{name}.")
                },
            )
            for name in checkpoint.record["tasks"]
        }


METHOD = HourlyForest()
