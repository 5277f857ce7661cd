"""Hourly targets: bins of the flow, and every figure by hour of the day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from model_code.bins import Bins
from model_code.evaluation.metrics import BinsOf, score
from model_code.methods.base import Task
from model_code.scaling import transform
from model_code.tables import contract

BINS = 10


def flow_bins(targets: pd.DataFrame, indicators: pd.DataFrame, splits: pd.DataFrame) -> BinsOf:
    """By (task, split, fold) of the hourly targets, ten bins of equal width between the least and the
    greatest value of the fold's training regions, all hours joined, on the transformed scale. Every
    method is judged by the same.

    Args:
        targets, indicators, splits: the tables of these names.
    """
    found = {}
    train = splits[splits["part"] == "train"]
    for entry in indicators[indicators["kind"] == "hourly"].itertuples(index=False):
        task = Task(str(entry.indicator), "hourly", cast(Any, entry.transform), slots=24)
        own = targets[targets["indicator"] == task.name]
        values = own.assign(value=transform(own["value"].to_numpy(np.float64), task))
        for (split, fold), rows in cast(Any, train.groupby(["split", "fold"])):
            seen = values.loc[values["region_id"].isin(rows["region_id"]), "value"].to_numpy()
            if len(seen):
                found[task.name, str(split), int(fold)] = Bins.fit(seen, BINS)
    return found


def hourly_metrics(
    predictions: Mapping[str, pd.DataFrame],
    targets: pd.DataFrame,
    indicators: pd.DataFrame,
    splits: pd.DataFrame,
) -> pd.DataFrame:
    """The table `hourly_metrics`: the figures of `metrics.score` for each hour of the hourly targets.

    Args:
        predictions: by method, its table `predictions`.
        targets, indicators, splits: the tables of these names.
    """
    hourly = set(indicators.loc[indicators["kind"] == "hourly", "indicator"])
    bins = flow_bins(targets, indicators, splits)
    table = contract("hourly_metrics")
    parts = []
    for method, rows in predictions.items():
        own = rows[rows["task"].isin(hourly)]
        if len(own):
            figures = score(own, indicators, bins, by_hour=True)
            parts.append(figures.rename(columns={"slot": "hour"}).assign(method=method))
    if not parts:
        return pd.DataFrame(columns=table.names())
    found = pd.concat(parts, ignore_index=True)
    return found.sort_values(list(table.key), ignore_index=True)[table.names()]
