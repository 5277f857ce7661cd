"""Buildings: rows that become footprints, and height maps against a naive twin."""

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.city import BuildingSource
from model_code.errors import DataError
from model_code.geo import buildings as module
from model_code.geo.buildings import height_maps, read_buildings
from model_code.rejections import Rejections
from tests.model_code.geo.maps import write_bare
from tests.model_code.geo.rasters import CRS, NORTH, WEST, checked, pictures, regions_of, squares


def block(x, y, width, depth):
    """A footprint, in metres right of and below the corner (WEST, NORTH)."""
    return shapely.box(WEST + x, NORTH - y - depth, WEST + x + width, NORTH - y)


def buildings_of(shapes, heights):
    return gpd.GeoDataFrame(
        {
            "building_id": np.arange(len(shapes)),
            "height_m": np.array(heights, float),
            "footprint_m2": shapely.area(shapes),
        },
        geometry=list(shapes),
        crs=CRS,
    )


def test_read_two_files(tmp_path):
    bow_tie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    first = gpd.GeoDataFrame(
        {"tall": [12.0, np.nan, -3.0, 5.0]},
        geometry=[block(0, 0, 10, 10), block(20, 0, 10, 10), block(40, 0, 10, 10), None],
        crs=CRS,
    )
    first.to_crs("EPSG:4326").to_parquet(tmp_path / "first.parquet")
    shift = shapely.transform(bow_tie, lambda xy: xy + np.array([WEST, NORTH]))
    second = gpd.GeoDataFrame(geometry=[shapely.Point(WEST, NORTH), shift], crs=CRS)
    second.to_parquet(tmp_path / "second.parquet")
    sources = (
        BuildingSource(path="first.parquet", height_m="tall"),
        BuildingSource(path=f"file://{tmp_path}/second.parquet"),
    )
    found, rejections = read_buildings(sources, str(tmp_path), CRS)
    checked("buildings", [found.to_wkb().pipe(_arrow)])
    assert found["building_id"].to_list() == [0, 1, 5]
    np.testing.assert_allclose(found["height_m"], [12, np.nan, np.nan])
    np.testing.assert_allclose(found["footprint_m2"], [100, 100, 50], rtol=1e-6)
    rejected = rejections.frame().sort_values("row")
    assert rejected["row"].to_list() == [2, 3, 4]
    assert rejected["reason"].to_list() == ["negative height", "no footprint", "no footprint"]
    assert len(found) + len(rejections) == 6


def test_footprints_that_state_no_crs_have_that_of_the_config(tmp_path):
    frame = gpd.GeoDataFrame({"tall": [12.0]}, geometry=[block(0, 0, 10, 10)], crs=CRS)
    bare = {"path": write_bare(tmp_path / "b", frame.to_crs("EPSG:2263")), "format": "parquet"}
    found, _ = read_buildings([BuildingSource(**bare, crs="EPSG:2263")], str(tmp_path), CRS)
    np.testing.assert_allclose(found["footprint_m2"], [100], rtol=1e-3)
    assert found.geometry[0].centroid.distance(block(0, 0, 10, 10).centroid) < 0.01
    with pytest.raises(DataError, match=r"says no CRS(.|\n)*`sources\.buildings\.0\.crs`"):
        read_buildings([BuildingSource(**bare)], str(tmp_path), CRS)


def _arrow(frame):
    import pyarrow as pa

    return pa.Table.from_pandas(frame, preserve_index=False)


def test_errors_name_the_key(tmp_path):
    gpd.GeoDataFrame(geometry=[block(0, 0, 1, 1)], crs=CRS).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"sources\.buildings\.0\.height_m: no column 'h'"):
        read_buildings([BuildingSource(path="b.parquet", height_m="h")], str(tmp_path), CRS)
    with pytest.raises(DataError, match=r"sources\.buildings\.1\.path: no such file"):
        read_buildings(
            [BuildingSource(path="b.parquet"), BuildingSource(path="c.parquet")],
            str(tmp_path),
            CRS,
        )


def maps(buildings, regions, size=8):
    table = checked("heights", height_maps(buildings, regions, Rejections(), size))
    return pictures(table, np.float32, size, size), table.to_pandas().set_index("region_id")


def test_one_tower():
    """A tower over a quarter of one pixel, and one over four whole pixels."""
    towers = buildings_of([block(0, 0, 5, 5), block(40, 20, 20, 20)], [40.0, 30.0])
    pixels, rows = maps(towers, squares(1, 2, 80.0))
    expected = np.zeros((8, 8))
    expected[0, 0] = 10
    expected[2:4, 4:6] = 30
    np.testing.assert_allclose(pixels[0], expected, atol=1e-5)
    assert rows.index.to_list() == ["r000"]  # no row where no building stands
    row = rows.loc["r000"]
    assert row["building_count"] == 2 and row["with_height_share"] == 1
    assert row["built_share"] == pytest.approx(425 / 6400)
    assert row["mean_height_m"] == pytest.approx((25 * 40 + 400 * 30) / 425)


def test_unknown_heights_are_not_zero():
    shapes = [block(0, 0, 20, 20), block(20, 0, 2, 10), block(60, 60, 10, 10)]
    pixels, rows = maps(buildings_of(shapes, [np.nan, np.nan, 9.0]), squares(1, 1, 80.0))
    assert np.isnan(pixels[0][:2, :2]).all()
    assert pixels[0][0, 2] == 0  # a fifth unknown: the known ground decides
    assert pixels[0][6, 6] == pytest.approx(9)
    assert np.isnan(pixels[0]).sum() == 4
    assert rows["with_height_share"].to_list() == [pytest.approx(1 / 3)]
    assert rows["mean_height_m"].to_list() == [9.0]
    _, rows = maps(buildings_of(shapes[:1], [np.nan]), squares(1, 1, 80.0))
    assert np.isnan(rows["mean_height_m"].iloc[0]) and rows["built_share"].iloc[0] > 0


def test_maps_equal_the_naive_way(monkeypatch):
    rng = np.random.default_rng(0)
    shapes = [
        shapely.affinity.rotate(block(*rng.uniform(-20, 200, 2), *rng.uniform(3, 40, 2)), a)
        for a in rng.uniform(0, 90, 60)
    ]
    heights = rng.uniform(3, 80, 60)
    city = squares(3, 3, 60.0).geometry.to_list()
    regions = regions_of([*city, shapely.Point(WEST + 90, NORTH - 70).buffer(50)])
    buildings = buildings_of(shapes, heights)
    pixels, rows = maps(buildings, regions, 4)
    assert len(rows) == len(regions)
    for i, region in enumerate(regions.geometry):
        west, _, east, north = region.bounds
        step = (east - west) / 4
        own = shapely.area(shapely.intersection(region, shapes))
        row = rows.iloc[i]
        assert row["building_count"] == (own > 0).sum()
        assert row["built_share"] == pytest.approx(min(own.sum() / region.area, 1))
        assert row["mean_height_m"] == pytest.approx((own * heights).sum() / own.sum())
        for r in range(4):
            for c in range(4):
                cell = shapely.box(
                    west + c * step, north - (r + 1) * step, west + (c + 1) * step, north - r * step
                )
                share = shapely.area(shapely.intersection(cell, shapes)) / cell.area
                mean = (share * heights).sum() / max(share.sum(), 1)
                assert pixels[i, r, c] == pytest.approx(mean, abs=1e-4)
    monkeypatch.setattr(module, "REGIONS_AT_ONCE", 3)
    again, more = maps(buildings, regions, 4)
    np.testing.assert_array_equal(again, pixels)
    assert more.equals(rows)


def test_no_building_anywhere():
    far = buildings_of([shapely.box(0, 0, 9, 9)], [3.0])
    touching = buildings_of([block(-10, 0, 10, 10)], [3.0])
    for buildings in (far, touching):
        rejections = Rejections()
        assert list(height_maps(buildings, squares(2, 2, 50.0), rejections)) == []
        assert rejections.frame().to_dict("records") == [
            {"source": "buildings", "row": 0, "reason": "outside all regions", "detail": "",
             "items": 1.0}
        ]  # fmt: skip


@settings(deadline=None, max_examples=30)
@given(
    count=st.integers(0, 60),
    seed=st.integers(0, 2**32 - 1),
    at_once=st.integers(1, 12),
)
def test_a_building_is_joined_once_or_rejected(count, seed, at_once):
    """Whatever lies on borders, in regions that overlap, or nowhere: joined + rejected = read."""
    rng = np.random.default_rng(seed)
    # Whole metres, so that borders meet exactly.
    shapes = [block(*rng.integers(-60, 220, 2), *rng.integers(1, 40, 2)) for _ in range(count)]
    buildings = buildings_of(shapes, rng.uniform(3, 80, count))
    buildings["building_id"] = np.sort(rng.choice(1000, count, replace=False))
    regions = regions_of([*squares(3, 3, 50.0).geometry, block(90, 90, 70, 30)])
    rejections = Rejections()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "REGIONS_AT_ONCE", at_once)
        batches = list(height_maps(buildings, regions, rejections, 2))
    common = [[shape.intersection(r).area > 0 for r in regions.geometry] for shape in shapes]
    pairs = np.array(common, bool).reshape(count, len(regions))
    inside = pairs.any(axis=1)
    noted = rejections.frame()
    assert sorted(noted["row"]) == buildings["building_id"][~inside].tolist()
    assert inside.sum() + rejections.items == len(buildings)
    assert sum(sum(b.column("building_count").to_pylist()) for b in batches) == pairs.sum()
