"""Which experts each task uses: tables from the records of a method that routes (UrbanMoE).

A group is a task's own experts, those that it has with one other task (whose name it bears), or the
shared ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

OWN, SHARED = "(own)", "(shared)"  # which no task can be called
_FIT = ["variant", "split", "fold", "seed"]
_KEY = ["branch", "task", "group", "number"]


def expert_weights(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row an expert that a task may use, from the records of checkpoints.

    Returns:
        variant, split, fold, seed; branch, task, group, number (of the expert in its group, from 0);
        weight, active (the share of regions where it is on).
    """
    parts = [
        _task_rows(net, branch, task).assign(**{key: record["fit"][key] for key in _FIT})
        for record in records
        for net in record["nets"]
        for branch in net["routing"]
        for task in range(len(net["tasks"]))
    ]
    columns = [*_FIT, *_KEY, "weight", "active"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _task_rows(net: Mapping[str, Any], branch: str, task: int) -> pd.DataFrame:
    pool, names = net["pool"], [entry["name"] for entry in net["tasks"]]
    partners = [name for other, name in enumerate(names) if other != task]
    groups = {
        OWN: pool["specific"],
        **dict.fromkeys(partners, pool["pair"]),
        SHARED: pool["shared"],
    }
    found = net["routing"][branch]
    return pd.DataFrame(
        {
            "branch": branch,
            "task": names[task],
            "group": np.repeat(list(groups), list(groups.values())),
            "number": np.concatenate([np.arange(size) for size in groups.values()]),
            "weight": found["weight"][task],
            "active": found["active"][task],
        }
    )


def by_group(weights: pd.DataFrame) -> pd.DataFrame:
    """Weights and experts that are on, summed within each group and averaged over all fits (experts of
    two fits have nothing in common but their group): branch, task, group, number 0, weight, active."""
    sums = weights.groupby([*_FIT, *_KEY[:3]], sort=False)[["weight", "active"]].sum()
    means = sums.groupby(_KEY[:3], sort=False).mean().reset_index()
    return means.assign(number=0)


def first_fit(weights: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first fold and seed."""
    first = weights[_FIT].sort_values(_FIT).iloc[0]
    return weights[(weights[_FIT] == first).all(axis=1)]
