"""Tables as methods read them, on a city that the real job has built, beside loops over rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets import inputs
from assets.inputs import (
    TABLE_OF,
    Pictures,
    check_regions,
    labels,
    measured_shares,
    region_data,
)
from model_code.errors import DataError
from model_code.methods.base import RegionData
from model_code.tables import contract
from resources.lake import Handle, Lake, plain_table_writer
from tests.tiny import Place

TABLES = ("imagery", "street_views", "pois", "poi_texts", "flows", "hourly_flows", "buildings")


@pytest.fixture
def handles(built: Place) -> Mapping[str, Handle]:
    lake = Lake(str(built.root / "lake"))
    names = ("regions", "targets", *(TABLE_OF[modality] for modality in TABLES))
    return {name: lake.handle(built.city, name) for name in names}


@pytest.fixture
def data(handles: Mapping[str, Handle]) -> RegionData:
    return region_data(handles, TABLES, min_valid_share=0.5)


def rows(handles: Mapping[str, Handle], modality: str) -> pd.DataFrame:
    return handles[TABLE_OF[modality]].frame()


def test_only_what_is_asked_for_is_loaded(handles: Mapping[str, Handle]) -> None:
    some = region_data(handles, ["pois"], 0.5)
    assert some.poi_counts is not None
    assert some.chips is None and some.views is None and some.flow_count is None
    places = handles["regions"].frame()
    assert some.region_ids.tolist() == places["region_id"].tolist()
    np.testing.assert_array_equal(some.xy_m, places[["x_m", "y_m"]])


def test_pictures_stand_at_their_regions(handles: Mapping[str, Handle], data: RegionData) -> None:
    place = {region: i for i, region in enumerate(data.region_ids)}
    for row in rows(handles, "imagery").itertuples():
        shape = (row.height_px, row.width_px, row.bands)
        wanted = np.frombuffer(row.pixels, np.uint8).reshape(shape)
        np.testing.assert_array_equal(data.chips[place[row.region_id]], wanted)
        assert data.chip_present[place[row.region_id]] == (row.valid_share >= 0.5)
    for i, row in enumerate(rows(handles, "street_views").itertuples()):
        wanted = np.frombuffer(row.pixels, np.uint8).reshape(row.height_px, row.width_px, 3)
        np.testing.assert_array_equal(data.views[i], wanted)
        assert data.view_region[i] == place[row.region_id]
    there = rows(handles, "buildings")
    assert data.height_present.sum() == len(there)
    for row in there.itertuples():
        wanted = np.frombuffer(row.pixels, np.float32).reshape(row.height_px, row.width_px)
        np.testing.assert_array_equal(data.heights[place[row.region_id]], wanted)


def test_a_chip_with_few_valid_pixels_counts_as_absent(handles: Mapping[str, Handle]) -> None:
    shares = rows(handles, "imagery").set_index("region_id")["valid_share"]
    for floor in (0.0, float(shares.median()), 1.1):
        found = region_data(handles, ["imagery"], floor)
        np.testing.assert_array_equal(found.chip_present, shares[found.region_ids] >= floor)


def test_counts_and_flows_keep_their_totals(
    handles: Mapping[str, Handle], data: RegionData
) -> None:
    place = {region: i for i, region in enumerate(data.region_ids)}
    wanted = np.zeros_like(data.poi_counts)
    for row in rows(handles, "pois").itertuples():
        wanted[place[row.region_id], data.poi_categories.index(row.category)] += row.poi_count
    np.testing.assert_array_equal(data.poi_counts, wanted)
    assert list(data.poi_categories) == sorted(data.poi_categories)
    flows: dict[tuple[int, int], float] = {}
    for row in rows(handles, "flows").itertuples():
        pair = place[row.origin_id], place[row.destination_id]
        flows[pair] = flows.get(pair, 0.0) + row.trip_count
    pairs = zip(data.flow_origin.tolist(), data.flow_destination.tolist(), strict=True)
    assert dict(zip(pairs, data.flow_count, strict=True)) == flows


def test_hours_of_trips_are_those_of_the_table_and_a_ready_matrix_has_none(
    handles: Mapping[str, Handle], data: RegionData, tmp_path: Path
) -> None:
    place = {region: i for i, region in enumerate(data.region_ids)}
    table = rows(handles, "flows")
    assert set(table["source"]) == {"trips"}
    wanted = {
        (place[row.origin_id], place[row.destination_id], row.hour): row.trip_count
        for row in table.itertuples()
    }
    ready = table.assign(source="od", hour=pd.array([None] * len(table), "Int8"))
    ready = ready.drop_duplicates(["origin_id", "destination_id"])
    lake = Lake(str(tmp_path))
    for name, both in (("both", pd.concat([ready, table])), ("one", ready)):
        write = plain_table_writer(contract("flows"), both)
        lake.commit(lake.stage(name, "flows", {"flows.parquet": write}), fingerprint="")
        given = {"regions": handles["regions"], "flows": lake.handle(name, "flows")}
        flows = region_data(given, ["hourly_flows"], 0.5).hourly_flows
        keys = zip(
            flows.origin.tolist(), flows.destination.tolist(), flows.hour.tolist(), strict=True
        )
        assert dict(zip(keys, flows.count, strict=True)) == (wanted if name == "both" else {})


def test_texts_keep_their_region_and_the_category_of_their_poi(
    handles: Mapping[str, Handle], data: RegionData
) -> None:
    for name in ("name", "comment"):
        wanted = [
            (row.region_id, text, category)
            for row in rows(handles, "poi_texts").itertuples()
            for text, category in zip(
                getattr(row, f"{name}s"), getattr(row, f"{name}_categories"), strict=True
            )
        ]
        columns = (f"poi_{name}s", f"poi_{name}_category")
        texts, category = (getattr(data, column) for column in columns)
        region = data.region_ids[getattr(data, f"poi_{name}_region")]
        assert list(zip(region, texts, category, strict=True)) == wanted


def test_pictures_of_a_view_are_those_of_their_table(handles: Mapping[str, Handle]) -> None:
    chips = rows(handles, "imagery")
    floor = float(chips["valid_share"].median())
    held = Pictures(handles["region_chips"], "satellite", floor)
    chips = chips[chips["valid_share"] >= floor]
    assert held.image_id.tolist() == held.region_id.tolist() == chips["region_id"].tolist()
    assert held.size_px == held[0].shape[:2] and held[0].shape[2] == 3
    views = rows(handles, "street_views")
    held = Pictures(handles["region_street_views"], "street_view", floor)
    assert held.image_id.tolist() == views["view_id"].tolist()
    assert held.region_id.tolist() == views["region_id"].tolist()
    assert [picture.tobytes() for picture in held] == views["pixels"].to_list()
    part = held[3:7]
    assert part.image_id.tolist() == views["view_id"].tolist()[3:7] and len(part) == 4
    assert part[1].tobytes() == views["pixels"].iloc[4] == held[-len(held) + 4].tobytes()


class Table:
    """A Parquet file of its own, as a handle gives it."""

    fingerprint = "f"

    def __init__(self, path: Path, table: dict[str, object], rows_of_a_group: int) -> None:
        self.file = path
        pq.write_table(pa.table(table), path, row_group_size=rows_of_a_group)

    def path(self) -> Path:
        return self.file

    def arrow(self, columns: list[str]) -> pa.Table:
        return pq.read_table(self.file, columns=columns)

    def frame(self, columns: list[str]) -> pd.DataFrame:
        return self.arrow(columns).to_pandas()


def grey_chips(path: Path, height_px: int = 8) -> tuple[Table, np.ndarray]:
    """Ten chips of one band in groups of four rows, of which every other is hidden by clouds."""
    chips = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)
    table = {
        "region_id": [f"r{i}" for i in range(10)],
        "pixels": [chip.tobytes() for chip in chips],
        "height_px": pa.array([8] * 9 + [height_px], pa.int32()),
        "width_px": pa.array([8] * 10, pa.int32()),
        "bands": pa.array([1] * 10, pa.int32()),
        "valid_share": [1.0, 0.2] * 5,
    }
    return Table(path, table, 4), chips


def test_pictures_are_read_a_group_at_a_time(tmp_path: Path) -> None:
    table, chips = grey_chips(tmp_path / "chips.parquet")
    held = Pictures(table, "satellite", 0.5)
    assert held.image_id.tolist() == ["r0", "r2", "r4", "r6", "r8"] and held.size_px == (8, 8)
    for order, groups in ((range(5), 3), (range(5), 6), ((0, 2, 0, 3, 1), 8)):
        for i in order:
            np.testing.assert_array_equal(held[i], chips[2 * i].repeat(3, axis=2))
            assert held[i].base is None  # who keeps it does not keep its group
        assert held._group.cache_info().misses == groups
        assert held._group.cache_info().currsize <= inputs._GROUPS
    assert len(Pictures(table, "satellite", 2.0)) == 0
    other, _ = grey_chips(tmp_path / "other.parquet", height_px=9)
    with pytest.raises(ValueError, match="images of one table differ in size: height_px is 8 to 9"):
        Pictures(other, "satellite", 0.5)


def test_shares_are_those_that_were_measured_in_each_picture(tmp_path: Path) -> None:
    measured = {
        "view": ["satellite", "street_view", "street_view", "street_view"],
        "image_id": ["a", "b", "c", "a"],
        "classes": [["x"], ["sky", "road"], ["sky", "road"], ["sky", "road"]],
        "shares": pa.array([[1.0], [0.25, 0.75], [], [1.0, 0.0]], pa.list_(pa.float32())),
    }
    table = Table(tmp_path / "image_shares.parquet", measured, 2)
    classes, shares = measured_shares(table, "street_view", np.array(["a", "c", "b"], object))
    assert classes == ["sky", "road"] and shares.dtype == np.float32
    np.testing.assert_array_equal(shares, [[1, 0], [np.nan, np.nan], [0.25, 0.75]])
    assert measured_shares(table, "satellite", np.array(["a"], object))[1].tolist() == [[1.0]]
    with pytest.raises(KeyError, match="image_shares lacks x"):
        measured_shares(table, "street_view", np.array(["b", "x"], object))
    table.fingerprint = ""
    classes, shares = measured_shares(table, "street_view", np.array(["a", "b"], object))
    assert classes == [] and shares.shape == (2, 0)


@pytest.mark.parametrize("classes", [[], ["sky", "road"]])
def test_a_view_of_which_no_picture_was_judged_has_no_shares(
    classes: list[str], tmp_path: Path
) -> None:
    """It has no segmenter, or one that declined every picture."""
    measured = {
        "view": ["satellite", "street_view", "street_view"],
        "image_id": ["a", "b", "c"],
        "classes": pa.array([["x"], classes, classes], pa.list_(pa.string())),
        "shares": pa.array([[1.0], [], []], pa.list_(pa.float32())),
    }
    table = Table(tmp_path / "image_shares.parquet", measured, 2)
    found, shares = measured_shares(table, "street_view", np.array(["c", "b"], object))
    assert found == classes and shares.shape == (2, len(classes)) and np.isnan(shares).all()
    assert measured_shares(table, "satellite", np.array(["a"], object))[1].tolist() == [[1.0]]


def test_labels_are_in_the_order_of_the_regions(handles: Mapping[str, Handle]) -> None:
    ids = handles["regions"].frame()["region_id"].to_numpy(str)
    found, back = labels(handles["targets"], ids), labels(handles["targets"], ids[::-1])
    assert {task.name for task in found.tasks} == set(found.values)
    for task, values in found.values.items():
        assert values.shape[0] == len(ids)
        np.testing.assert_array_equal(back.values[task], values[::-1])


def test_a_table_of_other_regions_is_an_error_that_says_what_to_run() -> None:
    ids = np.array(["a", "b", "d"])
    np.testing.assert_array_equal(inputs._index(ids, ["d", "a", "a"]), [2, 0, 0])
    for wrong in (["c"], ["z"], [""]):
        with pytest.raises(DataError, match="other regions") as caught:
            inputs._index(ids, wrong)
        assert "make explain" in caught.value.fix
    check_regions(ids, ids)
    with pytest.raises(DataError):
        check_regions(ids, ids[:2])


def test_shares_of_chips_come_with_the_classes_of_their_own_segmenter(tmp_path: Path) -> None:
    measured = {
        "view": ["street_view", "satellite", "satellite"],
        "image_id": ["v", "r0", "r1"],
        "region_id": ["r0", "r0", "r1"],
        "classes": [["sky", "road"], ["urban", "water"], ["urban", "water"]],
        "shares": pa.array([[0.5, 0.5], [], [0.75, 0.25]], pa.list_(pa.float32())),
    }
    table = Table(tmp_path / "image_shares.parquet", measured, 2)
    found = inputs._image_shares(table, np.array(["r0", "r1"]))
    assert found["chip_classes"] == ("urban", "water")
    np.testing.assert_array_equal(found["chip_shares"], [[np.nan, np.nan], [0.75, 0.25]])
    streets = Table(tmp_path / "streets.parquet", {n: c[:1] for n, c in measured.items()}, 2)
    assert set(inputs._image_shares(streets, np.array(["r0", "r1"]))) == {
        "view_region",
        "view_shares",
    }


def test_pictures_of_one_table_have_one_size() -> None:
    def table(*heights: int) -> pa.Table:
        pixels = [bytes(range(height * 2 * 3)) for height in heights]
        columns = {"pixels": pa.array(pixels, pa.binary()), "height_px": list(heights),
                   "width_px": [2] * len(heights)}  # fmt: skip
        return pa.table(columns)

    size = ("height_px", "width_px")
    several = inputs._images(pa.concat_tables([table(2), table(2, 2)]), "uint8", size, (3,))
    assert several.shape == (3, 2, 2, 3) and (several.reshape(3, -1) == np.arange(12)).all()
    part = inputs._images(table(2, 2, 2).slice(1, 2), "uint8", size, (3,))
    np.testing.assert_array_equal(part, several[:2])
    assert inputs._images(table(2)[:0], "uint8", size, (3,)).shape == (0, 1, 1, 3)
    with pytest.raises(ValueError, match="differ in size"):
        inputs._images(table(2, 3), "uint8", size, (3,))
