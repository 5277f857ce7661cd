"""Zonal values: exact shares of cells, and what is made of them, against shapely cell by cell."""

import fsspec
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from model_code.errors import DataError
from model_code.geo import zonal as module
from model_code.geo.raster import apply
from model_code.geo.zonal import cell_shares, zonal
from tests.model_code.geo.rasters import (
    NORTH,
    WEST,
    affine_3,
    regions_of,
    squares,
    write_raster,
)

pytestmark = affine_3


def naive_shares(polygons, height, width):
    """[P, H, W] by intersecting every polygon with every cell."""
    row, col = np.mgrid[:height, :width]
    cells = shapely.box(col, row, col + 1, row + 1)
    return shapely.area(shapely.intersection(np.asarray(polygons)[:, None, None], cells))


def shares(polygons, height, width):
    cells = cell_shares(np.array(polygons, object), height, width).cells()
    found = np.zeros((len(polygons), height, width))
    np.add.at(found, (cells.polygon, cells.row, cells.col), cells.share)
    return found


def blobs(count, seed, span=20.0):
    """Polygons with holes, multipolygons, slivers; some beyond the grid."""
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(count):
        x, y = rng.uniform(-3, span, 2)
        outer = shapely.Point(x, y).buffer(rng.uniform(0.05, 6), quad_segs=int(rng.integers(1, 6)))
        hole = shapely.Point(x + rng.uniform(-2, 2), y).buffer(rng.uniform(0.01, 2))
        far = shapely.box(x + 7, y - 1, x + 7.2, y + rng.uniform(0, 9))
        shapes.append(shapely.union(shapely.difference(outer, hole), far))
    return shapes


@pytest.mark.parametrize("seed", range(4))
def test_shares_are_exact(seed):
    polygons = blobs(12, seed)
    np.testing.assert_allclose(
        shares(polygons, 16, 18), naive_shares(polygons, 16, 18), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize(
    "polygon",
    [
        shapely.box(0, 0, 5, 4),  # the whole grid
        shapely.box(-9, -9, 50, 50),  # more than the grid
        shapely.box(1, 1, 3, 2),  # along grid lines
        shapely.box(4, 3, 5, 4),  # the last cell
        shapely.box(5, 0, 9, 4),  # touches the border from outside
        shapely.box(2.25, 1.25, 2.5, 1.5),  # within one cell
        shapely.Polygon([(0, 0), (5, 4), (0, 4)]),  # a diagonal through corners
        shapely.box(30, 30, 40, 40),  # elsewhere
    ],
)
def test_shares_of_special_cases(polygon):
    for p in (polygon, polygon.reverse()):
        np.testing.assert_allclose(shares([p], 4, 5), naive_shares([p], 4, 5), rtol=0, atol=1e-12)


corner = st.tuples(st.integers(-4, 24), st.integers(-4, 24))


@given(points=st.lists(corner, min_size=3, max_size=9), quarter=st.sampled_from([1.0, 0.25, 0.37]))
@settings(max_examples=200, deadline=None)
def test_shares_of_any_polygon(points, quarter):
    """Corners often on grid lines, where rounding and ties would show."""
    polygon = shapely.make_valid(shapely.Polygon(points))
    polygon = shapely.transform(polygon, lambda xy: xy * quarter)
    if shapely.get_type_id(polygon) not in (3, 6):
        return
    np.testing.assert_allclose(
        shares([polygon], 6, 7), naive_shares([polygon], 6, 7), rtol=0, atol=1e-9
    )


def naive(regions, pixels, valid, transform, aggregate):
    polygons = shapely.transform(
        np.asarray(regions.geometry, object), lambda xy: apply(~transform, xy)
    )
    weights = naive_shares(polygons, *pixels.shape) * valid
    values = []
    for weight in weights:
        if weight.sum() < 1e-9:
            values.append(np.nan)
        elif aggregate == "majority":
            classes = np.unique(pixels[valid])
            values.append(classes[np.argmax([weight[pixels == c].sum() for c in classes])])
        else:
            total = (weight * pixels).sum()
            values.append(total / weight.sum() if aggregate == "mean" else total)
    return np.array(values), weights.sum(axis=(1, 2)) / shapely.area(polygons)


# Pixels smaller and far larger than the regions.
@pytest.mark.parametrize("pixel_m", [1.7, 8.0, 90.0])
@pytest.mark.parametrize("aggregate", ["mean", "sum", "majority"])
def test_zonal_equals_the_naive_way(tmp_path, pixel_m, aggregate, monkeypatch):
    rng = np.random.default_rng(0)
    side = int(np.ceil(60 / pixel_m)) + 1
    pixels = rng.integers(0, 5, (side, side)).astype(np.float32)
    pixels[rng.random(pixels.shape) < 0.2] = -9
    transform = from_origin(WEST, NORTH, pixel_m, pixel_m)
    write_raster(tmp_path / "r.tif", pixels[None], transform=transform, nodata=-9)
    shapes = [
        shapely.transform(b, lambda xy: xy * [2, -2] + np.array([WEST, NORTH]))
        for b in blobs(15, 5)
    ]
    regions = regions_of(shapes)  # they overlap: each counts for itself
    expected, coverage = naive(regions, pixels, pixels != -9, transform, aggregate)
    for _ in range(2):
        found = zonal(regions, str(tmp_path / "r.tif"), aggregate=aggregate)
        np.testing.assert_allclose(found["value"], expected, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found["coverage"], np.minimum(coverage, 1), atol=1e-9)
        monkeypatch.setattr(module, "TILE_PX", 7)  # again in small tiles and strips
        monkeypatch.setattr(module, "STRIP_CELLS", 20)


@given(
    seed=st.integers(0, 1000),
    pixel_m=st.sampled_from([3.0, 7.0, 35.0]),
    offset=st.floats(0, 1),
)
@settings(max_examples=20, deadline=None)
def test_a_partition_keeps_the_total(tmp_path_factory, seed, pixel_m, offset):
    """Squares that cover the raster share its sum without loss."""
    path = tmp_path_factory.mktemp("raster") / "r.tif"
    pixels = np.random.default_rng(seed).integers(0, 1000, (1, 11, 13)).astype(np.int32)
    shift = offset * pixel_m
    write_raster(path, pixels, transform=from_origin(WEST + shift, NORTH - shift, pixel_m, pixel_m))
    regions = squares(int(12 * pixel_m // 16) + 1, int(14 * pixel_m // 16) + 1, 16.0)
    found = zonal(regions, str(path), aggregate="sum")
    assert found["value"].sum() == pytest.approx(pixels.sum(), rel=1e-9)
    covered = (found["coverage"] * 16**2).sum()
    assert covered == pytest.approx(pixels[0].size * pixel_m**2, rel=1e-6)


def test_regions_are_brought_into_the_rasters_crs(tmp_path):
    """A raster in degrees, whose values are its longitudes, says where a region lies."""
    cols = np.arange(400)
    lon = (-74.06 + (cols + 0.5) * 1e-4)[None, None].repeat(300, axis=1)
    write_raster(
        tmp_path / "r.tif",
        lon,
        transform=from_origin(-74.06, 40.75, 1e-4, 1e-4),
        crs="EPSG:4326",
    )
    regions = squares(4, 4, 300.0)
    found = zonal(regions, str(tmp_path / "r.tif"))
    centre = regions.geometry.centroid.to_crs("EPSG:4326").x
    np.testing.assert_allclose(found["value"], centre, atol=2e-6)
    np.testing.assert_allclose(found["coverage"], 1, atol=1e-9)


def test_outside_and_nodata(tmp_path):
    pixels = np.full((2, 10, 10), 5, np.uint8)
    pixels[1, :, :5] = 3
    write_raster(tmp_path / "r.tif", pixels, pixel_m=10.0)
    regions = squares(1, 3, 50.0)
    found = zonal(regions, f"file://{tmp_path}/r.tif", band=2, nodata=3)
    assert np.isnan(found["value"][0]) and np.isnan(found["value"][2])
    assert found["value"][1] == 5
    assert found["coverage"].to_list() == [0, 1, 0]
    url = f"memory://{tmp_path.name}/r.tif"
    fsspec.filesystem("memory").pipe_file(url, (tmp_path / "r.tif").read_bytes())
    pd.testing.assert_frame_equal(zonal(regions, url, band=2, nodata=3), found)
    none = zonal(regions_of([shapely.box(0, 0, 9, 9)]), str(tmp_path / "r.tif"), aggregate="sum")
    assert np.isnan(none["value"][0]) and none["coverage"][0] == 0


def test_of_equal_areas_the_smallest_class(tmp_path):
    write_raster(tmp_path / "r.tif", np.array([[[7, 2]]], np.uint8), pixel_m=10.0)
    region = regions_of([shapely.box(WEST, NORTH - 10, WEST + 20, NORTH)])
    assert zonal(region, str(tmp_path / "r.tif"), aggregate="majority")["value"][0] == 2


def test_errors_name_the_key(tmp_path):
    write_raster(tmp_path / "r.tif", np.zeros((1, 4, 4), np.uint8))
    regions, key = squares(1, 1, 4.0), "indicators.heat.source.path"
    with pytest.raises(DataError, match=r"indicators\.heat\.source\.band.* has 1 band"):
        zonal(regions, str(tmp_path / "r.tif"), band=2, key=key)
    with pytest.raises(DataError, match=r"indicators\.heat\.source\.path: cannot read"):
        zonal(regions, str(tmp_path / "none.tif"), key=key)
