"""Buildings: footprints with heights, and a height map of each region."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from model_code.city import BuildingSource
from model_code.contracts import arrow_schema
from model_code.geo.pixels import binary_column, slices
from model_code.geo.vector import Sieve, check_columns, expand, polygonal, read_geo
from model_code.geo.zonal import cell_shares
from model_code.rejections import Rejections
from model_code.tables import contract

REGIONS_AT_ONCE = 512


def read_buildings(
    sources: Sequence[BuildingSource], root: str, crs: Any
) -> tuple[gpd.GeoDataFrame, Rejections]:
    """The table `buildings`: the footprints of all sources, in the city's CRS.

    Broken polygons are mended. A row without a polygon, or with a negative height, is rejected; one
    without a height stays, with none.

    Args:
        sources: `sources.buildings` of the city.
        root: data root.
        crs: the city's CRS.

    Raises:
        DataError: a file cannot be read, has no CRS, or lacks its height column, by config key.
    """
    rejections, parts, start = Rejections(), [], 0
    for position, source in enumerate(sources):
        key = f"sources.buildings.{position}"
        for url in expand(source.path, root, f"{key}.path"):
            frame = read_geo(url, f"{key}.path", source.format, source.crs)
            names = [str(column) for column in frame.columns]
            check_columns(names, {f"{key}.height_m": source.height_m}, url)
            footprint = polygonal(frame.geometry.to_crs(crs).to_numpy())
            height = np.full(len(frame), np.nan)
            if source.height_m:
                given = pd.to_numeric(frame[source.height_m], errors="coerce").to_numpy(float)
                height = np.where(np.isfinite(given), given, np.nan)
            area = np.nan_to_num(shapely.area(footprint))
            rows = np.arange(start, start + len(frame))
            sieve = Sieve(rejections, "sources.buildings", rows)
            sieve.reject(~(area > 0), "no footprint")
            sieve.reject(height < 0, "negative height", height=height)
            parts.append(
                gpd.GeoDataFrame(
                    {"building_id": rows, "height_m": height, "footprint_m2": area},
                    geometry=footprint,
                    crs=crs,
                )[sieve.good]
            )
            start += len(frame)
    return gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), crs=crs), rejections


def height_maps(
    buildings: gpd.GeoDataFrame,
    regions: gpd.GeoDataFrame,
    rejections: Rejections,
    size_px: int = 32,
) -> Iterator[pa.RecordBatch]:
    """The table `heights` in batches, for the regions that buildings touch.

    A map covers the region's bounds made square, as a chip does, north up. A pixel is the mean
    height over its area, weighted exactly by area, the ground being 0 m; NaN where footprints
    without a height cover more than half of it. Shares and counts are of the region itself;
    where footprints overlap, the built share is at most 1. A building on a border counts in each
    region that it overlaps; one that overlaps none is rejected. Buildings that overlap any region +
    rejected = read.

    Args:
        buildings: the table `buildings`.
        regions: the table `regions` [N], in the same CRS.
        rejections: takes buildings `outside all regions`; complete when the stream has ended.
        size_px: pixels along a side.
    """
    footprints = buildings.geometry.to_numpy()
    height = buildings["height_m"].to_numpy(float)
    tree = shapely.STRtree(footprints)
    schema = arrow_schema(contract("heights"))
    joined = np.zeros(len(buildings), bool)
    for part in slices(len(regions), 1, REGIONS_AT_ONCE):
        outlines = regions.geometry.to_numpy()[part]
        counts, found = _shares_by_region(outlines, footprints, height, tree)
        joined[found] = True
        has = np.flatnonzero(counts["building_count"].to_numpy() > 0)
        if not len(has):
            continue
        counts = counts.iloc[has]
        yield pa.record_batch(
            {
                "region_id": pa.array(regions["region_id"].iloc[part].iloc[has], pa.string()),
                "pixels": binary_column(_maps(outlines[has], footprints, height, tree, size_px)),
                "height_px": np.full(len(has), size_px, np.int32),
                "width_px": np.full(len(has), size_px, np.int32),
                **{
                    name: pa.array(counts[name], schema.field(name).type, from_pandas=True)
                    for name in counts
                },
            },
            schema=schema,
        )
    outside = buildings["building_id"].to_numpy(np.int64)[~joined]
    rejections.add("buildings", outside, "outside all regions")


def _shares_by_region(
    outlines: NDArray[Any], footprints: NDArray[Any], height: NDArray[Any], tree: shapely.STRtree
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Counts and shares of the buildings whose footprints overlap each region [n], and which
    buildings do, once a pair."""
    n = len(outlines)
    region, building = tree.query(outlines, predicate="intersects")
    shapely.prepare(outlines)
    whole = shapely.contains_properly(outlines[region], footprints[building])
    area = shapely.area(footprints[building])
    cut = ~whole
    area[cut] = shapely.area(shapely.intersection(outlines[region[cut]], footprints[building[cut]]))
    region, building, area = (v[area > 0] for v in (region, building, area))
    known = np.isfinite(height[building])
    count = np.bincount(region, minlength=n)
    known_area = np.bincount(region[known], area[known], n)
    volume = np.bincount(region[known], (area * height[building])[known], n)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = pd.DataFrame(
            {
                "building_count": count,
                "with_height_share": np.bincount(region[known], minlength=n) / count,
                "built_share": np.minimum(
                    np.bincount(region, area, n) / shapely.area(outlines), 1.0
                ),
                "mean_height_m": volume / known_area,
            }
        )
    return shares, building


def _maps(
    outlines: NDArray[Any],
    footprints: NDArray[Any],
    height: NDArray[Any],
    tree: shapely.STRtree,
    size: int,
) -> NDArray[np.float32]:
    """Height maps [n, size, size] over the square bounds of each outline."""
    west, south, east, north = shapely.bounds(outlines).T
    side = np.maximum(east - west, north - south)
    left, top = (west + east - side) / 2, (south + north + side) / 2
    region, building = tree.query(
        shapely.box(left, top - side, left + side, top), predicate="intersects"
    )
    shapes = footprints[building]
    xy, pair = shapely.get_coordinates(shapes, return_index=True)
    square = region[pair]
    pace = (side / size)[square]
    xy = np.column_stack([(xy[:, 0] - left[square]) / pace, (top[square] - xy[:, 1]) / pace])
    cells = cell_shares(shapely.set_coordinates(shapes, xy), size, size).cells()
    at = (region[cells.polygon] * size + cells.row) * size + cells.col
    metres = height[building[cells.polygon]]
    known = np.isfinite(metres)
    pixels = len(outlines) * size * size
    with_height = np.bincount(at[known], cells.share[known], pixels)
    without = np.bincount(at[~known], cells.share[~known], pixels)
    volume = np.bincount(at[known], (cells.share * metres)[known], pixels)
    ground = np.maximum(1 - with_height - without, 0)
    with np.errstate(invalid="ignore"):
        mean = volume / (with_height + ground)
    mean[without > with_height + ground] = np.nan
    return np.asarray(mean.reshape(len(outlines), size, size), np.float32)
