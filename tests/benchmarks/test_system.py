"""One system's city names what the system is compared with, and loads as any city."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.experiments import SYSTEMS
from benchmarks.system import COMPARED, CONTROLS, config, main
from model_code.city import Cities
from pipelines.derived_cities import given, put


def test_every_system_has_a_city_with_its_variants_and_what_it_is_compared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CITYLOOM_DATA", str(tmp_path))
    monkeypatch.setenv("CITYLOOM_CITIES", "")
    whole = given("demo_large")
    assert set(COMPARED) == set(SYSTEMS)
    put(
        {f"demo_large_{name}": config("demo_large", f"demo_large_{name}", name) for name in SYSTEMS}
    )
    cities = Cities.load()
    assert not cities.bad
    for system in SYSTEMS:
        city = cities[f"demo_large_{system}"]
        own = given(city.name)["methods"]
        assert set(own) == {system, *COMPARED[system], *CONTROLS}
        assert own[system] == whole["methods"][system]
        assert not any("variants" in own[name] for name in COMPARED[system])
        assert city.schedule is None
        assert set(city.indicators) == set(cities["demo_large"].indicators)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((), "give one of urbanvlp, musecl"),
        (("urbanvpl",), "no system 'urbanvpl'"),
        (("urbanvlp", "demo_500m"), "demo_500m does not run urbanvlp"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_said_at_once(asked: tuple[str, ...], words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        main(*asked)


def test_baselines_that_a_city_does_not_run_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    config("demo", "demo_urbanmmcl", "urbanmmcl")
    assert (
        "demo runs no hrep, mvure, pg_simclr, remvc, which are left out" in capsys.readouterr().err
    )
