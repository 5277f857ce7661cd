from __future__ import annotations

from pathlib import Path

import pytest

from model_code.city import City, check_files, load_city
from model_code.demo.__main__ import main
from model_code.demo.city_yaml import city_yaml
from model_code.errors import DataError
from model_code.methods import BY_CAPTIONS, METHODS

CITIES = Path(__file__).parents[3] / "cities"
SHIPPED = {
    "demo": {"regions": 156, "seed": 7, "captions": True},
    "demo_hex": {"regions": 49, "seed": 13, "hexagons": 8, "seeds": (0,)},
    "demo_500m": {"regions": 400, "seed": 17, "cell_m": 500.0, "hourly": True, "seeds": (0,)},
    "demo_large": {
        "regions": 2500, "seed": 11, "spatial_repeats": 2, "captions": True, "without": ("musecl", "urbanmoe", "lmemr"),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_cities_are_what_the_template_gives(name: str) -> None:
    assert (CITIES / f"{name}.yaml").read_text() == city_yaml(name, **SHIPPED[name])
    city = load_city(CITIES / f"{name}.yaml")
    assert city.simulator is not None
    assert city.simulator.regions == SHIPPED[name]["regions"]
    read = {m for name in city.methods for m in METHODS[name].needs}
    assert BY_CAPTIONS.isdisjoint(read) == (city.captions is None)
    assert (city.partition.kind == "h3") == ("hexagons" in SHIPPED[name])
    assert (city.sources.truth is None) == ("hexagons" in SHIPPED[name])  # it is by square cell
    assert list(city.seeds) == list(SHIPPED[name].get("seeds", (0, 1, 2)))
    assert all(indicator.unit or indicator.kind == "classification"
               for indicator in city.indicators.values())  # fmt: skip
    assert all(indicator.description for indicator in city.indicators.values())


def test_a_city_without_pictures_is_not_made_on_demand() -> None:
    with pytest.raises(DataError, match="simulate the city first"):
        city_yaml("a", regions=10, seed=0, images=False)


def test_what_reads_pictures_needs_pictures() -> None:
    for given, words in (({"captions": True}, "to caption"), ({"hexagons": 8}, "to compare")):
        with pytest.raises(DataError, match=f"no pictures {words}"):
            city_yaml("a", regions=10, seed=0, images=False, path="raw", **given)


def _run(tmp_path: Path, *more: str) -> City:
    arguments = ["--regions", "10", "--seed", "1", "--cell-m", "300"]
    arguments += ["--out", str(tmp_path / "raw"), "--city-yaml", str(tmp_path / "mine.yaml")]
    assert main([*arguments, *more]) == 0
    return load_city(tmp_path / "mine.yaml")


def test_command_with_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    city = _run(tmp_path)
    check_files(city, str(tmp_path))
    assert city.simulator is None
    assert "10 regions in" in capsys.readouterr().out


def test_command_without_pictures(tmp_path: Path) -> None:
    city = _run(tmp_path, "--no-images")
    check_files(city, str(tmp_path))
    assert city.sources.imagery is None and city.sources.street_views is None
    assert set(city.methods) == {"poi", "location", "od_pca"}


def test_command_refuses_a_bad_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--regions", "9", "--out", str(tmp_path / "raw")]) == 2
    error = capsys.readouterr().err
    assert "9 regions" in error and "fix: choose 10 to 100,000 regions" in error
    assert not (tmp_path / "raw").exists()


def test_command_refuses_a_name_before_it_simulates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(tmp_path / "My City.yaml")
    arguments = ["--regions", "10", "--out", str(tmp_path / "raw"), "--city-yaml", config]
    assert main(arguments) == 2
    assert "'My City' cannot be the name of a city" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
