"""Small made-up maps and the check of a table's contract, for the tests of the vector side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely

from model_code.city import Boundary, Partition, Polygons, Squares
from model_code.contracts import Checker, conform
from model_code.geo.regions import make_boundary, make_regions
from model_code.rejections import Rejections
from model_code.tables import contract

BOX = (-74.02, 40.70, -73.97, 40.74)  # about 4.2 x 4.4 km of New York
CRS = "EPSG:32618"
GIVEN = Polygons(kind="polygons", path="", id="")
SQUARES = Squares(kind="square", size_m=500)


def keeps_contract(name: str, data: Any) -> pa.Table:
    """The table as it would be written; raises where it breaks its contract."""
    if isinstance(data, gpd.GeoDataFrame):
        data = pd.DataFrame(data.to_wkb())
    if isinstance(data, pd.DataFrame):
        data = pa.Table.from_pandas(data, preserve_index=False)
    table = conform(contract(name), data)
    Checker(contract(name)).check(table)
    return table


def rejected_keeps_contract(rejections: Rejections) -> None:
    table = contract("rejected")
    frame = rejections.frame().assign(stage="test").sort_values(list(table.key))
    keeps_contract("rejected", frame)


def boundary(box: tuple[float, float, float, float] = BOX, crs: str = "auto") -> gpd.GeoDataFrame:
    return make_boundary("town", Boundary(bbox=box), crs, "")


def regions(partition: Partition = SQUARES) -> gpd.GeoDataFrame:
    return make_regions(boundary(), partition, "")[0]


def frame_of(shapes: Any, crs: str = CRS) -> gpd.GeoDataFrame:
    """Given shapes as a regions table, in their order; ids are their numbers."""
    width = len(str(len(shapes)))
    ids = [f"{i:0{width}}" for i in range(len(shapes))]
    return gpd.GeoDataFrame({"region_id": ids}, geometry=np.asarray(shapes, object), crs=crs)


def jagged(count: int, seed: int, size: float = 1000.0) -> np.ndarray:
    """Polygons without gaps over a square of `size`, some with many vertices."""
    rng = np.random.default_rng(seed)
    seeds = shapely.MultiPoint(rng.uniform(0, size, (count, 2)))
    cells = shapely.voronoi_polygons(seeds, extend_to=shapely.box(0, 0, size, size))
    cells = shapely.intersection(shapely.get_parts(cells), shapely.box(0, 0, size, size))
    return shapely.segmentize(cells, size / 40)


def naive_locate(shapes: Any, x: Any, y: Any) -> np.ndarray:
    """The first shape that covers each point, one by one."""
    found = []
    for px, py in zip(x, y, strict=True):
        point = shapely.Point(px, py) if np.isfinite([px, py]).all() else shapely.Point()
        hits = [i for i, shape in enumerate(shapes) if shape.covers(point)]
        found.append(min(hits, default=-1))
    return np.array(found, np.int64)


def write(path: Path, frame: pd.DataFrame) -> str:
    """The frame as the file that its name asks for; returns the name."""
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_file(path)
    return path.name


def write_bare(path: Path, frame: gpd.GeoDataFrame) -> str:
    """The frame as GeoParquet that states no CRS, whatever its name; returns the name."""
    frame.set_crs(None, allow_override=True).to_parquet(path)
    return path.name
