"""The boundary, the regions inside it, and which of them share a border."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model_code.city import Boundary, Grid, Hexagons, Partition, Polygons, Squares, Zones
from model_code.errors import ConfigError, DataError, Problem
from model_code.geo.vector import as_ids, check_columns, one_file, polygonal, project, read_geo
from model_code.rejections import Rejections

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

# More cells than this over the boundary's box is a slip in the config, not a city.
MAX_CELLS = 2_000_000
# Borders of two regions closer than this are one border; a shared border shorter than 1 cm is none.
_GAP_M = 1e-3
# A smaller share of a polygon inside the boundary is rounding along a common border.
_DUST = 1e-6


# --- boundary ------------------------------------------------------------------------------------


def make_boundary(name: str, boundary: Boundary, crs: str, root: str) -> gpd.GeoDataFrame:
    """The city's outline, projected (contract `boundary`, one row).

    Args:
        name: the city.
        boundary: a box in degrees or a file; long edges are densified before they are projected.
        crs: EPSG code, or `auto` for the UTM zone of the outline's centroid.
        root: data root.

    Raises:
        ConfigError: the CRS is unknown, not in metres, or not made for this place.
        DataError: the file holds no polygon.
    """
    import geopandas as gpd
    import shapely

    if boundary.bbox is not None:
        outline, source_crs = shapely.box(*boundary.bbox), "EPSG:4326"
    else:
        assert boundary.path is not None
        key = "boundary.path"
        frame = read_geo(one_file(boundary.path, root, key), key, boundary.format, boundary.crs)
        shapes = polygonal(frame.geometry.to_numpy())
        outline, source_crs = shapely.union_all(shapes[~shapely.is_missing(shapes)]), frame.crs
        if not outline.area > 0:
            raise DataError(
                f"boundary.path: {boundary.path} holds no polygon",
                fix="give a file of polygons, or a bbox",
            )
    west, south, east, north = outline.bounds
    outline = shapely.segmentize(outline, max(east - west, north - south) / 100)
    shape = gpd.GeoSeries([outline], crs=source_crs)
    x, y = shapely.get_coordinates(outline.centroid).T
    (lon,), (lat,) = project(x, y, source_crs, "EPSG:4326")
    target = _city_crs(name, crs, float(lon), float(lat))
    geometry = polygonal(shape.to_crs(target).to_numpy())
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        raise ConfigError(
            f"city {name!r}",
            [Problem("crs", f"{target} cannot show the boundary", "use crs: auto")],
        )
    return gpd.GeoDataFrame(
        {"city": [name], "crs": [target], "area_km2": shapely.area(geometry) / 1e6},
        geometry=geometry,
        crs=target,
    )


def utm_crs(lon: float, lat: float) -> str:
    """EPSG code of the UTM zone of a place (UPS near the poles)."""
    if lat > 84 or lat < -80:
        return "EPSG:32661" if lat > 0 else "EPSG:32761"
    zone = math.floor((lon + 180) / 6) % 60 + 1
    return f"EPSG:{32600 + zone if lat >= 0 else 32700 + zone}"


def _city_crs(name: str, crs: str, lon: float, lat: float) -> str:
    """The CRS to work in, checked: a metre in it must be a metre on the ground."""
    import pyproj

    def refuse(what: str) -> ConfigError:
        fix = f"use crs: auto (here {utm_crs(lon, lat)}), or another projected CRS in metres"
        return ConfigError(f"city {name!r}", [Problem("crs", what, fix)])

    if crs == "auto":
        return utm_crs(lon, lat)
    try:
        known = pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise refuse(f"{crs} is unknown to PROJ") from error
    units = {axis.unit_conversion_factor for axis in known.axis_info}
    if not known.is_projected or units != {1.0}:
        raise refuse(f"{crs} ({known.name}) is not a projected CRS in metres")
    scale = pyproj.Proj(known).get_factors(lon, lat).areal_scale
    if not 0.95 <= scale <= 1.05:
        raise refuse(
            f"{crs} ({known.name}) shows areas here {scale:.2f} times as large as they are"
        )
    return crs


# --- regions -------------------------------------------------------------------------------------


def make_regions(
    boundary: gpd.GeoDataFrame, partition: Partition, root: str
) -> tuple[gpd.GeoDataFrame, Rejections]:
    """The city's regions, ordered by id (contract `regions`), and the polygons that are none.

    Ids are text and ordered as text, so polygon "10" stands before "2". A square is called by its
    column and row in a grid that starts at the CRS's origin (`x500_y12`), an H3 cell by its index,
    so the same place has the same id whatever the boundary. Cells at the boundary follow `Grid`;
    given polygons are kept whole, and those without area inside the boundary are rejected.

    Args:
        boundary: contract `boundary`.
        partition: how to divide it.
        root: data root.

    Raises:
        ConfigError: the cells are too many.
        DataError: no usable polygon lies in the boundary, or the id column is missing.
    """
    rejections = Rejections()
    outline = boundary.geometry.iloc[0]
    if isinstance(partition, Polygons):
        ids, geometries, share = _polygons(outline, boundary.crs, partition, root, rejections)
    else:
        if isinstance(partition, Squares):
            ids, cells = _squares(outline, partition)
        else:
            ids, cells = _hexagons(outline, boundary.crs, partition)
        ids, geometries, share = _inside(outline, ids, cells, partition)
    return _frame(ids, geometries, share, boundary.crs), rejections


def square_bounds(
    column: NDArray[np.int64], row: NDArray[np.int64], size_m: float
) -> tuple[Any, Any, Any, Any]:
    """West, south, east, north of squares [N]: the very floats of their geometry."""
    return column * size_m, row * size_m, (column + 1) * size_m, (row + 1) * size_m


def _squares(outline: Any, partition: Squares) -> tuple[NDArray[Any], NDArray[Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import shapely

    size = partition.size_m
    west, south, east, north = (np.floor(v / size) for v in outline.bounds)
    _check_count((east - west + 1) * (north - south + 1), "partition.size_m", "larger squares")
    columns, rows = (
        v.ravel().astype(np.int64)
        for v in np.meshgrid(np.arange(west, east + 1), np.arange(south, north + 1))
    )
    names = (pa.array(numbers).cast(pa.string()) for numbers in (columns, rows))
    ids = pc.binary_join_element_wise(pa.scalar("x"), next(names), pa.scalar("_y"), next(names), "")
    return ids.to_numpy(zero_copy_only=False), shapely.box(*square_bounds(columns, rows, size))


def _hexagons(outline: Any, crs: Any, partition: Hexagons) -> tuple[NDArray[Any], NDArray[Any]]:
    import geopandas as gpd
    import h3ronpy
    import h3ronpy.vector as h3
    import pyarrow as pa
    import shapely

    degrees = gpd.GeoSeries([outline], crs=crs).to_crs("EPSG:4326").iloc[0]
    area_km2 = np.asarray(pa.array(h3ronpy.cells_area_km2(_cells_at(degrees, partition))))[0]
    _check_count(outline.area / 1e6 / area_km2, "partition.resolution", "a lower resolution")
    # The cover is reckoned on the plane of degrees; one ring more makes sure that none is missed.
    covering = h3.wkb_to_cells(
        [shapely.to_wkb(degrees)],
        partition.resolution,
        containment_mode=h3.ContainmentMode.IntersectsBoundary,
        flatten=True,
    )
    seeds = np.union1d(np.asarray(pa.array(covering)), _cells_at(degrees, partition))
    cells = np.unique(np.asarray(pa.array(h3ronpy.grid_disk(seeds, 1, flatten=True))))
    shapes = shapely.from_wkb(
        pa.array(h3.cells_to_wkb_polygons(cells)).to_numpy(zero_copy_only=False)
    )
    near = degrees.representative_point().x

    def unwrap(lonlat: NDArray[np.float64]) -> NDArray[np.float64]:
        """Longitudes within half a turn of the city, so that no cell spans the globe."""
        lonlat[:, 0] += 360 * np.round((near - lonlat[:, 0]) / 360)
        return lonlat

    shapes = gpd.GeoSeries(shapely.transform(shapes, unwrap), crs="EPSG:4326").to_crs(crs)
    ids = pa.array(h3ronpy.cells_to_string(cells)).to_numpy(zero_copy_only=False)
    return ids.astype(object), shapes.to_numpy()


def _cells_at(degrees: Any, partition: Hexagons) -> NDArray[np.uint64]:
    """H3 cell of a point of the outline [1]."""
    import h3ronpy.vector as h3
    import pyarrow as pa

    point = degrees.representative_point()
    cells = h3.coordinates_to_cells(np.array([point.y]), np.array([point.x]), partition.resolution)
    return np.asarray(pa.array(cells))


def _check_count(cells: float, key: str, advice: str) -> None:
    if cells > MAX_CELLS:
        what = f"about {cells:,.0f} cells over the boundary, more than {MAX_CELLS:,}"
        raise ConfigError("the city", [Problem(key, what, f"take {advice}")])


def _inside(
    outline: Any, ids: NDArray[Any], cells: NDArray[Any], grid: Grid
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """The cells that stay, by the rule of `Grid`: ids, geometries, shares inside."""
    import shapely

    shapely.prepare(outline)
    share = shapely.contains(outline, cells).astype(float)
    cut = cells.copy()
    crossing = np.flatnonzero((share == 0) & shapely.intersects(outline, cells))
    cut[crossing] = polygonal(shapely.intersection(cells[crossing], outline))
    share[crossing] = shapely.area(cut[crossing]) / shapely.area(cells[crossing])
    touching = share > 0
    stays = touching & (share >= grid.min_inside_share)
    stays = stays if stays.any() else touching
    kept = cut if grid.edge == "clip" else cells
    return ids[stays], kept[stays], np.minimum(share[stays], 1.0)


def polygon_ids(source: Polygons | Zones, root: str, key: str) -> tuple[gpd.GeoDataFrame, Any]:
    """A file of polygons and their ids as text, both in the order of the file.

    Raises:
        DataError: unreadable, or without the id column; names the config key.
    """
    url = one_file(source.path, root, f"{key}.path")
    frame = read_geo(url, f"{key}.path", source.format, source.crs)
    have = [c for c in frame.columns if c != frame.geometry.name]
    check_columns(have, {f"{key}.id": source.id}, source.path)
    return frame, as_ids(frame[source.id]).to_numpy(object)


def read_polygons(
    source: Polygons | Zones,
    crs: Any,
    root: str,
    key: str,
    rejections: Rejections,
    lost: float = 1,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Polygons of a file, one an id: ids [N] in order, geometries [N] in `crs`, and the first row
    [N] of each in the file.

    A row without id, geometry or area is rejected, as `lost` items; a broken geometry is mended and
    rows with the same id are dissolved, each with a note that counts no item as lost.
    """
    import pandas as pd
    import shapely

    path = source.path
    frame, ids = polygon_ids(source, root, key)
    shapes = frame.geometry.to_numpy()
    missing = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    nameless = pd.isna(ids)
    broken = ~missing & ~nameless & ~shapely.is_valid(shapes)
    notes = shapely.is_valid_reason(shapes[broken])
    shapes = polygonal(frame.geometry.to_crs(crs).to_numpy())
    # A projection far from its zone gives no finite coordinates, hence no area.
    flat = ~missing & ~nameless & ~(shapely.area(shapes) > 0)
    for bad, reason in (
        (nameless, "no id"),
        (missing & ~nameless, "no geometry"),
        (flat, "no area"),
    ):
        detail = "" if bad is nameless else list(ids[bad])
        rejections.add(path, np.flatnonzero(bad), reason, detail, items=lost)
    rejections.add(path, np.flatnonzero(broken & ~flat), "broken geometry, mended",
                   list(notes[~flat[broken]]), items=0)  # fmt: skip
    rows = np.flatnonzero(~(missing | nameless | flat))
    unique, first, owner = np.unique(ids[rows].astype(str), return_index=True, return_inverse=True)
    merged = shapes[rows][first]
    repeated = np.bincount(owner, minlength=len(unique)) > 1
    for one in np.flatnonzero(repeated):
        merged[one] = shapely.union_all(shapes[rows][owner == one])
    later = rows[np.setdiff1d(np.arange(len(rows)), first)]
    rejections.add(path, later, "same id as an earlier row, dissolved", list(ids[later]), items=0)
    return unique.astype(object), merged, rows[first]


def _polygons(
    outline: Any, crs: Any, partition: Polygons, root: str, rejections: Rejections
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    import shapely

    ids, shapes, rows = read_polygons(partition, crs, root, "partition", rejections)
    shapely.prepare(outline)
    share = shapely.contains(outline, shapes).astype(float)
    crossing = np.flatnonzero((share == 0) & shapely.intersects(outline, shapes))
    common = shapely.area(shapely.intersection(shapes[crossing], outline))
    share[crossing] = np.minimum(common / shapely.area(shapes[crossing]), 1.0)
    outside = share < _DUST
    rejections.add(partition.path, rows[outside], "outside the boundary", list(ids[outside]))
    if outside.all():
        raise DataError(
            f"partition.path: no polygon of {partition.path} lies in the city's boundary",
            fix="give polygons of this city, or mend `boundary`",
        )
    return ids[~outside], shapes[~outside], share[~outside]


def _frame(
    ids: NDArray[Any], geometries: NDArray[Any], share: NDArray[np.float64], crs: Any
) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import shapely

    order = np.argsort(ids.astype(str), kind="stable")
    geometries = geometries[order]
    points = shapely.point_on_surface(geometries)
    x, y = shapely.get_x(points), shapely.get_y(points)
    lon, lat = project(x, y, crs, "EPSG:4326")
    return gpd.GeoDataFrame(
        {
            "region_id": ids[order].astype(str),
            "area_km2": shapely.area(geometries) / 1e6,
            "inside_share": share[order],
            "x_m": x,
            "y_m": y,
            "lon": lon,
            "lat": lat,
        },
        geometry=geometries,
        crs=crs,
    )


# --- adjacency -----------------------------------------------------------------------------------


def make_adjacency(regions: gpd.GeoDataFrame) -> pd.DataFrame:
    """Pairs of regions that share a border, in both directions (contract `adjacency`).

    `border_m` is the length along which two borders lie within 1 mm of each other (or one region
    overlaps the other), in whole centimetres; touching in a corner is no border.
    """
    import pandas as pd
    import shapely

    shapes = regions.geometry.to_numpy()
    tree = shapely.STRtree(shapes)
    one, other = tree.query(shapes, predicate="dwithin", distance=_GAP_M)
    one, other = one[one < other], other[one < other]
    wide = shapely.buffer(shapes, _GAP_M, join_style="mitre")
    line = shapely.boundary(shapes)
    border = [
        shapely.length(shapely.intersection(line[a], wide[b]))
        for a, b in ((one, other), (other, one))
    ]
    border_m = np.round((border[0] + border[1]) / 2, 2)
    shared = border_m > 0
    one, other, border_m = one[shared], other[shared], border_m[shared]
    region, neighbour = np.concatenate([one, other]), np.concatenate([other, one])
    order = np.lexsort((neighbour, region))
    ids = regions["region_id"].to_numpy()
    return pd.DataFrame(
        {
            "region_id": ids[region[order]],
            "neighbour_id": ids[neighbour[order]],
            "border_m": np.concatenate([border_m, border_m])[order],
        }
    )


def shared_ground(regions: gpd.GeoDataFrame, others: gpd.GeoDataFrame) -> int:
    """How many regions share more than a border with regions of another city, in whatever CRS."""
    import shapely

    there = others.geometry.to_crs(regions.crs).to_numpy()
    # A metre: borders that were drawn twice cross here and there.
    tree = shapely.STRtree(shapely.buffer(there, -1.0))
    mine, _ = tree.query(regions.geometry.to_numpy(), predicate="intersects")
    return len(np.unique(mine))
