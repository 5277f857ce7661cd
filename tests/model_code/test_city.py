"""What a user says of a city: every mistake is told at once, by file and key, with what to write."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import re
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from model_code import city as config
from model_code.city import (
    Cities,
    City,
    CityView,
    Cron,
    Indicator,
    check_files,
    city_folders,
    data_root,
    load_city,
    named_files,
    resolve,
)
from model_code.errors import ConfigError, UnknownCityError

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "cities").glob("*.yaml"))

TOWN: dict[str, Any] = {
    "name": "town",
    "title": "Town",
    "timezone": "Europe/Berlin",
    "boundary": {"bbox": [13.0, 52.0, 13.5, 52.5]},
    "partition": {"kind": "square", "size_m": 1000},
    "sources": {
        "imagery": {"path": "image.tif"},
        "pois": [{"path": "pois.csv", "licence": "ODbL"}, {"path": "more.csv"}],
        "trips": {
            "path": "trips/*.parquet",
            "timezone": "Europe/Berlin",
            "columns": {
                "started_at": "at",
                "origin_zone": "from",
                "destination_zone": "to",
            },
            "zones": {"path": "zones.geojson", "id": "zone"},
        },
    },
    "indicators": {
        "crime": {"source": {"kind": "points", "path": "crime.csv"}},
        "poi_count": {"source": {"kind": "city", "count": "pois"}, "transform": "log1p"},
    },
    "methods": {"poi": {}, "vit": {"variants": {"wide": {"width": 128}}}},
    "schedule": {"cron": "0 3 * * *", "timezone": "Europe/Berlin"},
}


def changed(path: str, value: Any, base: Any = TOWN) -> dict[str, Any]:
    """The town with another value at a dotted key (`...`: without the key)."""
    raw = copy.deepcopy(base)
    *parents, last = path.split(".")
    node = raw
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
    if value is ...:
        del node[last]
    else:
        node[int(last) if isinstance(node, list) else last] = value
    return raw


def write(folder: Path, raw: Any, name: str = "town") -> Path:
    path = folder / f"{name}.yaml"
    text = raw if isinstance(raw, str) else yaml.safe_dump(raw, sort_keys=False)
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, raw: Any, name: str = "town", root: str | None = None) -> dict[str, str]:
    """What is wrong, and its fix, by key."""
    path = write(folder, raw, name)
    with pytest.raises(ConfigError) as error:
        load_city(path, root)
    assert str(path) in str(error.value)
    for problem in error.value.problems:
        assert problem.key and problem.what and problem.fix
        assert f"  {problem.key}: {problem.what}" in str(error.value)
        assert f"fix: {problem.fix}" in str(error.value)
    found = {p.key: f"{p.what} / {p.fix}" for p in error.value.problems}
    assert len(found) == len(error.value.problems), "a problem is told twice"
    return found


# --- what loads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_city_loads(path):
    city = load_city(path)
    assert city.name == path.stem and city.methods and city.indicators
    again = City.model_validate(city.model_dump(mode="json"))
    assert again == city


def test_there_are_shipped_cities():
    assert {"demo", "demo_large", "manhattan"} <= {path.stem for path in SHIPPED}


def test_a_city_is_read_with_its_defaults(tmp_path):
    city = load_city(write(tmp_path, TOWN))
    assert city.crs == "auto" and city.seeds == (0, 1, 2) and city.chips.size_px == 64
    assert city.partition.edge == "keep" and city.sources.pois[0].licence == "ODbL"
    assert city.sources.imagery.licence == "not stated"
    with pytest.raises(ValidationError):
        city.title = "Other"


def test_where_a_city_was_read_from_is_no_part_of_its_value(town, tmp_path):
    assert town.read_from == str(tmp_path / "town.yaml")
    again = City.model_validate(town.model_dump(mode="json"))
    assert again == town and "read_from" not in town.model_dump()
    assert again.read_from == "city 'town'"
    assert town.model_copy(update={"title": "Other"}).read_from == town.read_from


def test_dates_need_no_quotes(tmp_path):
    city = load_city(
        write(tmp_path, yaml.safe_dump(TOWN).replace("ODbL", "ODbL\n    date: 2023-06-01"))
    )
    assert city.sources.pois[0].date == "2023-06-01"


def test_words_that_yaml_takes_for_something_else_may_be_keys(tmp_path):
    city = load_city(write(tmp_path, yaml.safe_dump(TOWN).replace("crime:", "no:")))
    assert "no" in city.indicators


def test_yaml_may_repeat_itself_by_reference(tmp_path):
    text = yaml.safe_dump(changed("indicators", ...))
    text += (
        "indicators:\n  a: &a {unit: m, source: {kind: points, path: a.csv}}\n"
        "  b: {<<: *a, unit: km}\n"
    )
    city = load_city(write(tmp_path, text))
    assert city.indicators["b"].unit == "km" and city.indicators["b"].source.path == "a.csv"


# --- one mistake ---------------------------------------------------------------------------------

# (key, value that is put there, key that is told, words of the problem or its fix)
MISTAKES = [
    ("tilte", "x", "tilte", "did you mean 'title'"),
    ("sources.imagry", {}, "sources.imagry", "did you mean 'imagery'"),
    ("sources.pois.1.colums", {}, "sources.pois.1.colums", "did you mean 'columns'"),
    ("sources.trips.columns.origin_lng", "x", "sources.trips.columns.origin_lng", "origin_lon"),
    ("partition.size", 5, "partition.size", "did you mean 'size_m'"),
    ("partition.zzz", 5, "partition.zzz", "known here: edge, kind, min_inside_share, size_m"),
    ("indicators.crime.source.aggregat", "sum", "indicators.crime.source.aggregat", "aggregate"),
    ("title", ..., "title", "add `title:`"),
    ("methods", ..., "methods", "missing key"),
    ("partition.size_m", ..., "partition.size_m", "missing key"),
    ("indicators.crime.source.path", ..., "indicators.crime.source.path", "missing key"),
    ("partition.kind", ..., "partition.kind", "one of square, h3, polygons"),
    ("partition.kind", "sqare", "partition.kind", "did you mean 'square'"),
    ("indicators.crime.source.kind", "point", "indicators.crime.source.kind", "'points'"),
    ("partition.size_m", 0, "partition.size_m", "greater than 0"),
    ("partition.size_m", "1000", "partition.size_m", "valid number"),
    ("partition.size_m", True, "partition.size_m", "valid number"),
    ("partition.size_m", float("inf"), "partition.size_m", "finite"),
    ("chips.size_px", 64.5, "chips.size_px", "valid integer"),
    ("sources.pois.0.date", 2017, "sources.pois.0.date", 'write it in quotes: "2017"'),
    ("sources.pois", {"path": "a"}, "sources.pois", "valid array"),
    ("sources", None, "sources", "write `{}`"),
    ("methods.poi", None, "methods.poi", "write `{}`"),
    ("methods", {}, "methods", "at least 1"),
    ("indicators", {}, "indicators", "at least 1"),
    ("indicators.Crime rate", {"source": {"kind": "points", "path": "a"}}, "indicators.Crime rate", "use a-z"),
    ("name", "Town", "name", "use a-z"),
    ("boundary", {}, "boundary", "give either `bbox"),
    ("boundary.path", "b.geojson", "boundary", "give either `bbox"),
    ("boundary.bbox", [13.5, 52.0, 13.0, 52.5], "boundary", "west < east"),
    ("boundary.bbox", [52.0, 113.0, 52.5, 113.5], "boundary", "west, south, east, north"),
    ("boundary.bbox", [13.0, 52.0, 13.5], "boundary.bbox.3", "want 4 values"),
    ("crs", "EPSG:99999", "crs", "PROJ knows no such code"),
    ("crs", "UTM33N", "crs", "EPSG:32618; or `auto`"),
    ("sources.pois.0.crs", "EPSG:99999", "sources.pois.0.crs", "PROJ knows no such code"),
    ("sources.imagery.crs", "WGS84", "sources.imagery.crs", "want an EPSG code"),
    ("sources.trips.zones.crs", "EPSG:99999", "sources.trips.zones.crs", "PROJ knows no such code"),
    ("boundary.crs", "EPSG:4326", "boundary", "go with `path` only"),
    ("sources.pois.0.format", "xlsx", "sources.pois.0.format", "'geopackage' or 'shapefile'"),
    ("sources.trips.format", "geojson", "sources.trips.format", "'csv' or 'parquet'"),
    ("sources.trips.zones.format", "csv", "sources.trips.zones.format", "'geojson'"),
    ("sources.imagery.format", "png", "sources.imagery.format", "'geotiff'"),
    ("timezone", "Mars/Olympus", "timezone", "America/New_York"),
    ("timezone", "Europe", "timezone", "IANA name"),
    ("sources.trips.timezone", "CEST?", "sources.trips.timezone", "IANA name"),
    ("sources.trips.timezone", ..., "sources.trips.timezone", "missing key"),
    ("sources.trips.zones", ..., "sources.trips", "need `zones"),
    ("sources.trips.columns.origin_lon", "x", "sources.trips.columns", "name either"),
    ("indicators.crime.source.aggregate", "mean", "indicators.crime.source", "needs `value`"),
    ("indicators.crime.kind", "hourly", "indicators.crime", "hourly_outflow"),
    ("splits.random", {"train": 0.8, "val": 0.2}, "splits.random", "leave a share"),
    ("splits.spatial.block_m", -1, "splits.spatial.block_m", "greater than 0"),
    ("sources.imagery.stretch", {"low": 9, "high": 9}, "sources.imagery.stretch", "low must be"),
    ("seeds", [0, 1, 0], "seeds", "given twice"),
    ("seeds", [], "seeds", "at least 1"),
    ("seeds", [-1], "seeds.0", "greater than or equal to 0"),
    ("seeds", [2**31], "seeds.0", "less than 2147483648"),
    ("schedule.timezone", "Nowhere", "schedule.timezone", "IANA name"),
    ("schedule.cron", "0 3 * *", "schedule.cron", "4 fields; want five"),
    ("schedule.cron", "@daily", "schedule.cron", "`0 3 * * *`"),
    ("schedule.cron", "60 * * * *", "schedule.cron", "minute: '60' is not in 0-59"),
    ("methods.pio", {}, "methods.pio", "did you mean 'poi'"),
    ("methods.zzz", {}, "methods.zzz", "known here: autoencoder"),
    ("methods.poi.confg", {}, "methods.poi.confg", "did you mean 'config'"),
    ("methods.poi.config", {"transfrom": "raw"}, "methods.poi.config.transfrom", "'transform'"),
    ("methods.poi.config", {"transform": "log"}, "methods.poi.config.transform", "log1p"),
    ("methods.poi.config", 3, "methods.poi.config", "should be an object"),
    ("methods.vit.config", {"learning_rate": float("inf")}, "methods.vit.config.learning_rate", "finite"),
    ("methods.vit.config", {"image_px": 30}, "methods.vit.config", "multiple of patch_px"),
    ("methods.vit.variants.wide", {"wdth": 1}, "methods.vit.variants.wide.wdth", "'width'"),
    ("methods.vit.variants.wide", {"width": 13}, "methods.vit.variants.wide", "multiple of heads"),
    ("methods.vit.variants.default", {}, "methods.vit.variants.default", "another name"),
    ("methods.vit.variants.No", {}, "methods.vit.variants.No", "use a-z"),
    ("sources.imagery", ..., "methods.vit", "add `sources.imagery`"),
    ("sources.pois", [], "methods.poi", "add `sources.pois`"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "key", "words"), MISTAKES)
def test_a_mistake_is_told_by_its_key_with_a_fix(tmp_path, path, value, key, words):
    found = problems(tmp_path, changed(path, value))
    assert key in found
    assert words in found[key]
    # One slip is one problem, but for what needs a source that is gone.
    hanging = {"indicators.poi_count.source.count", "methods.poi", "methods.vit"}
    assert set(found) - {key} <= (hanging if path.startswith("sources") else set())


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("indicators", {"Crime!": TOWN["indicators"]["crime"]}, "use a-z, 0-9 and _ only"),
        (
            "captions.painter",
            {"kind": "sdxl", "model": "some/model", "revision": "main"},
            "40 hex digits",
        ),
        (
            "captions.captioner",
            {"kind": "vllm", "model": "some/model", "revision": "main"},
            "40 hex digits",
        ),
        (
            "captions.clip",
            {"kind": "open_clip", "model": "ViT-B-32", "weights": {"path": "/a", "sha256": "abc"}},
            "64 hex digits",
        ),
        (
            "captions.captioner",
            {"kind": "custom", "object": "no module"},
            "want package.module:Class",
        ),
        (
            "captions.captioner",
            {"kind": "transformers", "model": "/a", "device": "gpu"},
            "change the value as said",
        ),
    ],
)
def test_each_form_of_a_text_has_its_own_advice(tmp_path, path, value, words):
    told = problems(tmp_path, changed(path, value))
    (message,) = (m for m in told.values() if "should match pattern" in m)
    assert words in message
    assert ("a-z, 0-9 and _" in message) == words.startswith("use a-z")


@pytest.mark.parametrize("wrong", [{"widht": 3}, {"epochs": "three"}])
def test_what_a_method_with_a_wrong_setting_needs_is_told_by_the_others(tmp_path, wrong):
    """By its backbones it needs no towers, and only the setting is to be mended."""
    (key,) = wrong
    told = problems(tmp_path, changed("methods.musecl", {"config": {**SMALL, **wrong}}))
    assert set(told) == {f"methods.musecl.config.{key}"}
    told = problems(tmp_path, changed("methods.musecl", {"config": wrong}))
    assert "the method needs towers" in told["methods.musecl"]


def test_a_method_without_its_modality(tmp_path):
    raw = changed("sources.trips", ..., changed("methods.od_pca", {}))
    assert problems(tmp_path, raw) == {
        "methods.od_pca": "the method needs flows, and this city has no source of it / "
        "add `sources.od` or `sources.trips`, or take the method out"
    }
    raw = changed("sources.od", {"path": "od.npy"}, changed("methods.mgfn", {}))
    raw["sources"].pop("trips")
    assert problems(tmp_path, raw)["methods.mgfn"] == (
        "the method needs hourly_flows, and this city has no source of it / "
        "add `sources.trips`, or take the method out"
    )


SMALL = {"satellite_backbone": "small", "street_view_backbone": "small"}


@pytest.mark.parametrize(
    ("chosen", "fits"),
    [
        ({}, False),
        ({"config": SMALL}, True),
        ({"config": SMALL, "variants": {"towers": {"satellite_backbone": "towers"}}}, False),
    ],
    ids=str,
)
def test_a_method_needs_what_its_settings_read(tmp_path, chosen, fits):
    raw = changed("methods.musecl", chosen)
    if fits:
        assert load_city(write(tmp_path, raw))
    else:
        assert "the method needs towers" in problems(tmp_path, raw)["methods.musecl"]


def with_views(*methods):
    """The city with street views, and these methods."""
    views = {"path": "views.csv", "images": "views"}
    return changed("sources.street_views", views, changed("methods", {m: {} for m in methods}))


@pytest.mark.parametrize(
    ("segmenter", "read", "shares"),
    [
        ("embedded", True, True), ({"kind": "embedded"}, True, True), ("none", False, False),
        ({"satellite": "embedded"}, True, True), ({"street_view": "embedded"}, False, True),
    ],
    ids=str,
)  # fmt: skip
def test_a_method_that_reads_shares_needs_a_segmenter_of_its_views(
    tmp_path, segmenter, read, shares
):
    raw = changed("captions", {"segmenter": segmenter}, with_views("read", "shares"))
    unmet = {f"methods.{name}" for name, met in {"read": read, "shares": shares}.items() if not met}
    if not unmet:
        assert load_city(write(tmp_path, raw))
        return
    told = problems(tmp_path, raw)
    assert set(told) == unmet
    assert all("captions.segmenter" in advice for advice in told.values())
    assert "pictures of the view satellite, and there is none" in told["methods.read"]


def test_only_a_segmenter_of_a_view_that_the_city_has_measures_shares(tmp_path):
    raw = changed("captions", {"segmenter": {"satellite": "embedded"}}, with_views("shares"))
    assert load_city(write(tmp_path, raw))
    raw["sources"].pop("imagery")
    assert "of the view street_view, and there is none" in problems(tmp_path, raw)["methods.shares"]


def test_no_density_where_what_can_be_reached_is_told_of_totals(tmp_path):
    raw = changed("sources.truth", {"path": "truth.parquet"})
    name = next(
        n for n, i in raw["indicators"].items() if i.get("kind", "regression") == "regression"
    )
    raw["indicators"][name]["source"] = {"kind": "city", "count": "pois"}
    assert load_city(write(tmp_path, raw))
    raw["indicators"][name]["per_km2"] = True
    assert set(problems(tmp_path, raw)) == {f"indicators.{name}.per_km2"}


@pytest.mark.parametrize(
    ("count", "source", "fits"),
    [
        ("pois", "pois", True), ("comments", "pois", True), ("trips_out", "trips", True),
        ("trips_in", "trips", True), ("hourly_outflow", "trips", True),
    ],
)  # fmt: skip
def test_an_indicator_that_counts_a_table_needs_its_source(tmp_path, count, source, fits):
    kind = "hourly" if count == "hourly_outflow" else "regression"
    indicator = {"kind": kind, "source": {"kind": "city", "count": count}}
    raw = changed("indicators", {"x": indicator}, changed("methods", {"location": {}}))
    assert load_city(write(tmp_path, raw))
    found = problems(tmp_path, changed(f"sources.{source}", ..., raw))
    assert set(found) == {"indicators.x.source.count"} and f"`sources.{source}`" in str(found)


def test_a_matrix_has_no_hours(tmp_path):
    raw = changed("sources", {"od": {"path": "od.npy"}}, changed("methods", {"od_pca": {}}))
    raw["indicators"] = {"x": {"source": {"kind": "city", "count": "trips_in"}}}
    assert load_city(write(tmp_path, raw))
    hourly = {"kind": "hourly", "source": {"kind": "city", "count": "hourly_outflow"}}
    assert set(problems(tmp_path, changed("indicators.h", hourly, raw))) == {
        "indicators.h.source.count"
    }


def test_a_variant_is_not_blamed_for_the_config(tmp_path):
    raw = changed("methods.vit.config", {"depth": 0})
    assert set(problems(tmp_path, raw)) == {"methods.vit.config.depth"}
    raw = changed("methods.vit.config", {"image_px": 30})
    assert set(problems(tmp_path, raw)) == {"methods.vit.config"}


def test_a_name_that_is_not_the_files(tmp_path):
    found = problems(tmp_path, TOWN, "village")
    assert found == {
        "name": "the file is village.yaml, the name is 'town' / "
        "call the file town.yaml, or change the name"
    }


def test_the_empty_file_and_others_that_are_no_config(tmp_path):
    for text in ("", "# nothing", "- a\n- b", "town", "3"):
        assert problems(tmp_path, text) == {
            "(file)": "the file holds no mapping / start with `name: ...`"
        }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: town\ntitle: [", "not YAML"),
        ("name: town\n\ttitle: x", "not YAML"),
        ("name: town\nname: town", "key 'name' is given twice"),
        ("a:\n  b: 1\n  c: 2\n  b: 3", "key 'b' is given twice"),
        ("? [a, b]\n: 1", "a key must be one word"),
        ("<<: {? [a] : 1}", "a key must be one word"),
        ("name: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("date: 2023-13-45", "month must be in 1..12"),
        ("a: &a [*a]", "not YAML"),
    ],
)
def test_what_is_no_yaml_names_the_line(tmp_path, text, words):
    found = problems(tmp_path, text)
    assert set(found) == {"(file)"} and words in found["(file)"]


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_city(tmp_path / "none.yaml")
    (tmp_path / "town.yaml").write_bytes(b"name: t\xf6wn")
    with pytest.raises(ConfigError, match="not YAML"):
        load_city(tmp_path / "town.yaml")


# --- clocks --------------------------------------------------------------------------------------


def test_hours_of_trips_need_the_time_zone_of_the_city(tmp_path):
    found = problems(tmp_path, changed("timezone", ...))
    assert set(found) == {"timezone"} and "IANA name" in found["timezone"]
    load_city(write(tmp_path, changed("timezone", "UTC")))
    load_city(write(tmp_path, changed("timezone", ..., changed("sources.trips", ...))))


def test_times_of_street_views_need_a_time_zone(tmp_path):
    views = {"path": "views.csv", "images": "views", "columns": {"taken_at": "at"}}
    raw = changed("sources.street_views", views)
    found = problems(tmp_path, raw)
    assert set(found) == {"sources.street_views.timezone"}
    assert "taken_at" in found["sources.street_views.timezone"]
    load_city(write(tmp_path, changed("sources.street_views.timezone", "Europe/Berlin", raw)))
    load_city(write(tmp_path, changed("sources.street_views.columns", {"lon": "x"}, raw)))


# --- all at once ---------------------------------------------------------------------------------


def test_everything_wrong_is_told_at_once(tmp_path):
    raw = copy.deepcopy(TOWN)
    raw |= {"tilte": 1, "crs": "EPSG:1", "timezone": "Mars", "seeds": [0, 0], "name": "city"}
    raw["boundary"] = {"bbox": [1, 2, 0, 3]}
    raw["partition"] = {"kind": "h3"}
    raw["chips"] = {"size_px": "big", "ground": 3}
    raw["schedule"] = {"cron": "x * * * *", "timezone": "Mars"}
    raw["methods"] = {"poi": {"config": {"had": "mlp"}}, "pio": {}, "vit": {}, "od_pca": {}}
    raw["indicators"]["trips"] = {"source": {"kind": "city", "count": "trips_out"}}
    raw["sources"] = {
        "pois": [{"path": "a"}, {"pth": "b"}, {"path": "s3://bucket/pois.csv"}],
        "buildings": [{"path": "there.csv", "heigth": "h"}],
        "street_views": {"path": str(tmp_path / "gone.csv"), "images": "views/*.jpg"},
    }
    (tmp_path / "there.csv").touch()
    keys = {
        "tilte", "crs", "timezone", "seeds", "boundary", "partition.resolution", "chips.size_px",
        "chips.ground", "schedule.cron", "schedule.timezone", "methods.poi.config.had",
        "methods.pio", "methods.vit", "methods.od_pca", "indicators.trips.source.count",
        "sources.pois.1.path", "sources.pois.1.pth", "name", "sources.buildings.0.heigth",
    }  # fmt: skip
    assert set(problems(tmp_path, raw)) == keys
    missing = {"sources.pois.0.path", "sources.street_views.path", "sources.street_views.images",
               "indicators.crime.source.path"}  # fmt: skip
    found = problems(tmp_path, raw, root=str(tmp_path))
    assert set(found) == keys | missing
    assert all(f"no such file: {tmp_path}" in found[key] for key in missing)
    assert set(problems(tmp_path, raw, root="s3://bucket")) == keys | {"sources.street_views.path"}
    simulated = raw | {"simulator": {"path": "town", "regions": 20}}
    assert set(problems(tmp_path, simulated, root=str(tmp_path))) == keys


KEYS = ["title", "boundary.bbox", "partition", "partition.size_m", "sources", "sources.pois",
        "sources.pois.0", "sources.trips.columns", "sources.trips.zones", "indicators",
        "indicators.crime", "indicators.crime.source", "methods", "methods.vit",
        "methods.vit.variants", "methods.vit.variants.wide", "schedule", "seeds", "splits"]  # fmt: skip
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5) | st.sampled_from(["kind", "path", "config"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(st.sampled_from(KEYS), JUNK, st.sampled_from(KEYS), JUNK)
@settings(max_examples=60, deadline=None)
def test_whatever_stands_there_is_told_or_taken(tmp_path_factory, first, one, second, other):
    folder = tmp_path_factory.getbasetemp() / "junk"
    folder.mkdir(exist_ok=True)
    raw = changed(first, one)
    with contextlib.suppress(KeyError, TypeError, IndexError, AttributeError, ValueError):
        raw = changed(second, other, raw)  # unless the first took its place
    try:
        load_city(write(folder, raw), str(folder))
    except ConfigError as error:
        assert error.problems and all(p.key and p.what and p.fix for p in error.problems)


# --- cron ----------------------------------------------------------------------------------------


def _field(low: int, high: int, names: str = "") -> st.SearchStrategy[str]:
    value = st.integers(low - 1, high + 1).map(str)
    value |= st.sampled_from(names.split()) if names else st.nothing()
    span = st.tuples(value, value).map("-".join)
    start = st.just("*") | value | span
    step = st.tuples(start, st.integers(0, high + 1).map(str)).map("/".join)
    return st.lists(start | step, min_size=1, max_size=2).map(",".join)


CRON = st.tuples(
    _field(0, 59), _field(0, 23), _field(1, 31), _field(1, 12, "jan FEB dec"), _field(0, 7, "mon SUN sat")
).map(" ".join)  # fmt: skip


@given(CRON)
@settings(max_examples=150, deadline=None)
def test_what_is_taken_for_a_schedule_the_scheduler_takes(text):
    """A schedule that Dagster refuses would take the whole code location with it."""
    from dagster._utils.schedules import is_valid_cron_string

    try:
        TypeAdapter(Cron).validate_python(text)
    except ValidationError:
        return
    assert is_valid_cron_string(text)


@pytest.mark.parametrize(
    "text",
    ["* * * * *", "0 3 * * *", "*/15 8-18 * * mon-fri", "0 0 1,15 * *", "5/10 * * * *", "0 0 29 2 *",
     "0  4\t* 1-12/3 0", "30 4 * jan,JUL *", "0 0 31 1,2 *", "00 03 * * 7", "1-5/2 * * * *"],
)  # fmt: skip
def test_usual_schedules_are_taken(text):
    from dagster._utils.schedules import is_valid_cron_string

    assert TypeAdapter(Cron).validate_python(text) == text
    assert is_valid_cron_string(text)


@pytest.mark.parametrize(
    "text",
    ["", "*", "0 3 * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *",
     "* * * 0 *", "* * * * 8", "*/0 * * * *", "*/60 * * * *", "5-1 * * * *", "a * * * *",
     "* * * mon *", "0 0 30 2 *", "0 0 31 4,6 *", "1,, * * * *", "- * * * *", "1- * * * *",
     "* * * * L", "0 0 * * 5#2", "R * * * *", "1/2/3 * * * *", "-1 * * * *", "١ * * * *"],
)  # fmt: skip
def test_other_schedules_are_refused(text):
    with pytest.raises(ValidationError):
        TypeAdapter(Cron).validate_python(text)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Etc/GMT+3"])
def test_schedules_in_any_zone_make_a_dagster_schedule(tmp_path, zone):
    import dagster as dg

    city = load_city(write(tmp_path, changed("schedule.timezone", zone)))
    schedule = dg.ScheduleDefinition(
        name="x", job_name="j", cron_schedule=city.schedule.cron,
        execution_timezone=city.schedule.timezone,
    )  # fmt: skip
    assert (
        schedule.execution_timezone == zone and ZoneInfo(zone).utcoffset(datetime.now()) is not None
    )


# --- folders of cities ---------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path / "one", tmp_path / "two"


def named(name: str) -> dict[str, Any]:
    return TOWN | {"name": name}


def test_one_bad_file_disables_that_city_alone(folders):
    one, two = folders
    write(one, named("a"), "a")
    write(one, "name: [", "b")
    write(two, named("c") | {"tilte": 1}, "c")
    write(two, named("d"), "d")
    (one / "notes.txt").write_text("no city")
    cities = Cities.load(folders)
    assert list(cities.good) == ["a", "d"] and set(cities.bad) == {"b", "c"}
    assert cities["a"].name == "a"
    with pytest.raises(ConfigError, match="tilte"):
        cities["c"]


def test_a_name_in_two_folders_is_an_error_of_the_second(folders):
    one, two = folders
    write(one, named("a"), "a")
    second = write(two, named("a") | {"title": "Second"}, "a")
    cities = Cities.load(folders)
    assert cities["a"].title == "Town"
    assert str(second) in cities.bad and "stands in two folders" in str(cities.bad[str(second)])


def test_a_file_that_would_not_be_read_is_told(folders):
    one, _ = folders
    (one / "a.yml").write_text(yaml.safe_dump(named("a")))
    cities = Cities.load(folders)
    assert not cities.good and "rename it a.yaml" in str(cities.bad[str(one / "a.yml")])


def test_the_environment_adds_a_folder(folders, monkeypatch):
    one, two = folders
    write(one, named("mine"), "mine")
    monkeypatch.setenv("CITYLOOM_CITIES", str(one))
    assert city_folders() == (ROOT / "cities", one)
    assert {"demo", "mine"} <= set(Cities.load().good)
    monkeypatch.setenv("CITYLOOM_CITIES", str(ROOT / "cities"))
    assert city_folders() == (ROOT / "cities",) and not Cities.load().bad
    monkeypatch.setenv("CITYLOOM_CITIES", str(two / "none"))
    cities = Cities.load()
    assert "demo" in cities.good and "mend $CITYLOOM_CITIES" in str(cities.bad[str(two / "none")])
    monkeypatch.delenv("CITYLOOM_CITIES")
    assert city_folders() == (ROOT / "cities",)


def test_an_unknown_city_lists_the_cities_and_suggests_one(folders, monkeypatch):
    one, _ = folders
    monkeypatch.setenv("CITYLOOM_CITIES", str(one))
    for name in ("manhattan", "berlin"):
        write(one, named(name), name)
    cities = Cities.load((one,))
    with pytest.raises(UnknownCityError, match="unknown city 'manhatan'") as error:
        cities["manhatan"]
    assert error.value.fix.startswith("did you mean 'manhattan'? give one of: berlin, manhattan (")
    assert str(one) in error.value.fix
    for nothing in (None, ""):
        with pytest.raises(UnknownCityError, match="names no city") as error:
            cities[nothing]
        assert "give one of: berlin, manhattan" in error.value.fix
    with pytest.raises(UnknownCityError, match="give one of: none"):
        Cities({}, {})["x"]


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def town(tmp_path: Path) -> City:
    return load_city(write(tmp_path, TOWN))


def test_files_of_nested_sections(town):
    assert town.files("sources.pois") == ("pois.csv", "more.csv")
    assert town.files("sources.pois.1") == ("more.csv",)
    assert town.files("sources.trips") == ("trips/*.parquet", "zones.geojson")
    assert town.files("indicators") == ("crime.csv",)
    assert town.files("sources.od") == () and town.files("boundary") == ()
    assert len(town.files("sources")) == 5


def test_named_files_have_keys_and_what_to_cite(town):
    found = {named.key: named for named in named_files(town)}
    assert list(found) == [
        "sources.imagery.path", "sources.pois.0.path", "sources.pois.1.path", "sources.trips.path",
        "sources.trips.zones.path", "indicators.crime.source.path",
    ]  # fmt: skip
    assert found["sources.pois.0.path"].licence == "ODbL"
    assert found["sources.pois.1.path"].licence == "not stated"


def test_the_folder_of_a_simulator_is_written_and_not_read(tmp_path):
    raw = changed("simulator", {"path": "made", "regions": 16})
    assert "made" not in [named.path for named in named_files(load_city(write(tmp_path, raw)))]


def test_missing_files_are_told_all_at_once(town, tmp_path):
    root = tmp_path / "data"
    for name in ("image.tif", "trips/a.parquet", "more.csv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    with pytest.raises(ConfigError) as error:
        check_files(town, str(root))
    assert {p.key for p in error.value.problems} == {
        "sources.pois.0.path", "sources.trips.zones.path", "indicators.crime.source.path",
    }  # fmt: skip
    assert error.value.source == str(tmp_path / "town.yaml")
    assert f"{tmp_path / 'town.yaml'}: 3 problem(s)" in str(error.value)
    for problem in error.value.problems:
        assert str(root) in problem.what and "$CITYLOOM_DATA" in problem.fix
    check_files(town, str(root), ("sources.imagery",))
    for name in ("pois.csv", "zones.geojson", "crime.csv"):
        (root / name).touch()
    check_files(town, str(root))
    (root / "trips" / "a.parquet").unlink()
    with pytest.raises(ConfigError, match=r"sources\.trips\.path"):
        check_files(town, str(root))


def test_places_that_cannot_be_looked_at_are_told_too(tmp_path):
    raw = changed("sources.pois.0.path", "nope://bucket/pois.csv")
    raw["sources"]["imagery"]["path"] = "memory://nothing/image.tif"
    with pytest.raises(ConfigError) as error:
        check_files(
            load_city(write(tmp_path, raw)), str(tmp_path), ("sources.pois.0", "sources.im")
        )
    found = {p.key: p.what for p in error.value.problems}
    assert set(found) == {"sources.pois.0.path", "sources.imagery.path"}
    assert (
        "nope" in found["sources.pois.0.path"] and "no such file" in found["sources.imagery.path"]
    )


@pytest.mark.parametrize(
    ("path", "root", "want"),
    [
        ("a/b.csv", "/data", "/data/a/b.csv"), ("a.csv", "/data/", "/data/a.csv"),
        ("/x/a.csv", "/data", "/x/a.csv"), ("s3://b/a.csv", "/data", "s3://b/a.csv"),
        ("a.csv", "s3://bucket", "s3://bucket/a.csv"),
    ],
)  # fmt: skip
def test_paths_are_below_the_data_root(path, root, want):
    assert resolve(path, root) == want


def test_the_data_root_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CITYLOOM_DATA", str(tmp_path / "x" / ".."))
    assert data_root() == str(tmp_path)
    monkeypatch.setenv("CITYLOOM_DATA", "gs://bucket/raw")
    assert data_root() == "gs://bucket/raw"
    monkeypatch.delenv("CITYLOOM_DATA")
    assert data_root() == str(ROOT / "data")


# --- what a stage sees ---------------------------------------------------------------------------


def test_a_view_shows_what_was_declared(town):
    view = town.view(("chips", "sources.pois", "methods"))
    assert view.chips.size_px == 64
    assert view.sources.pois[1].path == "more.csv"
    assert set(view.methods) == {"poi", "vit"}


@pytest.mark.parametrize(
    ("read", "key"),
    [
        (lambda view: view.title, "title"),
        (lambda view: view.sources.trips, "sources.trips"),
        (lambda view: view.sources.pois, "sources.pois"),
        (lambda view: view.indicators, "indicators"),
    ],
)
def test_a_view_refuses_what_was_not_declared(town, read, key):
    view = town.view(("chips", "sources.imagery"))
    with pytest.raises(AttributeError, match=re.escape(f"config key {key!r} is read but not")):
        read(view)


def test_a_view_of_a_section_that_is_not_given(town):
    view = town.view(("sources.od.path", "splits.spatial"))
    assert view.splits.spatial is None and view.sources.od.path is None
    assert view.dump() == {"sources.od.path": None, "splits.spatial": None}


def test_a_view_dumps_exactly_the_declared_keys(town):
    keys = ("boundary", "chips.size_px", "sources.pois", "methods", "sources.pois.0.licence")
    dump = town.view(keys).dump()
    assert tuple(dump) == keys
    assert dump["chips.size_px"] == 64 and dump["sources.pois.0.licence"] == "ODbL"
    cited = dict.fromkeys(("licence", "date", "origin"), "not stated")
    of_path = dict.fromkeys(("path", "format", "crs"))
    assert dump["boundary"] == {"bbox": [13.0, 52.0, 13.5, 52.5]} | of_path | cited
    assert dump["methods"]["vit"] == {"config": {}, "variants": {"wide": {"width": 128}}}
    assert json.loads(json.dumps(dump)) == dump


def test_a_dump_changes_with_what_it_covers_only(town, tmp_path):
    keys = ("chips", "sources.pois")
    before = town.view(keys).dump()
    for path, same in (("title", True), ("sources.imagery.path", True), ("chips.size_px", False),
                       ("sources.pois.1.path", False)):  # fmt: skip
        other = load_city(write(tmp_path, changed(path, 32 if path == "chips.size_px" else "x")))
        assert (other.view(keys).dump() == before) is same, path


@pytest.mark.parametrize("key", ["sorces", "sources.poi", "chips.size_px.x", "boundary.bbox.9.x"])
def test_a_key_that_no_config_can_have_is_an_error(town, key):
    """Otherwise a stage would hash None for ever, and take any config for unchanged."""
    with pytest.raises((KeyError, IndexError)):
        town.view((key,)).dump()


def test_a_view_can_be_copied(town):
    view = town.view(("chips",))
    assert copy.deepcopy(view).chips == view.chips
    assert isinstance(pickle.loads(pickle.dumps(view)), CityView)


# --- indicators ----------------------------------------------------------------------------------


def test_inputs_that_contain_the_target():
    def inputs(**more: Any) -> tuple[str, ...]:
        return Indicator.model_validate(more).inputs_with_target

    raster = {"kind": "raster", "path": "x"}
    assert inputs(source=raster) == ()
    assert inputs(source=raster, contained_in=["pois", "imagery"]) == ("imagery", "pois")
    assert inputs(source={"kind": "city", "count": "trips_in"}) == ("flows",)
    counted = {"kind": "city", "count": "comments"}
    assert inputs(source=counted, contained_in=["flows"]) == ("flows", "pois")


def test_every_count_says_where_it_comes_from():
    counts = set(config.CityValue.model_fields["count"].annotation.__args__)
    assert counts == set(config.COUNTED_IN) == set(config._COUNTED_FROM)


def test_a_method_needs_an_indicator_of_a_kind_that_it_predicts(tmp_path):
    raw = changed("captions", {}, changed("methods.lmemr", {}))
    raw["indicators"] = {k: v for k, v in raw["indicators"].items() if v.get("kind") != "hourly"}
    assert problems(tmp_path, raw) == {
        "methods.lmemr": "the method predicts indicators of kind hourly, and there is none / "
        "add one with `kind: hourly`, or take the method out"
    }
