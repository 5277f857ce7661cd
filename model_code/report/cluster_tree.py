"""Regions in clusters that are nested: Ward's tree of their vectors, and maps of 2 to 7 clusters.

Pictures are drawn with the tools of `report.figures`. N regions, D width of a vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

CLUSTERS = 7  # as in LMEMR's Fig. 11; UrbanMMCL's Fig. 8 goes to 6
WARD_REGIONS = 3000  # above, the tree of all pairs is too large
_FEWEST = CLUSTERS + 1  # distinct regions of a tree


def clusters(vectors: NDArray[Any], count: int = CLUSTERS) -> NDArray[np.int64]:
    """The cluster [N] of each row of `vectors` [N, D], 0 the largest: Ward's tree (k-means above 3,000
    regions), cut into `count` or fewer."""
    count = min(count, len(vectors))
    if count < 2:
        return np.zeros(len(vectors), np.int64)
    if len(vectors) <= WARD_REGIONS:
        return _cut(tree(vectors), count)
    from sklearn.cluster import KMeans

    return _by_size(KMeans(count, n_init=4, random_state=0).fit_predict(vectors))


def typical_regions(
    codes: NDArray[np.int64], vectors: pd.DataFrame, among: pd.Index[Any]
) -> list[str]:
    """Of each cluster `codes` [N], the region of `among` that is nearest to the cluster's mean; a cluster
    without any is left out.

    Args:
        vectors: a row a region (index), in the order of the codes.
    """
    chosen = []
    for code in range(int(codes.max()) + 1 if len(codes) else 0):
        own = vectors[codes == code]
        able = own[own.index.isin(among)]
        if len(able):
            away = ((able - own.mean(axis=0)) ** 2).sum(axis=1)
            chosen.append(str(away.idxmin()))
    return chosen


def has_tree(vectors: NDArray[Any]) -> bool:
    """Whether regions are clustered by a tree that can be shown: enough of `vectors` [N, D] differ, and
    they are not too many."""
    return len(vectors) <= WARD_REGIONS and len(np.unique(vectors, axis=0)) >= _FEWEST


def tree(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Ward's tree of `vectors` [N, D] as scipy's linkage [N - 1, 4]; memory is N x N."""
    from scipy.cluster.hierarchy import linkage

    links: NDArray[np.float64] = linkage(vectors, "ward")
    return links


def nested(links: NDArray[np.float64]) -> dict[int, NDArray[np.int64]]:
    """For 2 to 7 clusters of a tree, by region [N] the finest cluster that its own holds most of: a number
    (and a colour) stays with a cluster as others split from it."""
    finest = _cut(links, CLUSTERS)
    found = {}
    for count in range(2, CLUSTERS + 1):
        own = _cut(links, count)
        held = np.zeros((count, CLUSTERS), np.int64)
        np.add.at(held, (own, finest), 1)
        found[count] = held.argmax(axis=1)[own]
    return found


def _cut(links: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    from scipy.cluster.hierarchy import fcluster

    return _by_size(fcluster(links, count, "maxclust"))


def _by_size(found: NDArray[Any]) -> NDArray[np.int64]:
    _, codes, sizes = np.unique(found, return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return rank[codes]


@as_picture
def tree_with_maps(
    regions: gpd.GeoDataFrame, vectors: pd.DataFrame, *, title: str, noun: str = "clusters"
) -> Figure:
    """Ward's tree, cut at 7 clusters (below each, how many regions), and the maps of 2 to 7 of them.

    Args:
        vectors: a row a region (index), such as have a tree (`has_tree`); regions without are hatched.
        noun: what the clusters are called.
    """
    from scipy.cluster.hierarchy import dendrogram, to_tree

    colours = palette.qualitative(CLUSTERS)
    width, height = map_size(regions, 2.5)
    figure = new_figure(3 * width, 2.0 + 2 * (height - 0.3))
    headed(figure, title)
    grid = figure.add_gridspec(3, 3, height_ratios=[1.7, height, height])
    top = figure.add_subplot(grid[0, :])
    links = tree(vectors.to_numpy(np.float64))
    drawn = dendrogram(links, CLUSTERS, "lastp", no_plot=True)
    for x, y in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        top.plot(x, y, color=palette.FAINT, lw=1.2)
    nodes = to_tree(links, rd=True)[1]
    codes = nested(links)
    for number, leaf in enumerate(drawn["leaves"]):
        members = nodes[leaf].pre_order()
        colour = colours[codes[CLUSTERS][members[0]]]
        top.scatter(5 + 10 * number, 0, s=40, color=colour, zorder=3, clip_on=False)
        top.annotate(f"{len(members):,}", (5 + 10 * number, 0), xytext=(0, -14), fontsize=7.5,
                     textcoords="offset points", ha="center")  # fmt: skip
    top.set(xticks=[], ylim=(0, None))
    top.set_ylabel("distance", fontsize=8)
    top.spines["bottom"].set_visible(False)
    norm = BoundaryNorm(np.arange(-0.5, CLUSTERS), CLUSTERS)
    for number, (count, own) in enumerate(codes.items()):
        axes = figure.add_subplot(grid[1 + number // 3, number % 3])
        map_axes(axes, regions, f"{count} {noun}")
        values = of_regions(regions, pd.Series(own, vectors.index))
        fill_map(axes, regions, values, ListedColormap(colours), norm)
    return figure
