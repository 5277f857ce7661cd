"""What a raster says of each polygon: exact area-weighted mean, sum or majority.

The share of a raster cell inside a polygon comes from the signed-area accumulation that
anti-aliasing rasterisers of fonts use: each edge is cut at the grid lines, each piece adds its
trapezoid to its own cell and its height to all cells on the right. The result is exact whatever the
size of a cell beside a polygon, and costs as much as the outline has cells, not as the area has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from rasterio.windows import Window

from model_code.geo.raster import apply, open_raster, read_window

Aggregate = Literal["mean", "sum", "majority"]
TILE_PX = 2048
STRIP_CELLS = 4 << 20


@dataclass(frozen=True)
class Runs:
    """Stretches of cells in one row that lie in one polygon with the same share [R]."""

    polygon: NDArray[np.int64]
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    length: NDArray[np.int64]
    share: NDArray[np.float64]

    def __getitem__(self, chosen: Any) -> Runs:
        return Runs(
            self.polygon[chosen],
            self.row[chosen],
            self.col[chosen],
            self.length[chosen],
            self.share[chosen],
        )

    def cells(self) -> Runs:
        """The same shares cell by cell: every length is 1."""
        before = np.cumsum(self.length) - self.length
        run = np.repeat(np.arange(len(self.length)), self.length)
        cells = self[run]
        col = cells.col + np.arange(len(run)) - before[run]
        return Runs(cells.polygon, cells.row, col, np.ones_like(col), cells.share)


def cell_shares(polygons: NDArray[np.object_], height: int, width: int) -> Runs:
    """Share of each grid cell that lies inside each polygon, ordered by polygon, row, column.

    Args:
        polygons: [P] valid polygons or multipolygons in cell coordinates (x = column, y = row; cell
            (r, c) is the square from (c, r) to (c + 1, r + 1)).
        height: rows of the grid; what lies outside the grid is left out.
        width: columns of the grid.
    """
    x0, y0, x1, y1, owner = _edges(polygons, height, width)
    edge, t = _cuts(x0, y0, x1, y1)
    # Pieces between consecutive cuts of one edge; each lies in one cell.
    same = edge[1:] == edge[:-1]
    edge, a, b = edge[:-1][same], t[:-1][same], t[1:][same]
    dx, dy = (x1 - x0)[edge], (y1 - y0)[edge]
    middle = (a + b) / 2
    x_middle, y_middle = x0[edge] + middle * dx, y0[edge] + middle * dy
    # Column `width` takes what lies on the right border.
    col = np.clip(np.floor(x_middle).astype(np.int64), 0, width)
    row = np.clip(np.floor(y_middle).astype(np.int64), 0, height - 1)
    rise = (b - a) * dy
    key = (owner[edge] * height + row) * (width + 1) + col
    key, cell = np.unique(key, return_inverse=True)
    area = np.bincount(cell, rise * (col + 1 - x_middle), len(key))
    rise = np.bincount(cell, rise, len(key))

    line, col = np.divmod(key, width + 1)
    polygon, row = np.divmod(line, height)
    after = np.cumsum(rise)
    first = np.r_[True, line[1:] != line[:-1]] if len(line) else np.empty(0, bool)
    start = (after - rise)[first]  # rounding left over from the lines above is taken off
    after -= start[np.cumsum(first) - 1] if len(line) else 0
    share = after - rise + area
    gap = np.where(np.r_[~first[1:], False], np.r_[col[1:], 0] - col - 1, 0) if len(line) else col
    runs = Runs(
        np.concatenate([polygon, polygon]),
        np.concatenate([row, row]),
        np.concatenate([col, col + 1]),
        np.concatenate([np.ones_like(gap), gap]),
        np.concatenate([share, after]),
    )
    kept = (runs.length > 0) & (runs.share > 1e-9) & (runs.col < width)
    runs = runs[kept]
    return runs[np.lexsort((runs.col, runs.row, runs.polygon))]


def _edges(
    polygons: NDArray[np.object_], height: int, width: int
) -> tuple[NDArray[np.float64], ...]:
    """Directed edges that are not horizontal, clipped to the grid, and the polygon of each."""
    bounds = shapely.bounds(polygons)
    over = (bounds[:, :2] < 0).any(1) | (bounds[:, 2:] > [width, height]).any(1)
    clipped = np.array(polygons, dtype=object)
    clipped[over] = shapely.intersection(clipped[over], shapely.box(0, 0, width, height))
    parts, part_of = shapely.get_parts(clipped, return_index=True)
    flat = shapely.get_type_id(parts) == 3  # touching the grid's border leaves lines and points
    rings, ring_of = shapely.get_rings(
        shapely.orient_polygons(parts[flat], exterior_cw=True), return_index=True
    )
    points, point_of = shapely.get_coordinates(rings, return_index=True)
    edge = (point_of[1:] == point_of[:-1]) & (points[1:, 1] != points[:-1, 1])
    owner = part_of[flat][ring_of][point_of[:-1][edge]]
    start, end = points[:-1][edge], points[1:][edge]
    return start[:, 0], start[:, 1], end[:, 0], end[:, 1], owner.astype(np.int64)


def _cuts(
    x0: NDArray[np.float64],
    y0: NDArray[np.float64],
    x1: NDArray[np.float64],
    y1: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where edges cross grid lines: edge and position 0..1 on it, both ends included, in order."""
    every = np.arange(len(x0))
    edges, positions = [every, every], [np.zeros(len(x0)), np.ones(len(x0))]
    for a, b in ((x0, x1), (y0, y1)):
        first = np.floor(np.minimum(a, b)).astype(np.int64) + 1
        count = np.maximum(np.ceil(np.maximum(a, b)).astype(np.int64) - first, 0)
        edge = np.repeat(every, count)
        line = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        edges.append(edge)
        positions.append((line - a[edge]) / (b - a)[edge])
    edge, t = np.concatenate(edges), np.concatenate(positions)
    order = np.lexsort((t, edge))
    return edge[order], t[order]


def zonal(
    regions: gpd.GeoDataFrame,
    path: str,
    *,
    band: int = 1,
    aggregate: Aggregate = "mean",
    nodata: float | None = None,
    key: str = "path",
    given: str | None = None,
    crs: str | None = None,
) -> pd.DataFrame:
    """One band of a raster over each region.

    Every cell counts with the exact share of it that lies in the region, in the raster's own grid:
    the regions' vertices are transformed into the raster's CRS, the pixels are never resampled.

    Args:
        regions: [N] polygons with a CRS, at most one row a region.
        path: GeoTIFF or anything that rasterio opens.
        band: 1-based.
        aggregate: `mean` over the part with data; `sum` of cell values times share, so that a
            partition of the raster keeps its total (parts without data add nothing); `majority`:
            the value with the largest area, the smallest of equals.
        nodata: value without data, beside what the file itself declares.
        key: config key of the path, for errors.
        given: `format` of the config.
        crs: `crs` of the config, for a raster that states none.

    Returns:
        [N] in the order and index of `regions`: `value` (NaN where nothing has data), `coverage`
        (share of the region's area with data, 0..1).

    Raises:
        DataError: the raster cannot be read, has no CRS or another than `crs`, or lacks the band.
    """
    with open_raster(path, key, (band,), given, crs) as (raster, own_crs):
        outlines = regions.geometry.to_crs(own_crs)
        polygons = shapely.transform(
            np.asarray(outlines, dtype=object), lambda xy: apply(~raster.transform, xy)
        )
        whole = shapely.area(polygons)
        n = len(regions)
        weight, total = np.zeros(n), np.zeros(n)
        classes: list[pd.DataFrame] = []
        for chosen, runs, row, col in _tiles(polygons, raster.height, raster.width):
            for strip, first, last in _strips(runs, col):
                window = Window(col[0], row[0] + first, col[1] - col[0], last - first)
                pixels, valid = read_window(raster, (band,), window, nodata)
                cells = strip.cells()
                at = (cells.row - first) * (col[1] - col[0]) + cells.col
                use = valid.ravel()[at]
                region = chosen[cells.polygon[use]]
                value, share = pixels[0].ravel()[at[use]].astype(float), cells.share[use]
                weight += np.bincount(region, share, n)
                if aggregate == "majority":
                    found = pd.DataFrame({"region": region, "value": value, "area": share})
                    classes.append(found.groupby(["region", "value"]).sum().reset_index())
                else:
                    total += np.bincount(region, share * value, n)
    result = np.full(n, np.nan)
    has = weight > 1e-9 * whole  # less is the rounding of a common border
    if aggregate == "mean":
        result[has] = total[has] / weight[has]
    elif aggregate == "sum":
        result[has] = total[has]
    elif classes:
        areas = pd.concat(classes).groupby(["region", "value"]).sum().reset_index()
        areas = areas.sort_values(["region", "area", "value"], ascending=[True, False, True])
        areas = areas.drop_duplicates("region")
        result[areas["region"]] = areas["value"]
        result[~has] = np.nan
    coverage = np.minimum(np.divide(weight, whole, out=np.zeros(n), where=whole > 0), 1.0)
    return pd.DataFrame({"value": result, "coverage": coverage}, index=regions.index)


def _tiles(
    polygons: NDArray[np.object_], height: int, width: int
) -> Iterator[tuple[NDArray[np.int64], Runs, tuple[int, int], tuple[int, int]]]:
    """Polygons of one neighbourhood at a time: their indices, their runs, and the rows and columns
    [from, to) of the raster that they touch; rows and columns of the runs count from there."""
    bounds = shapely.bounds(polygons)
    low = np.floor(np.clip(bounds[:, :2], 0, [width, height]))
    high = np.ceil(np.clip(bounds[:, 2:], 0, [width, height]))
    inside = np.flatnonzero((low < high).all(1))
    centre = ((low + high)[inside] // (2 * TILE_PX)).astype(np.int64)
    tile, member = np.unique(centre[:, ::-1], axis=0, return_inverse=True)
    for i in range(len(tile)):
        chosen = inside[member.ravel() == i]
        c0, r0 = low[chosen].min(0).astype(int)
        c1, r1 = high[chosen].max(0).astype(int)
        local = shapely.transform(polygons[chosen], lambda xy, o=(c0, r0): xy - o)
        yield chosen, cell_shares(local, r1 - r0, c1 - c0), (r0, r1), (c0, c1)


def _strips(runs: Runs, col: tuple[int, int]) -> Iterator[tuple[Runs, int, int]]:
    """Runs by strips of rows [from, to) that fit in memory."""
    if not len(runs.row):
        return
    step = max(1, STRIP_CELLS // (col[1] - col[0]))
    last = int(runs.row.max()) + 1
    for first in range(0, last, step):
        chosen = (runs.row >= first) & (runs.row < first + step)
        yield runs[chosen], first, min(first + step, last)
