"""Single regions: what a method and its ablations predict for them, beside the truth (UrbanMMCL's Fig. 9).

Pictures are drawn with the tools of `report.figures`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model_code.report import palette
from model_code.report.figures import SHEET_BYTES, as_picture, headed, log_ticks, short
from model_code.report.labels import is_default

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

CASES = 4  # regions
_TASKS = 3
_DEFAULT, _ABLATED = "default", "without_"


def most_tested(predictions: pd.DataFrame) -> pd.DataFrame:
    """The predictions of the split that tests the most regions (of equal ones the first by name)."""
    tested = predictions.groupby("split")["region_id"].nunique()
    return predictions[predictions["split"] == tested.idxmax()]


def shown_tasks(predictions: pd.DataFrame, indicators: pd.DataFrame) -> pd.DataFrame:
    """Rows of up to three numbers that were predicted, first those that no input contains."""
    numbers = indicators[
        (indicators["kind"] == "regression") & indicators["indicator"].isin(predictions["task"])
    ]
    contained = numbers["contained_in"].map(len) > 0
    return numbers.iloc[np.argsort(contained, kind="stable")[:_TASKS]]


def case_means(predictions: pd.DataFrame) -> pd.DataFrame:
    """y_true and y_pred (transformed scale; means over folds and seeds) of the default and of the variants
    that lack a part (`without_`), by task, region_id and variant: `default`, then by name."""
    names = predictions["variant"].mask(predictions["variant"].map(is_default), _DEFAULT)
    own = predictions.assign(variant=names)[(names == _DEFAULT) | names.str.startswith(_ABLATED)]
    return own.groupby(["task", "region_id", "variant"])[["y_true", "y_pred"]].mean()


@functools.partial(as_picture, limit=SHEET_BYTES)
def case_figure(
    predictions: pd.DataFrame,
    tasks: pd.DataFrame,
    regions: Sequence[str],
    pictures: Mapping[str, Mapping[str, NDArray[np.uint8]]],
) -> Figure:
    """A row a region: its pictures, and for each task the truth (a line across) and what each variant
    predicts (a dot).

    Args:
        predictions: of one split; tasks: of `shown_tasks`.
        regions: that were tested.
        pictures: by kind, then by region, uint8 [H, W, 3]; a region may lack some.
    """
    shown = predictions["task"].isin(tasks["indicator"]) & predictions["region_id"].isin(regions)
    means = case_means(predictions[shown])
    variants = list(means.index.get_level_values("variant").unique())
    kinds = list(pictures)
    high = max(1.15, 0.14 * len(variants) + 0.3)
    widths = [1.3] * len(kinds) + [2.2] * len(tasks)
    figure = Figure(figsize=(sum(widths) + 1.5, high * len(regions) + 1.0), layout="constrained")
    headed(figure, "Predicted and true")
    grid = figure.add_gridspec(len(regions), len(widths), width_ratios=widths)
    for row, region in enumerate(regions):
        for column, kind in enumerate(kinds):
            axes = figure.add_subplot(grid[row, column])
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if region in pictures[kind]:
                axes.imshow(pictures[kind][region])
                axes.set_anchor("N")
            else:
                axes.text(
                    0.5, 0.5, "none", ha="center", color=palette.FAINT, transform=axes.transAxes
                )
            if row == 0:
                axes.set_title(kind, fontsize=8.5)
            if column == 0:
                axes.set_ylabel(_named(row, region), fontsize=7.5, color=palette.INK)
        for column, task in enumerate(tasks.to_dict("records")):
            axes = figure.add_subplot(grid[row, len(kinds) + column])
            own = means[means.index.get_level_values("task") == task["indicator"]].droplevel("task")
            _dots(axes, own, region, variants)
            if len(own):
                _scale(axes, own, log=task["transform"] == "log1p")
            if column == 0:
                axes.set_yticks(
                    range(len(variants)), [short(v.replace("_", " "), 24) for v in variants]
                )
                if not kinds:
                    axes.set_ylabel(_named(row, region), fontsize=7.5, color=palette.INK)
            if row == 0:
                axes.set_title(short(task["indicator"].replace("_", " "), 26), fontsize=8.5)
            if row == len(regions) - 1:
                axes.set_xlabel(short(task["unit"], 26), fontsize=7.5)
            else:
                axes.set_xticklabels([])
    return figure


def _named(row: int, region: str) -> str:
    return f"{chr(65 + row)}: {short(region, 18)}"


def _dots(axes: Axes, means: pd.DataFrame, region: str, variants: Sequence[str]) -> None:
    """One region's predictions by variant, from the top down; nothing where it has no label."""
    axes.set(yticks=[], ylim=(len(variants) - 0.4, -0.6))
    axes.tick_params(labelsize=7)
    if region not in means.index.get_level_values("region_id"):
        return
    own = means.loc[region].reindex(list(variants))
    true, y = float(own["y_true"].mean()), np.arange(len(variants))
    ink = [palette.ACCENT if name == _DEFAULT else palette.LINES for name in variants]
    axes.axvline(true, color=palette.INK, lw=1.2)
    axes.hlines(y, true, own["y_pred"], color=ink, lw=0.9, alpha=0.6)
    axes.scatter(
        own["y_pred"], y, color=ink, s=[28 if n == _DEFAULT else 16 for n in variants], zorder=3
    )


def _scale(axes: Axes, shown: pd.DataFrame, *, log: bool) -> None:
    """The same limits for all regions; labels on the original scale."""
    low, high = float(np.nanmin(shown.to_numpy())), float(np.nanmax(shown.to_numpy()))
    pad = 0.06 * (high - low) or 0.5
    axes.set_xlim(low - pad, high + pad)
    if not log:
        axes.locator_params(axis="x", nbins=4)
        return
    first, last = np.expm1([max(low - pad, min(1e-3, high / 10)), high + pad])
    wide = last > 10 * first
    ticks = log_ticks(LogNorm(first, last)) if wide else MaxNLocator(4).tick_values(first, last)
    inside = [tick for tick in ticks if first <= tick <= last]
    axes.set_xticks(np.log1p(inside), [f"{tick:,g}" for tick in inside])
