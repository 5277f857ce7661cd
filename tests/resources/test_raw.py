"""Digests of raw files: by section, by content, and each file read once."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import fsspec
import pytest

from model_code.city import City
from model_code.fingerprint import file_digest
from resources import raw
from resources.raw import RawFiles

YAML = {
    "name": "town",
    "title": "Town",
    "boundary": {"bbox": (0, 0, 1, 1)},
    "partition": {"kind": "polygons", "path": "regions.parquet", "id": "id"},
    "sources": {
        "imagery": {"path": "tiles/*.tif"},
        "street_views": {"path": "views/metadata.csv", "images": "views/images"},
        "pois": [{"path": "pois.csv"}, {"path": "more/pois.csv"}],
    },
    "indicators": {
        "crime": {"source": {"kind": "points", "path": "crime.csv"}},
        "income": {"source": {"kind": "raster", "path": "income.tif"}},
    },
    "methods": {"poi": {}},
}
FILES = ["regions.parquet", "tiles/a.tif", "tiles/b.tif", "views/metadata.csv", "views/images/1.jpg",
         "views/images/deep/2.jpg", "pois.csv", "more/pois.csv", "crime.csv"]  # fmt: skip
CITY = City.model_validate(YAML)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # ctime cannot be set back: let files settle at once instead
    monkeypatch.setattr(raw, "_SETTLED_NS", 0)
    for name in FILES:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return tmp_path / "data"


@pytest.fixture
def files(root: Path, tmp_path: Path) -> RawFiles:
    return RawFiles(str(root), tmp_path / "memory.sqlite")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read, in order."""
    noted: list[str] = []

    def reading(path: str) -> str:
        noted.append(Path(path).name)
        return file_digest(path)

    monkeypatch.setattr(raw, "file_digest", reading)
    return noted


def names(found: dict[str, str]) -> list[str]:
    return sorted(found)


def test_each_section_has_its_own_files(files, root):
    found = files.digests(CITY, ["sources.pois", "indicators", "partition", "boundary", "sources"])
    assert names(found["sources.pois"]) == ["more/pois.csv", "pois.csv"]
    assert found["sources.pois"]["pois.csv"] == file_digest(root / "pois.csv")
    assert names(found["indicators"]) == ["crime.csv", "income.tif"]
    assert names(found["partition"]) == ["regions.parquet"] and found["boundary"] == {}
    assert len(found["sources"]) == 7


def test_a_folder_and_a_pattern_stand_for_their_files(files):
    assert names(files.digests(CITY, ["sources.imagery"])["sources.imagery"]) == [
        "tiles/a.tif",
        "tiles/b.tif",
    ]
    views = files.digests(CITY, ["sources.street_views"])["sources.street_views"]
    assert names(views) == ["views/images/1.jpg", "views/images/deep/2.jpg", "views/metadata.csv"]


def test_missing_files_are_noted_as_such(files, root):
    assert files.digests(CITY, ["indicators"])["indicators"]["income.tif"] == "missing"
    assert files.entries("tiles/*.none") == {"tiles/*.none": ("missing", 0)}
    shutil.rmtree(root / "views" / "images")
    found = files.digests(CITY, ["sources.street_views"])["sources.street_views"]
    assert found["views/images"] == "missing"


def test_entries_have_sizes(files):
    assert files.entries("pois.csv") == {
        "pois.csv": (file_digest(Path(files.root) / "pois.csv"), len("content of pois.csv"))
    }


def test_absolute_paths_keep_their_name(files, tmp_path):
    other = tmp_path / "elsewhere.csv"
    other.write_text("x")
    assert files.entries(str(other)) == {str(other): (file_digest(other), 1)}


def test_a_change_is_seen_by_content(files, root):
    sections = ["sources.street_views", "sources.pois"]
    before = files.digests(CITY, sections)
    image = root / "views" / "images" / "1.jpg"
    image.write_text("content of another image")
    after = files.digests(CITY, sections)
    assert after["sources.pois"] == before["sources.pois"]
    changed = {k for k, v in after["sources.street_views"].items()
               if v != before["sources.street_views"][k]}  # fmt: skip
    assert changed == {"views/images/1.jpg"}
    image.write_text("content of views/images/1.jpg")  # as it was: as if nothing had been
    assert files.digests(CITY, sections) == before


def test_new_and_deleted_images_are_seen(files, root):
    (root / "views" / "images" / "3.jpg").write_text("three")
    (root / "views" / "images" / "1.jpg").unlink()
    views = files.digests(CITY, ["sources.street_views"])["sources.street_views"]
    assert names(views) == ["views/images/3.jpg", "views/images/deep/2.jpg", "views/metadata.csv"]


def test_an_unchanged_file_is_read_once(files, root, reads):
    first = files.digests(CITY, ["sources", "partition"])
    assert sorted(reads) == sorted(Path(f).name for f in FILES if f != "crime.csv")
    reads.clear()
    again = RawFiles(files.root, files._memory)  # as another process would
    assert again.digests(CITY, ["sources", "partition"]) == first and reads == []
    (root / "pois.csv").write_text("changed")
    again.digests(CITY, ["sources", "partition"])
    assert reads == ["pois.csv"]


@pytest.mark.parametrize("stamp", [1e9, 4e9])  # long ago, and in the future as wrong clocks have it
def test_a_change_that_keeps_size_and_time_is_seen(files, root, reads, stamp):
    path = root / "pois.csv"
    os.utime(path, (stamp, stamp))
    before = files.entries("pois.csv")
    assert files.entries("pois.csv") == before and reads == ["pois.csv"]
    path.write_text(path.read_text().upper())
    os.utime(path, (stamp, stamp))
    assert files.entries("pois.csv") != before and reads == ["pois.csv"] * 2


def test_a_file_of_just_now_is_read_again(files, reads, monkeypatch):
    monkeypatch.setattr(raw, "_SETTLED_NS", 60 * 10**9)
    files.entries("pois.csv")
    files.entries("pois.csv")
    assert reads == ["pois.csv"] * 2


@pytest.mark.parametrize(
    "content", [b"", b"no database at all, but long enough to look like one" * 99]
)
def test_a_damaged_memory_is_started_anew(files, reads, content):
    want = files.entries("pois.csv")
    files._memory.write_bytes(content)
    for _ in range(3):
        assert files.entries("pois.csv") == want
    assert 2 <= len(reads) <= 3


def test_a_memory_in_use_does_not_stop_a_run(files, monkeypatch):
    want = files.entries("pois.csv")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: connect(path, timeout=0.01))
    other = connect(files._memory)
    other.execute("BEGIN EXCLUSIVE")
    try:
        assert files.entries("pois.csv") == want
        assert files.entries("crime.csv")["crime.csv"][1] == len("content of crime.csv")
    finally:
        other.close()


def test_the_memory_is_not_held_while_files_are_read(files, monkeypatch):
    """Hashing many gigabytes must not keep other processes from their own."""

    def reading(path: str) -> str:
        with sqlite3.connect(files._memory, timeout=0) as other:
            other.execute("BEGIN EXCLUSIVE")
        other.close()
        return file_digest(path)

    monkeypatch.setattr(raw, "file_digest", reading)
    assert len(files.entries("views/images")) == 2


def test_files_of_an_object_store(tmp_path):
    root = f"memory://{tmp_path.name}"
    fs = fsspec.filesystem("memory")
    for name in ("pois.csv", "more/pois.csv", "tiles/a.tif"):
        fs.pipe_file(f"{root}/{name}", name.encode())
    files = RawFiles(root, tmp_path / "memory.sqlite")
    before = files.digests(CITY, ["sources"])["sources"]
    assert {name for name, value in before.items() if value != "missing"} == {
        "pois.csv", "more/pois.csv", "tiles/a.tif",
    }  # fmt: skip
    assert files.entries("pois.csv")["pois.csv"][1] == len("pois.csv")
    assert files.digests(CITY, ["sources"])["sources"] == before
    fs.pipe_file(f"{root}/pois.csv", b"changed!")
    after = files.digests(CITY, ["sources"])["sources"]
    assert {name for name in after if after[name] != before[name]} == {"pois.csv"}


def test_files_of_a_web_server_are_known_by_their_tag():
    class Web:
        """What fsspec says of a page; its own key is that of the address alone."""

        def __init__(self, tag: str) -> None:
            self.tag = tag

        def ukey(self, path: str) -> str:
            return path

        def info(self, path: str) -> dict[str, object]:
            return {"name": path, "size": None, "ETag": self.tag}

    assert raw._remote(Web("a"), "x") == raw._remote(Web("a"), "x")
    assert raw._remote(Web("a"), "x") != raw._remote(Web("b"), "x")
