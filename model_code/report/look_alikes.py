"""Regions that UrbanMMCL takes for alike, by its whole embedding and by each part alone (its Fig. 7).

Vectors are compared by the cosine of what is left when the city's mean is taken off. Pictures are drawn
with the tools of `report.figures`. N regions, D width of a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from model_code.evaluation.embedding_map import some_rows
from model_code.report import palette
from model_code.report.cluster_tree import clusters, typical_regions
from model_code.report.figures import (
    DIVERGING,
    as_picture,
    fill_map,
    headed,
    map_axes,
    map_size,
    new_figure,
    of_regions,
    short,
)
from model_code.report.shapes import outlines

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

ALIKE = 10  # regions
ANCHORS = 3
TITLES = {
    "whole": "whole embedding",
    "modalities": "pictures and places",
    "function": "graph of function",
    "mobility": "graph of mobility",
    "distance": "graph of distance",
}
_MEASURED = 3000  # regions at most, for memory is their square


def by_view(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The table `urbanmmcl_views` as vectors by view, a row a region (index)."""
    found = {}
    for view in TITLES:
        rows = table[table["view"] == view]
        if len(rows):
            found[view] = pd.DataFrame(np.stack(rows["vector"].to_list()), index=rows["region_id"])
    return found


def similarity(vectors: pd.DataFrame, anchor: str) -> pd.Series[float]:
    """By region, how alike it is to the region `anchor`, from -1 to 1; 0 for a mean region."""
    unit = _unit(vectors.to_numpy(np.float64))
    return pd.Series(unit @ unit[vectors.index.get_loc(anchor)], vectors.index)


def most_alike(vectors: pd.DataFrame, anchor: str) -> list[str]:
    """The ten regions most alike to the region `anchor`, or as many as there are."""
    others = similarity(vectors, anchor).drop(anchor)
    return list(others.sort_values(ascending=False, kind="stable").index[:ALIKE])


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = vectors - vectors.mean(axis=0)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit: NDArray[np.float64] = centred / np.maximum(length, 1e-12)
    return unit


def measures(views: Mapping[str, pd.DataFrame], values: pd.DataFrame) -> pd.DataFrame:
    """What look-alikes are worth, by view: over all regions (of more than 3,000, as many drawn at random)
    with the ten most alike of each.

    Args:
        values: of indicators (columns) by region (index); NaN where there is no label.

    Returns:
        correlation: between a region's value and the mean of its look-alikes', by ranks (Spearman), mean
        over indicators (NaN: none has two values); shared: the share of a view's look-alikes that are
        those of the whole embedding too (NaN: there is one region).
    """
    every = next(iter(views.values())).index
    some = every[some_rows(len(every), _MEASURED)]
    labels = values.reindex(some)
    near = {
        view: _nearest(vectors.loc[some].to_numpy(np.float64)) for view, vectors in views.items()
    }
    rows = {}
    for view, index in near.items():
        means = labels.apply(lambda column, index=index: _means(column.to_numpy(float), index))
        both = labels.notna() & means.notna()
        told = labels.where(both).rank().corrwith(means.where(both).rank())
        same = (index[:, :, None] == near["whole"][:, None, :]).any(axis=2)
        rows[view] = {"correlation": told.mean(), "shared": same.mean() if same.size else np.nan}
    return pd.DataFrame.from_dict(rows, orient="index")


def _nearest(vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions [N, 10] of the most alike rows, or [N, N - 1] of fewer."""
    unit = _unit(vectors)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    return np.argsort(-alike, axis=1, kind="stable")[:, : min(ALIKE, len(unit) - 1)]


def _means(column: NDArray[np.float64], index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Means [N] of `column` [N] over the rows `index` [N, K] that have a value; NaN where none has."""
    count = np.isfinite(column[index]).sum(axis=1)
    return np.where(count > 0, np.nansum(column[index], axis=1) / np.maximum(count, 1), np.nan)


def sentences(found: pd.DataFrame) -> list[str]:
    """What `measures` found, a sentence a figure."""
    told = [f"{TITLES[str(v)]} {c:.2f}" for v, c in found["correlation"].dropna().items()]
    parts = [f"{TITLES[str(v)]} {s:.0%}" for v, s in found["shared"].drop("whole").dropna().items()]
    said = []
    if told:
        figures = ", ".join(told).replace("-", "\u2212")
        said.append(
            "How well the look-alikes of a region tell its indicators (rank correlation with their mean, "
            f"over all regions, or {_MEASURED:,} of more, mean over indicators): {figures}."
        )
    if parts:
        shares = ", ".join(parts)
        said.append(f"Share of a part's look-alikes that are the whole embedding's: {shares}.")
    return said


def anchors(views: Mapping[str, pd.DataFrame]) -> tuple[NDArray[np.int64], list[str]]:
    """The cluster of each region by the whole embedding [N], and a region typical of each of the largest."""
    whole = views["whole"]
    codes = clusters(whole.to_numpy())
    return codes, typical_regions(codes, whole, whole.index)[:ANCHORS]


@as_picture
def alike_maps(
    regions: gpd.GeoDataFrame, views: Mapping[str, pd.DataFrame], anchors: Sequence[str]
) -> Figure:
    """How alike all regions are to each anchor (a row of maps, and a dot), by view (a column); the ten most
    alike are outlined.

    Args:
        views: of `by_view`.
    """
    width, height = map_size(regions, 1.75)
    figure = new_figure(width * len(views) + 0.3, (height - 0.75) * len(anchors) + 1.3)
    headed(figure, "Look-alikes")
    by_id, norm, every = regions.set_index("region_id"), Normalize(-1, 1), []
    for row, anchor in enumerate(anchors):
        for column, (view, vectors) in enumerate(views.items()):
            axes = figure.add_subplot(len(anchors), len(views), row * len(views) + column + 1)
            map_axes(axes, regions, "", bar=False)
            if row == 0:
                axes.set_title(TITLES[view], fontsize=8)
            if column == 0:
                axes.text(-0.04, 0.5, f"{chr(65 + row)}: {short(anchor, 20)}", rotation=90, va="center",
                          ha="right", fontsize=7.5, transform=axes.transAxes)  # fmt: skip
            own = of_regions(regions, similarity(vectors, anchor))
            filled = fill_map(axes, regions, own, DIVERGING, norm)
            rings, _ = outlines(by_id.loc[most_alike(vectors, anchor)].geometry.to_numpy())
            axes.add_collection(
                PolyCollection(rings, facecolor="none", edgecolor=palette.INK, linewidth=0.9)
            )
            x, y = by_id.loc[anchor, ["x_m", "y_m"]]
            axes.scatter(x, y, s=34, color=palette.INK, edgecolor="white", linewidth=0.8, zorder=3)
            every.append(axes)
    bar = figure.colorbar(
        filled, ax=every, orientation="horizontal", fraction=0.03, pad=0.02, aspect=40
    )
    bar.outline.set_visible(False)
    bar.set_label("cosine, the city's mean taken off", fontsize=8)
    return figure
