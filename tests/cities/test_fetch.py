"""Where Manhattan's files come from: the table, downloads, conversions, checks."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely

from model_code.city import load_city, named_files
from model_code.errors import DataError
from tests.cities.originals import LOTS, SHEET, served, write_originals, write_pins
from tests.tiny import ROOT

SCRIPT = ROOT / "cities" / "manhattan" / "fetch.py"


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("manhattan_fetch", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


fetch = _load(SCRIPT)
FILES = {file.path: file for file in fetch.FILES}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("originals")
    write_originals(root)
    return root


# --- the table -----------------------------------------------------------------------------------


def test_page_is_what_the_script_prints() -> None:
    assert SCRIPT.with_name("FILES.md").read_text() == fetch.markdown()


def test_table_and_yaml_name_the_same_files_and_origins() -> None:
    named = list(named_files(load_city(ROOT / "cities" / "manhattan.yaml")))
    assert {name.path for name in named} == set(FILES)
    for name in named:
        repositories = FILES[name.path].repositories
        pinned = [f"{repo} @{fetch.REPOSITORIES[repo][0][:7]}, " for repo in repositories]
        assert any(name.origin.startswith(start) for start in pinned), name
        assert name.licence != "not stated" and name.date != "not stated", name.key


def test_every_original_is_pinned_and_used() -> None:
    pins = fetch.pins()
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit, _ in fetch.REPOSITORIES.values())
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in pins.values())
    patterns = [pattern for file in fetch.FILES for pattern in file.originals]
    unused = [o for o in pins if not any(fnmatchcase(o, pattern) for pattern in patterns)]
    assert not unused
    unpinned = [p for p in patterns if not any(fnmatchcase(o, p) for o in pins)]
    assert unpinned == ["LightChaser666/RegionDCL/data/processed/NYC/downstream_region.pkl"]
    assert len(fetch.wanted(FILES["nyc/mobility/yellow_taxi_sample_2018_2020.parquet"])) == 36
    assert len(fetch.wanted(FILES["nyc/streetview/images"])) == 229


# --- downloads -----------------------------------------------------------------------------------

ORIGINAL = "wushangbin/MGFN/Data/mh_cd.json"


def _publish(root: Path, original: str, content: bytes) -> None:
    path = root / urllib.parse.unquote(fetch.url(original, "x:")).removeprefix("x:/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_download_is_pinned_and_moved_when_its_digest_is_right(tmp_path: Path) -> None:
    content = b"0123456789" * 100_000
    sha256 = hashlib.sha256(content).hexdigest()
    _publish(tmp_path / "web", ORIGINAL, content)
    with served(tmp_path / "web") as (base, asked):
        path = fetch.download(ORIGINAL, sha256, tmp_path / "data", base)
        assert fetch.download(ORIGINAL, sha256, tmp_path / "data", base) == path
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["mh_cd.json"]
    commit = fetch.REPOSITORIES["wushangbin/MGFN"][0]
    assert asked == [f"/wushangbin/MGFN/{commit}/Data/mh_cd.json"]  # once


@pytest.mark.parametrize("published", [b"something else", None])
def test_download_that_fails_leaves_nothing(tmp_path: Path, published: bytes | None) -> None:
    (tmp_path / "web").mkdir()
    if published:
        _publish(tmp_path / "web", ORIGINAL, published)
    message = "not the file that was pinned" if published else "cannot be fetched: .*404"
    with served(tmp_path / "web") as (base, _), pytest.raises(DataError, match=message) as error:
        fetch.download(ORIGINAL, "0" * 64, tmp_path / "data", base)
    assert "put it at" in error.value.fix
    assert not [p for p in (tmp_path / "data").rglob("*") if p.is_file()]


def test_only_web_addresses_are_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no http\(s\) URL"):
        fetch.download(ORIGINAL, "0" * 64, tmp_path, "file:///etc")


# --- conversions ---------------------------------------------------------------------------------


def _converted(path: str, originals: Path, data: Path) -> Path:
    fetch.convert(FILES[path], originals, data)
    return data / path


def test_regions_keep_the_order_of_the_shapefile(originals: Path, tmp_path: Path) -> None:
    found = gpd.read_file(_converted("nyc/regions/mh180.geojson", originals, tmp_path))
    assert found["region_id"].tolist() == [0, 1]
    assert shapely.equals_exact(found.geometry.to_numpy(), LOTS, 1e-9, normalize=True).all()


def test_indicators_are_by_number_not_by_place_in_the_file(originals: Path, tmp_path: Path) -> None:
    path = _converted("nyc/indicators/mh180_indicators.parquet", originals, tmp_path)
    assert pd.read_parquet(path).to_dict("list") == {
        "region_id": [0, 1],
        "crime_count": [178, 258],
        "checkin_count": [1269, 579],
        "service_call_count_311": [1314, 3947],
        "district_label_mh_cd": [2, 8],
    }


def test_rasters_mark_what_is_no_value(originals: Path, tmp_path: Path) -> None:
    for name, values, valid in (
        ("nlcd_canopy_pct_300m", [0, 99.5], [[True, True], [False, False]]),
        ("ndvi_30m", [0.5, -1], [[True, False], [False, True]]),
        ("landsat_lst_celsius_30m", [30.5, 41], [[True, True]]),
    ):
        with rasterio.open(_converted(f"nyc/satellite/{name}.tif", originals, tmp_path)) as raster:
            pixels = raster.read(1, masked=True)
            assert raster.crs.to_epsg() == 4326
        np.testing.assert_array_equal(~np.ma.getmaskarray(pixels), valid)
        np.testing.assert_allclose(pixels.compressed(), values)


def test_photographs_stand_at_their_first_building(originals: Path, tmp_path: Path) -> None:
    table = pd.read_csv(_converted("nyc/streetview/metadata.csv", originals, tmp_path))
    assert table["file"].tolist() == ["lot.jpg"]
    np.testing.assert_allclose(table[["lon", "lat"]], [[-74.0059, 40.7322]])
    folder = _converted("nyc/streetview/images", originals, tmp_path)
    assert [p.name for p in folder.iterdir()] == ["lot.jpg"]


def test_buildings(originals: Path, tmp_path: Path) -> None:
    for name, column, values in (
        ("west_village_footprints_heights", "height_m", [30.48] * 3),
        ("uptown_bronx_footprints_noheight", "polygon_no", [1, 3]),
    ):
        path = _converted(f"nyc/buildings/{name}.parquet", originals, tmp_path)
        found = gpd.read_parquet(path)
        assert found[column].tolist() == values
        assert found.crs == "EPSG:4326"
        assert shapely.equals_exact(found.geometry[:2], LOTS, 1e-9, normalize=True).all()


def test_pois(originals: Path, tmp_path: Path) -> None:
    path = _converted("nyc/poi/foursquare_venues_nyc.parquet", originals, tmp_path)
    found = gpd.read_parquet(path)
    assert found["venue_id"].tolist() == ["v1", "v2", "v3"]
    assert found["category"].tolist()[::2] == ["Bar", "Park"]
    assert pd.isna(found["category"][1])  # nobody checked in at such a place
    assert found.geometry.x.tolist() == [-74.0, -73.9, -73.8]


def test_taxi_trips_and_zones(originals: Path, tmp_path: Path) -> None:
    path = _converted("nyc/mobility/yellow_taxi_sample_2018_2020.parquet", originals, tmp_path)
    trips = pd.read_parquet(path)
    assert len(trips) == 36 and trips["file_month"].is_monotonic_increasing
    assert trips["pickup_datetime"][0] == pd.Timestamp("2018-01-03 08:05")
    zones = gpd.read_parquet(_converted("nyc/regions/taxi_zones.parquet", originals, tmp_path))
    assert zones["location_id"].tolist() == [4, 12]


def test_listings_keep_no_brokers_and_no_listing_twice(originals: Path, tmp_path: Path) -> None:
    path = _converted("nyc/indicators/house_listings_nyc_2024.parquet", originals, tmp_path)
    found = gpd.read_parquet(path)
    assert found["price_usd"].tolist() == [315_000]
    assert set(found) == {"type", "price_usd", "beds", "bath", "propertysqft", "geometry"}


def test_old_excel_file_needs_a_csv_or_xlrd(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "nyc/poi/osm_poi_nyc_2017.parquet"
    monkeypatch.setitem(sys.modules, "xlrd", None)
    with pytest.raises(fetch.ByHand, match="old Excel file") as error:
        fetch.convert(FILES[path], originals, tmp_path)
    assert "uv run --with xlrd" in error.value.fix
    assert not list(tmp_path.rglob("*.parquet"))
    sheet = tmp_path / "originals" / "Liyue-Chen/STContext/Data/POI/POI_NYC-2017.csv"
    sheet.parent.mkdir(parents=True)
    SHEET.to_csv(sheet, index=False)
    found = gpd.read_parquet(_converted(path, tmp_path / "originals", tmp_path))
    assert found["fclass"].tolist() == ["fast_food", "ferry_terminal"]
    assert found.geometry.x.tolist() == [-74.01, -74.0]


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path, victim = "nyc/regions/census_tracts_2020.parquet", tmp_path / "victim"
    pickle = tmp_path / FILES[path].originals[0]
    pickle.parent.mkdir(parents=True)
    # What an attacker would write: it makes a file when it is loaded.
    pickle.write_bytes(f"cposix\nmkdir\n(V{victim}\ntR.".encode())
    with pytest.raises(fetch.ByHand, match="pickle, which runs what is in it"):
        fetch.convert(FILES[path], tmp_path, tmp_path)
    assert not victim.exists()


def test_population_is_density_times_area(tmp_path: Path) -> None:
    path = "nyc/regions/census_tracts_2020.parquet"
    csv = tmp_path / FILES[path].originals[0].replace(".pkl", ".csv")
    csv.parent.mkdir(parents=True)
    tract = shapely.box(300_000, 60_000, 302_000, 61_000)  # 2 km2 in EPSG:32118
    pd.DataFrame({"name": ["1000201"], "shape": [tract.wkt], "population": [31_569.9]}).to_csv(csv)
    found = gpd.read_parquet(_converted(path, tmp_path, tmp_path))
    assert found["worldpop2020_population_est"].tolist() == pytest.approx([63_139.8])
    assert found["boroct2020"].tolist() == ["1000201"]
    assert -75 < found.total_bounds[0] < -73


def test_a_file_that_is_there_is_left_alone_and_a_lost_original_is_told(tmp_path: Path) -> None:
    file = FILES["nyc/mobility/mh180_od_trips_total.npy"]
    with pytest.raises(fetch.ByHand, match=r"no .*mob-adj\.npy"):
        fetch.convert(file, tmp_path / "originals", tmp_path)
    assert not list((tmp_path / "nyc").rglob("*.npy"))
    (tmp_path / file.path).write_bytes(b"mine")
    fetch.convert(file, tmp_path / "originals", tmp_path)
    assert (tmp_path / file.path).read_bytes() == b"mine"


# --- checks --------------------------------------------------------------------------------------


def test_problems_are_told(originals: Path, tmp_path: Path) -> None:
    expected = fetch.Expected
    lots = _converted("nyc/buildings/west_village_footprints_heights.parquet", originals, tmp_path)
    good = expected(3, ("height_m",), crs="EPSG:4326")
    assert list(fetch.problems(lots, good)) == []
    bad = expected(4, ("height_m", "floors"), crs="EPSG:2263")
    assert list(fetch.problems(lots, bad)) == [
        "rows 3, not 4",
        "no column floors",
        "CRS WGS 84, not EPSG:2263",
    ]
    raster = _converted("nyc/satellite/landsat_lst_celsius_30m.tif", originals, tmp_path)
    assert list(fetch.problems(raster, expected(shape=(1, 1, 2), values=(30, 42)))) == []
    assert list(fetch.problems(raster, expected(shape=(3, 1, 2), crs="EPSG:5070", values=(35, 42)))) == [
        "shape (1, 1, 2), not (3, 1, 2)",
        "CRS EPSG:4326, not EPSG:5070",
        "values 30.5 to 41, not 35 to 42",
    ]  # fmt: skip
    assert list(fetch.problems(tmp_path / "no.csv", good)) == ["missing"]


def test_script_gets_converts_and_checks(tmp_path: Path) -> None:
    """The script itself, in a folder with other pins, against a mirror of tiny originals."""
    shutil.copy(SCRIPT, tmp_path)
    write_originals(tmp_path / "given")
    write_pins(tmp_path / "given", tmp_path / "originals.sha256")
    for original in _load(tmp_path / "fetch.py").pins():
        _publish(tmp_path / "web", original, (tmp_path / "given" / original).read_bytes())
    with served(tmp_path / "web") as (base, _):
        done = subprocess.run(
            [sys.executable, "fetch.py", "--base-url", base],
            cwd=tmp_path,
            env={**os.environ, "CITYLOOM_DATA": str(tmp_path / "data")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1, done.stderr
    by_hand = {path for path, file in FILES.items() if file.by_hand}
    states = {
        line.split()[1].rstrip(":"): line.split()[0]
        for line in done.stdout.splitlines()
        if line.split()[0] in ("ok", "missing", "wrong")
    }
    assert {path for path, state in states.items() if state == "missing"} == by_hand
    assert "wrong    nyc/regions/mh180.geojson: rows 2, not 180" in done.stdout
    assert "old Excel file" in done.stderr and "pickle" in done.stderr


@pytest.mark.skipif(
    not (Path(os.environ.get("CITYLOOM_DATA", "")) / "nyc").is_dir(),
    reason="the files of Manhattan are not here: set CITYLOOM_DATA",
)
def test_files_that_are_here_are_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch.check(Path(os.environ["CITYLOOM_DATA"])), capsys.readouterr().out
