"""The command line, as a person would use it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipelines import cli
from resources.lake import Lake, text_writer
from tests.assets.test_captions import missing, with_captions
from tests.resources.captioners_server import serving
from tests.tiny import Place, make_place


def test_run_ends_with_the_two_paths(built: Place) -> None:
    done = built.run("cityloom", "run", "tiny")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.strip().splitlines()
    assert lines[-2:] == [
        f"report: {built.root}/lake/tiny/report.html",
        f"leaderboard: {built.root}/lake/tiny/leaderboard.csv",
    ]
    assert "nothing had to be computed" in done.stderr


def test_after_the_job_nothing_is_written_without_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written beside a version without its lock could be swept by another run."""
    monkeypatch.setenv("CITYLOOM_LAKE", str(tmp_path))
    monkeypatch.setattr(cli, "execute", lambda job, city: None)  # it has been built
    lake, files = Lake(), {"report": "report.html", "leaderboard": "leaderboard.csv"}
    for asset, file in files.items():
        with lake.lock("demo", asset):
            lake.commit(lake.stage("demo", asset, {file: text_writer(file)}), fingerprint="")
            lake.publish("demo", asset, file)
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    said = CliRunner().invoke(cli.app, ["run", "demo"])
    assert said.exit_code == 0, said.output
    assert said.output.split() == [
        *("report:", f"{tmp_path}/demo/report.html"),
        *("leaderboard:", f"{tmp_path}/demo/leaderboard.csv"),
    ]
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before
    for file in files.values():
        assert (tmp_path / "demo" / file).read_text() == file


def test_a_new_city_is_priced_before_anything_is_asked(tmp_path: Path) -> None:
    place = make_place(tmp_path / "place", regions=12, seed=5)
    config = with_captions(place.config())
    with serving() as server:
        config["captions"]["captioner"] = {
            "kind": "openai", "base_url": server.url, "model": "tiny-vl", "revision": "r1",
        }  # fmt: skip
        place.write(config)
        early = place.run("cityloom", "captions", "tiny", "--dry-run")
        assert early.returncode == 1 and "Traceback" not in early.stderr
        command = early.stderr.split("costs nothing there: ")[1].split()
        done = place.run(*command)
        assert done.returncode == 0, done.stderr[-2000:]
        assert not server.requests
    assert len(missing(done.stdout)) == 3 and min(missing(done.stdout)) > 0
    assert "captions of tiny" in done.stdout and "poi_descriptions of tiny" in done.stdout


def test_an_unknown_city_is_said_with_the_known_ones(built: Place) -> None:
    done = built.run("cityloom", "run", "tini")
    assert done.returncode == 1
    assert "did you mean 'tiny'" in done.stderr and "demo" in done.stderr
    assert "Traceback" not in done.stderr


def test_explain_names_the_reason(place: Place) -> None:
    assert "0 to do" not in place.run("cityloom", "explain", "tiny").stdout
    config = place.config()
    config["splits"]["seed"] = 5
    place.write(config)
    said = place.run("cityloom", "explain", "tiny").stdout
    assert "config splits:seed: 0 -> 5" in said
    assert "input splits is remade" in said


def test_sizes_and_clean(place: Place) -> None:
    assert "tiny" in place.run("cityloom", "sizes").stdout
    assert place.run("cityloom", "clean", "tiny").returncode == 0
    assert not (place.root / "lake" / "tiny").exists()
    assert "tiny" not in place.run("cityloom", "sizes").stdout
    assert (place.root / "data" / "tiny").exists()


def test_sizes_of_a_damaged_city_are_an_error_and_the_others_are_told(place: Place) -> None:
    lake = place.root / "lake"
    shutil.copytree(lake / "tiny" / "regions", lake / "early" / "regions")
    (lake / "early" / "regions" / "current.json").write_text("{")
    done = place.run("cityloom", "sizes")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"early: {lake}/early/regions/current.json is not JSON" in done.stderr
    assert "fix: delete that file" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["lake:", "tiny"]


def test_check_finds_a_missing_file(place: Place) -> None:
    config = place.config()
    config["name"], config["simulator"] = "other", None
    config["sources"]["trips"]["path"] = "tiny/gone.parquet"
    (place.root / "cities" / "other.yaml").write_text(yaml.safe_dump(config))
    done = place.run("cityloom", "check")
    assert done.returncode == 1
    assert "sources.trips.path" in done.stdout and "gone.parquet" in done.stdout
    assert "tiny: in order" in done.stdout
    alone = place.run("cityloom", "check", "tiny")
    assert (alone.returncode, alone.stdout) == (0, "tiny: in order\n")
    assert place.run("cityloom", "check", "other").returncode == 1
