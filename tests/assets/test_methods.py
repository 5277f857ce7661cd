"""Pictures of methods show the method as it is, whatever its variants are called."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assets import methods
from assets.stage import Context, Written
from model_code.methods import METHODS
from model_code.methods.base import Checkpoint, HourlyFlows, RegionData, Workspace
from model_code.methods.run import Fit
from model_code.report.labels import method_label
from model_code.tables import contract
from model_code.training import fit
from resources.crew import Crew
from resources.lake import Lake, plain_table_writer
from tests.model_code.regression import SETTINGS, TRAIN, make
from tests.tiny import Place


@pytest.fixture
def lake(place: Place) -> Lake:
    return Lake(str(place.root / "lake"))


def drawn(draw: Any, lake: Lake, rows: pd.DataFrame) -> bytes:
    """The picture of these predictions, put in the lake as the method's own."""
    write = plain_table_writer(contract("predictions"), rows)
    staged = lake.stage("tiny", "poi_predictions", {"poi_predictions.parquet": write})
    lake.commit(staged, fingerprint="")
    inputs = {name: lake.handle("tiny", name) for name in ("regions", "targets", "poi_predictions")}
    written = Written(inputs["poi_predictions"].path())
    picture: bytes = draw(METHODS["poi"], SimpleNamespace(inputs=inputs), written)
    return picture


@pytest.mark.parametrize("draw", [methods._scatter, methods._errors])
def test_the_default_is_drawn(draw: Any, lake: Lake) -> None:
    rows = lake.handle("tiny", "poi_predictions").frame()
    default = rows[(rows["variant"] == "default") & rows["task"].isin(["land_use", "population"])]
    another = default.assign(variant="a_variant", y_pred=default["y_pred"] + 1)
    alone, other = (drawn(draw, lake, part) for part in (default, another))
    assert alone != other
    assert drawn(draw, lake, pd.concat([another, default])) == alone
    named = default.assign(variant="default_without_street_views")
    assert drawn(draw, lake, pd.concat([another, named])) == alone


def test_without_a_default_the_first_by_name_is_drawn() -> None:
    assert methods._shown({"b", "a"}) == "a"


def test_trips_by_hour_reach_the_regions_where_they_start_or_end() -> None:
    ends = np.array([0, 0, 2]), np.array([2, 0, 1])
    flows = HourlyFlows(*ends, np.array([7, 8, 9]), np.ones(3))
    data = RegionData(
        region_ids=np.array(list("abcd")),
        lonlat_deg=np.zeros((4, 2)),
        xy_m=np.zeros((4, 2)),
        area_km2=np.ones(4),
        hourly_flows=flows,
    )
    assert methods._shares(data) == {"hourly_flows": 0.75}
    (field,) = methods._FIELDS["hourly_flows"]
    assert getattr(data, field) is flows


def test_a_fit_says_how_many_parameters_it_trained(tmp_path: Path) -> None:
    def fit_one(found: Fit, seed: int, workspace: Workspace) -> Checkpoint:
        if found.variant == "trained":
            fit(make(), TRAIN, replace(SETTINGS, epochs=1), seed=seed)
        return Checkpoint({"a": np.zeros(1)}, {"loss": []})

    ctx = Context(None, {}, "", "town", "a", print, tmp_path, crew=Crew(None, print))
    ways = [Fit(variant, "all", -1) for variant in ("closed", "trained")]
    product = methods._fit_all(ctx, [[(way, 0)] for way in ways], fit_one)
    assert product.metadata == {"fits": 2, "trained_parameters": {"closed": 0, "trained": 113}}
    record = json.loads((tmp_path / "trained-all-seed0.json").read_text())
    assert record["trained_parameters"] == 113 and record["loss"] == []


def test_a_variant_of_which_the_city_leaves_nothing_is_shown_as_not_estimable(place: Place) -> None:
    config = place.config()
    del config["sources"]["street_views"]
    small = {
        "satellite_backbone": "small",
        "street_view_backbone": "small",
        "epochs": 1,
        "width": 8,
    }
    alone = {"only_street_views": {"satellite": False, "pois": False}}
    config["methods"] = {"musecl": {"config": small, "variants": alone}}
    config["seeds"] = [0]
    place.write(config)
    done = place.run(*place.job())
    assert done.returncode == 0, done.stderr
    assert "only_street_views: nothing is left to read without street_views" in done.stderr
    lake = Lake(str(place.root / "lake"))
    board = lake.handle("tiny", "leaderboard").frame()
    value = board.groupby("variant")["value"]
    told = {name: f"{name}_without_street_views" for name in ("default", "only_street_views")}
    assert set(value.groups) == set(told.values())
    assert value.size().nunique() == 1  # a row for a row
    assert value.count()[told["only_street_views"]] == 0 < value.count()[told["default"]]
    assert board.loc[board["variant"] == told["only_street_views"], "inputs"].eq("").all()
    page = lake.handle("tiny", "report").path("report.html").read_text()
    payload = json.loads(
        page.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    )
    shown = {method_label("musecl", told[name]): name for name in told}
    assert {row["method"] for row in payload["board"]} == set(shown)
    for row in payload["board"]:
        assert (row["headline"] in row["figures"]) == (shown[row["method"]] == "default")
    for table in ("musecl_embeddings", "musecl_predictions"):
        assert set(lake.handle("tiny", table).frame()["variant"]) == {"default"}
