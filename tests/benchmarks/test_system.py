"""One system's city names what the system is compared with, and loads as any city."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.experiments import SYSTEMS
from benchmarks.system import COMPARED, CONTROLS, config
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
