from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

from model_code.demo.latents import Latents
from model_code.demo.orthophoto import PIXEL_M, GroundPainter
from model_code.demo.place import EPSG, Place
from model_code.demo.streets import Lots, draw_lots, draw_streets


@pytest.fixture(scope="module")
def lots(latents: Latents) -> Lots:
    return draw_lots(draw_streets(latents))


def test_roofs_of_the_picture_are_the_footprints(city: Path, place: Place, lots: Lots) -> None:
    """The painter finds buildings by arithmetic; shapely finds them by geometry."""
    x = np.arange(4, 1500, PIXEL_M)
    y = np.arange(4, 1500, PIXEL_M)
    painter = GroundPainter(lots)
    roof, *_ = painter.roofs.find(*lots.streets.lattice_grid(x, y))
    polygons = gpd.read_parquet(city / "buildings.parquet").to_crs(EPSG).geometry.to_numpy()
    grid_x, grid_y = np.meshgrid(x + place.easting_m, y + place.northing_m)
    points = shapely.points(grid_x.ravel(), grid_y.ravel())
    under = np.zeros(points.size, bool)
    under[shapely.STRtree(polygons).query(points, predicate="within")[0]] = True
    assert under.mean() > 0.02
    # The rim: pixels of buildings whose centre lies outside the city, and half a metre of edge.
    assert (roof.ravel() == under).mean() > 0.985


def test_the_orthophoto_fits_the_city(city: Path, place: Place) -> None:
    with rasterio.open(city / "orthophoto.tif") as file:
        assert (file.count, file.dtypes[0], file.crs.to_epsg()) == (3, "uint8", EPSG)
        assert (file.width, file.height) == (313, 313)  # 2,500 m at 8 m
        assert file.bounds.left == place.easting_m
        assert file.bounds.top == place.northing_m + place.height_m
        assert file.nodata is None
        pixels = file.read().astype(float)
    assert pixels.std(axis=(1, 2)).min() > 15


def test_windows_join_without_a_seam(latents: Latents, lots: Lots) -> None:
    painter = GroundPainter(lots)
    x, y = np.arange(4, 1000, 8.0), np.arange(4, 500, 8.0)
    whole = painter.paint(x, y, "a").astype(int)
    part = painter.paint(x[60:], y[20:], "b").astype(int)
    assert np.abs(whole[20:, 60:] - part).max() <= 18  # sensor noise alone


def test_pictures_follow_their_latents(lots: Lots) -> None:
    """Green ground is greener, and water is blue, by the latents of each pixel's place."""
    latents = lots.streets.latents
    x, y = np.arange(4, 2500, PIXEL_M), np.arange(4, 2000, PIXEL_M)
    pixels = GroundPainter(lots).paint(x, y, "a").astype(float)
    green, shore = latents.grid("greenery", x, y), latents.shore_grid(x, y)
    dry = shore > 40
    greenness = pixels[..., 1] - pixels[..., [0, 2]].mean(axis=-1)
    low, high = np.quantile(green[dry], [0.2, 0.8])
    assert greenness[dry & (green > high)].mean() > greenness[dry & (green < low)].mean() + 5
    blueness, wet = pixels[..., 2] - pixels[..., 0], shore < -40
    assert blueness[wet].mean() > blueness[dry].mean() + 20
