"""Tables by region: nothing is lost between them, on a city that the real job has built."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assets import regions
from assets.stage import STAGES, Written
from model_code.city import Indicator, Zones, load_city
from model_code.errors import DataError
from model_code.rejections import Rejections
from resources.lake import Lake
from tests.tiny import Place

ENDS = ("origin", "destination")


@pytest.fixture
def lake(built: Place) -> Lake:
    return Lake(str(built.root / "lake"))


def table(lake: Lake, asset: str) -> pd.DataFrame:
    return lake.handle("tiny", asset).frame()


def context(lake: Lake, built: Place, **inputs: Any) -> Any:
    city = load_city(built.yaml)
    handles = {"regions": lake.handle("tiny", "regions"), **inputs}
    return SimpleNamespace(city=city, inputs=handles, name="tiny", root=str(built.root / "data"))


def test_every_poi_is_counted_or_rejected(lake: Lake) -> None:
    counted = table(lake, "poi_counts")["poi_count"].sum()
    rejected = table(lake, "rejected").query("stage == 'region_pois'")["items"].sum()
    assert rejected > 0 and counted + rejected == len(table(lake, "pois"))


def test_every_trip_is_counted_or_rejected(lake: Lake) -> None:
    counted = table(lake, "flows").query("source == 'trips'")["trip_count"].sum()
    rejected = table(lake, "rejected").query("stage == 'flows'")["items"].sum()
    assert rejected > 0 and counted + rejected == table(lake, "trips")["trip_count"].sum()


def test_flows_tell_which_rows_of_the_zones_file_are_no_zone(
    lake: Lake, built: Place, tmp_path: Path
) -> None:
    zones = lake.handle("tiny", "regions").geo()[["region_id", "geometry"]]
    zones.loc[0, "geometry"] = None
    zones.to_parquet(tmp_path / "zones.parquet")
    trips = table(lake, "trips").head(100)
    ends = {f"{end}_zone": zones["region_id"].iloc[[0, 1]].repeat(50).to_numpy() for end in ENDS}
    trips.assign(**ends).to_parquet(tmp_path / "trips.parquet")
    ctx = context(lake, built, trips=SimpleNamespace(path=lambda: tmp_path / "trips.parquet"))
    given = ctx.city.sources.trips.model_copy(
        update={"zones": Zones(path=str(tmp_path / "zones.parquet"), id="region_id")}
    )
    ctx.city = ctx.city.model_copy(
        update={"sources": ctx.city.sources.model_copy(update={"trips": given, "od": None})}
    )
    ctx.rejections, ctx.has = Rejections(), lambda name: True
    flows = STAGES["flows"].body(ctx).table
    noted = ctx.rejections.frame().groupby("reason")["items"].agg(["size", "sum"])
    assert noted.loc["no geometry"].tolist() == [1, 0]
    lost = trips["trip_count"].iloc[:50].sum()
    assert noted.loc["unknown origin zone"].tolist() == [50, lost]
    assert flows["trip_count"].sum() + ctx.rejections.items == trips["trip_count"].sum()


def test_every_building_is_counted_once_or_rejected(lake: Lake) -> None:
    shapes = lake.handle("tiny", "buildings").geo()
    cells = lake.handle("tiny", "regions").geo()
    rejected = table(lake, "rejected").query("stage == 'heights'")
    items = table(lake, "coverage").set_index("modality")["items"]["buildings"]
    assert items + rejected["items"].sum() == len(shapes)
    overlapping = shapes.sjoin(cells[["geometry"]], predicate="intersects")
    assert items <= overlapping["building_id"].nunique()
    assert not set(rejected["row"]) & set(shapes.sjoin(cells, predicate="within")["building_id"])
    assert table(lake, "heights")["building_count"].sum() >= items


def test_every_stage_that_rejects_is_asked(lake: Lake) -> None:
    rejecting = {
        a for a in lake.assets("tiny") if "rejected.parquet" in lake.handle("tiny", a).files
    }
    assert rejecting - {"rejected"} <= set(regions._REJECTING)


def test_the_table_of_rejections_is_that_of_all_stages(lake: Lake) -> None:
    found = table(lake, "rejected")
    for asset in regions._REJECTING:
        handle = lake.handle("tiny", asset)
        own = found[found["stage"] == asset].reset_index(drop=True)
        if "rejected.parquet" in handle.files:
            pd.testing.assert_frame_equal(own, handle.frame(file="rejected.parquet"))
        else:
            assert own.empty
    assert set(found["stage"]) <= set(regions._REJECTING)


def test_a_locator_finds_the_regions_of_their_own_middles(lake: Lake, built: Place) -> None:
    places = table(lake, "regions")
    found = regions.locator(context(lake, built)).locate(places["x_m"], places["y_m"])
    np.testing.assert_array_equal(found, np.arange(len(places)))


def test_regions_of_another_partition_are_not_looked_into(lake: Lake, built: Place) -> None:
    """As when the YAML was changed, and a job left the regions out."""
    ctx = context(lake, built)
    other = ctx.city.partition.model_copy(update={"size_m": 700.0})
    ctx.city = ctx.city.model_copy(update={"partition": other})
    with pytest.raises(DataError, match="another `partition`") as caught:
        regions.locator(ctx)
    assert "whole_city" in caught.value.fix


def test_contact_sheets_show_rows_from_the_whole_table(lake: Lake) -> None:
    chips = lake.handle("tiny", "region_chips")
    written, every = Written(chips.path(), 16), chips.frame()
    some = regions._sample(written, 4)
    assert some["region_id"].tolist() == every["region_id"].iloc[[0, 5, 10, 15]].tolist()
    assert len(regions._sample(written, 99)) == len(every)


def test_targets_read_only_the_tables_that_are_counted(built: Place) -> None:
    city = load_city(built.yaml)
    assert set(regions._target_inputs(city)) == {"regions", "poi_counts", "mobility"}
    comments = Indicator.model_validate({"source": {"kind": "city", "count": "comments"}})
    told = city.model_copy(update={"indicators": {"comments": comments}})
    assert regions._target_inputs(told) == ("regions", "pois", "region_pois")
    others = {n: i for n, i in city.indicators.items() if not getattr(i.source, "count", "")}
    assert others and len(others) < len(city.indicators)
    plain = city.model_copy(update={"indicators": others})
    assert regions._target_inputs(plain) == ("regions",)


def test_why_a_city_has_no_such_table(built: Place) -> None:
    city, why = load_city(built.yaml), regions._no("trips", "od")
    assert why(city) == ""
    bare = city.model_copy(update={"sources": city.sources.model_copy(update={"trips": None})})
    assert why(bare) == "the city's YAML has no sources.trips and no sources.od"
