"""How kinds of day split from one another: the tree of all regions' days, and maps of 2 to 7 kinds.

Pictures are drawn with the tools of `report.figures`. N regions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from model_code.report import palette
from model_code.report.figures import (
    as_picture,
    fill_map,
    headed,
    map_axes,
    map_size,
    new_figure,
    of_regions,
)
from model_code.report.hours import KINDS, WARD_REGIONS, kinds_of_day

if TYPE_CHECKING:
    import geopandas as gpd

_FEWEST = 8  # regions, one more than kinds


def has_tree(flows: pd.DataFrame) -> bool:
    """Whether the days of these regions are clustered by a tree that can be shown."""
    distinct = len(np.unique(flows.to_numpy(float), axis=0))
    return distinct >= _FEWEST and len(flows) <= WARD_REGIONS


def nested_kinds(flows: pd.DataFrame) -> dict[int, pd.Series[int]]:
    """For 2 to 7 kinds of day, by region the finest kind that its own kind holds most of: a number (and
    a colour) stays with a kind as others split from it."""
    finest = kinds_of_day(flows, KINDS)
    found = {}
    for count in range(2, KINDS + 1):
        kinds = kinds_of_day(flows, count)
        largest = finest.groupby(kinds).agg(lambda held: held.value_counts().index[0])
        found[count] = kinds.map(largest)
    return found


@as_picture
def tree_with_maps(regions: gpd.GeoDataFrame, flows: pd.DataFrame) -> Figure:
    """Ward's tree of log(1 + flow) over 24 hours, cut at 7 kinds, and the maps of 2 to 7 of them.

    Args:
        flows: of `hours.days`, of regions that have a tree (`has_tree`).
    """
    from scipy.cluster.hierarchy import dendrogram, linkage, to_tree

    colours = palette.qualitative(KINDS)
    width, height = map_size(regions, 2.5)
    figure = new_figure(3 * width, 2.0 + 2 * height)
    headed(figure, "How kinds of day split")
    grid = figure.add_gridspec(3, 3, height_ratios=[1.7, height, height])
    top = figure.add_subplot(grid[0, :])
    links = linkage(np.log1p(flows.to_numpy(np.float64)), "ward")
    drawn = dendrogram(links, KINDS, "lastp", no_plot=True)
    for x, y in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        top.plot(x, y, color=palette.FAINT, lw=1.2)
    nodes = to_tree(links, rd=True)[1]
    kinds = nested_kinds(flows)
    for number, leaf in enumerate(drawn["leaves"]):
        members = nodes[leaf].pre_order()
        kind = int(kinds[KINDS].iloc[members[0]])
        top.scatter(5 + 10 * number, 0, s=40, color=colours[kind], zorder=3, clip_on=False)
        top.annotate(f"{len(members):,}", (5 + 10 * number, 0), xytext=(0, -14), fontsize=7.5,
                     textcoords="offset points", ha="center")  # fmt: skip
    top.set(xticks=[], ylim=(0, None))
    top.set_ylabel("distance", fontsize=8)
    top.spines["bottom"].set_visible(False)
    norm = BoundaryNorm(np.arange(-0.5, KINDS), KINDS)
    for number, (count, own) in enumerate(kinds.items()):
        axes = figure.add_subplot(grid[1 + number // 3, number % 3])
        map_axes(axes, regions, f"{count} kinds", bar=number == 0)
        fill_map(axes, regions, of_regions(regions, own), ListedColormap(colours), norm)
    return figure
