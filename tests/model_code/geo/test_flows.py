import gzip
import os
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.city import Boundary, OdSource, Polygons, TripSource, Zones
from model_code.contracts import arrow_schema
from model_code.errors import DataError
from model_code.geo.flows import (
    count_flows,
    count_pois,
    local_hour,
    make_mobility,
    poi_texts,
    read_od,
    region_pois,
    zone_shares,
)
from model_code.geo.join import Locator
from model_code.geo.points import stream_trips
from model_code.geo.regions import make_boundary, make_regions, polygon_ids
from model_code.rejections import Rejections
from model_code.tables import contract
from tests.model_code.geo.maps import (
    CRS,
    GIVEN,
    frame_of,
    jagged,
    keeps_contract,
    rejected_keeps_contract,
    write,
    write_bare,
)

NEW_YORK = "America/New_York"


def town(count=12, seed=0):
    """Regions over a square kilometre, some of it in none of them."""
    made = frame_of(jagged(count, seed)[: count - 2])
    return made, Locator(made, GIVEN), made["region_id"].to_numpy(object)


def some_pois(n, seed):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "poi_id": np.arange(n),
            "category": rng.choice(["cafe", "bar", "Zoo", "école"], n),
            "name": rng.choice(np.array(["A", "B", None], object), n),
            "comments": [[f"of {i}"] * int(rng.integers(0, 3)) for i in range(n)],
            "x_m": rng.uniform(-100, 1100, n),
            "y_m": rng.uniform(-100, 1100, n),
        }
    )


# --- points of interest --------------------------------------------------------------------------


def write_pois(path, pois, **layout):
    pq.write_table(keeps_contract("pois", pois), path, **layout)
    return str(path)


def located(path, locator, ids):
    """The table `region_pois` in pandas, the file that holds it, and what was rejected."""
    rejections = Rejections()
    parts = list(region_pois(path, locator, ids, rejections))
    table = pa.Table.from_batches(parts, arrow_schema(contract("region_pois")))
    keeps_contract("region_pois", table)
    pq.write_table(table, f"{path}.located", row_group_size=70)
    return table.to_pandas(), f"{path}.located", rejections


@settings(deadline=None, max_examples=8)
@given(n=st.integers(0, 400), seed=st.integers(0, 2**32 - 1))
def test_poi_counts_agree_with_pandas_and_lose_nothing(n, seed, tmp_path_factory):
    _, locator, ids = town()
    pois = some_pois(n, seed)
    path = tmp_path_factory.mktemp("pois") / "it's.parquet"
    joined, file, rejections = located(write_pois(path, pois, row_group_size=70), locator, ids)
    rejected_keeps_contract(rejections)
    region = locator.locate(pois["x_m"], pois["y_m"])
    inside = pois[region >= 0].assign(region_id=ids[region[region >= 0]])
    assert joined.to_dict("list") == inside[list(joined)].to_dict("list")
    assert rejections.frame()["row"].tolist() == pois["poi_id"][region < 0].tolist()
    assert len(joined) + rejections.items == n

    counts = keeps_contract("poi_counts", count_pois(file)).to_pandas()
    naive = inside.groupby(["region_id", "category"]).size()
    pairs = counts.set_index(["region_id", "category"])["poi_count"]
    assert pairs.to_dict() == naive.to_dict()
    assert list(pairs.index) == list(naive.index)  # regions, then categories by their bytes


def test_how_a_file_is_cut_changes_no_region_and_no_rejection(tmp_path):
    _, locator, ids = town()
    pois = some_pois(5000, 3)
    pois["category"] = [f"{c} {i // 200}" for i, c in enumerate(pois["category"])]
    whole, file, lost = located(write_pois(tmp_path / "whole.parquet", pois), locator, ids)
    cut = write_pois(tmp_path / "cut.parquet", pois, row_group_size=64, use_dictionary=False)
    again, other, lost_again = located(cut, locator, ids)
    pd.testing.assert_frame_equal(again, whole)
    pd.testing.assert_frame_equal(lost_again.frame(), lost.frame())
    assert count_pois(other).equals(count_pois(file))
    assert whole["category"].nunique() == 100


def in_regions(pois, locator, ids):
    region = locator.locate(pois["x_m"].to_numpy(), pois["y_m"].to_numpy())
    inside = pois[["poi_id", "category"]][region >= 0]
    return inside.assign(region_id=ids[region[region >= 0]])


def test_texts_keep_the_order_of_the_pois():
    _, locator, ids = town()
    pois = some_pois(200, 1).iloc[::-1]
    texts = poi_texts(pois, in_regions(pois, locator, ids))
    keeps_contract("poi_texts", texts)
    region = locator.locate(pois["x_m"].to_numpy(), pois["y_m"].to_numpy())
    for row in texts.itertuples():
        mine = pois[region == list(ids).index(row.region_id)].sort_values("poi_id")
        assert list(row.names) == mine["name"].dropna().tolist()
        assert list(row.comments) == [c for texts in mine["comments"] for c in texts]
        named = mine.dropna(subset="name")
        assert list(row.name_categories) == named["category"].tolist()
        said = mine["category"].repeat(mine["comments"].map(len))
        assert list(row.comment_categories) == said.tolist()
    assert set(texts["region_id"]) == set(ids[region[region >= 0]])


def test_comments_are_null_without_a_source_of_them_and_empty_without_any():
    _, locator, ids = town()
    pois = some_pois(200, 1)
    inside = in_regions(pois, locator, ids)
    pois["comments"] = None
    silent = poi_texts(pois, inside)
    assert silent["comments"].isna().all() and silent["comment_categories"].isna().all()
    keeps_contract("poi_texts", silent)
    pois["comments"] = [[] for _ in range(200)]
    empty = poi_texts(pois, inside)["comments"]
    assert [list(texts) for texts in empty] == [[]] * len(silent)


# --- trips ---------------------------------------------------------------------------------------


def write_trips(path, rows, seed, zones=None):
    """A table `trips` by points, or by zones of the given names; returns it in pandas."""
    rng = np.random.default_rng(seed)
    start = rng.integers(1_700_000_000, 1_735_000_000, rows) * 1_000_000
    columns = {
        "trip_id": np.arange(rows) * 2,
        "started_at": pa.array(start, pa.timestamp("us", "UTC")),
        "trip_count": rng.integers(0, 5, rows),
    }
    for end in ("origin", "destination"):
        if zones is not None:
            columns[f"{end}_zone"] = pa.array(
                rng.choice(np.array(zones, object), rows), pa.string()
            )
        else:
            columns |= {f"{end}_{axis}_m": rng.uniform(-100, 1100, rows) for axis in "xy"}
    schema = arrow_schema(contract("trips"))
    table = pa.table(
        [
            pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(rows, f.type)
            for f in schema
        ],
        schema=schema,
    )
    pq.write_table(table, path, row_group_size=100)
    return table.to_pandas()


def matrix(flows, ids):
    """[24, N, N] of a table `flows`."""
    position = {region: i for i, region in enumerate(ids)}
    dense = np.zeros((24, len(ids), len(ids)))
    for row in flows.itertuples():
        dense[row.hour, position[row.origin_id], position[row.destination_id]] += row.trip_count
    return dense


@settings(deadline=None, max_examples=8)
@given(rows=st.integers(0, 500), seed=st.integers(0, 2**32 - 1))
def test_flows_of_points_agree_with_pandas_and_lose_nothing(rows, seed, tmp_path_factory):
    path = tmp_path_factory.mktemp("flows") / "trips.parquet"
    trips = write_trips(path, rows, seed)
    _, locator, ids = town()
    flows, rejections = count_flows(str(path), locator, ids, timezone=NEW_YORK)
    keeps_contract("flows", flows)
    rejected_keeps_contract(rejections)
    assert flows["trip_count"].sum() + rejections.items == trips["trip_count"].sum()

    ends = [locator.locate(trips[f"{e}_x_m"], trips[f"{e}_y_m"]) for e in ("origin", "destination")]
    hour = trips["started_at"].dt.tz_convert(NEW_YORK).dt.hour
    naive = np.zeros((24, len(ids), len(ids)))
    inside = (ends[0] >= 0) & (ends[1] >= 0)
    where = (hour[inside], ends[0][inside], ends[1][inside])
    np.add.at(naive, where, trips["trip_count"][inside])
    np.testing.assert_array_equal(matrix(flows, ids), naive)
    assert set(rejections.frame()["row"]) == set(trips["trip_id"][~inside])


def test_a_sliver_of_a_zone_is_no_overlap(tmp_path):
    regions, *_ = town()
    first = regions.geometry.iloc[0]
    drawn = shapely.transform(first, lambda p: p + 0.01)  # the same border, drawn 1 cm off
    write(tmp_path / "zones.gpkg", gpd.GeoDataFrame({"zone": ["a"]}, geometry=[drawn], crs=CRS))
    assert regions.geometry.intersects(drawn).sum() > 1
    shares, _ = zone_shares(Zones(path="zones.gpkg", id="zone"), regions, str(tmp_path))
    assert list(shares["region"]) == [0]
    inside = regions.geometry.intersection(drawn).area.sum() / drawn.area
    assert shares["share"].item() == pytest.approx(inside, abs=1e-9)


@settings(deadline=None, max_examples=8)
@given(rows=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
def test_flows_of_zones_are_shared_by_area_and_lose_nothing(rows, seed, tmp_path_factory):
    root = tmp_path_factory.mktemp("zones")
    names = ["a", "b", "c", "d", "e"]
    shapes = [shapely.transform(s, lambda p: p * 1.1 - 50) for s in jagged(4, seed % 1000)]
    shapes.append(shapely.box(5000, 0, 6000, 10))  # e lies outside all regions
    write(root / "zones.gpkg", gpd.GeoDataFrame({"zone": names}, geometry=shapes, crs=CRS))
    trips = write_trips(root / "trips.parquet", rows, seed, [*names, "unknown"])
    regions, locator, ids = town()
    shares, _ = zone_shares(Zones(path="zones.gpkg", id="zone"), regions, str(root))
    flows, rejections = count_flows(
        str(root / "trips.parquet"), locator, ids, timezone=NEW_YORK, shares=shares
    )
    keeps_contract("flows", flows)
    rejected_keeps_contract(rejections)
    total = flows["trip_count"].sum() + rejections.items
    assert total == pytest.approx(trips["trip_count"].sum(), rel=1e-9, abs=1e-9)

    area = np.array([[s.intersection(r).area / s.area for r in regions.geometry] for s in shapes])
    inside = area.sum(axis=1, keepdims=True)
    area[area < 1e-3 * inside] = 0  # slivers
    area *= inside / np.maximum(area.sum(axis=1, keepdims=True), 1e-12)
    naive = np.zeros((24, len(ids), len(ids)))
    for trip in trips.itertuples():
        if trip.origin_zone in names and trip.destination_zone in names:
            origin, destination = (
                area[names.index(z)] for z in (trip.origin_zone, trip.destination_zone)
            )
            hour = trip.started_at.tz_convert(NEW_YORK).hour
            naive[hour] += trip.trip_count * np.outer(origin, destination)
    np.testing.assert_allclose(matrix(flows, ids), naive, atol=1e-9)
    unknown = trips[(trips["origin_zone"] == "unknown") | (trips["destination_zone"] == "unknown")]
    noted = rejections.frame().query("source == 'trips'")
    assert set(noted["row"]) == set(unknown["trip_id"])
    assert noted["items"].sum() == unknown["trip_count"].sum()


def test_flows_are_the_same_bytes_every_time(tmp_path):
    write_trips(tmp_path / "trips.parquet", 5000, 3)
    _, locator, ids = town()
    first, *others = [
        keeps_contract(
            "flows", count_flows(str(tmp_path / "trips.parquet"), locator, ids, timezone="UTC")[0]
        )
        for _ in range(4)
    ]
    assert all(first.equals(other) for other in others)


def test_trips_are_read_through_fsspec(tmp_path):
    import fsspec

    write_trips(tmp_path / "trips.parquet", 300, 3)
    fsspec.filesystem("memory").put(str(tmp_path / "trips.parquet"), "/lake/trips.parquet")
    _, locator, ids = town()
    by_path, by_url = (
        count_flows(path, locator, ids, timezone="UTC")[0]
        for path in (str(tmp_path / "trips.parquet"), "memory://lake/trips.parquet")
    )
    pd.testing.assert_frame_equal(by_path, by_url)


def test_zones_where_regions_overlap_are_shared_out_once(tmp_path):
    zones = gpd.GeoDataFrame(
        {"zone": [1, 2]}, geometry=[shapely.box(0, 0, 10, 10), shapely.box(10, 0, 30, 10)], crs=CRS
    )
    write(tmp_path / "zones.parquet", zones)
    regions = frame_of([shapely.box(0, 0, 10, 10), shapely.box(0, 0, 20, 10)])
    shares, rejections = zone_shares(Zones(path="zones.parquet", id="zone"), regions, str(tmp_path))
    assert not len(rejections)
    assert shares.to_dict("list") == {
        "zone": ["1", "1", "2"],
        "region": [0, 1, 1],
        "share": [0.5, 0.5, 0.5],
    }


def test_rows_of_the_zones_file_that_are_no_zone_are_told(tmp_path):
    """As no item: the trips that name them are those that are lost, and each counts once."""
    square, bow_tie = shapely.box(0, 0, 10, 10), shapely.Polygon([(0, 0), (9, 9), (9, 0), (0, 9)])
    zones = gpd.GeoDataFrame(
        {"zone": ["a", None, "c", "d", "e", "a"]},
        geometry=[
            square, square, None, shapely.LineString([(0, 0), (1, 1)]), bow_tie,
            shapely.box(20, 0, 30, 10),
        ],
        crs=CRS,
    )  # fmt: skip
    write(tmp_path / "zones.parquet", zones)
    regions = frame_of([shapely.box(0, 0, 40, 10)])
    shares, rejections = zone_shares(Zones(path="zones.parquet", id="zone"), regions, str(tmp_path))
    assert shares["zone"].tolist() == ["a", "e"]
    rejected_keeps_contract(rejections)
    noted = rejections.frame().set_index("row")
    assert noted["reason"].to_dict() == {
        1: "no id", 2: "no geometry", 3: "no area", 4: "broken geometry, mended",
        5: "same id as an earlier row, dissolved",
    }  # fmt: skip
    assert set(noted["source"]) == {"zones.parquet"} and noted["detail"][2] == "c"
    assert rejections.items == 0
    trips = write_trips(tmp_path / "trips.parquet", 40, 0, ["a", "c", "e"])
    ids = regions["region_id"].to_numpy(object)
    flows, lost = count_flows(
        str(tmp_path / "trips.parquet"), None, ids, timezone="UTC", shares=shares
    )
    rejections.extend(lost)
    assert rejections.items > 0
    assert flows["trip_count"].sum() + rejections.items == pytest.approx(trips["trip_count"].sum())


def test_zones_that_state_no_crs_have_that_of_the_config(tmp_path):
    regions, *_ = town()
    zones = gpd.GeoDataFrame({"zone": [1, 2]}, geometry=list(jagged(2, 0))[:2], crs=CRS)
    write(tmp_path / "zones.gpkg", zones)
    bare = Zones(path=write_bare(tmp_path / "zones", zones), id="zone", format="parquet", crs=CRS)
    expected, _ = zone_shares(Zones(path="zones.gpkg", id="zone"), regions, str(tmp_path))
    found, _ = zone_shares(bare, regions, str(tmp_path))
    pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(DataError, match=r"says no CRS(.|\n)*`sources\.trips\.zones\.crs`"):
        zone_shares(bare.model_copy(update={"crs": None}), regions, str(tmp_path))


def test_a_zones_file_without_any_zone_loses_no_trip_silently(tmp_path):
    nameless = pd.Series([None], dtype="str")
    zones = gpd.GeoDataFrame({"zone": nameless}, geometry=[shapely.box(0, 0, 9, 9)], crs=CRS)
    write(tmp_path / "zones.gpkg", zones)
    regions, _, ids = town()
    shares, rejections = zone_shares(Zones(path="zones.gpkg", id="zone"), regions, str(tmp_path))
    assert len(rejections) == 1 and shares.empty
    trips = write_trips(tmp_path / "trips.parquet", 9, 0, ["a"])
    flows, lost = count_flows(
        str(tmp_path / "trips.parquet"), None, ids, timezone="UTC", shares=shares
    )
    assert flows.empty and lost.items == trips["trip_count"].sum()


@settings(deadline=None, max_examples=20)
@given(
    timezone=st.sampled_from(
        [
            "UTC",
            NEW_YORK,
            "Australia/Lord_Howe",
            "Asia/Kathmandu",
            "Africa/Casablanca",
            "Europe/Kyiv",
        ]
    ),
    seconds=st.lists(st.integers(-900_000_000, 3_000_000_000), min_size=1, max_size=20),
)
def test_local_hours_agree_with_the_time_zone(timezone, seconds):
    utc = pd.to_datetime(np.array(seconds), unit="s", utc=True).as_unit("us")
    times = pa.table({"t": pa.array(utc, pa.timestamp("us", "UTC"))})
    hour = local_hour("t", timezone, min(seconds), max(seconds))
    with duckdb.connect() as connection:
        found = connection.from_arrow(times).project(f"{hour} AS h").fetchall()
    assert [h for (h,) in found] == [
        t.astimezone(ZoneInfo(timezone)).hour for t in utc.to_pydatetime()
    ]


# --- ready matrices ------------------------------------------------------------------------------


@pytest.fixture
def city(tmp_path):
    """Polygons whose file is not in the order of their ids, one of them outside the boundary."""
    order = [10, 2, 33, 1]
    shapes = [shapely.box(-74 + i / 100, 40.7, -73.99 + i / 100, 40.71) for i in range(3)]
    shapes.append(shapely.box(0, 0, 1, 1))
    write(
        tmp_path / "regions.geojson", gpd.GeoDataFrame({"code": order}, geometry=shapes, crs=4326)
    )
    partition = Polygons(kind="polygons", path="regions.geojson", id="code")
    outline = make_boundary("town", Boundary(bbox=(-74.1, 40.6, -73.9, 40.8)), "auto", "")
    regions, _ = make_regions(outline, partition, str(tmp_path))
    assert list(regions["region_id"]) == ["10", "2", "33"]
    return regions, partition, tmp_path


def test_a_matrix_follows_the_rows_of_the_polygons_file(city):
    regions, partition, root = city
    counts = np.array([[1, 2, 3, 4], [0, 5, 6, 0], [7, 0, 8, 9], [10, 11, 12, 13]], float)
    counts[1, 3], counts[2, 1] = np.nan, -2
    np.save(root / "od.npy", counts)
    flows, rejections = read_od(OdSource(path="od.npy"), regions, partition, str(root))
    keeps_contract("flows", flows)
    rejected_keeps_contract(rejections)
    pairs = flows.set_index(["origin_id", "destination_id"])["trip_count"].to_dict()
    assert pairs == {
        ("10", "10"): 1, ("10", "2"): 2, ("10", "33"): 3,
        ("2", "2"): 5, ("2", "33"): 6, ("33", "10"): 7, ("33", "33"): 8,
    }  # fmt: skip
    assert flows["hour"].isna().all()
    noted = rejections.frame().set_index("row")
    assert noted["reason"].to_dict() == {
        7: "no usable count", 9: "no usable count", 3: "destination is no region",
        11: "destination is no region", 12: "origin is no region", 13: "origin is no region",
        14: "origin is no region", 15: "origin is no region",
    }  # fmt: skip
    usable = np.nansum(counts.clip(0))
    lost = noted.loc[noted["reason"] != "no usable count", "items"].sum()
    assert flows["trip_count"].sum() + lost == usable


def test_a_table_gives_the_same_flows_as_the_matrix(city):
    regions, partition, root = city
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, (4, 4))
    np.save(root / "od.npy", counts)
    order = np.array([10, 2, 33, 1])
    table = pd.DataFrame({"o": order.repeat(4), "d": np.tile(order, 4), "n": counts.ravel()})
    table = pd.concat([table, table])  # pairs that stand twice add up
    columns = {"origin": "o", "destination": "d", "trip_count": "n"}
    by_matrix, _ = read_od(OdSource(path="od.npy"), regions, partition, str(root))
    for name in ("od.csv", "od.parquet"):
        source = OdSource(path=write(root / name, table), columns=columns)
        by_table, _ = read_od(source, regions, partition, str(root))
        keeps_contract("flows", by_table)
        doubled = by_matrix.assign(trip_count=by_matrix["trip_count"] * 2)
        pd.testing.assert_frame_equal(by_table, doubled)


def test_files_of_one_pattern_add_up(city):
    """Months, say; rows are counted from the first file on."""
    regions, partition, root = city
    rng = np.random.default_rng(0)
    order, months = np.array([10, 2, 33, 1]), rng.integers(0, 5, (3, 4, 4))
    columns = {"origin": "o", "destination": "d", "trip_count": "n"}
    for month, counts in enumerate(months):
        np.save(root / f"od{month}.npy", counts)
        table = pd.DataFrame({"o": order.repeat(4), "d": np.tile(order, 4), "n": counts.ravel()})
        write(root / f"od{month}.csv", table)
    np.save(root / "all.npy", months.sum(axis=0))
    whole, lost = read_od(OdSource(path="all.npy"), regions, partition, str(root))
    for path in ("od*.npy", "od*.csv"):
        source = OdSource(path=path, columns=columns)
        flows, rejections = read_od(source, regions, partition, str(root))
        keeps_contract("flows", flows)
        rejected_keeps_contract(rejections)
        pd.testing.assert_frame_equal(flows, whole)
        assert rejections.items == lost.items > 0
        noted = rejections.frame()
        bad = np.flatnonzero((months > 0) & ((order[:, None] == 1) | (order == 1)))
        assert sorted(noted["row"]) == bad.tolist() and set(noted["source"]) == {path}


def test_the_polygons_file_is_read_once_for_all_matrices_of_a_pattern(city, monkeypatch):
    regions, partition, root = city
    read = []

    def counted(source, *given):
        read.append(source.path)
        return polygon_ids(source, *given)

    monkeypatch.setattr("model_code.geo.flows.polygon_ids", counted)
    for month in range(3):
        np.save(root / f"od{month}.npy", np.ones((4, 4)))
    flows, _ = read_od(OdSource(path="od*.npy"), regions, partition, str(root))
    assert flows["trip_count"].tolist() == [3] * 9
    assert read == ["regions.geojson"]
    table = write(root / "one.csv", pd.DataFrame({"o": [10], "d": [2], "n": [5]}))
    columns = {"origin": "o", "destination": "d", "trip_count": "n"}
    read_od(OdSource(path=table, columns=columns), regions, partition, str(root))
    assert read == ["regions.geojson"]  # a table tells its ids


def test_a_matrix_may_be_compressed_or_have_another_name(city):
    regions, partition, root = city
    np.save(root / "od.npy", np.arange(16).reshape(4, 4))
    content = (root / "od.npy").read_bytes()
    (root / "od.dat").write_bytes(content)
    (root / "od.npy.gz").write_bytes(gzip.compress(content))
    expected, _ = read_od(OdSource(path="od.npy"), regions, partition, str(root))
    for source in (OdSource(path="od.dat", format="npy"), OdSource(path="od.npy.gz")):
        flows, _ = read_od(source, regions, partition, str(root))
        pd.testing.assert_frame_equal(flows, expected)
    (root / "od.npy.gz").write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(DataError, match=r"sources\.od\.path: cannot read"):
        read_od(OdSource(path="od.npy.gz"), regions, partition, str(root))


def test_a_matrix_that_does_not_fit_is_refused(city):
    regions, partition, root = city
    np.save(root / "small.npy", np.zeros((3, 3)))
    np.save(root / "cube.npy", np.zeros((4, 4, 2)))
    np.save(root / "objects.npy", np.array([[{}]]), allow_pickle=True)
    (root / "text.npy").write_text("no matrix")
    for name in ("small.npy", "cube.npy", "objects.npy", "text.npy"):
        with pytest.raises(DataError, match=r"sources\.od\.path"):
            read_od(OdSource(path=name), regions, partition, str(root))
    from tests.model_code.geo.maps import SQUARES

    with pytest.raises(DataError, match="order of rows"):
        read_od(OdSource(path="small.npy"), regions, SQUARES, str(root))


# --- in- and outflow -----------------------------------------------------------------------------


def test_mobility_adds_up_flows_and_writes_zeros_out(city):
    regions, partition, root = city
    np.save(root / "od.npy", np.arange(16).reshape(4, 4))
    od, _ = read_od(OdSource(path="od.npy"), regions, partition, str(root))
    ids = regions["region_id"].to_numpy(object)
    trips = od.assign(source="trips", hour=pd.array([8] * (len(od) - 1) + [23], "Int8"))
    mobility = make_mobility(pd.concat([od, trips]), ids)
    keeps_contract("mobility", mobility)
    assert len(mobility) == 3 + 3 * 24
    for flows, source in ((od, "od"), (trips, "trips")):
        mine = mobility[mobility["source"] == source]
        for end, column in (("origin_id", "outflow"), ("destination_id", "inflow")):
            total = mine.groupby("region_id")[column].sum()
            assert total.to_dict() == flows.groupby(end)["trip_count"].sum().to_dict()
    late = mobility.query("source == 'trips' and hour == 23")
    assert late["outflow"].sum() == trips["trip_count"].iloc[-1]
    assert (mobility.query("source == 'trips' and hour == 5")["outflow"] == 0).all()


def test_mobility_of_one_source_or_none():
    ids = np.array(["a", "b"], object)
    none = pd.DataFrame(
        {"source": [], "origin_id": [], "destination_id": [], "hour": [], "trip_count": []}
    )
    assert list(make_mobility(none, ids)) == contract("mobility").names()


# --- a real city ---------------------------------------------------------------------------------

REAL = os.environ.get("CITYLOOM_DATA", "")


@pytest.mark.skipif(
    not Path(REAL, "nyc/regions/mh180.geojson").exists(), reason="$CITYLOOM_DATA has no nyc folder"
)
def test_taxi_trips_of_manhattan_are_conserved(tmp_path):
    path = "nyc/regions/mh180.geojson"
    partition = Polygons(kind="polygons", path=path, id="region_id")
    outline = make_boundary("manhattan", Boundary(path=path), "auto", REAL)
    regions, rejected = make_regions(outline, partition, REAL)
    assert len(regions) == 180
    assert not len(rejected)
    od, _ = read_od(
        OdSource(path="nyc/mobility/mh180_od_trips_total.npy"), regions, partition, REAL
    )
    assert od["trip_count"].sum() == 9_332_740
    source = TripSource(
        path="nyc/mobility/yellow_taxi_sample_2018_2020.parquet",
        timezone=NEW_YORK,
        columns={
            "started_at": "pickup_datetime",
            "origin_zone": "pickup_location_id",
            "destination_zone": "dropoff_location_id",
        },
        zones=Zones(path="nyc/regions/taxi_zones.parquet", id="location_id"),
    )
    read = Rejections()
    trips = pa.Table.from_batches(stream_trips(source, REAL, CRS, read))
    pq.write_table(trips, tmp_path / "trips.parquet")
    assert trips.num_rows + read.items == 360_000
    flows, lost = count_flows(
        str(tmp_path / "trips.parquet"),
        Locator(regions, partition),
        regions["region_id"].to_numpy(object),
        timezone=NEW_YORK,
        shares=zone_shares(source.zones, regions, REAL)[0],
    )
    assert flows["trip_count"].sum() + lost.items == pytest.approx(trips.num_rows, rel=1e-9)
    assert 270_000 < flows["trip_count"].sum() < 301_455  # both ends in Manhattan, water left out
    hours = (
        make_mobility(flows, regions["region_id"].to_numpy(object)).groupby("hour")["outflow"].sum()
    )
    assert hours.idxmin() in (3, 4, 5)
    assert hours.idxmax() in (17, 18, 19, 20)
