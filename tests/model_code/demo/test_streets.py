"""Streets and the buildings along them."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from model_code.demo.latents import Latents
from model_code.demo.place import EPSG, Place
from model_code.demo.streets import BLOCK_M, Lots, building_parts, draw_lots, draw_streets

from .reading import cells


@pytest.fixture(scope="module")
def lots(latents: Latents) -> Lots:
    return draw_lots(draw_streets(latents))


def test_the_lattice_bends_there_and_back(lots: Lots) -> None:
    rng = np.random.default_rng(0)
    u, v = rng.uniform(0, 2400, (2, 500))
    back_u, back_v = lots.streets.lattice(*lots.streets.ground(u, v))
    assert np.abs(back_u - u).max() < 1.5
    assert np.abs(back_v - v).max() < 1.5


def test_points_move_onto_a_street_of_their_cell(lots: Lots) -> None:
    place = lots.streets.latents.place
    rng = np.random.default_rng(0)
    x, y = place.scatter(rng, np.repeat(np.arange(23), 50))
    street_x, street_y, heading = lots.streets.onto_street(x, y, rng)
    assert np.array_equal(place.cell(street_x, street_y), place.cell(x, y))
    assert place.clear_of_border(street_x, street_y).all()
    u, v = lots.streets.lattice(street_x, street_y)
    off = np.minimum(*(np.abs(a - np.round(a / BLOCK_M) * BLOCK_M) for a in (u, v)))
    assert (off < 1).mean() > 0.97
    assert ((heading >= 0) & (heading < 360)).all()


def test_footprints(city: Path, place: Place, lots: Lots) -> None:
    buildings = gpd.read_parquet(city / "buildings.parquet")
    assert buildings.crs == "EPSG:4326"
    assert buildings.is_valid.all()
    assert buildings.geometry.geom_type.unique().tolist() == ["Polygon"]
    missing = buildings["height_m"].isna().mean()
    assert 0 < missing < 0.06
    assert buildings["height_m"].min() >= 3
    metric = buildings.to_crs(EPSG)
    assert metric.area.between(80, 5000).all()
    centre = metric.centroid.to_crs(4326)
    assert (cells(place, centre.x, centre.y) >= 0).mean() > 0.98
    middle = metric.centroid
    shore = lots.streets.latents.shore_at(
        middle.x.to_numpy() - place.easting_m, middle.y.to_numpy() - place.northing_m
    )
    assert shore.min() > 30  # none in the water


def test_buildings_do_not_overlap(lots: Lots) -> None:
    wkb = np.concatenate([part["geometry"].to_numpy() for part in building_parts(lots)])
    polygons = shapely.from_wkb(wkb)
    first, second = shapely.STRtree(polygons).query(polygons, predicate="overlaps")
    assert len(first) == len(second) == 0
