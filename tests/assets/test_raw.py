"""The inventory of a city's raw files, on a city that the real job has built."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets import raw
from model_code.city import Boundary, load_city
from model_code.errors import CityloomError
from model_code.fingerprint import file_digest
from resources.dagster import CityResource, LakeIOManager
from resources.lake import Lake
from tests.tiny import ROOT, Place


def table(place: Place, asset: str) -> pd.DataFrame:
    return Lake(str(place.root / "lake")).handle(place.city, asset).frame()


def test_the_inventory_holds_every_raw_file_with_its_digest(built: Place) -> None:
    found = table(built, "raw_files").set_index("path")
    root = built.root / "data"
    for path, row in found.iterrows():
        assert row["sha256"] == file_digest(str(root / str(path))), path
        assert row["bytes"] == (root / str(path)).stat().st_size
    named = {Path(str(path)).relative_to(built.city).as_posix() for path in found.index}
    made = {p.relative_to(root / built.city) for p in (root / built.city).rglob("*") if p.is_file()}
    left = {path.as_posix() for path in made} - named
    # What the simulator notes for itself is no source of the city, nor what no indicator of it reads.
    assert left == {"simulated.json", "made_by.json", "night_light.tif", "house_listings.parquet"}


def test_every_table_is_in_the_citys_crs(built: Place) -> None:
    lake = Lake(str(built.root / "lake"))
    crs = table(built, "boundary")["crs"][0]
    for asset in ("boundary", "regions", "buildings"):
        assert lake.handle(built.city, asset).geo().crs == crs
    outline = lake.handle(built.city, "boundary").geo().geometry.iloc[0]
    west, south, east, north = outline.bounds
    pois = table(built, "pois")
    inside = pois["x_m"].between(west, east) & pois["y_m"].between(south, north)
    assert inside.mean() > 0.9


def test_a_city_without_a_source_says_which(built: Place) -> None:
    city = load_city(built.yaml)
    assert raw._no("pois", city) == ""
    bare = city.model_copy(update={"sources": city.sources.model_copy(update={"pois": ()})})
    assert raw._no("pois", bare) == "the city's YAML has no sources.pois"


def test_nothing_is_computed_while_a_file_is_missing(place: Place) -> None:
    """Of a city that is not simulated: its files are given, or they are not."""
    config = place.config()
    del config["simulator"]
    place.write(config)
    raw._prepare(load_city(place.yaml), str(place.root / "data"), print)
    gone = place.root / "data" / place.city / "pois.parquet"
    gone.unlink()
    with pytest.raises(CityloomError, match=r"sources\.pois.*pois\.parquet"):
        raw._prepare(load_city(place.yaml), str(place.root / "data"), print)
    assert not gone.exists()


@pytest.mark.filterwarnings("ignore::dagster.PreviewWarning")
@pytest.mark.parametrize(
    ("name", "asset", "crs", "words"),
    [
        ("manhattan", raw.raw_files, "auto", "sources.pois.0.path: no such file"),
        ("demo", raw.boundary, "EPSG:3857", "crs: EPSG:3857"),
    ],
)
def test_what_is_wrong_with_a_config_is_told_with_its_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, asset: Any, crs: str, words: str
) -> None:
    """Before anything is computed, and where only the data show it."""
    changes = {"crs": crs, "boundary": Boundary(bbox=(-74.1, 40.6, -73.9, 40.8))}
    city = load_city(ROOT / "cities" / f"{name}.yaml").model_copy(update=changes)
    monkeypatch.setattr(CityResource, "city", lambda self, name: city)
    lake = LakeIOManager(Lake(str(tmp_path / "lake")))
    done = dg.materialize(
        [asset],
        partition_key=name,
        raise_on_error=False,
        resources={"cities": CityResource(data=str(tmp_path)), "io_manager": lake},
    )
    [failure] = [e for e in done.all_events if e.event_type_value == "STEP_FAILURE"]
    told = failure.step_failure_data.user_failure_data.description
    assert f"{ROOT / 'cities' / name}.yaml: " in told and words in told and "fix: " in told


def test_a_simulated_citys_files_are_made_first(place: Place) -> None:
    """In the folder that its YAML names, with the very bytes that any other run makes."""
    folder = place.root / "data" / place.city
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    shutil.rmtree(folder)
    said: list[str] = []
    raw._prepare(load_city(place.yaml), str(place.root / "data"), said.append)
    assert said and {path: path.read_bytes() for path in folder.glob("*.*")} == before
