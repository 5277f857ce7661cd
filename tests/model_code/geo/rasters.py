"""Tiny cities and GeoTIFFs for the tests of this folder."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from model_code.contracts import Checker, conform
from model_code.tables import contract

# rasterio 1.4 multiplies transforms in a way that affine 3 is going to deprecate.
affine_3 = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
CRS = "EPSG:32618"
WEST, NORTH = 580_000.0, 4_510_000.0


def write_raster(path: Path, pixels: np.ndarray, pixel_m=2.0, transform=None, crs=CRS, **profile):
    """Write [B, H, W] pixels with their upper left corner at (WEST, NORTH)."""
    bands, height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=bands,
        height=height,
        width=width,
        dtype=pixels.dtype,
        crs=crs,
        transform=transform or from_origin(WEST, NORTH, pixel_m, pixel_m),
        **profile,
    ) as file:
        file.write(pixels)


def regions_of(geometries, ids=None, crs=CRS) -> gpd.GeoDataFrame:
    """What stages need of the table `regions`."""
    ids = ids or [f"r{i:03d}" for i in range(len(geometries))]
    return gpd.GeoDataFrame({"region_id": ids}, geometry=list(geometries), crs=crs)


def squares(rows: int, cols: int, side_m: float) -> gpd.GeoDataFrame:
    """A grid of squares from (WEST, NORTH) to the right and down."""
    col, row = np.meshgrid(np.arange(cols), np.arange(rows))
    left, top = WEST + col.ravel() * side_m, NORTH - row.ravel() * side_m
    return regions_of(shapely.box(left, top - side_m, left + side_m, top))


class Boxes:
    """A locator by brute force: the first region that holds the point."""

    def __init__(self, regions: gpd.GeoDataFrame) -> None:
        self.regions = regions

    def locate(self, x_m, y_m):
        hits = shapely.intersects(
            self.regions.geometry.to_numpy()[:, None], shapely.points(x_m, y_m)[None]
        )
        return np.where(hits.any(axis=0), hits.argmax(axis=0), -1)


def checked(name: str, batches) -> pa.Table:
    """All batches as one table, after the contract's own check."""
    checker, parts = Checker(contract(name)), []
    for batch in batches:
        parts.append(conform(contract(name), batch))
        checker.check(parts[-1])
    return pa.concat_tables(parts) if parts else None


def pictures(table: pa.Table, dtype, *shape: int) -> np.ndarray:
    """The binary column `pixels` as an array [N, *shape]."""
    return np.stack([np.frombuffer(p, dtype).reshape(shape) for p in table["pixels"].to_pylist()])
