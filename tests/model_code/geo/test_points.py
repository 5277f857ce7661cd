from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.city import PoiSource, TripSource, Zones
from model_code.errors import DataError
from model_code.geo.points import stream_pois, stream_trips, utc_times
from model_code.geo.vector import project
from model_code.rejections import Rejections
from tests.model_code.geo.maps import (
    CRS,
    keeps_contract,
    rejected_keeps_contract,
    write,
    write_bare,
)

POIS = pd.DataFrame(
    {
        "kind": ["cafe", "bench", None, "cafe", "bar", "shop", "bar"],
        "name": ["A", None, "C", "D", "E", "F", "G"],
        "lon": [-74.0, -74.0, -74.0, None, 190.0, -73.99, -73.98],
        "lat": [40.7, 40.7, 40.7, 40.7, 40.7, 91.0, 40.71],
    }
)
REASONS = {
    1: "excluded by config",
    2: "no category",
    3: "no coordinates",
    4: "coordinates out of range",
    5: "coordinates out of range",
}


def pois(path, root, **more):
    settings = {"columns": {"category": "kind"}, "exclude_categories": ("bench",), **more}
    return read((PoiSource(path=path, **settings),), root)


def read(sources, root, **options):
    """All POIs as one frame, and what was rejected."""
    rejections = Rejections()
    parts = list(stream_pois(sources, str(root), CRS, rejections, **options))
    for part in parts:
        keeps_contract("pois", part)
    return pa.concat_tables(parts).to_pandas(), rejections


def as_points(frame):
    shapes = shapely.points(frame[["lon", "lat"]].fillna(0).to_numpy())
    shapes[frame["lon"].isna()] = None
    return gpd.GeoDataFrame(frame.drop(columns=["lon", "lat"]), geometry=shapes, crs=4326)


# --- points of interest --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p.csv", "p.parquet", "geo.parquet", "p.geojson", "p.gpkg"])
def test_every_format_gives_the_same_points_and_the_same_rejections(name, tmp_path):
    frame = POIS if name.startswith("p.") and name[2] in "cp" else as_points(POIS)
    made, rejections = pois(write(tmp_path / name, frame), tmp_path)
    keeps_contract("pois", made)
    rejected_keeps_contract(rejections)
    assert made["poi_id"].tolist() == [0, 6]
    assert made["category"].tolist() == ["cafe", "bar"]
    assert made["name"].tolist() == ["A", "G"]
    assert made["comments"].tolist() == [None, None]
    x, y = project(np.array([-74.0, -73.98]), np.array([40.7, 40.71]), "EPSG:4326", CRS)
    np.testing.assert_allclose(made[["x_m", "y_m"]], np.column_stack([x, y]), atol=1e-3)
    assert rejections.frame().set_index("row")["reason"].to_dict() == REASONS
    assert len(made) + rejections.items == len(POIS)


def test_details_say_what_was_found(tmp_path):
    _, rejections = pois(write(tmp_path / "p.csv", POIS), tmp_path)
    details = rejections.frame().set_index("row")["detail"]
    assert details[4] == "x 190.0, y 40.7"
    assert details[1] == "category bench"


def test_sources_and_files_are_numbered_through(tmp_path):
    write(tmp_path / "b1.csv", POIS)
    write(tmp_path / "b0.csv", POIS[:1])
    write(tmp_path / "a.parquet", POIS)
    columns = {"category": "kind"}
    sources = (
        PoiSource(path="b*.csv", columns=columns),
        PoiSource(path="a.parquet", columns=columns),
    )
    made, rejections = read(sources, tmp_path)
    assert made["poi_id"].tolist() == [0, 1, 2, 7, 8, 9, 14]
    rows = rejections.frame().groupby("source")["row"].agg(list).to_dict()
    assert {k: sorted(v) for k, v in rows.items()} == {
        "b*.csv": [3, 4, 5, 6],
        "a.parquet": [2, 3, 4, 5],
    }


def test_how_files_are_cut_changes_neither_the_points_nor_the_parts(tmp_path, monkeypatch):
    """Batches, row groups and formats; parts are filled across files and sources."""
    monkeypatch.setattr("model_code.geo.points._PART_ROWS", 300)
    frame = pd.concat([POIS] * 100, ignore_index=True)
    frame["name"] = [f"place {i}" if i % 3 else None for i in range(len(frame))]
    frame["said"] = [[f"of {i}"] * (i % 4) if i % 5 else None for i in range(len(frame))]
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=64)
    frame.to_parquet(tmp_path / "b.parquet")
    columns = {"category": "kind", "comments": "said"}
    sources = tuple(PoiSource(path=f"{name}.parquet", columns=columns) for name in "ab")
    whole, lost = read(sources, tmp_path)
    cut, lost_again = read(sources, tmp_path, batch_rows=50)
    pd.testing.assert_frame_equal(cut, whole)
    pd.testing.assert_frame_equal(lost_again.frame(), lost.frame())
    assert len(whole) + len(lost) == 2 * len(frame)
    assert np.array_equal(whole["poi_id"], np.sort(whole["poi_id"]))
    kept = pd.concat([frame, frame], ignore_index=True).iloc[whole["poi_id"]]
    assert whole["name"].fillna("").tolist() == kept["name"].fillna("").tolist()
    assert list(map(list, whole["comments"])) == [
        c if isinstance(c, list) else [] for c in kept["said"]
    ]
    parts = list(stream_pois(sources, str(tmp_path), CRS, Rejections(), batch_rows=50))
    assert [part.num_rows for part in parts] == [300, 300]


def test_missing_columns_are_named_by_their_config_key_all_at_once(tmp_path):
    write(tmp_path / "p.csv", POIS)
    columns = {"category": "type", "lon": "x", "name": "title"}
    with pytest.raises(DataError) as error:
        pois("p.csv", tmp_path, columns=columns)
    for key in ("category", "lon", "name"):
        assert f"sources.pois.0.columns.{key}: no column" in str(error.value)
    assert "kind, name, lon, lat" in error.value.fix


def test_a_name_that_nobody_asked_for_may_be_absent(tmp_path):
    write(tmp_path / "p.csv", POIS.drop(columns="name"))
    made, _ = pois("p.csv", tmp_path)
    assert made["name"].isna().all()
    with pytest.raises(DataError, match=r"columns\.name"):
        pois("p.csv", tmp_path, columns={"category": "kind", "name": "name"})


def test_comments_are_lists_or_one_text_a_row(tmp_path):
    frame = POIS.iloc[[0, 6]].assign(said=["good", None])
    columns = {"category": "kind", "comments": "said"}
    made, _ = pois(write(tmp_path / "p.csv", frame), tmp_path, columns=columns)
    assert list(map(list, made["comments"])) == [["good"], []]
    frame["said"] = [["good", None, "bad"], None]
    for name, listed in (("p.parquet", frame), ("geo.parquet", as_points(frame))):
        made, _ = pois(write(tmp_path / name, listed), tmp_path, columns=columns)
        assert list(map(list, made["comments"])) == [["good", "bad"], []]
        keeps_contract("pois", made)


def test_columns_may_be_metres_and_shapes_stand_at_a_point_on_them(tmp_path):
    x, y = project(np.array([-74.0]), np.array([40.7]), "EPSG:4326", "EPSG:2263")
    frame = pd.DataFrame({"kind": ["cafe"], "east": x, "north": y})
    columns = {"category": "kind", "lon": "east", "lat": "north"}
    made, _ = pois(write(tmp_path / "p.csv", frame), tmp_path, columns=columns, crs="EPSG:2263")
    there = project(np.array([-74.0]), np.array([40.7]), "EPSG:4326", CRS)
    np.testing.assert_allclose(made[["x_m", "y_m"]].to_numpy().ravel(), np.ravel(there), atol=0.01)
    ring = shapely.Point(-74, 40.7).buffer(0.01) - shapely.Point(-74, 40.7).buffer(0.009)
    shapes = gpd.GeoDataFrame({"kind": ["park"]}, geometry=[ring], crs=4326)
    made, _ = pois(write(tmp_path / "s.geojson", shapes), tmp_path)
    on = gpd.GeoSeries([ring], crs=4326).to_crs(CRS).iloc[0]
    assert on.covers(shapely.Point(made["x_m"][0], made["y_m"][0]))


def test_format_and_crs_of_the_config_are_for_what_a_file_does_not_tell(tmp_path):
    expected, told = pois(write(tmp_path / "p.parquet", POIS), tmp_path)
    bare = write_bare(tmp_path / "p.dat", as_points(POIS))
    POIS.to_csv(tmp_path / "p.txt", index=False)
    POIS.to_csv(tmp_path / "p.csv.gz", index=False)
    for path, more in (
        (bare, {"format": "parquet", "crs": "EPSG:4326"}),
        ("p.txt", {"format": "csv"}),
        ("p.csv.gz", {}),
    ):
        made, rejections = pois(path, tmp_path, **more)
        pd.testing.assert_frame_equal(made, expected, rtol=1e-9)
        reasons = [r.frame().set_index("row")["reason"].to_dict() for r in (rejections, told)]
        assert reasons[0] == reasons[1]
    with pytest.raises(DataError, match="says no CRS") as error:
        pois(bare, tmp_path, format="parquet")
    assert "`sources.pois.0.crs`" in error.value.fix
    stated = write(tmp_path / "p.geojson", as_points(POIS))
    made, _ = pois(stated, tmp_path, crs="EPSG:2263")  # of columns that it has not
    np.testing.assert_allclose(made["x_m"], expected["x_m"], atol=1e-3)


def test_files_that_cannot_be_read_name_their_key(tmp_path):
    (tmp_path / "p.csv").write_text("kind,lon,lat\ncafe,1,2\ncafe,1,2,3\n")
    (tmp_path / "p.parquet").write_bytes(b"PAR1 but not really")
    (tmp_path / "p.xyz").write_text("?")
    for name in ("p.csv", "p.parquet", "p.xyz", "absent.csv"):
        with pytest.raises(DataError, match=r"sources\.pois\.0\.path"):
            pois(name, tmp_path)


# --- trips ---------------------------------------------------------------------------------------

POINTS = {
    "started_at": "start",
    "origin_lon": "olon",
    "origin_lat": "olat",
    "destination_lon": "dlon",
    "destination_lat": "dlat",
    "count": "n",
}


def raw_trips(rows, seed):
    """Trips with every kind of fault, at random."""
    rng = np.random.default_rng(seed)
    hours = pd.Timestamp("2024-03-01") + pd.to_timedelta(rng.integers(0, 24 * 60, rows), "h")
    frame = pd.DataFrame({"start": hours, "n": rng.integers(0, 9, rows).astype(float)})
    for column, low, high in (
        ("olon", -75, -73),
        ("olat", 40, 41),
        ("dlon", -75, -73),
        ("dlat", 40, 41),
    ):
        frame[column] = rng.uniform(low, high, rows).round(6)
    for column, wrong in (("start", pd.NaT), ("n", np.nan), ("n", -1), ("n", 1.5), ("olon", np.nan),
                          ("dlat", 95), ("olat", np.nan), ("dlon", 400)):  # fmt: skip
        frame.loc[rng.random(rows) < 0.05, column] = wrong
    return frame


def stream(path, root, rejections, batch_rows=1 << 18, **more):
    options = {"columns": POINTS, "timezone": "America/New_York", **more}
    source = TripSource(path=path, **options)
    return pa.Table.from_batches(stream_trips(source, str(root), CRS, rejections, batch_rows))


@settings(deadline=None, max_examples=12)
@given(
    rows=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
    days=st.sampled_from(["all", "weekday"]),
)
def test_no_trip_is_lost_whatever_the_format(rows, seed, days, tmp_path_factory):
    root = tmp_path_factory.mktemp("trips")
    frame = raw_trips(rows, seed)
    tables = []
    for name in ("t.parquet", "t.csv"):
        rejections = Rejections()
        table = stream(write(root / name, frame), root, rejections, 64, days=days)
        keeps_contract("trips", table)
        rejected_keeps_contract(rejections)
        assert table.num_rows + len(rejections) == rows
        usable = frame["n"].where((frame["n"] >= 0) & (frame["n"] % 1 == 0))
        read = usable.fillna(1).sum()
        assert sum(table["trip_count"].to_pylist()) + rejections.items == read
        assert set(table["trip_id"].to_pylist()).isdisjoint(rejections.frame()["row"])
        tables.append((table, rejections.frame().set_index("row")["reason"].to_dict()))
    assert tables[0][0].equals(tables[1][0])
    assert tables[0][1] == tables[1][1]


def test_trips_may_be_compressed_or_have_another_name(tmp_path):
    frame = raw_trips(300, 1)
    expected = stream(write(tmp_path / "t.csv", frame), tmp_path, Rejections())
    frame.to_csv(tmp_path / "t.csv.gz", index=False)
    frame.to_csv(tmp_path / "t.txt", index=False)
    for path, more in (("t.csv.gz", {}), ("t.txt", {"format": "csv"})):
        assert stream(path, tmp_path, Rejections(), 64, **more).equals(expected)
    with pytest.raises(
        DataError, match=r"sources\.trips\.path: .* neither Parquet nor CSV"
    ) as error:
        stream("t.txt", tmp_path, Rejections())
    assert "`sources.trips.format: csv`" in error.value.fix


def test_trips_are_projected_and_streamed(tmp_path):
    frame = raw_trips(1000, 0).assign(n=1.0, start=pd.Timestamp("2024-01-01 12:00"))
    frame = frame[
        frame["olon"].notna() & frame["olat"].notna() & frame["dlat"].lt(91) & frame["dlon"].lt(181)
    ]
    path = write(tmp_path / "t.parquet", frame)
    source = TripSource(path=path, columns=POINTS, timezone="UTC")
    batches = list(stream_trips(source, str(tmp_path), CRS, Rejections(), 100))
    assert max(batch.num_rows for batch in batches) <= 100
    table = pa.Table.from_batches(batches)
    for end in "od":
        x, y = project(
            frame[f"{end}lon"].to_numpy(), frame[f"{end}lat"].to_numpy(), "EPSG:4326", CRS
        )
        name = {"o": "origin", "d": "destination"}[end]
        np.testing.assert_array_equal(table[f"{name}_x_m"], x)
        np.testing.assert_array_equal(table[f"{name}_y_m"], y)
    assert table["origin_zone"].null_count == len(table)


@pytest.mark.parametrize("name", ["z.csv", "z.parquet"])
def test_zone_ids_become_text_whatever_their_type(name, tmp_path):
    frame = pd.DataFrame({"start": ["2024-01-01 00:00"] * 3, "a": [7, 8, None], "b": [1, 2, 3]})
    if name == "z.csv":
        frame["a"] = frame["a"].astype("Int64")
    columns = {"started_at": "start", "origin_zone": "a", "destination_zone": "b"}
    zones = Zones(path="x", id="y")
    rejections = Rejections()
    table = stream(
        write(tmp_path / name, frame), tmp_path, rejections, columns=columns, zones=zones
    )
    keeps_contract("trips", table)
    assert table["origin_zone"].to_pylist() == ["7", "8"]
    assert table["destination_zone"].to_pylist() == ["1", "2"]
    assert table["trip_count"].to_pylist() == [1, 1]
    assert rejections.frame()["reason"].tolist() == ["no origin zone"]


def test_faulty_files_and_columns_name_their_key(tmp_path):
    write(tmp_path / "t.csv", raw_trips(5, 0))
    with pytest.raises(DataError, match=r"sources\.trips\.columns\.origin_lon: no column 'nope'"):
        stream("t.csv", tmp_path, Rejections(), columns={**POINTS, "origin_lon": "nope"})
    write(tmp_path / "t.parquet", raw_trips(5, 0).assign(start=1))
    with pytest.raises(DataError, match=r"sources\.trips\.columns\.started_at.*int64"):
        stream("t.parquet", tmp_path, Rejections())


def test_times_follow_the_stated_rules():
    texts = {
        "2024-07-01 12:00": "2024-07-01T16:00",  # summer time
        "2024-01-01T12:00:30": "2024-01-01T17:00:30",
        "2024-11-03 01:30": "2024-11-03T05:30",  # comes twice: the first
        "2024-03-10 02:30": "2024-03-10T07:00",  # never comes: the next moment
        "2024-07-01T12:00Z": "2024-07-01T12:00",
        "2024-07-01 12:00:00.5+02:00": "2024-07-01T10:00:00.5",
        "2024-07-01 12:00-0330": "2024-07-01T15:30",
        "2024-07-01": "2024-07-01T04:00",
        "yesterday": None,
        "2024-13-01 00:00": None,
        None: None,
    }
    found = utc_times(pa.array(texts), "America/New_York", "key")
    assert found.unit == "us"
    expected = pd.DatetimeIndex([pd.Timestamp(t) if t else pd.NaT for t in texts.values()])
    assert found.equals(expected.tz_localize("UTC").as_unit("us"))


def test_stamps_with_and_without_a_zone():
    moment = datetime(2024, 7, 1, 12, tzinfo=UTC)
    aware = pa.array([moment, None], pa.timestamp("ns", "Asia/Tokyo"))
    assert utc_times(aware, "America/New_York", "key")[0] == moment
    naive = pa.array([moment.replace(tzinfo=None)], pa.timestamp("ms"))
    local = moment.replace(tzinfo=ZoneInfo("America/New_York"))
    assert utc_times(naive, "America/New_York", "key")[0] == local
    assert utc_times(aware, "America/New_York", "key").isna().tolist() == [False, True]


def test_weekdays_are_those_of_the_local_clock(tmp_path):
    # Sunday evening in New York is Monday in UTC.
    frame = raw_trips(1, 0).assign(n=1, olon=-74, olat=40.7, dlon=-74, dlat=40.7)
    write(tmp_path / "t.csv", frame.assign(start="2024-01-08T01:00Z"))
    rejections = Rejections()
    assert stream("t.csv", tmp_path, rejections, days="weekday").num_rows == 0
    assert rejections.frame()["reason"].tolist() == ["excluded by config"]
    assert stream("t.csv", tmp_path, Rejections(), days="weekend").num_rows == 1
