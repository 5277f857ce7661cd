"""A part of a city has its settings, and only the methods and variants that were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.part import config, main
from model_code.city import Cities
from pipelines.derived_cities import given, put


def test_a_part_has_the_methods_and_variants_that_were_asked_for_and_all_else_of_its_city(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CITYLOOM_DATA", str(tmp_path))
    monkeypatch.setenv("CITYLOOM_CITIES", "")
    whole = given("demo_large")
    part = config("demo_large", "demo_large_few", ["urbanmoe:dense,shared", "lmemr", "musecl:all"])
    of = whole["methods"]
    assert part["methods"] == {
        "urbanmoe": {
            "config": of["urbanmoe"]["config"],
            "variants": {name: of["urbanmoe"]["variants"][name] for name in ("dense", "shared")},
        },
        "lmemr": {"config": of["lmemr"]["config"]},
        "musecl": of["musecl"],
    }
    assert part["title"] == f"{whole['title']}: few" and "schedule" not in part
    same = set(whole) - {"name", "title", "methods", "schedule"}
    assert {key: part[key] for key in same} == {key: whole[key] for key in same}
    put({"demo_large_few": part})
    cities = Cities.load()
    assert not cities.bad and set(cities["demo_large_few"].methods) == set(part["methods"])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("demo_large", "few"), "METHOD"),
        (("nowhere", "few", "poi"), "no nowhere.yaml in"),
        (("demo_large", "few", "urbanvpl"), "methods has no urbanvpl: poi, location"),
        (
            ("demo_large", "few", "lmemr:without_inter,dense,gat"),
            "methods.lmemr.variants has no dense, gat: without_semantics",
        ),
        (("demo_large", "few", "poi:dense"), "methods.poi.variants has no dense$"),
        (("demo_large", "My/Part", "poi"), "demo_large_My/Part is no name of a city"),
        (("demo_large", "few", "urbanmoe:dense", "urbanmoe:shared"), "urbanmoe stands twice"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_said_at_once(asked: tuple[str, ...], words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        main(*asked)


def test_a_data_root_that_is_a_file_is_said_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("CITYLOOM_DATA", str(file))
    with pytest.raises(
        SystemExit, match=r"(?s)file is no folder here.*set CITYLOOM_DATA to a folder"
    ):
        main("demo_large", "few", "poi")
