"""The inventory of a city's raw files, on a city that the real job has built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from assets import raw
from model_code.city import load_city
from model_code.errors import CityloomError
from model_code.fingerprint import file_digest
from resources.lake import Lake
from tests.tiny import Place


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
    # What the simulator notes for itself is no source of the city.
    assert left == {"simulated.json", "made_by.json"}


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


def test_a_simulated_citys_files_are_made_first(place: Place) -> None:
    """In the folder that its YAML names, with the very bytes that any other run makes."""
    folder = place.root / "data" / place.city
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    shutil.rmtree(folder)
    said: list[str] = []
    raw._prepare(load_city(place.yaml), str(place.root / "data"), said.append)
    assert said and {path: path.read_bytes() for path in folder.glob("*.*")} == before
