"""Rows of the leaderboard, their summary over folds and seeds, and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from model_code.methods import MADE_FROM, SOURCES_OF, Modality
from model_code.tables import contract

# The figure that ranks methods, by scale: one for numbers, one for classes.
HEADLINE = {"transformed": "r2", "class": "macro_f1"}

_ROW = ["split", "task", "method", "variant"]
_ABOUT = ["inputs", "protocol", "captioner", "target_in_inputs"]


def training_sizes(targets: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """How many training regions have a label: task, split, fold, n_train."""
    labelled = targets[["indicator", "region_id"]].drop_duplicates()
    train = splits.loc[splits["part"] == "train", ["split", "fold", "region_id"]]
    joined = train.merge(labelled, on="region_id").rename(columns={"indicator": "task"})
    return joined.groupby(["task", "split", "fold"]).size().rename("n_train").reset_index()


def with_not_estimable(scores: pd.DataFrame, variants: Iterable[str]) -> pd.DataFrame:
    """The scores of a method, and null for each of the `variants` that predict nothing, where its first
    variant by name has a figure."""
    one = scores[scores["variant"] == scores["variant"].min()]
    without = [one.assign(variant=variant, value=np.nan) for variant in sorted(variants)]
    result: pd.DataFrame = pd.concat([scores, *without], ignore_index=True)
    return result


def leaderboard_rows(
    scores: pd.DataFrame,
    *,
    city: str,
    method: str,
    inputs: Mapping[str, Sequence[Modality]],
    protocol: Mapping[str, str],
    captioner: Mapping[str, str],
    contained_in: Mapping[str, Sequence[str]],
    n_train: pd.DataFrame,
) -> pd.DataFrame:
    """The rows of one method in the table `leaderboard`.

    Args:
        scores: of `metrics.score`.
        city: name of the city.
        method: name of the method.
        inputs: by variant, the modalities that it read (an ablation reads fewer).
        protocol: by variant, what `methods.run.protocol` says.
        captioner: by variant, what wrote its texts; a variant without texts may be left out.
        contained_in: by task, the input tables that hold the target already (`contained_in` of the
            table `indicators`). They share their names with modalities; what is made from a source,
            such as shares from imagery, counts as that source.
        n_train: of `training_sizes`.
    """
    rows = scores.merge(n_train, on=["task", "split", "fold"], how="left", validate="many_to_one")
    rows["city"], rows["method"] = city, method
    variants, tasks = rows["variant"].tolist(), rows["task"].tolist()
    rows["inputs"] = [",".join(sorted(set(inputs[v]))) for v in variants]
    rows["protocol"] = [protocol[v] for v in variants]
    rows["captioner"] = [captioner.get(v, "") for v in variants]
    made_from = {name: {name, MADE_FROM.get(name, name), *SOURCES_OF[name]} for name in SOURCES_OF}
    read = {v: set[str]().union(*(made_from[name] for name in m)) for v, m in inputs.items()}
    rows["target_in_inputs"] = [
        not read[v].isdisjoint(contained_in[t]) for v, t in zip(variants, tasks, strict=True)
    ]
    rows["n_train"] = rows["n_train"].fillna(0).astype("int64")
    table = contract("leaderboard")
    return rows.sort_values(list(table.key), ignore_index=True)[table.names()]


def summary(leaderboard: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over folds and seeds, one row a (split, task, method, variant).

    Columns: those four; inputs, protocol, captioner, target_in_inputs; `headline`, the metric that
    ranks (`r2_transformed`, or `macro_f1_class`); `runs`, the folds and seeds in which it was
    estimable; `rank` by its mean within the split and task, 1 the best, null for a method whose
    inputs contain the target; and for each metric and scale `<metric>_<scale>_mean` and `_sd`
    (null for a single run).
    """
    named = leaderboard.assign(figure=leaderboard["metric"] + "_" + leaderboard["scale"])
    heads = named[named["scale"].map(HEADLINE) == named["metric"]].groupby(_ROW)
    result = named.groupby(_ROW)[_ABOUT].first()
    result["headline"] = heads["figure"].first()
    result["runs"] = heads["value"].count()
    fair = heads["value"].mean().where(~result["target_in_inputs"])
    result["rank"] = fair.groupby(["split", "task"]).rank(ascending=False, method="min")
    wide = named.groupby([*_ROW, "figure"])["value"].agg(["mean", "std"]).unstack("figure")
    for figure in sorted(named["figure"].unique()):
        result[f"{figure}_mean"] = wide["mean"][figure]
        result[f"{figure}_sd"] = wide["std"][figure]
    return result.reset_index()


def mean_ranks(summarised: pd.DataFrame) -> pd.DataFrame:
    """Ranks of a summary averaged over tasks: split, method, variant, mean_rank, tasks."""
    ranked = summarised.dropna(subset="rank").groupby(["split", "method", "variant"])["rank"]
    table = ranked.agg(mean_rank="mean", tasks="count").reset_index()
    return table.sort_values(["split", "mean_rank", "method", "variant"], ignore_index=True)
