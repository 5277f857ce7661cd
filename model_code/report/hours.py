"""The section on hours of the day: figures by hour, days of chosen regions, kinds of day on the map with
the words that mark them, and bins of the flow.

Pictures are drawn with the tools of `report.figures`. N regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from model_code.bins import Bins
from model_code.hours import HOURS
from model_code.report import palette
from model_code.report.cluster_tree import CLUSTERS, clusters
from model_code.report.figures import (
    SEQUENTIAL,
    as_picture,
    fill_map,
    headed,
    map_axes,
    map_size,
    new_figure,
    of_regions,
)
from model_code.report.labels import is_default, method_label

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

_MARKS = 6  # words of a kind of day
_PRIOR = 100.0  # words that the prior counts for
# What descriptions say of anything.
_OF_ANYTHING = """
about above again also around building buildings cover covers fills ground image known mainly many mostly
percent picture places quarter roughly seen some take takes there third three typically view with
"""

# Figures by hour: column, scale, what a person calls it.
_FIGURES = (
    ("accuracy", "transformed", "accuracy over ten bins"),
    ("r2", "transformed", "R² (transformed)"),
    ("mae", "original", "mean absolute error, trips"),
    ("mape", "original", "mean absolute error, share of the truth"),
)


# --- kinds of day --------------------------------------------------------------------------------


def days(targets: pd.DataFrame, task: str) -> pd.DataFrame:
    """Flows by region (index, ordered) and hour 0 to 23 of the regions that have every hour."""
    own = targets[targets["indicator"] == task]
    table = own.pivot(index="region_id", columns="slot", values="value")
    return table.reindex(columns=range(HOURS)).dropna()


def kinds_of_day(flows: pd.DataFrame, count: int = CLUSTERS) -> pd.Series[int]:
    """By region, the cluster of its day, 0 the largest: `cluster_tree.clusters` of log(1 + flow) over 24
    hours, `count` or fewer."""
    return pd.Series(clusters(np.log1p(flows.to_numpy(np.float64)), count), flows.index)


def marking_words(kinds: pd.Series[int], descriptions: pd.DataFrame) -> dict[int, list[str]]:
    """By kind of day, the words of the land in the descriptions of its regions that mark it most: by
    the log-odds of a word among the kind's descriptions against all others, over its standard error,
    with all descriptions as the prior (Monroe et al. 2008).

    Args:
        kinds: of `kinds_of_day`.
        descriptions: the table `region_descriptions`.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    rows = descriptions[(descriptions["land"] != "") & descriptions["region_id"].isin(kinds.index)]
    if rows.empty:
        return {}
    words_of = CountVectorizer(
        binary=True,
        stop_words=_OF_ANYTHING.split(),
        token_pattern=r"[^\W\d_]{4,}",  # noqa: S106 (no password)
    )
    said = words_of.fit_transform(rows["land"])
    words = words_of.get_feature_names_out()
    owner = kinds.reindex(rows["region_id"]).to_numpy()
    total = np.asarray(said.sum(axis=0), float).ravel()
    prior = _PRIOR * total / total.sum()
    found = {}
    for kind in range(int(kinds.max()) + 1):
        counts = [
            np.asarray(said[rows].sum(axis=0)).ravel() for rows in (owner == kind, owner != kind)
        ]
        odds = [np.log((c + prior) / (c.sum() + prior.sum() - c - prior)) for c in counts]
        error = np.sqrt(sum(1 / (c + prior) for c in counts))
        score = (odds[0] - odds[1]) / error
        best = np.argsort(-score, kind="stable")[:_MARKS]
        found[kind] = [str(words[i]) for i in best if score[i] > 0]
    return found


def peak_sentence(kind: int, flows: pd.DataFrame, words: Sequence[str]) -> str:
    """What a kind of day is, in a sentence: its regions, its busiest hour, its words."""
    mean = flows.mean(axis=0)
    told = f" Marked by: {', '.join(words)}." if words else ""
    return (
        f"Kind {kind + 1}: {len(flows):,} region{'s' if len(flows) != 1 else ''}, busiest at "
        f"{int(mean.to_numpy().argmax()):02d}:00, {mean.sum():,.0f} trips in all hours.{told}"
    )


# --- what was predicted --------------------------------------------------------------------------


def mean_days(predictions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Observed and predicted flows by region and hour, original scale, means over folds and seeds of one
    variant and task."""
    one, other = (
        predictions.pivot_table(index="region_id", columns="slot", values=f"y_{name}_original")
        for name in ("true", "pred")
    )
    return one, other


@as_picture
def hourly_figures(metrics: pd.DataFrame, method: str, *, split: str) -> Figure:
    """Figures of all methods by hour on one split; `method` stands out, with the range over its folds
    and seeds.

    Args:
        metrics: the table `hourly_metrics`.
    """
    own = metrics[(metrics["split"] == split) & metrics["variant"].map(is_default)]
    names = sorted(own["method"].unique(), key=lambda name: (name == method, name))
    colours = dict(
        zip(sorted(set(names) - {method}), palette.qualitative(len(names)), strict=False)
    )
    figure = new_figure(7.4, 5.2)
    headed(figure, f"By hour of the day, {split} split")
    for number, (metric, scale, label) in enumerate(_FIGURES):
        axes = figure.add_subplot(2, 2, number + 1)
        rows = own[(own["metric"] == metric) & (own["scale"] == scale)].dropna(subset="value")
        tops = []
        for name in names:
            table = (
                rows[rows["method"] == name].groupby("hour")["value"].agg(["mean", "min", "max"])
            )
            if table.empty:
                continue
            main = name == method
            colour = palette.ACCENT if main else colours[name]
            if main:
                axes.fill_between(
                    table.index, table["min"], table["max"], color=colour, alpha=0.15, lw=0
                )
            axes.plot(table.index, table["mean"], color=colour, lw=2.2 if main else 1,
                      alpha=1 if main else 0.8, label=method_label(name, "default"))  # fmt: skip
            tops.append(float(table["mean"].max()))
        axes.set_title(label, fontsize=8.5)
        axes.set(xlim=(0, 23), xticks=range(0, 24, 6))
        if metric in ("r2", "accuracy"):
            axes.set_ylim(max(axes.get_ylim()[0], -0.5), 1)
        elif tops:  # one method's failure must not flatten the others
            axes.set_ylim(
                0, 1.25 * float(np.median(tops)) + 0.5 * (max(tops) - float(np.median(tops)))
            )
        if number >= 2:
            axes.set_xlabel("local hour")
    if len(names) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@as_picture
def day_curves(observed: pd.DataFrame, predicted: pd.DataFrame, regions: Sequence[str]) -> Figure:
    """Predicted and observed days of chosen regions (index of both tables)."""
    columns = min(4, max(len(regions), 1))
    rows = -(-len(regions) // columns)
    figure = new_figure(7.4, 0.5 + 1.6 * rows)
    headed(figure, "Observed (grey) and predicted (line) trips by hour")
    for number, region in enumerate(regions):
        axes = figure.add_subplot(rows, columns, number + 1)
        hours = range(HOURS)
        axes.fill_between(hours, observed.loc[region].to_numpy(float), color=palette.LINE, lw=0)
        axes.plot(hours, predicted.loc[region].to_numpy(float), color=palette.ACCENT, lw=1.8)
        axes.set_title(f"region {region}"[:28], fontsize=8.5)
        axes.set(xlim=(0, 23), ylim=(0, None), xticks=range(0, 24, 6))
    return figure


@as_picture
def kinds_map(
    regions: gpd.GeoDataFrame,
    kinds: pd.Series[int],
    flows: pd.DataFrame,
    words: Mapping[int, Sequence[str]],
) -> Figure:
    """Kinds of day on the map, and the mean day of each with the words that mark it."""
    count = int(kinds.max()) + 1
    colours = palette.qualitative(count)
    width, height = map_size(regions, 3.4)
    figure = new_figure(width + 4.4, max(height, 0.62 * count + 0.6))
    headed(figure, "Kinds of day")
    halves: Any = figure.subfigures(1, 2, width_ratios=[width, 4.4])
    left, right = halves
    axes = left.add_subplot()
    map_axes(axes, regions, "observed days, clustered")
    norm = BoundaryNorm(np.arange(-0.5, count), count) if count > 1 else None
    values = of_regions(regions, kinds)
    fill_map(axes, regions, values, ListedColormap(colours), cast(Any, norm))
    panels = np.atleast_1d(right.subplots(count, 1, sharex=True))
    for kind, panel in enumerate(panels):
        mean = flows[kinds == kind].mean(axis=0).to_numpy(float)
        panel.fill_between(range(HOURS), mean, color=colours[kind], alpha=0.75, lw=0)
        panel.set(xlim=(0, 23), ylim=(0, None), xticks=range(0, 24, 6), yticks=[])
        said = ", ".join(words.get(kind, ())[:4])
        panel.set_title(f"{kind + 1}: {said}" if said else str(kind + 1), fontsize=7.5)
    panels[-1].set_xlabel("local hour")
    return figure


def bin_counts(predictions: pd.DataFrame, bins: Bins) -> NDArray[np.int64]:
    """How often a true bin (row) was predicted as another (column), [C, C]."""
    count = len(bins.centres)
    codes = bins.of(predictions["y_true"].to_numpy()) * count
    codes = codes + bins.of(predictions["y_pred"].to_numpy())
    return np.bincount(codes, minlength=count * count).reshape(count, count)


@as_picture
def bin_confusion(counts: Mapping[str, NDArray[np.int64]]) -> Figure:
    """By method, the share of each true bin (row) that was predicted as each bin (column)."""
    figure = new_figure(0.6 + 2.9 * len(counts), 3.4)
    headed(figure, "Bins of the flow, from low to high")
    for number, (name, matrix) in enumerate(counts.items()):
        axes = figure.add_subplot(1, len(counts), number + 1)
        share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap=SEQUENTIAL, vmin=0, vmax=1)
        right = np.trace(matrix) / max(matrix.sum(), 1)
        axes.set_title(f"{name}: {right:.3f}", fontsize=8.5)
        axes.set(xticks=range(len(matrix)), yticks=range(len(matrix)), xlabel="predicted")
        if number == 0:
            axes.set_ylabel("true")
    return figure
