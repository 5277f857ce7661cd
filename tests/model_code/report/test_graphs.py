from __future__ import annotations

import io

import geopandas as gpd
import numpy as np
from PIL import Image
from shapely.geometry import box

from model_code.report.graphs import graph_maps, strongest
from model_code.tables import contract
from tests.model_code.graphs.places import graphs, places


def test_the_strongest_links_are_named_once_each() -> None:
    city = places()
    ids = np.array([f"r{i:03}" for i in range(40)])[::-1]  # ids need not follow the order of rows
    for view, graph in graphs(city, 4).items():
        rows = strongest(graph, ids, 25, view)
        assert list(rows) == contract("urbanmmcl_graphs").names() and len(rows) == 25
        assert (rows["region_a"] < rows["region_b"]).all()
        assert not rows.duplicated(["region_a", "region_b"]).any()
        matrix = graph.matrix().toarray()
        at = {name: row for row, name in enumerate(ids)}
        own = [
            matrix[at[a], at[b]] for a, b in zip(rows["region_a"], rows["region_b"], strict=True)
        ]
        np.testing.assert_allclose(rows["weight"], own)
        best = np.sort(matrix[np.triu_indices(40, 1)])[::-1][:25]
        np.testing.assert_allclose(rows["weight"], best)


def test_a_map_for_each_view_and_one_where_there_is_no_link() -> None:
    city = places()
    ids = np.array([f"r{i:03}" for i in range(40)])
    x, y = city["xy"].T
    regions = gpd.GeoDataFrame(
        {"region_id": ids, "x_m": x, "y_m": y},
        geometry=[box(a, b, a + 50, b + 50) for a, b in city["xy"]],
        crs=32633,
    )
    graph = graphs(city, 4)["distance"]
    rows = strongest(graph, ids, 25, "distance")
    one, none = (Image.open(io.BytesIO(graph_maps(r, regions))) for r in (rows, rows.iloc[:0]))
    both = graph_maps(gpd.pd.concat([rows, rows.assign(view="function")]), regions)
    assert Image.open(io.BytesIO(both)).width > 1.5 * one.width
    orange = lambda image: (np.asarray(image.convert("RGB"), int) @ [1, 0, -1] > 60).sum()  # noqa: E731
    assert orange(one) > 50 and orange(none) == 0
