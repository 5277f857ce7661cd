"""The cities for the hourly outflow: they load, name every ablation and baseline, and (with the files)
Manhattan's zones have the target."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.descriptions import forms
from model_code.city import City, check_files, load_city
from model_code.methods import METHODS
from model_code.methods.run import variant_configs
from pipelines.definitions import raw, regions
from resources.dagster import CityResource, LakeIOManager
from resources.lake import Lake, read
from tests.tiny import ROOT

DATA = Path(os.environ.get("CITYLOOM_DATA", "")) / "nyc"
HOURLY = {name for name, spec in METHODS.items() if spec.predicts == ("hourly",)}


def shipped(name: str) -> City:
    return load_city(ROOT / "cities" / f"{name}.yaml")


@pytest.mark.parametrize("name", ["demo_500m", "manhattan_zones"])
def test_both_load_with_the_hourly_target_and_all_its_methods(name: str) -> None:
    city = shipped(name)
    assert [i.kind for i in city.indicators.values()] == ["hourly"]
    assert set(city.methods) >= HOURLY
    assert city.sources.trips is not None and city.sources.od is None
    variants = city.methods["lmemr"].variants
    configs = variant_configs("lmemr", city.methods["lmemr"].config, variants)
    assert len({config.model_dump_json() for config in configs.values()}) == len(variants) + 1


def test_squares_of_500_m_are_simulated_as_such_and_name_every_ablation() -> None:
    city = shipped("demo_500m")
    assert city.partition.kind == "square" and city.partition.size_m == 500
    assert city.simulator is not None and city.simulator.cell_m == 500
    assert set(city.methods["lmemr"].variants) == {
        "without_semantics", "without_intra", "prompt_lite", "prompt_shuffle", "without_spatial", "gcn",
        "without_inter", "late_concat", "gated", "satellite_only", "buildings_only",
        "street_views_only", "pois_only", "regression_only", "classification_only", "quantile_bins",
    }  # fmt: skip
    assert forms(city) == ["levels", "levels_lite"]
    assert forms(shipped("manhattan_zones")) == ["levels"] == forms(shipped("demo"))


@pytest.mark.skipif(not DATA.is_dir(), reason="the files of Manhattan are not here")
@pytest.mark.filterwarnings("ignore::dagster.PreviewWarning")
def test_manhattans_zones_have_the_trips_that_start_in_them(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    city = shipped("manhattan_zones")
    check_files(city, str(DATA.parent))
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    done = dg.materialize(
        dg.load_assets_from_modules([raw, regions]),
        partition_key="manhattan_zones",
        resources={"cities": CityResource(), "io_manager": LakeIOManager(lake)},
    )
    assert done.success
    zones = read("regions", city="manhattan_zones", lake=lake.root)
    assert len(zones) == 63 and zones["inside_share"].min() > 1e-3
    targets = read("targets", city="manhattan_zones", lake=lake.root)
    trips = pd.read_parquet(DATA / "mobility" / "yellow_taxi_sample_2018_2020.parquet")
    weekday = trips[trips["pickup_datetime"].dt.day_of_week < 5]
    known = weekday["pickup_location_id"].astype(str).isin(zones["region_id"])
    known &= weekday["dropoff_location_id"].astype(str).isin(zones["region_id"])
    counted = targets["value"].sum()
    assert counted == pytest.approx(known.sum(), rel=0.01)
    by_hour = targets.groupby("slot")["value"].sum()
    assert by_hour.idxmin() in (3, 4, 5) and by_hour.idxmax() in range(17, 21)
    assert np.isfinite(targets["value"]).all()
