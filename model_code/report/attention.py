"""LMEMR from inside: which neighbours its graph attends to, on the map, and its modalities in two
dimensions with and without the contrast between them.

Pictures are drawn with the tools of `report.figures`. N regions, E edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure

from model_code.report import palette
from model_code.report.figures import (
    DIVERGING,
    as_picture,
    fill_map,
    headed,
    map_axes,
    map_size,
    new_figure,
    of_regions,
)
from model_code.report.shapes import outlines

if TYPE_CHECKING:
    import geopandas as gpd

TITLES = {
    "satellite": "satellite",
    "heights": "building heights",
    "street_view": "street views",
    "pois": "POIs",
}
_CONTRAST = {"with": "with the contrast", "without": "without it"}


def received(attention: pd.DataFrame) -> pd.Series[float]:
    """By region, the attention that its neighbours give to it, as a multiple of what it would get if
    each gave the same to all.

    Args:
        attention: rows of one modality of the table `lmemr_attention`.
    """
    shares = 1 / attention.groupby("region_id")["weight"].transform("size")
    sums = attention.assign(even=shares).groupby("neighbour_id")[["weight", "even"]].sum()
    found: pd.Series[float] = sums["weight"].div(sums["even"])
    return found


def mean_over_modalities(attention: pd.DataFrame) -> pd.DataFrame:
    """region_id, neighbour_id and the mean weight over the modalities."""
    means = attention.groupby(["region_id", "neighbour_id"])["weight"].mean()
    return means.reset_index()


def match_sentences(states: pd.DataFrame) -> list[str]:
    """How often a region's nearest state in another modality is its own, with and without the
    contrast; states are the table `lmemr_states`."""
    said = []
    for contrast, rows in states.groupby("contrast", sort=True):
        share, regions = rows["match_share"].mean(), rows["region_id"].nunique()
        if pd.notna(share):
            text = _CONTRAST[str(contrast)]
            said.append(
                f"{text[0].upper()}{text[1:]}: of {regions:,} regions, the nearest state in another "
                f"modality is the region's own in {share:.0%} of cases (by chance: {1 / regions:.1%})."
            )
    return said


@as_picture
def attention_maps(attention: pd.DataFrame, regions: gpd.GeoDataFrame) -> Figure:
    """A map for each modality of the attention that a region gets from its neighbours (`received`)."""
    names = [name for name in TITLES if (attention["modality"] == name).any()]
    panels = max(len(names), 1)
    columns = min(panels, 2)
    rows = -(-panels // columns)
    width, height = map_size(regions, 3.7)
    figure = new_figure(width * columns, height * rows + 0.4)
    headed(figure, "Attention that neighbours give to a region")
    if not names:
        map_axes(figure.add_subplot(), regions, "no graph attention")
        return figure
    values = {name: received(attention[attention["modality"] == name]) for name in names}
    away = np.concatenate([np.abs(own.to_numpy() - 1) for own in values.values()])
    reach = max(float(np.percentile(away, 98)), 0.01)
    norm = Normalize(1 - reach, 1 + reach)
    all_axes = []
    for number, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, number + 1)
        map_axes(axes, regions, TITLES[name], bar=number == 0)
        filled = fill_map(axes, regions, of_regions(regions, values[name]), DIVERGING, norm)
        all_axes.append(axes)
    bar = figure.colorbar(
        filled, ax=all_axes, orientation="horizontal", fraction=0.03, pad=0.02, aspect=40
    )
    bar.outline.set_visible(False)
    bar.set_label("times an even share; hatched: no neighbour", fontsize=8)
    return figure


@as_picture
def attention_of(
    attention: pd.DataFrame, regions: gpd.GeoDataFrame, chosen: Sequence[str]
) -> Figure:
    """Where the `chosen` regions lie, and around each the neighbours that it attends to: lines as wide as
    their weight, with its percentage, and the neighbours red where it is above an even share, blue where
    below; means over the modalities."""
    pairs = mean_over_modalities(attention)
    pairs["times"] = pairs["weight"] * pairs.groupby("region_id")["weight"].transform("size")
    norm = Normalize(0.5, 1.5)
    chosen = [name for name in chosen if (pairs["region_id"] == name).any()]
    columns = min(4, max(len(chosen), 1))
    rows = -(-max(len(chosen), 1) // columns)
    width, height = map_size(regions, 3.2)
    figure = new_figure(width + 1.7 * columns, max(height, 1.85 * rows + 0.4))
    headed(figure, "Neighbours that single regions attend to")
    halves: Any = figure.subfigures(1, 2, width_ratios=[width, 1.7 * columns])
    left, right = halves
    axes = left.add_subplot()
    map_axes(axes, regions, "where they lie" if chosen else "no graph attention")
    by_id = regions.set_index("region_id")
    rings, _ = outlines(regions.geometry.to_numpy())
    axes.add_collection(
        PolyCollection(rings, facecolor=palette.PALE[0], edgecolor=palette.LINE, lw=0.2)
    )
    if not chosen:
        return figure
    centres = by_id[["x_m", "y_m"]]
    for number, name in enumerate(chosen):
        own = pairs[pairs["region_id"] == name]
        _links(axes, own, centres, 3.0, reach=1)
        ring, _ = outlines(by_id.loc[[name]].geometry.to_numpy())
        axes.add_collection(
            PolyCollection(ring, facecolor=palette.ACCENT, edgecolor=palette.INK, lw=0.4)
        )
        axes.annotate(str(number + 1), tuple(centres.loc[name]), xytext=(5, 5), fontsize=8,
                      textcoords="offset points", fontweight="bold", color=palette.INK)  # fmt: skip
        panel = right.add_subplot(rows, columns, number + 1)
        near = by_id.loc[[name, *own["neighbour_id"]]]
        west, south, east, north = near.total_bounds
        pad = 0.04 * max(east - west, north - south)
        panel.set(xlim=(west - pad, east + pad), ylim=(south - pad, north + pad))
        panel.set_aspect("equal")
        panel.set_axis_off()
        panel.set_title(f"{number + 1}: region {name}"[:24], fontsize=7.5)
        shapes, owner = outlines(near.geometry.to_numpy())
        fills = [to_rgba("white"), *DIVERGING(norm(own["times"].to_numpy()))]
        panel.add_collection(
            PolyCollection(
                shapes, facecolor=[fills[i] for i in owner], edgecolor=palette.LINE, lw=0.6
            )
        )
        _links(panel, own, centres, 14.0, reach=0.66)
        for neighbour, weight in zip(own["neighbour_id"], own["weight"], strict=True):
            x, y = centres.loc[neighbour]
            panel.text(
                x, y, f"{weight:.0%}", ha="center", va="center", fontsize=7, color=palette.INK
            )
    return figure


def _links(
    axes: Any, own: pd.DataFrame, centres: pd.DataFrame, widest: float, *, reach: float
) -> None:
    """Lines from a region to its neighbours, a share `reach` of the way; a weight of one would be
    `widest` points."""
    start, end = (centres.loc[own[name]].to_numpy(float) for name in ("region_id", "neighbour_id"))
    axes.add_collection(
        LineCollection(
            list(np.stack([start, start + reach * (end - start)], axis=1)),
            linewidths=widest * own["weight"].to_numpy(),
            colors=palette.INK,
            alpha=0.75,
            capstyle="butt",
        )
    )


@as_picture
def modality_scatter(states: pd.DataFrame) -> Figure:
    """States of the modalities in two dimensions, with and without the contrast between them (as far as
    the city has both).

    Args:
        states: the table `lmemr_states`.
    """
    contrasts = [name for name in _CONTRAST if (states["contrast"] == name).any()]
    names = [name for name in TITLES if (states["modality"] == name).any()]
    colours = dict(zip(names, palette.qualitative(len(names)), strict=True))
    figure = new_figure(0.4 + 3.5 * max(len(contrasts), 1), 4.1)
    headed(figure, "Modalities of the regions")
    for number, contrast in enumerate(contrasts):
        own = states[states["contrast"] == contrast]
        axes = figure.add_subplot(1, len(contrasts), number + 1)
        size = float(np.clip(4000 / max(len(own), 1), 2, 14))
        for name in names:
            rows = own[own["modality"] == name]
            axes.scatter(rows["axis_1"], rows["axis_2"], s=size, color=colours[name], alpha=0.7,
                         linewidths=0, label=TITLES[name])  # fmt: skip
        kind = {"tsne": "t-SNE", "pca": "PCA"}[str(own["projection"].iloc[0])]
        axes.set_title(f"{_CONTRAST[contrast]} ({kind})", fontsize=8.5)
        axes.set_xticks([])
        axes.set_yticks([])
    if contrasts:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, markerscale=2)
    return figure
