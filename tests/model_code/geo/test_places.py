import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from model_code.errors import DataError
from model_code.geo.places import read_places
from model_code.geo.vector import project
from tests.model_code.geo.maps import CRS, write, write_bare

ROWS = pd.DataFrame(
    {
        "kind": ["a", "b", "c", "d"],
        "lon": [-74.0, np.nan, -73.99, 400.0],
        "lat": [40.7, 40.7, 95.0, 40.7],
    }
)


def read(name, root, columns=None, crs=None, lon="lon", lat="lat", given=None):
    return read_places(
        name, str(root), "indicators.x.source.points",
        lon=("indicators.x.source.columns.lon", lon), lat=("indicators.x.source.columns.lat", lat),
        columns={"indicators.x.source.columns.value": "kind"} if columns is None else columns,
        crs=crs, city_crs=CRS, given=given,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["p.csv", "p.parquet", "geo.parquet", "p.geojson"])
def test_every_format_gives_the_same_places_and_none_where_there_is_none(name, tmp_path):
    frame = ROWS
    if name not in ("p.csv", "p.parquet"):
        shapes = shapely.points(ROWS[["lon", "lat"]].fillna(0).to_numpy())
        shapes[ROWS["lon"].isna()] = None
        frame = gpd.GeoDataFrame(ROWS[["kind"]], geometry=shapes, crs=4326)
    found = read(write(tmp_path / name, frame), tmp_path)
    assert found["kind"].tolist() == list("abcd")
    places = found[["lon", "lat", "x_m", "y_m"]].to_numpy()
    there = project(np.array([-74.0]), np.array([40.7]), 4326, CRS)
    np.testing.assert_allclose(places[0], [-74.0, 40.7, *np.ravel(there)], atol=1e-3)
    assert np.isnan(places[1:]).all()


def test_metres_become_degrees_and_the_citys_metres(tmp_path):
    x, y = project(np.array([-74.0]), np.array([40.7]), "EPSG:4326", "EPSG:2263")
    write(tmp_path / "p.csv", pd.DataFrame({"kind": ["a"], "east": x, "north": y}))
    found = read("p.csv", tmp_path, crs="EPSG:2263", lon="east", lat="north")
    np.testing.assert_allclose(found[["lon", "lat"]].to_numpy(), [[-74.0, 40.7]], atol=1e-6)


def test_a_shape_stands_at_a_point_on_it_and_its_own_crs_wins(tmp_path):
    ring = shapely.Point(585_000, 4_506_000).buffer(90) - shapely.Point(585_000, 4_506_000).buffer(
        80
    )
    write(tmp_path / "s.gpkg", gpd.GeoDataFrame({"kind": ["a"]}, geometry=[ring], crs=CRS))
    found = read("s.gpkg", tmp_path, crs="EPSG:2263")
    assert ring.buffer(0.01).covers(shapely.Point(found["x_m"][0], found["y_m"][0]))


def test_format_and_crs_of_the_config_are_for_what_a_file_does_not_tell(tmp_path):
    rows = ROWS.loc[[0, 0]]
    expected = read(write(tmp_path / "p.csv", rows), tmp_path)
    rows.to_csv(tmp_path / "p.txt", index=False)
    pd.testing.assert_frame_equal(read("p.txt", tmp_path, given="csv"), expected)
    points = shapely.points(rows[["lon", "lat"]].to_numpy())
    feet = gpd.GeoDataFrame(rows[["kind"]], geometry=points, crs=4326).to_crs("EPSG:2263")
    found = read(write_bare(tmp_path / "p", feet), tmp_path, crs="EPSG:2263", given="parquet")
    pd.testing.assert_frame_equal(found, expected, rtol=1e-7)
    with pytest.raises(DataError, match="says no CRS"):
        read("p", tmp_path, given="parquet")


def test_what_is_missing_is_named_by_its_key(tmp_path):
    write(tmp_path / "p.csv", ROWS)
    with pytest.raises(DataError, match=r"indicators\.x\.source\.columns\.lon: no column 'east'"):
        read("p.csv", tmp_path, lon="east")
    with pytest.raises(DataError, match=r"columns\.value: no column 'size'"):
        read("p.csv", tmp_path, columns={"indicators.x.source.columns.value": "size"})
    with pytest.raises(DataError, match=r"indicators\.x\.source\.points: no such file"):
        read("absent.csv", tmp_path)
    assert list(read("p.csv", tmp_path, columns={"key": None})) == ["lon", "lat", "x_m", "y_m"]
