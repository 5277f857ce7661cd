"""Which region a point lies in: squares by arithmetic, H3 cells by index, polygons by a grid.

The rule at borders is the same everywhere: a point on the border of several regions belongs to the
one that stands first in the regions table, and so does a point where polygons overlap. (An H3 cell
is decided by H3 itself, which gives every point to one cell.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model_code.city import Hexagons, Partition, Polygons, Squares
from model_code.geo.vector import transform_in_place

if TYPE_CHECKING:
    import geopandas as gpd

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# Points that one thread works on at a time: small enough for the processor's cache.
_CHUNK = 1 << 16
# A lookup table of the whole box is used up to this many cells (int32: 128 MiB).
_DENSE = 1 << 25
# Fineness of the grid under polygons, and bounds on its cells.
_CELLS_A_POLYGON = 200
_CELLS = (1 << 16, 1 << 22)
# Slack in units of cells: far above rounding errors, far below what costs time.
_ROUNDING = 1e-6


class _Index(Protocol):
    """Finds points of one CRS; `degrees`: the CRS is EPSG:4326."""

    degrees: bool

    def locate(self, x: Floats, y: Floats) -> Indices: ...


class Locator:
    """Finds the region of each point.

    Squares and H3 cells that are kept whole are found by arithmetic; where cells are cut at the
    boundary (`edge: clip`), and for given polygons, the geometry decides.

    Args:
        regions: contract `regions`, in its order.
        partition: the partition that they were made with.
    """

    def __init__(self, regions: gpd.GeoDataFrame, partition: Partition) -> None:
        import pyproj

        self._index: _Index
        if isinstance(partition, Polygons) or partition.edge == "clip":
            self._index = _PolygonIndex(regions.geometry.to_numpy())
        elif isinstance(partition, Squares):
            self._index = _SquareIndex(regions.geometry.to_numpy(), partition.size_m)
        else:
            self._index = _HexagonIndex(regions["region_id"].to_numpy(), partition)
        source, target = regions.crs, "EPSG:4326"
        if not self._index.degrees:
            source, target = target, source
        self._to_index = pyproj.Transformer.from_crs(source, target, always_xy=True)

    def locate(self, x_m: Floats, y_m: Floats) -> Indices:
        """Row of the regions table for each point [P] in the city's CRS; -1: in no region."""
        return self._locate(x_m, y_m, degrees=False)

    def locate_lonlat(self, lon: Floats, lat: Floats) -> Indices:
        """The same for points [P] in degrees (EPSG:4326)."""
        return self._locate(lon, lat, degrees=True)

    def _locate(self, x: Floats, y: Floats, *, degrees: bool) -> Indices:
        x, y = (np.ascontiguousarray(v, np.float64) for v in (x, y))
        if degrees != self._index.degrees:
            x, y = x.copy(), y.copy()
            _in_threads(
                lambda part: transform_in_place(self._to_index, x[part], y[part]), _chunks(len(x))
            )
        return self._index.locate(x, y)


def _chunks(n: int) -> list[slice]:
    return [slice(at, min(at + _CHUNK, n)) for at in range(0, n, _CHUNK)]


def _in_threads(work: Callable[[slice], None], parts: Sequence[slice]) -> None:
    """Do the parts in threads: PROJ, GEOS, H3 and numpy let go of Python's lock."""
    if len(parts) <= 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(min(len(parts), os.cpu_count() or 1)) as pool:
        list(pool.map(work, parts))


class _SquareIndex:
    """Whole squares of a grid whose lines lie at multiples of the size."""

    degrees = False

    def __init__(self, cells: NDArray[Any], size_m: float) -> None:
        import shapely

        self._size = size_m
        bounds = shapely.bounds(cells)
        column, row = (np.round(bounds[:, axis] / size_m).astype(np.int64) for axis in (0, 1))
        self._west, self._south = column.min(), row.min()
        self._rounding = 4 * np.finfo(float).eps * (np.abs(bounds).max() / size_m + 1)
        self._width = column.max() - self._west + 1
        self._height = row.max() - self._south + 1
        keys = (column - self._west) * self._height + row - self._south
        self._table = _Table(keys, int(self._width * self._height))

    def locate(self, x: Floats, y: Floats) -> Indices:
        found = np.empty(len(x), np.int64)

        def work(part: slice) -> None:
            found[part] = self._find(x[part], y[part])

        _in_threads(work, _chunks(len(x)))
        return found

    def _find(self, x: Floats, y: Floats) -> Indices:
        with np.errstate(invalid="ignore", over="ignore"):
            x_cells, y_cells = x / self._size, y / self._size
            column, row = np.floor(x_cells), np.floor(y_cells)
            found = self._at(column, row)
            # Where rounding may have put a point on the wrong side of a grid line, or on it.
            x_near, y_near = (
                np.abs(cells - line - 0.5) >= 0.5 - self._rounding
                for cells, line in ((x_cells, column), (y_cells, row))
            )
            near = np.flatnonzero(x_near | y_near)
            if len(near):
                column = np.where(x_near, np.round(x_cells), column)[near]
                row = np.where(y_near, np.round(y_cells), row)[near]
                found[near] = self._first_around(x[near], y[near], column, row)
        return found

    def _at(self, column: Floats, row: Floats) -> Indices:
        """Region of a cell; -1 for none. NaN and infinity compare false, hence are in none."""
        column, row = column - self._west, row - self._south
        known = (column >= 0) & (column < self._width) & (row >= 0) & (row < self._height)
        column *= self._height
        column += row
        column[~known] = -1
        return self._table[column.astype(np.int64)]

    def _first_around(self, x: Floats, y: Floats, column: Floats, row: Floats) -> Indices:
        """The first of the up to four squares that hold a point near the lines before a cell."""
        none = np.iinfo(np.int64).max
        first = np.full(len(x), none)
        for c, r in ((column, row), (column - 1, row), (column, row - 1), (column - 1, row - 1)):
            # The very floats of the squares' geometry decide.
            holds = (c * self._size <= x) & (x <= (c + 1) * self._size)
            holds &= (r * self._size <= y) & (y <= (r + 1) * self._size)
            here = np.where(holds, self._at(c, r), -1)
            first = np.where(here >= 0, np.minimum(first, here), first)
        return np.where(first == none, -1, first)


class _HexagonIndex:
    """Whole H3 cells."""

    degrees = True

    def __init__(self, region_ids: NDArray[Any], partition: Hexagons) -> None:
        import h3ronpy
        import pyarrow as pa

        self._resolution = partition.resolution
        cells = h3ronpy.cells_parse(pa.array(region_ids, pa.large_string()))
        self._table = _Hash(np.asarray(pa.array(cells)))

    def locate(self, lon: Floats, lat: Floats) -> Indices:
        import h3ronpy.vector as h3
        import pyarrow as pa

        with np.errstate(invalid="ignore"):
            known = (np.abs(lon) <= 360) & (np.abs(lat) <= 90)
        if not known.all():
            lon, lat = np.where(known, lon, 0.0), np.where(known, lat, 0.0)
        cells = np.empty(len(lon), np.uint64)

        def work(part: slice) -> None:
            found = h3.coordinates_to_cells(lat[part], lon[part], self._resolution)
            cells[part] = np.asarray(pa.array(found))

        _in_threads(work, _chunks(len(lon)))
        return np.where(known, self._table[cells], -1)


class _Hash:
    """Position of a key by hashing; -1 for an unknown one."""

    def __init__(self, keys: NDArray[Any]) -> None:
        import pandas as pd

        self._keys = pd.Index(keys)
        self._keys.get_indexer(keys[:1])  # builds the table before threads ask

    def __getitem__(self, keys: NDArray[Any]) -> Indices:
        return np.asarray(self._keys.get_indexer(keys), np.int64)


class _Table:
    """Position of a key in 0..size-1, or -1: by a table of all keys, or by hashing."""

    def __init__(self, keys: Indices, size: int) -> None:
        self._positions: NDArray[np.int32] | _Hash = _Hash(keys)
        if size < _DENSE:
            self._positions = np.full(size + 1, -1, np.int32)  # the last one answers key -1
            self._positions[keys] = np.arange(len(keys))

    def __getitem__(self, keys: Indices) -> Indices:
        return np.asarray(self._positions[keys], np.int64)


class _PolygonIndex:
    """Polygons under a fine grid: a cell that no border crosses answers at once, the others know
    which polygons to try.

    A cell's entry in `_answer` is the first region that holds it (-1: none), or -2 - k for the k-th
    crossed cell, where polygons `_tries[_starts[k] : _starts[k + 1]]` are tried in this order.
    """

    degrees = False

    def __init__(self, shapes: NDArray[Any]) -> None:
        import shapely

        self._shapes = shapes
        shapely.prepare(shapes)
        bounds = shapely.bounds(shapes)
        south_west, north_east = bounds[:, :2].min(0), bounds[:, 2:].max(0)
        extent = north_east - south_west
        cells = np.clip(_CELLS_A_POLYGON * len(shapes), *_CELLS)
        self._cell = float(max(np.sqrt(extent.prod() / cells), extent.max() / cells))
        self._origin = south_west - self._cell  # one cell of margin around
        self._width, self._height = (int(n) for n in np.ceil(extent / self._cell) + 3)
        self._build(*self._segments())

    def _segments(self) -> tuple[Floats, Floats, Indices]:
        """Ends [S, 2] of all borders' segments in units of cells, and their polygon [S]."""
        import shapely

        parts, polygon = shapely.get_parts(self._shapes, return_index=True)
        rings, part = shapely.get_rings(parts, return_index=True)
        points, ring = shapely.get_coordinates(rings, return_index=True)
        points = (points - self._origin) / self._cell
        same = ring[:-1] == ring[1:]
        return points[:-1][same], points[1:][same], polygon[part[ring[:-1][same]]]

    def _build(self, start: Floats, end: Floats, polygon: Indices) -> None:
        n = len(self._shapes)
        crossed = self._crossed(start, end, polygon)  # cell * n + polygon
        is_crossed = np.zeros(self._width * self._height, bool)
        is_crossed[crossed // n] = True

        held, holder = self._held(start, end, polygon)
        answer = np.full(self._width * self._height + 1, -1, np.int32)  # the last: off the grid
        answer[held[::-1]] = holder[::-1]  # ascending holders: the first one is written last

        # A crossed cell's centre may lie in a polygon that has no border in it, but overlaps.
        doubtful = is_crossed[held]
        tries = np.sort(np.concatenate([crossed, held[doubtful] * n + holder[doubtful]]))
        tries = tries[np.append(True, np.diff(tries) > 0)] if len(tries) else tries
        cell, self._tries = np.divmod(tries, n)
        first = np.flatnonzero(np.append(True, np.diff(cell) > 0))
        self._starts = np.append(first, len(cell))
        answer[cell[first]] = -2 - np.arange(len(first))
        self._answer = answer

    def _crossed(self, start: Floats, end: Floats, polygon: Indices) -> Indices:
        """Keys of all (cell, polygon) where a segment passes, some of them more than once."""
        low, high = np.minimum(start, end), np.maximum(start, end)
        segment, column = _ranges(low[:, 0] - _ROUNDING, high[:, 0] + _ROUNDING)
        (x0, y0), (x1, y1) = start[segment].T, end[segment].T
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (y1 - y0) / (x1 - x0)
            edges = [y0 + (column + side - x0) * slope for side in (-_ROUNDING, 1 + _ROUNDING)]
        steep = ~np.isfinite(slope)
        bottom, top = low[segment, 1], high[segment, 1]
        edges = [np.where(steep, limit, e) for e, limit in zip(edges, (bottom, top), strict=True)]
        lower = np.clip(np.minimum(*edges), bottom, top) - _ROUNDING
        upper = np.clip(np.maximum(*edges), bottom, top) + _ROUNDING
        piece, row = _ranges(lower, upper)
        return (column[piece] * self._height + row) * len(self._shapes) + polygon[segment[piece]]

    def _held(self, start: Floats, end: Floats, polygon: Indices) -> tuple[Indices, Indices]:
        """Cells whose centre lies in a polygon, and that polygon, ascending: by counting borders
        along the rows' middle lines, even-odd."""
        low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
        # Rows whose middle is in [low, high): a vertex on a middle line counts once.
        segment, row = _ranges(np.ceil(low - 0.5), np.ceil(high - 0.5) - 1)
        (x0, y0), (x1, y1) = start[segment].T, end[segment].T
        x = x0 + (row + 0.5 - y0) / (y1 - y0) * (x1 - x0)
        order = np.lexsort((x, row, polygon[segment]))
        entry, leave = order[::2], order[1::2]
        span, column = _ranges(np.ceil(x[entry] - 0.5), np.ceil(x[leave] - 0.5) - 1)
        return column * self._height + row[entry][span], polygon[segment[entry]][span]

    def locate(self, x: Floats, y: Floats) -> Indices:
        found = np.empty(len(x), np.int64)

        def look(part: slice) -> None:
            with np.errstate(invalid="ignore", over="ignore"):
                column = np.floor((x[part] - self._origin[0]) / self._cell)
                row = np.floor((y[part] - self._origin[1]) / self._cell)
                known = (column >= 0) & (column < self._width) & (row >= 0) & (row < self._height)
                cell = np.where(known, column * self._height + row, -1).astype(np.int64)
            found[part] = self._answer[cell]

        _in_threads(look, _chunks(len(x)))
        point = np.flatnonzero(found < -1)
        crossed = -2 - found[point]
        found[point] = -1
        at, stop = self._starts[crossed], self._starts[crossed + 1]
        while len(point):  # a round for each further polygon of a cell, not for each point
            hit = self._try(self._tries[at], x[point], y[point])
            found[point[hit]] = self._tries[at[hit]]
            more = ~hit & (at + 1 < stop)
            point, at, stop = point[more], at[more] + 1, stop[more]
        return found

    def _try(self, tried: Indices, x: Floats, y: Floats) -> NDArray[np.bool_]:
        """Whether each point lies in its polygon, the border included.

        Sorted by polygon, points find its index in the cache; and each polygon is one thread's own,
        as GEOS builds that index during the first questions.
        """
        import shapely

        order = np.argsort(tried)
        tried = tried[order]
        hit = np.empty(len(tried), bool)

        def work(part: slice) -> None:
            mine = order[part]
            hit[mine] = shapely.intersects_xy(self._shapes[tried[part]], x[mine], y[mine])

        parts = min(len(self._shapes), len(tried) // 4096 + 1, 64)
        first = np.linspace(0, len(self._shapes), parts, endpoint=False).astype(np.int64)
        starts = np.searchsorted(tried, first)
        stops = np.append(starts[1:], len(tried))
        _in_threads(work, [slice(a, b) for a, b in zip(starts, stops, strict=True)])
        return hit


def _ranges(low: Floats, high: Floats) -> tuple[Indices, Indices]:
    """All whole numbers from floor(low) to floor(high) of each pair [P]: which pair, which number."""
    low, high = np.floor(low).astype(np.int64), np.floor(high).astype(np.int64)
    counts = np.maximum(high - low + 1, 0)
    pair = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return pair, np.arange(len(pair)) - first[pair] + low[pair]
