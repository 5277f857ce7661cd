"""Tables as methods read them, on a city that the real job has built, beside loops over rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from assets import inputs
from assets.inputs import TABLE_OF, check_regions, labels, picture_arrays, region_data
from model_code.errors import DataError
from model_code.methods.base import RegionData
from resources.lake import Handle, Lake
from tests.tiny import Place

TABLES = ("imagery", "street_views", "pois", "poi_texts", "flows", "buildings")


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


def test_pictures_of_a_view_come_by_their_ids(handles: Mapping[str, Handle]) -> None:
    chips = rows(handles, "imagery").sort_values("region_id")
    floor = float(chips["valid_share"].median())
    ids, regions, pixels = picture_arrays(handles["region_chips"], "satellite", floor)
    assert ids.tolist() == regions.tolist()
    assert ids.tolist() == chips.loc[chips["valid_share"] >= floor, "region_id"].tolist()
    assert pixels.dtype == np.uint8 and pixels.shape[3] == 3
    views = rows(handles, "street_views").sort_values("view_id")
    ids, regions, pixels = picture_arrays(handles["region_street_views"], "street_view", floor)
    assert ids.tolist() == views["view_id"].tolist()
    assert regions.tolist() == views["region_id"].tolist()
    assert pixels[-1].tobytes() == views["pixels"].iloc[-1]


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
