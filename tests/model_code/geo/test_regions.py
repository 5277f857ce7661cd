import fsspec
import geopandas as gpd
import h3
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.city import Boundary, Hexagons, Polygons, Squares
from model_code.errors import ConfigError, DataError
from model_code.geo.regions import (
    make_adjacency,
    make_boundary,
    make_regions,
    shared_ground,
    utm_crs,
)
from tests.model_code.geo.maps import (
    BOX,
    CRS,
    boundary,
    frame_of,
    keeps_contract,
    regions,
    rejected_keeps_contract,
    write,
    write_bare,
)

HEXAGONS = Hexagons(kind="h3", resolution=8)
TILINGS = [Squares(kind="square", size_m=500), HEXAGONS]


def with_edge(partition, edge, share):
    return partition.model_copy(update={"edge": edge, "min_inside_share": share})


# --- boundary ------------------------------------------------------------------------------------


def test_box_is_projected_with_its_curved_edges():
    made = boundary((-79, 40, -73, 44))
    keeps_contract("boundary", made)
    edges = [
        (-76, 43.999),
        (-76, 44.001),
        (-76, 40.001),
        (-76, 39.999),
        (-78, 43.999),
        (-78, 44.001),
    ]
    places = gpd.GeoSeries([shapely.Point(place) for place in edges], crs=4326).to_crs(made.crs)
    inside = shapely.contains(made.geometry.iloc[0], places)
    assert inside.tolist() == [True, False] * 3  # a straight edge would be off by kilometres


@pytest.mark.parametrize(
    ("lon", "lat", "code"),
    [
        (-74, 40.7, 32618),
        (151, -33.9, 32756),
        (-180, 10, 32601),
        (180, 10, 32601),
        (179.9, -1, 32760),
        (0, 88, 32661),
        (0, -85, 32761),
    ],
)
def test_utm_zone_of_a_place(lon, lat, code):
    assert utm_crs(lon, lat) == f"EPSG:{code}"


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:2263", "EPSG:3857", "EPSG:32601", "EPSG:99999"])
def test_a_crs_without_true_metres_is_refused(crs):
    with pytest.raises(ConfigError) as error:
        boundary(crs=crs)
    assert error.value.problems[0].key == "crs"
    assert "EPSG:32618" in error.value.problems[0].fix


def test_boundary_is_the_union_of_a_files_polygons(tmp_path):
    halves = [shapely.box(-74.02, 40.70, -74.0, 40.74), shapely.box(-74.0, 40.70, -73.97, 40.74)]
    frame = gpd.GeoDataFrame(geometry=[*halves, None], crs=4326)
    write(tmp_path / "city.geojson", frame)
    from_file = make_boundary("town", Boundary(path="city.geojson"), "auto", str(tmp_path))
    assert from_file["area_km2"][0] == pytest.approx(boundary()["area_km2"][0], rel=1e-6)
    with (
        (tmp_path / "city.geojson").open("rb") as file,
        fsspec.open("memory://maps/city.geojson", "wb") as copy,
    ):
        copy.write(file.read())
    by_url = make_boundary("town", Boundary(path="memory://maps/city.geojson"), "auto", "")
    assert by_url.geometry.iloc[0].equals(from_file.geometry.iloc[0])


def test_boundary_files_that_cannot_be_used_name_their_key(tmp_path):
    write(tmp_path / "points.geojson", gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=4326))
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "plain.parquet")
    (tmp_path / "broken.geojson").write_text("{")
    for name in ("points.geojson", "plain.parquet", "broken.geojson", "absent.geojson"):
        with pytest.raises(DataError, match=r"boundary\.path"):
            make_boundary("town", Boundary(path=name), "auto", str(tmp_path))


def test_an_outline_that_states_no_crs_has_that_of_the_config(tmp_path):
    frame = gpd.GeoDataFrame(geometry=[shapely.box(*BOX)], crs=4326)
    bare = write_bare(tmp_path / "outline", frame.to_crs("EPSG:2263"))
    source = Boundary(path=bare, format="parquet", crs="EPSG:2263")
    made = make_boundary("town", source, "auto", str(tmp_path))
    assert made["area_km2"][0] == pytest.approx(boundary()["area_km2"][0], rel=1e-3)
    with pytest.raises(DataError, match=r"boundary\.path: .*says no CRS(.|\n)*`boundary\.crs`"):
        make_boundary("town", source.model_copy(update={"crs": None}), "auto", str(tmp_path))
    write(tmp_path / "outline.geojson", frame)
    with pytest.raises(DataError, match=r"boundary\.crs: EPSG:2263"):
        make_boundary(
            "town", Boundary(path="outline.geojson", crs="EPSG:2263"), "auto", str(tmp_path)
        )


# --- squares and hexagons ------------------------------------------------------------------------


@pytest.mark.parametrize("partition", TILINGS, ids=lambda p: p.kind)
def test_cells_tile_the_boundary(partition):
    whole = regions(with_edge(partition, "keep", 0))
    clipped = regions(with_edge(partition, "clip", 0))
    for made in (whole, clipped):
        keeps_contract("regions", made)
        assert made.crs == CRS
    area = boundary()["area_km2"][0]
    assert clipped["area_km2"].sum() == pytest.approx(area, rel=1e-9)
    assert (whole["area_km2"] * whole["inside_share"]).sum() == pytest.approx(area, rel=1e-9)
    assert list(whole["region_id"]) == list(clipped["region_id"])
    assert shapely.contains_xy(whole.geometry, whole["x_m"], whole["y_m"]).all()


@pytest.mark.parametrize("partition", TILINGS, ids=lambda p: p.kind)
def test_cells_below_the_share_are_left_out(partition):
    every = regions(with_edge(partition, "keep", 0))
    some = regions(with_edge(partition, "keep", 0.5))
    expected = every.loc[every["inside_share"] >= 0.5, "region_id"]
    assert 0 < len(some) < len(every)
    assert list(some["region_id"]) == list(expected)


@pytest.mark.parametrize("partition", TILINGS, ids=lambda p: p.kind)
def test_ids_do_not_depend_on_the_boundary(partition):
    west, south, east, north = BOX
    other = boundary((west + 0.01, south - 0.01, east + 0.02, north - 0.005))
    moved = make_regions(other, partition, "")[0].set_index("region_id")
    made = regions(partition).set_index("region_id")
    common = made.index.intersection(moved.index)
    assert 10 < len(common) < len(made)
    assert shapely.equals(made.geometry[common], moved.geometry[common]).all()


def test_squares_lie_at_multiples_of_their_size():
    made = regions(Squares(kind="square", size_m=250))
    bounds = shapely.bounds(made.geometry)
    column, row = (bounds[:, :2] / 250).T
    assert (bounds % 250 == 0).all()
    assert list(made["region_id"]) == [
        f"x{c:.0f}_y{r:.0f}" for c, r in zip(column, row, strict=True)
    ]


def test_hexagons_are_those_of_h3():
    made = regions(with_edge(HEXAGONS, "keep", 0))
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(BOX[0], BOX[2], 500), rng.uniform(BOX[1], BOX[3], 500)
    cells = {h3.latlng_to_cell(*place, 8) for place in zip(lat, lon, strict=True)}
    assert cells <= set(made["region_id"])
    for cell, shape in zip(made["region_id"][:5], made.to_crs(4326).geometry, strict=False):
        corners = [(lon, lat) for lat, lon in h3.cell_to_boundary(cell)]
        assert shape.symmetric_difference(shapely.Polygon(corners)).area < 1e-12


@settings(deadline=None, max_examples=40)
@given(
    lon=st.floats(-179.9, 179.8),
    lat=st.floats(-89.9, 89.8),
    size=st.sampled_from([1e-5, 1e-3, 0.02]),
    partition=st.sampled_from(
        [Squares(kind="square", size_m=700), Hexagons(kind="h3", resolution=5), HEXAGONS]
    ),
    edge=st.sampled_from(["keep", "clip"]),
)
def test_a_small_area_anywhere_has_regions(lon, lat, size, partition, edge):
    box = boundary((lon, lat, lon + size, lat + size))
    made = make_regions(box, with_edge(partition, edge, 0.9), "")[0]
    keeps_contract("regions", made)
    assert shapely.intersects(box.geometry.iloc[0], made.geometry).all()


@pytest.mark.parametrize(
    ("partition", "key"),
    [
        (Squares(kind="square", size_m=0.5), "partition.size_m"),
        (Hexagons(kind="h3", resolution=15), "partition.resolution"),
    ],
)
def test_too_many_cells_are_refused_before_they_are_made(partition, key):
    with pytest.raises(ConfigError) as error:
        regions(partition)
    assert error.value.problems[0].key == key


# --- polygons ------------------------------------------------------------------------------------


@pytest.fixture
def districts(tmp_path):
    """A file with everything that can be wrong with polygons."""
    west, south, east, north = BOX
    middle = (west + east) / 2
    bow_tie = shapely.Polygon([(west, south), (middle, north), (middle, south), (west, north)])
    frame = gpd.GeoDataFrame(
        {"code": [10, 2, 2, 7, 8, None, 30]},
        geometry=[
            bow_tie,
            shapely.box(middle, south, east, 40.71),
            shapely.box(middle, 40.71, east, north),
            None,
            shapely.LineString([(west, south), (east, north)]),
            shapely.box(west, south, east, north),
            shapely.box(10, 50, 11, 51),
        ],
        crs=4326,
    )
    write(tmp_path / "districts.geojson", frame)
    return str(tmp_path)


def test_polygons_are_mended_dissolved_or_rejected(districts):
    partition = Polygons(kind="polygons", path="districts.geojson", id="code")
    made, rejections = make_regions(boundary(), partition, districts)
    keeps_contract("regions", made)
    rejected_keeps_contract(rejections)
    assert list(made["region_id"]) == ["10", "2"]  # ids are text, and ordered as text
    assert made.is_valid.all()
    notes = rejections.frame().set_index("row")
    assert notes["reason"].to_dict() == {
        0: "broken geometry, mended",
        2: "same id as an earlier row, dissolved",
        3: "no geometry",
        4: "no area",
        5: "no id",
        6: "outside the boundary",
    }
    assert notes["items"].to_dict() == {0: 0, 2: 0, 3: 1, 4: 1, 5: 1, 6: 1}
    half = boundary()["area_km2"][0] / 2
    assert made["area_km2"][1] == pytest.approx(half, rel=1e-2)
    assert made["area_km2"][0] == pytest.approx(half / 2, rel=1e-2)


def test_polygons_that_state_no_crs_have_that_of_the_config(districts, tmp_path):
    told = Polygons(kind="polygons", path="districts.geojson", id="code")
    expected, _ = make_regions(boundary(), told, districts)
    frame = gpd.read_file(tmp_path / "districts.geojson")
    bare = write_bare(tmp_path / "districts", frame)
    source = {"kind": "polygons", "path": bare, "id": "code", "format": "parquet"}
    made, _ = make_regions(boundary(), Polygons(**source, crs="EPSG:4326"), districts)
    pd.testing.assert_frame_equal(made, expected)
    with pytest.raises(DataError, match=r"says no CRS(.|\n)*`partition\.crs`"):
        make_regions(boundary(), Polygons(**source), districts)
    with pytest.raises(DataError, match=r"partition\.crs: EPSG:2263"):
        make_regions(boundary(), told.model_copy(update={"crs": "EPSG:2263"}), districts)


def test_polygons_name_what_is_missing(districts):
    with pytest.raises(DataError, match=r"partition\.id: no column 'name'.*\n.*code"):
        make_regions(
            boundary(), Polygons(kind="polygons", path="districts.geojson", id="name"), districts
        )
    far = boundary((20, 20, 20.1, 20.1))
    with pytest.raises(DataError, match=r"partition\.path"):
        make_regions(far, Polygons(kind="polygons", path="districts.geojson", id="code"), districts)


def test_a_polygon_that_the_boundary_touches_by_rounding_is_none_of_the_city(tmp_path):
    outline = boundary()
    _, south, east, north = outline.total_bounds
    beyond = shapely.box(east - 1e-9, south, east + 1000, north)
    frame = gpd.GeoDataFrame(
        {"code": [1, 2]}, geometry=[outline.geometry[0], beyond], crs=outline.crs
    )
    assert frame.geometry[1].intersects(outline.geometry[0])
    frame.to_parquet(tmp_path / "zones.parquet")
    partition = Polygons(kind="polygons", path="zones.parquet", id="code")
    made, rejections = make_regions(outline, partition, str(tmp_path))
    assert list(made["region_id"]) == ["1"]
    assert rejections.frame()["reason"].tolist() == ["outside the boundary"]


# --- adjacency -----------------------------------------------------------------------------------


def test_squares_in_a_block_touch_at_sides_not_corners():
    block = frame_of([shapely.box(x, y, x + 500, y + 500) for x in (0, 500) for y in (0, 500)])
    made = make_adjacency(block)
    keeps_contract("adjacency", made)
    pairs = set(zip(made["region_id"], made["neighbour_id"], strict=True))
    assert pairs == {(a, b) for a in "03" for b in "12"} | {(b, a) for a in "03" for b in "12"}
    assert (made["border_m"] == 500).all()


@pytest.mark.parametrize(("gap", "touch"), [(0.0005, True), (-0.0005, True), (0.01, False)])
def test_gaps_below_a_millimetre_are_no_gaps(gap, touch):
    pair = frame_of([shapely.box(0, 0, 10, 10), shapely.box(10 + gap, 3, 20, 30)])
    made = make_adjacency(pair)
    assert len(made) == (2 if touch else 0)
    if touch:
        assert made["border_m"].tolist() == pytest.approx([7, 7], abs=0.011)


def test_hexagons_have_the_neighbours_that_h3_says():
    made = regions(with_edge(HEXAGONS, "keep", 0))
    pairs = make_adjacency(made).groupby("region_id")["neighbour_id"].agg(set)
    for cell in made["region_id"]:
        assert pairs[cell] == (set(h3.grid_ring(cell, 1)) & set(made["region_id"]))


def test_adjacency_goes_both_ways_and_an_island_has_none():
    shapes = [*(shapely.box(i, 0, i + 1, 1) for i in range(3)), shapely.box(50, 50, 51, 51)]
    made = make_adjacency(frame_of(shapes))
    forth = set(made.itertuples(index=False, name=None))
    assert forth == {(b, a, border) for a, b, border in forth}
    assert "3" not in set(made["region_id"])


def test_cities_that_touch_share_no_ground_and_cities_that_overlap_do():
    def town(x_m: float) -> gpd.GeoDataFrame:
        cells = [
            shapely.box(x_m + 1000 * i, 4e6, x_m + 1000 * (i + 1), 4e6 + 1000) for i in range(3)
        ]
        return gpd.GeoDataFrame(geometry=cells, crs="EPSG:32625")

    here = town(500_000)
    assert shared_ground(here, town(503_000).to_crs(4326)) == 0
    assert shared_ground(here, town(501_500).to_crs(4326)) == 2
    assert shared_ground(here, here) == 3
