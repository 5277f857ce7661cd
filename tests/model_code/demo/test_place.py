from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely

from model_code.city import Boundary, Squares
from model_code.demo.place import EPSG, Place
from model_code.errors import DataError
from model_code.geo.regions import make_boundary, make_regions

from .reading import cells


@pytest.mark.parametrize(("regions", "cell_m"), [(10, 1000), (16, 250), (23, 500), (156, 1000)])
def test_the_boundary_is_the_union_of_the_cells(regions: int, cell_m: float) -> None:
    place = Place(regions, cell_m)
    outline = gpd.GeoSeries([place.boundary()], crs=4326).to_crs(EPSG)[0]
    assert outline.is_valid
    assert outline.area == pytest.approx(regions * cell_m**2, rel=1e-6)
    x, y = place.centre.T
    inside = shapely.contains_xy(outline, x + place.easting_m, y + place.northing_m)
    assert inside.all()


def test_a_city_further_north_does_not_overlap() -> None:
    usual, north = Place(156), Place(156, north_km=50.0)
    assert north.northing_m - usual.northing_m == 50_000
    assert not usual.boundary().intersects(north.boundary())
    with pytest.raises(DataError, match="choose 0 to 4000 km"):
        Place(156, north_km=-1.0)


def test_the_pipeline_finds_exactly_the_cells(city) -> None:
    place = Place(23, 500.0)
    boundary = make_boundary("demo", Boundary(path="boundary.geojson"), f"EPSG:{EPSG}", str(city))
    regions = make_regions(boundary, Squares(kind="square", size_m=500), str(city))[0]
    assert len(regions) == 23
    found = cells(place, regions["lon"], regions["lat"])
    assert sorted(found) == list(range(23))


def test_cells_agree_with_a_loop() -> None:
    place = Place(23, 500)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-600, 3100, (2, 400))

    def naive(px: float, py: float) -> int:
        for k, (west, south) in enumerate(place.corner):
            if west <= px < west + 500 and south <= py < south + 500:
                return k
        return -1

    assert place.cell(x, y).tolist() == [naive(*p) for p in zip(x, y, strict=True)]


def test_scattered_points_stay_in_their_cell_when_rounded() -> None:
    place = Place(23, 500)
    cell = np.repeat(np.arange(23), 200)
    x, y = place.scatter(np.random.default_rng(1), cell)
    lon, lat = place.lonlat(x, y)
    assert np.array_equal(cells(place, lon.round(6), lat.round(6)), cell)
    assert place.clear_of_border(x, y).all()
    assert not place.clear_of_border(np.array([500.2]), np.array([100.0])).any()


def test_corners_are_multiples_of_the_cell() -> None:
    for regions, cell_m in ((10, 1000), (23, 500), (99, 300)):
        place = Place(regions, cell_m)
        assert place.easting_m % cell_m == 0
        assert place.northing_m % cell_m == 0
