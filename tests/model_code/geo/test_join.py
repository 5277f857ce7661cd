import geopandas as gpd
import h3
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.city import Hexagons, Squares
from model_code.geo import join
from model_code.geo.join import Locator
from model_code.geo.regions import make_regions
from model_code.geo.vector import project
from tests.model_code.geo.maps import (
    BOX,
    CRS,
    GIVEN,
    SQUARES,
    boundary,
    frame_of,
    jagged,
    naive_locate,
    regions,
)

NOWHERE = [np.nan, np.inf, -np.inf, 1e300, -1e300, 1e18]


def awkward_points(shapes, rng, many=300):
    """Points on vertices, on edges, a rounding beside them, inside, outside and nowhere."""
    vertices = shapely.get_coordinates(shapes)
    middles = (vertices[1:] + vertices[:-1]) / 2
    near = np.nextafter(vertices, rng.choice([-np.inf, np.inf], vertices.shape))
    west, south, east, north = shapely.total_bounds(shapes)
    spread = rng.uniform([west - 50, south - 50], [east + 50, north + 50], (many, 2))
    picked = [part[rng.permutation(len(part))[:many]] for part in (vertices, middles, near)]
    nowhere = np.array([[a, b] for a in [*NOWHERE, west] for b in [*NOWHERE, south]])
    return np.concatenate([*picked, spread, nowhere]).T


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 25))
def test_polygons_agree_with_the_naive_join(seed, count):
    rng = np.random.default_rng(seed)
    shapes = jagged(count, seed)
    # A hole, an overlap, a multipolygon and a sliver, in any order.
    ring = shapely.box(300, 300, 700, 700).difference(shapely.box(450, 450, 550, 550))
    pair = shapely.MultiPolygon([shapely.box(100, 100, 110, 990), shapely.box(900, 0, 2000, 50)])
    sliver = shapely.Polygon([(0, 0), (1000, 1000), (1000, 999.999)])
    shapes = rng.permutation(np.array([*shapes, ring, pair, sliver], object))
    x, y = awkward_points(shapes, rng, 100)
    found = Locator(frame_of(shapes), GIVEN).locate(x, y)
    np.testing.assert_array_equal(found, naive_locate(shapes, x, y))


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([333.3, 500.0, 0.1 * 7000]),
    edge=st.sampled_from(["keep", "clip"]),
)
def test_squares_agree_with_the_naive_join(seed, size, edge):
    partition = Squares(kind="square", size_m=size, edge=edge, min_inside_share=0.3)
    made = regions(partition)
    x, y = awkward_points(made.geometry.to_numpy(), np.random.default_rng(seed), 60)
    found = Locator(made, partition).locate(x, y)
    np.testing.assert_array_equal(found, naive_locate(made.geometry, x, y))


def test_a_shared_border_belongs_to_the_region_that_stands_first():
    x, y = [1000.0, 1000.0, 995.0], [5.0, 0.0, 0.0]
    squares = frame_of([shapely.box(1000, 0, 1010, 10), shapely.box(990, 0, 1000, 10)])
    for partition in (GIVEN, Squares(kind="square", size_m=10)):
        assert Locator(squares, partition).locate(x, y).tolist() == [0, 0, 1]


@settings(deadline=None, max_examples=25)
@given(
    lon=st.floats(-179, 178),
    lat=st.one_of(st.floats(-89, 88.9), st.just(88.99)),
    seed=st.integers(0, 2**32 - 1),
)
def test_hexagons_agree_with_h3_anywhere(lon, lat, seed):
    rng = np.random.default_rng(seed)
    box = (lon, lat, lon + 1, lat + 1)
    partition = Hexagons(kind="h3", resolution=4, min_inside_share=0)
    made = make_regions(boundary(box), partition, "")[0]
    locator = Locator(made, partition)
    lons, lats = rng.uniform(lon - 0.5, lon + 1.5, 50), rng.uniform(lat, lat + 1, 50)
    position = {cell: i for i, cell in enumerate(made["region_id"])}
    places = zip(lats, lons, strict=True)
    expected = [position.get(h3.latlng_to_cell(*place, 4), -1) for place in places]
    assert locator.locate_lonlat(lons, lats).tolist() == expected
    inside = (lons >= lon) & (lons <= lon + 1)
    assert (np.array(expected)[inside] >= 0).all()
    assert (
        locator.locate_lonlat(*np.array([[a, b] for a in NOWHERE for b in NOWHERE]).T).max() == -1
    )
    assert locator.locate(*np.array([[a, b] for a in NOWHERE for b in NOWHERE]).T).max() == -1


def test_clipped_hexagons_go_by_their_geometry():
    partition = Hexagons(kind="h3", resolution=7, edge="clip", min_inside_share=0)
    made = regions(partition)
    x, y = awkward_points(made.geometry.to_numpy(), np.random.default_rng(0))
    found = Locator(made, partition).locate(x, y)
    np.testing.assert_array_equal(found, naive_locate(made.geometry, x, y))
    assert (found >= 0).any()


@pytest.mark.parametrize(
    "partition", [SQUARES, Hexagons(kind="h3", resolution=8), GIVEN], ids=lambda p: p.kind
)
def test_degrees_and_metres_lead_to_the_same_region(partition):
    made = regions(SQUARES if partition is GIVEN else partition)
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(BOX[0], BOX[2], 3000), rng.uniform(BOX[1], BOX[3], 3000)
    locator = Locator(made, partition)
    by_degrees = locator.locate_lonlat(lon, lat)
    np.testing.assert_array_equal(by_degrees, locator.locate(*project(lon, lat, "EPSG:4326", CRS)))
    assert (by_degrees >= 0).mean() > 0.8
    # One point, and none, are no special cases.
    assert locator.locate_lonlat(lon[:1], lat[:1]).tolist() == by_degrees[:1].tolist()
    assert locator.locate_lonlat(lon[:0], lat[:0]).tolist() == []


@pytest.mark.parametrize("partition", [SQUARES, GIVEN], ids=lambda p: p.kind)
def test_many_points_in_threads_agree_with_geopandas(partition, monkeypatch):
    monkeypatch.setattr(join, "_CHUNK", 1 << 12)
    shapes = jagged(200, 0, 4000.0) if partition is GIVEN else regions().geometry.to_numpy()
    made = frame_of(shapes)
    rng = np.random.default_rng(0)
    west, south, east, north = made.total_bounds
    x, y = rng.uniform(west - 100, east, 50_000), rng.uniform(south - 100, north, 50_000)
    found = Locator(made, partition).locate(x, y)
    points = gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, y), crs=CRS)
    joined = points.sjoin(made, how="left", predicate="intersects")
    expected = joined["index_right"].fillna(-1).groupby(level=0).min().to_numpy(np.int64)
    np.testing.assert_array_equal(found, expected)


def test_regions_far_apart_need_no_table_of_all_between():
    size = 10.0
    corners = [(0, 0), (3_000_000, 5), (7, 40_000_000)]
    shapes = [shapely.box(c * size, r * size, (c + 1) * size, (r + 1) * size) for c, r in corners]
    locator = Locator(frame_of(shapes), Squares(kind="square", size_m=size))
    x, y = np.array([[5.0, 5.0], [30_000_001, 55], [79, 4e8 + 1], [20, 5]]).T
    assert locator.locate(x, y).tolist() == [0, 1, 2, -1]
