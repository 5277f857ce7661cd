"""The command `python -m model_code.demo`."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_code.city import City, check_files, load_city
from model_code.demo.__main__ import main


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
