"""Graphs of regions on the map: the strongest links of each view. N regions."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model_code.graphs.views import Graph
from model_code.report import palette
from model_code.report.figures import as_picture, headed, map_axes, map_size, new_figure

_TITLES = {
    "function": "Function: alike in POIs",
    "mobility": "Mobility: trips between them",
    "distance": "Distance: near one another",
}


def strongest(graph: Graph, region_ids: NDArray[np.str_], count: int, view: str) -> pd.DataFrame:
    """The `count` strongest links of a graph, each pair once: view, region_a, region_b, weight."""
    once = graph.row < graph.column
    row, column, weight = graph.row[once], graph.column[once], graph.weight[once]
    top = np.argsort(-weight, kind="stable")[:count]
    ends = np.sort(np.stack([region_ids[row[top]], region_ids[column[top]]]), axis=0)
    return pd.DataFrame(
        {
            "view": view,
            "region_a": ends[0],
            "region_b": ends[1],
            "weight": weight[top].astype(np.float64),
        }
    )


@as_picture
def graph_maps(links: pd.DataFrame, regions: gpd.GeoDataFrame) -> Figure:
    """A map for each view, with its links from pale (weak) to dark (strong)."""
    views = [view for view in _TITLES if (links["view"] == view).any()]
    panels = max(len(views), 1)
    width, height = map_size(regions, 4)
    figure = new_figure(width * panels, height + 0.3)
    headed(figure, "Graphs of the city, their strongest links")
    centres = regions.set_index("region_id")[["x_m", "y_m"]]
    for panel in range(panels):
        axes = figure.add_subplot(1, panels, panel + 1)
        regions.plot(ax=axes, color=palette.PALE[0], edgecolor=palette.LINE, linewidth=0.3)
        if not views:
            map_axes(axes, regions, "no links")
            continue
        own = links[links["view"] == views[panel]].sort_values("weight", kind="stable")
        map_axes(axes, regions, f"{_TITLES[views[panel]]} ({len(own):,})")
        ends = [centres.loc[own[name]].to_numpy(float) for name in ("region_a", "region_b")]
        rank = own["weight"].rank(pct=True, method="average").to_numpy()
        lines: Any = LineCollection(
            list(np.stack(ends, axis=1)),
            linewidths=0.3 + 1.2 * rank,
            colors=[to_rgba(palette.LINES, alpha) for alpha in 0.1 + 0.7 * rank],
            capstyle="round",
        )
        axes.add_collection(lines)
    return figure
