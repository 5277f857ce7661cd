"""Rows of the leaderboard, their summary over folds and seeds, and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from model_code.tables import contract

# The figure that ranks methods, by scale: one for numbers, one for classes.
HEADLINE = {"transformed": "r2", "class": "macro_f1"}

_ROW = ["split", "task", "method", "variant"]


def training_sizes(targets: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """How many training regions have a label: task, split, fold, n_train."""
    labelled = targets[["indicator", "region_id"]].drop_duplicates()
    train = splits.loc[splits["part"] == "train", ["split", "fold", "region_id"]]
    joined = train.merge(labelled, on="region_id").rename(columns={"indicator": "task"})
    return joined.groupby(["task", "split", "fold"]).size().rename("n_train").reset_index()


def leaderboard_rows(
    scores: pd.DataFrame,
    *,
    city: str,
    method: str,
    inputs: Mapping[str, Sequence[str]],
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
        protocol: by variant, `transductive`, `inductive` or `supervised`.
        captioner: by variant, what wrote its texts; a variant without texts may be left out.
        contained_in: by task, the input tables that hold the target already (`contained_in` of the
            table `indicators`); modalities and input tables share their names.
        n_train: of `training_sizes`.
    """
    rows = scores.merge(n_train, on=["task", "split", "fold"], how="left", validate="many_to_one")
    rows["city"], rows["method"] = city, method
    rows["inputs"] = rows["variant"].map({v: ",".join(sorted(set(m))) for v, m in inputs.items()})
    rows["protocol"] = rows["variant"].map(protocol)
    rows["captioner"] = rows["variant"].map(captioner).fillna("")
    contained = {
        (variant, task): not set(tables).isdisjoint(read)
        for task, tables in contained_in.items()
        for variant, read in inputs.items()
    }
    pairs = zip(rows["variant"], rows["task"], strict=True)
    rows["target_in_inputs"] = [contained[pair] for pair in pairs]
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
    grouped = named.groupby([*_ROW, "figure"])["value"]
    wide = grouped.agg(["mean", "std", "count"]).unstack("figure")
    figures = sorted(named["figure"].unique())

    about = ["inputs", "protocol", "captioner", "target_in_inputs"]
    result = named.groupby(_ROW)[about].first()
    scale = named.groupby(_ROW)["scale"].max()  # `class`, or else the later of the other two
    scale = scale.where(scale == "class", "transformed")
    result["headline"] = scale.map(HEADLINE) + "_" + scale
    chosen = {
        kind: pd.concat([wide[kind][f][result["headline"] == f] for f in figures]).reindex(
            result.index
        )
        for kind in ("mean", "count")
    }
    result["runs"] = chosen["count"].fillna(0).astype("int64")
    fair = chosen["mean"].where(~result["target_in_inputs"])
    result["rank"] = fair.groupby(["split", "task"]).rank(ascending=False, method="min")
    for figure in figures:
        result[f"{figure}_mean"] = wide["mean"][figure]
        result[f"{figure}_sd"] = wide["std"][figure]
    return result.reset_index()


def mean_ranks(summarised: pd.DataFrame) -> pd.DataFrame:
    """Ranks of a summary averaged over tasks: split, method, variant, mean_rank, tasks."""
    ranked = summarised.dropna(subset="rank").groupby(["split", "method", "variant"])["rank"]
    table = ranked.agg(mean_rank="mean", tasks="count").reset_index()
    return table.sort_values(["split", "mean_rank", "method", "variant"], ignore_index=True)
