"""Raw files of a simulated city are made when they are wanted, and left alone otherwise."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from model_code.city import Simulator
from model_code.demo import ensure as module
from model_code.demo import simulate as simulator
from model_code.demo.ensure import NOTE, ensure
from model_code.errors import DataError

from .reading import digests

SETTINGS = Simulator(path="small/demo", regions=10, seed=1)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with one simulated city."""
    root = tmp_path_factory.mktemp("ensure") / "data"
    said: list[str] = []
    assert ensure(str(root), SETTINGS, said.append) is True
    assert said
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "data")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(regions, seed) of each simulation. Its files are those that stood, to be quick."""
    noted: list[tuple[int, int]] = []

    def simulate(
        folder: Path,
        *,
        regions: int,
        seed: int,
        north_km: float,
        cell_m: float,
        progress: Callable[[str], None],
    ) -> None:
        noted.append((regions, seed))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / simulator.MARKER).write_text("{}")

    monkeypatch.setattr(simulator, "simulate", simulate)
    return noted


def test_files_are_made_once(root, calls):
    folder = root / "small" / "demo"
    before = digests(folder)
    assert {"orthophoto.tif", "pois.parquet", "truth.parquet", NOTE} <= set(before)
    assert ensure(str(root), SETTINGS, quiet) is False
    assert calls == [] and digests(folder) == before


def test_another_size_or_seed_is_made_anew(root):
    folder = root / "small" / "demo"
    before = digests(folder)
    (folder / "stray.txt").write_text("of the earlier one")
    assert ensure(str(root), SETTINGS.model_copy(update={"seed": 2}), quiet) is True
    after = digests(folder)
    assert "stray.txt" not in after and {"pois.parquet", "orthophoto.tif"} <= set(after)
    assert after["pois.parquet"] != before["pois.parquet"]
    assert json.loads((folder / NOTE).read_text())["seed"] == 2


@pytest.mark.parametrize("change", [{"regions": 11}, {"seed": 3}])
def test_each_setting_counts(root, calls, change):
    other = SETTINGS.model_copy(update=change)
    assert ensure(str(root), other, quiet) is True
    assert calls == [(other.regions, other.seed)]
    assert ensure(str(root), other, quiet) is False


def test_another_code_is_made_anew(root, calls, monkeypatch):
    monkeypatch.setattr(module, "code_digests", lambda roots: {"changed": roots[0]})
    assert ensure(str(root), SETTINGS, quiet) is True and calls == [(10, 1)]
    assert ensure(str(root), SETTINGS, quiet) is False


def test_what_a_person_changed_is_left_alone(root, calls):
    file = root / "small" / "demo" / "pois.parquet"
    file.write_bytes(b"mine")
    assert ensure(str(root), SETTINGS, quiet) is False
    assert file.read_bytes() == b"mine" and calls == []


@pytest.mark.parametrize("note", [None, "", '{"regions": 1', "null"])
def test_a_run_that_was_killed_before_its_note(root, calls, note):
    path = root / "small" / "demo" / NOTE
    path.unlink() if note is None else path.write_text(note)
    assert ensure(str(root), SETTINGS, quiet) is True and calls == [(10, 1)]
    assert ensure(str(root), SETTINGS, quiet) is False


def test_what_killed_simulations_left_is_swept(root, calls):
    parent, mark = root / "small", "0123456789abcdef" * 2
    for name in (f".demo.{mark}", f".demo.{mark}.old", f".demo.b.{mark}", ".other"):
        (parent / name / "deep").mkdir(parents=True)
    shutil.rmtree(parent / "demo")
    assert ensure(str(root), SETTINGS, quiet) is True
    assert {p.name for p in parent.iterdir()} == {"demo", ".demo.lock", f".demo.b.{mark}", ".other"}


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    folder = tmp_path / "small" / "demo"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="no simulation wrote"):
        ensure(str(tmp_path), SETTINGS, quiet)
    assert {p.name for p in folder.iterdir()} == {"thesis.txt"}


def test_an_object_store_is_refused():
    with pytest.raises(DataError, match="cannot be written to s3://bucket") as error:
        ensure("s3://bucket", SETTINGS, quiet)
    assert "$CITYLOOM_DATA" in error.value.fix


def test_two_at_once_make_it_once(tmp_path, calls):
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(ensure(str(tmp_path), SETTINGS, quiet)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, False, False, True] and calls == [(10, 1)]
