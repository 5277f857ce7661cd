"""The lake is old or new, never half: kills, full disks, flipped bytes, names, locks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.contracts import Checker, conform
from model_code.errors import (
    ContractError,
    CorruptTableError,
    DataError,
    LakeVersionError,
    LockedError,
    MissingTableError,
    ReplacedTableError,
)
from model_code.methods.base import Checkpoint
from model_code.tables import TIMINGS, contract
from resources.lake import (
    Lake,
    bytes_writer,
    checkpoint_writers,
    lake_root,
    plain_table_writer,
    provenance_of,
    read,
    read_arrow,
    signed,
    table_writer,
    text_writer,
)

ROOT = Path(__file__).resolve().parents[2]
CITY, ASSET = "town", "coverage"
CRS = "EPSG:32618"


def coverage(items: int, modalities: int = 3) -> pd.DataFrame:
    """A valid table `coverage`, whose items tell one version from another."""
    names = [f"modality_{n}" for n in range(modalities)]
    return pd.DataFrame({"modality": names, "items": items, "regions": 1, "region_share": 0.5})


def put(lake: Lake, items: int, *, fingerprint: str = "f", **more: Any) -> Any:
    """Commit a version of `coverage`."""
    writer = table_writer(Checker(contract(ASSET)), coverage(items), {"asset": ASSET})
    with lake.lock(CITY, ASSET):
        staged = lake.stage(CITY, ASSET, {f"{ASSET}.parquet": writer, **more})
        return lake.commit(staged, fingerprint=fingerprint, inputs={"code": {"a": "1"}})


def seen(root: str | Path) -> int:
    """What a reader of another process would see."""
    return int(read(ASSET, CITY, lake=str(root))["items"].iloc[0])


def names(lake: Lake, folder: str) -> set[str]:
    """What a folder of the lake holds."""
    return {entry.rstrip("/").rpartition("/")[2] for entry in lake.fs.ls(folder, detail=False)}


@pytest.fixture(params=["local", "memory"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """A lake on a local folder, and one on an object store (without folders or renames)."""
    if request.param == "local":
        return Lake(str(tmp_path / "lake"))
    return Lake(f"memory://{tmp_path.name}/lake")


@pytest.fixture
def local(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


# --- write and read ------------------------------------------------------------------------------


def test_a_version_is_read_as_it_was_written(lake):
    manifest = put(lake, 7, fingerprint="abc")
    again = Lake(lake.root)
    assert again.manifest(CITY, ASSET) == manifest
    assert manifest.fingerprint == "abc" and manifest.inputs == {"code": {"a": "1"}}
    pd.testing.assert_frame_equal(again.handle(CITY, ASSET).frame(), coverage(7), check_dtype=False)
    assert again.intact(manifest)
    assert again.cities() == [CITY] and again.assets(CITY) == [ASSET]


def test_the_next_version_replaces_the_first(lake):
    first, second = put(lake, 1), put(lake, 2)
    assert first.version != second.version
    assert seen(lake.root) == 2
    folders = names(lake, lake.folder(CITY, ASSET))
    assert first.version not in folders and second.version in folders


def test_the_same_content_is_the_same_version(lake):
    first = put(lake, 1, fingerprint="a")
    second = put(lake, 1, fingerprint="b")
    assert first.version == second.version and first.files == second.files
    assert seen(lake.root) == 1
    assert Lake(lake.root).handle(CITY, ASSET).fingerprint == "b"


def test_a_version_can_be_copied_to_another_city(lake):
    first = put(lake, 1, fingerprint="a")
    assert lake.twin(ASSET, "b") is None
    assert lake.twin(ASSET, "a") == first
    second = lake.commit(lake.stage_again(first, "village"), fingerprint="a")
    assert (second.city, second.version, second.files) == ("village", first.version, first.files)
    assert read(ASSET, "village", lake=lake.root)["items"].unique() == [1]
    assert seen(lake.root) == 1
    put(lake, 2, fingerprint="c")
    assert lake.twin(ASSET, "a") == second


@pytest.mark.parametrize(
    ("file", "content"),
    [("coverage.parquet", "other"), ("current.json", "no JSON"), ("current.json", "{}")],
)
def test_what_is_damaged_or_of_another_layout_is_no_twin(local, file, content):
    manifest = put(local, 1, fingerprint="a")
    folder = Path(local.folder(CITY, ASSET))
    (folder / (manifest.version if file == "coverage.parquet" else "") / file).write_text(content)
    assert Lake(local.root).twin(ASSET, "a") is None


def test_what_is_missing_raises_with_advice(lake):
    with pytest.raises(MissingTableError, match="never made") as error:
        read(ASSET, CITY, lake=lake.root)
    assert f"cityloom run {CITY}" in error.value.fix
    assert lake.manifest(CITY, ASSET) is None and not lake.handle(CITY, ASSET).exists
    assert lake.handle(CITY, ASSET).fingerprint == "" and lake.handle(CITY, ASSET).files == []
    assert lake.cities() == [] and lake.assets(CITY) == []
    put(lake, 1)
    with pytest.raises(MissingTableError, match=r"(?s)no file 'other\.txt'.*coverage\.parquet"):
        lake.path(CITY, ASSET, "other.txt")


@pytest.mark.parametrize(("home", "named"), [("/home/dagster", ""), ("", "DAGSTER_HOME=$PWD ")])
def test_the_advice_names_dagsters_settings_where_nobody_has(local, monkeypatch, home, named):
    monkeypatch.setenv("DAGSTER_HOME", home)
    manifest = put(local, 1)
    Path(local.folder(CITY, ASSET), manifest.version, "coverage.parquet").unlink()
    with pytest.raises(CorruptTableError) as error:
        read(ASSET, CITY, lake=local.root)
    rest = "dagster asset materialize -m pipelines.definitions --select coverage --partition town"
    assert error.value.fix == f"make it: {named}{rest}"


def test_an_absent_table_says_why(lake):
    put(lake, 1)
    with lake.lock(CITY, ASSET):
        lake.write_absent(CITY, ASSET, "the city has no POIs", fingerprint="n", inputs={})
    handle = Lake(lake.root).handle(CITY, ASSET)
    assert not handle.exists and handle.left_out and handle.fingerprint == "n"
    with pytest.raises(MissingTableError, match="the city has no POIs"):
        handle.frame()
    assert names(lake, lake.folder(CITY, ASSET)) - {".lock"} == {"current.json"}
    put(lake, 2)
    assert seen(lake.root) == 2 and not lake.handle(CITY, ASSET).left_out


def test_what_was_never_made_is_not_taken_for_left_out(lake):
    with pytest.raises(MissingTableError) as error:
        assert lake.handle(CITY, ASSET).left_out
    assert "dagster asset materialize" in error.value.fix


def test_an_absent_table_needs_no_folder_before(lake):
    lake.write_absent("other", ASSET, "why", fingerprint="", inputs={})
    assert lake.manifest("other", ASSET).absent == "why"


def test_other_files_travel_with_the_table(lake):
    put(lake, 1, **{"note.txt": text_writer("café\n"), "picture.png": bytes_writer(b"\x00\x01")})
    handle = Lake(lake.root).handle(CITY, ASSET)
    assert handle.files == ["coverage.parquet", "note.txt", "picture.png"]
    assert handle.path("note.txt").read_bytes() == "café\n".encode()
    assert handle.path("picture.png").read_bytes() == b"\x00\x01"


def test_timings_and_sizes(lake):
    manifest = put(lake, 1)
    lake.write_timing(CITY, ASSET, {"seconds": 1.5})
    lake.write_absent(CITY, "pois", "none", fingerprint="", inputs={})
    timings = read("timings", CITY, lake=lake.root).set_index("asset")
    assert timings.loc[ASSET, "seconds"] == 1.5 and np.isnan(timings.loc["pois", "seconds"])
    age = pd.Timestamp.now("UTC") - timings.loc[ASSET, "made_at"]
    assert pd.Timedelta(0) <= age.ceil("s") < pd.Timedelta("1min")
    assert pd.isna(timings.loc["pois", "made_at"])
    assert timings["bytes"].to_dict() == {
        ASSET: manifest.files["coverage.parquet"]["bytes"],
        "pois": 0,
    }
    table = pa.Table.from_pandas(timings.reset_index(), preserve_index=False)
    Checker(TIMINGS).check(conform(TIMINGS, table))
    assert list(read("timings", "nowhere", lake=lake.root).columns) == TIMINGS.names()


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_damaged_timing_costs_the_timing_alone(local, text):
    put(local, 1)
    local.write_timing(CITY, ASSET, {"seconds": 1.5})
    assert local.timing(CITY, ASSET)["seconds"] == 1.5
    (Path(local.folder(CITY, ASSET)) / "timing.json").write_text(text)
    assert local.timing(CITY, ASSET) == {}
    assert read("timings", CITY, lake=local.root)["seconds"].isna().all()


def test_remove_takes_one_city(lake):
    put(lake, 1)
    lake.write_absent("other", ASSET, "why", fingerprint="", inputs={})
    lake.remove(CITY)
    lake.remove("never_there")
    assert lake.cities() == ["other"]
    with pytest.raises(MissingTableError):
        read(ASSET, CITY, lake=lake.root)


def test_publish_copies_to_a_stable_name(lake):
    for text in ("one", "two"):
        put(lake, 1, **{"page.html": text_writer(text)})
        target = lake.publish(CITY, ASSET, "page.html")
        assert target.endswith(f"lake/{CITY}/page.html")
        assert lake.fs.cat_file(target) == text.encode()
    assert names(lake, lake.folder(CITY, ASSET).rpartition("/")[0]) == {ASSET, "page.html"}


def test_the_default_lake_is_named_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CITYLOOM_LAKE", str(tmp_path / "a" / ".." / "b"))
    assert lake_root() == str(tmp_path / "b")
    monkeypatch.setenv("CITYLOOM_LAKE", "s3://bucket/lake")
    assert lake_root() == "s3://bucket/lake"
    monkeypatch.delenv("CITYLOOM_LAKE")
    assert lake_root() == str(ROOT / "lake")


# --- names ---------------------------------------------------------------------------------------

BAD_NAMES = ["", ".", "..", "../x", "a/b", "/etc", "a\\b", "Town", "TOWN", "1town", "_a", "a-b", "a.b",
             "a b", "a\n", "a\x00", "tоwn", "ａｂ", "é", "ı", "a" * 64, "a" * 5000,
             "town/../../x", "~", "a*"]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_cannot_leave_the_lake_or_meet_each_other(lake, name):
    for city, asset in ((name, ASSET), (CITY, name)):
        with pytest.raises(DataError, match="cannot be a folder of the lake"):
            lake.handle(city, asset).frame()
        with pytest.raises(DataError), lake.lock(city, asset):
            pass
        with pytest.raises(DataError):
            lake.stage(city, asset, {})
        with pytest.raises(DataError):
            lake.write_absent(city, asset, "why", fingerprint="", inputs={})
    with pytest.raises(DataError):
        lake.remove(name)
    assert not Path(lake._base).parent.joinpath("x").exists() and not lake.cities()


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_accepted_name_is_plain(name):
    lake = Lake("memory://names")
    try:
        folder = lake.folder(name, name)
    except DataError:
        return
    assert folder == f"/names/{name}/{name}" and name == name.lower() and name.isascii()


@pytest.mark.parametrize(
    "name", ["", ".hidden", "../up.txt", "a/b.txt", "A.txt", "é.txt", "x" * 200]
)
def test_file_names_that_escape_are_refused(lake, name):
    with pytest.raises(DataError, match="cannot stand in the lake"):
        lake.stage(CITY, ASSET, {name: text_writer("x")})


# --- old or new ----------------------------------------------------------------------------------


def test_what_is_staged_is_not_seen(lake):
    put(lake, 1)
    writer = plain_table_writer(contract(ASSET), coverage(2))
    staged = lake.stage(CITY, ASSET, {f"{ASSET}.parquet": writer})
    assert seen(lake.root) == 1
    staged.discard()
    assert seen(lake.root) == 1 and not staged.folder.exists()


def test_a_broken_contract_keeps_the_old_version(lake):
    put(lake, 1)
    bad = coverage(2).assign(region_share=1.5)
    writer = table_writer(Checker(contract(ASSET)), bad, {})
    with pytest.raises(ContractError, match="region_share"):
        lake.stage(CITY, ASSET, {f"{ASSET}.parquet": writer})
    assert seen(lake.root) == 1
    if lake.local:
        assert not list(Path(lake.folder(CITY, ASSET)).glob(".writing-*"))


# What another process runs before it does what a test wants of it; quick to import.
CHILD = """
import os, signal, sys
from pathlib import Path
from resources.lake import Lake, text_writer
lake, CITY, ASSET = Lake(sys.argv[1]), "town", "coverage"
def put(text):
    with lake.lock(CITY, ASSET):
        staged = lake.stage(CITY, ASSET, {"x.txt": text_writer(text)})
        lake.commit(staged, fingerprint="")
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
"""
# Where a writer is when it is killed.
KILLS = {
    "in a file": "lake.stage(CITY, ASSET, {'x.txt': lambda p: (p.write_bytes(b'ha'), die())})",
    "between files": (
        "lake.stage(CITY, ASSET, {'x.txt': text_writer('new'), 'y.txt': lambda p: die()})"
    ),
    "before the version is placed": "Lake._place = die; put('new')",
    "after the version is placed": (
        "place = Lake._place\nLake._place = lambda *a: (place(*a), die())\nput('new')"
    ),
    "in the record": (
        "write = Path.write_text\n"
        "def half(self, text, **more):\n"
        "    write(self, text[:20]) and '.json' in self.name and die()\n"
        "    write(self, text)\n"
        "Path.write_text = half; put('new')"
    ),
    "before the record is placed": "Path.replace = die; put('new')",
    "before the sweep": "Lake._sweep = die; put('new')",
    "in a timing": "Path.replace = die; lake.write_timing(CITY, ASSET, {'seconds': 1.0})",
    "in a copy for people": "Path.replace = die; lake.publish(CITY, ASSET, 'x.txt')",
}


def start(code: str, root: Path | str, **options: Any) -> subprocess.Popen[str]:
    """Another process that runs code on a lake."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{CHILD}\n{code}", str(root)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def put_text(lake: Lake, text: str) -> Any:
    """Commit a version that is one text file."""
    with lake.lock(CITY, ASSET):
        staged = lake.stage(CITY, ASSET, {"x.txt": text_writer(text)})
        return lake.commit(staged, fingerprint="")


def text_seen(root: Path | str) -> str:
    return Lake(str(root)).handle(CITY, ASSET).path("x.txt").read_text()


@pytest.mark.parametrize("where", KILLS)
def test_a_killed_writer_leaves_the_old_version_or_the_new(tmp_path, where):
    lake = Lake(str(tmp_path))
    put_text(lake, "old")
    folder = tmp_path / CITY / ASSET
    whole = set(folder.iterdir())
    child = start(KILLS[where], tmp_path)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL, errors
    assert text_seen(tmp_path) == ("new" if where == "before the sweep" else "old")
    assert set(folder.iterdir()) - whole, "it was killed before it left anything"
    put_text(lake, "third")  # the lock of the dead is free, and what it left is swept
    assert text_seen(tmp_path) == "third"
    version = lake.manifest(CITY, ASSET).version
    assert {path.name for path in folder.iterdir()} == {".lock", "current.json", version}
    assert {path.name for path in (tmp_path / CITY).iterdir()} == {ASSET}


def test_readers_see_whole_versions_while_a_writer_goes_on(local):
    """A version's two files agree, whatever a reader meets."""

    def write(items: int) -> None:
        put(local, items, **{"note.txt": text_writer(str(items))})

    write(0)
    stop, wrong, reads = threading.Event(), [], []

    def follow() -> None:
        while not stop.is_set():
            handle = Lake(local.root).handle(CITY, ASSET)
            try:
                note = handle.path("note.txt").read_text()
                table = handle.frame()["items"].unique().tolist()
            except (ReplacedTableError, FileNotFoundError):
                continue  # said, and never another version's content
            reads.append(note)
            if table != [int(note)]:
                wrong.append((note, table))

    readers = [threading.Thread(target=follow) for _ in range(2)]
    for reader in readers:
        reader.start()
    for items in range(1, 13):
        write(items)
        assert seen(local.root) == items
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong and reads


def test_a_handle_keeps_to_the_version_that_it_saw(lake):
    put(lake, 1, fingerprint="one")
    handle = lake.handle(CITY, ASSET)
    assert handle.fingerprint == "one"
    put(lake, 2, fingerprint="two")
    assert handle.fingerprint == "one"
    try:
        assert handle.frame()["items"].tolist() == [1, 1, 1]
    except ReplacedTableError as error:  # it is gone; what came later is never given for it
        assert "replaced by another run" in str(error)
    assert lake.handle(CITY, ASSET).frame()["items"].tolist() == [2, 2, 2]


def test_reading_starts_again_when_the_table_was_replaced(local, monkeypatch):
    """Between a file's check and its opening, another run may put a new version in place."""
    put(local, 1)
    original, left = Lake._verify, [2]

    def slow(self: Lake, *args: Any) -> Path:
        path = original(self, *args)
        if left:
            put(local, left.pop())
        return path

    monkeypatch.setattr(Lake, "_verify", slow)
    assert seen(local.root) == 2


# --- damage --------------------------------------------------------------------------------------


def test_a_flipped_byte_is_found_wherever_it_is(local):
    manifest = put(local, 1)
    path = local.path(CITY, ASSET, "coverage.parquet")
    content = path.read_bytes()
    rng = random.Random(0)
    for position in [0, len(content) - 1, *rng.sample(range(len(content)), 60)]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CorruptTableError) as error:
            seen(local.root)
        assert str(path) in str(error.value) and ASSET in error.value.fix
        assert not Lake(local.root).intact(manifest)
    path.write_bytes(content)
    assert seen(local.root) == 1


def test_a_file_that_changes_after_it_was_checked_is_checked_again(local):
    put(local, 1)
    path = local.path(CITY, ASSET, "coverage.parquet")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptTableError):
        local.path(CITY, ASSET, "coverage.parquet")


@pytest.mark.parametrize("left", [0, 1, 100, -1])
def test_a_truncated_file_is_found(local, left):
    put(local, 1)
    path = local.path(CITY, ASSET, "coverage.parquet")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CorruptTableError, match="is damaged") as error:
        seen(local.root)
    assert str(path) in str(error.value)


def test_a_deleted_file_is_found(lake):
    manifest = put(lake, 1)
    lake.fs.rm(f"{lake.folder(CITY, ASSET)}/{manifest.version}/coverage.parquet")
    fresh = Lake(lake.root)
    assert not fresh.intact(manifest)
    lake.fs.invalidate_cache()
    with pytest.raises(CorruptTableError, match=r"coverage\.parquet is gone"):
        # a copy in the local cache of an earlier reader must not hide it
        if not lake.local:
            _forget(manifest)
        fresh.handle(CITY, ASSET).frame()
    put(lake, 1)
    assert seen(lake.root) == 1


def _forget(manifest: Any) -> None:
    """Empty the local cache of a remote version."""
    import shutil
    import tempfile

    for file in manifest.files.values():
        shutil.rmtree(Path(tempfile.gettempdir()) / "cityloom-cache" / file["sha256"], True)


RECORDS = [b"", b"{", b"null", b"[]", b"3", b'"text"', b"\xff\xfe", b"{}"]


@pytest.mark.parametrize("content", RECORDS[:-1])
def test_a_broken_record_is_named(lake, content):
    put(lake, 1)
    path = f"{lake.folder(CITY, ASSET)}/current.json"
    lake.fs.pipe_file(path, content)
    with pytest.raises(CorruptTableError) as error:
        Lake(lake.root).manifest(CITY, ASSET)
    assert path in str(error.value) and "delete that file" in error.value.fix
    lake.fs.rm(path)
    put(lake, 2)
    assert seen(lake.root) == 2


def test_a_flipped_byte_in_the_record_is_found(local):
    put(local, 1, fingerprint="0123456789abcdef")
    path = Path(local.folder(CITY, ASSET)) / "current.json"
    content = path.read_bytes()
    text = content.decode()
    rng = random.Random(1)
    silent = []
    for position in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.randrange(5)
        path.write_bytes(damaged)
        try:
            Lake(local.root).manifest(CITY, ASSET)
        except (CorruptTableError, LakeVersionError):
            continue
        silent.append(position)
    # Space between the values may change: it says nothing.
    assert all(text[position].isspace() for position in silent)
    path.write_bytes(content)
    assert seen(local.root) == 1


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_lake_version_is_told(lake, version):
    put(lake, 1)
    path = f"{lake.folder(CITY, ASSET)}/current.json"
    record = json.loads(lake.fs.cat_file(path)) | {"lake_version": version}
    lake.fs.pipe_file(path, json.dumps(record).encode())
    with pytest.raises(
        LakeVersionError, match=f"lake version {version}, this code reads 1"
    ) as error:
        read(ASSET, CITY, lake=lake.root)
    assert "CITYLOOM_LAKE" in error.value.fix


def test_a_damaged_copy_of_a_remote_file_is_fetched_again(tmp_path):
    lake = Lake(f"memory://{tmp_path.name}")
    put(lake, 1)
    path = Lake(lake.root).path(CITY, ASSET, "coverage.parquet")
    path.write_bytes(b"something else")
    assert seen(lake.root) == 1


def test_a_damaged_remote_file_is_found(tmp_path):
    lake = Lake(f"memory://{tmp_path.name}")
    manifest = put(lake, 1)
    _forget(manifest)
    remote = f"{lake.folder(CITY, ASSET)}/{manifest.version}/coverage.parquet"
    content = lake.fs.cat_file(remote)
    lake.fs.pipe_file(remote, content[:-1] + b"x")
    with pytest.raises(CorruptTableError) as error:
        seen(lake.root)
    assert remote in str(error.value)
    lake.fs.pipe_file(remote, content)
    assert seen(lake.root) == 1


# --- full disk -----------------------------------------------------------------------------------

FULL = {
    "in a table": (0, "put_table(lake, 2)"),
    "in a further file": (
        1,
        "staged = lake.stage(CITY, ASSET, {})\n"
        "try: staged.add('y.txt', text_writer('yy'))\nfinally: staged.discard()",
    ),
    "in a text": (0, "lake.stage(CITY, ASSET, {'x.txt': text_writer('x')})"),
    "in a checkpoint": (
        300,
        "many = Checkpoint({'a': np.zeros(10_000)})\n"
        "lake.stage(CITY, ASSET, checkpoint_writers('a', many))",
    ),
    "in a stream": (
        20_000,
        "ids = np.random.default_rng(0).random(50_000).astype(str)\n"
        "parts = (pa.record_batch({'modality': [f'{p:04d}' + i for i in sorted(ids)], 'items': [1] * 50_000,"
        " 'regions': [1] * 50_000, 'region_share': [0.5] * 50_000}) for p in range(3))\n"
        "lake.stage(CITY, ASSET, {'t.parquet': plain_table_writer(contract(ASSET), parts)})",
    ),
    "in the record": (
        1500,  # enough for the table, not for a record with this text
        "staged = lake.stage(CITY, ASSET, {'x.txt': text_writer('x')})\n"
        "lake.commit(staged, fingerprint='', inputs={'long': 'x' * 3000})",
    ),
    "in a copy": (1, "lake.publish(CITY, ASSET, 'coverage.parquet')"),
    "in kept rows": (
        1,
        "rows = pd.DataFrame({'text': ['one']}, ['key'])\n"
        "RowStore(lake, CITY, ASSET, 'texts', print, tidies=True).add(rows)",
    ),
}  # fmt: skip


def test_a_full_disk_is_told_and_the_old_version_stays(tmp_path):
    root = tmp_path / "lake"
    put(Lake(str(root)), 1)
    (root / CITY / ASSET / "rows" / "texts").mkdir(parents=True)
    before = sorted(root.rglob("*"))
    cases = "".join(
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))\n"
        f"try:\n{textwrap.indent(code, '    ')}\n"
        f"except LakeWriteError as error:\n    print({name!r}, '|', str(error).replace(chr(10), ' '))\n"
        for name, (limit, code) in FULL.items()
    )
    head = (
        "import resource\nimport numpy as np, pandas as pd, pyarrow as pa\n"
        "from model_code.errors import LakeWriteError\n"
        "from model_code.methods.base import Checkpoint\nfrom model_code.tables import contract\n"
        "from resources.lake import checkpoint_writers, plain_table_writer\n"
        "from resources.rows import RowStore\n"
        "from tests.resources.test_lake import put as put_table\n"
    )
    child = start(head + cases, root)
    output, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    told = dict(line.split(" | ", 1) for line in output.splitlines())
    assert set(told) == set(FULL)
    for name, text in told.items():
        assert "'coverage' of city 'town'" in text and str(root) in text, name
        assert "File too large" in text and "free some space" in text, name
    assert seen(root) == 1
    assert sorted(root.rglob("*")) == before


def test_other_errors_of_a_writer_stay_what_they_are(local):
    def write(path: Path) -> None:
        raise FileNotFoundError(2, "No such file or directory", "raw/pois.csv")

    with pytest.raises(FileNotFoundError, match=r"raw/pois\.csv"):
        local.stage(CITY, ASSET, {"x.txt": write})


# --- locks ---------------------------------------------------------------------------------------


@pytest.fixture
def holder(lake):
    """Another process that holds the lock until its standard input is closed."""
    lake = lake if lake.local else Lake(f"memory://held/{os.getpid()}")
    code = "with lake.lock(CITY, ASSET):\n    print('held', flush=True)\n    sys.stdin.read()"
    with start(code, lake.root, stdin=subprocess.PIPE) as process:
        assert process.stdout.readline() == "held\n"
        yield lake, process


def test_the_second_process_waits_and_says_so_once(holder):
    lake, process = holder
    waits = []

    def waiting() -> None:
        waits.append(process.poll())
        process.stdin.close()

    with lake.lock(CITY, ASSET, on_wait=waiting):
        assert process.wait(60) == 0
    assert waits == [None]


def test_a_lock_that_is_held_too_long_is_told(holder):
    lake, process = holder
    impatient = Lake(lake.root, lock_seconds=0.1)
    waits = []
    with (
        pytest.raises(LockedError, match=r"another run holds 'coverage'.*0\.1 s") as error,
        impatient.lock(CITY, ASSET, on_wait=lambda: waits.append(1)),
    ):
        pass
    assert waits == [1] and "lock file" in error.value.fix
    with impatient.lock(CITY, "pois"):  # other assets are free
        pass
    process.kill()
    process.wait(60)
    with impatient.lock(CITY, ASSET, on_wait=lambda: waits.append(2)):
        pass
    assert waits == [1]


def test_a_city_in_work_is_not_removed(holder):
    lake, process = holder
    lake.write_absent(CITY, ASSET, "why", fingerprint="", inputs={})
    with pytest.raises(LockedError):
        lake.remove(CITY)
    assert lake.manifest(CITY, ASSET)
    process.stdin.close()
    process.wait(60)
    lake.remove(CITY)
    assert lake.cities() == []


def test_the_lock_is_free_after_an_error(lake):
    with pytest.raises(ZeroDivisionError), lake.lock(CITY, ASSET):
        raise ZeroDivisionError
    with Lake(lake.root, lock_seconds=0).lock(CITY, ASSET):
        pass


# --- workspaces ----------------------------------------------------------------------------------


def test_a_workspace_belongs_to_a_fingerprint_and_goes_with_the_commit(lake):
    first = lake.workspace(CITY, ASSET, "a" * 64)
    first.mkdir(parents=True)
    (first / "half.bin").write_bytes(b"1")
    assert lake.workspace(CITY, ASSET, "a" * 64) == first and first.exists()
    second = lake.workspace(CITY, ASSET, "b" * 64)
    assert second != first and not first.exists()
    second.mkdir(parents=True)
    put(lake, 1)
    assert not second.exists()


# --- files ---------------------------------------------------------------------------------------


def regions(*shapes: Any, crs: str | None = CRS) -> gpd.GeoDataFrame:
    """A valid table `regions` of given shapes."""
    geometry = gpd.GeoSeries(list(shapes), crs=crs)
    return gpd.GeoDataFrame(
        {"region_id": [f"r{n}" for n in range(len(shapes))]}
        | dict.fromkeys(["area_km2", "inside_share", "x_m", "y_m", "lon", "lat"], 1.0),
        geometry=geometry,
    )


SQUARE = shapely.box(500_000, 4_500_000, 501_000, 4_501_000)
TWO = shapely.MultiPolygon([SQUARE, shapely.box(502_000, 4_500_000, 503_000, 4_501_000)])
HOLED = SQUARE.difference(shapely.box(500_100, 4_500_100, 500_200, 4_500_200))


def put_regions(lake: Lake, frame: gpd.GeoDataFrame) -> None:
    writer = table_writer(Checker(contract("regions")), frame, {"asset": "regions"})
    lake.commit(lake.stage(CITY, "regions", {"regions.parquet": writer}), fingerprint="")


def test_regions_are_read_as_a_geodataframe_with_their_crs(lake):
    frame = regions(SQUARE, TWO, HOLED)
    put_regions(lake, frame)
    found = read("regions", city=CITY, lake=lake.root)
    assert isinstance(found, gpd.GeoDataFrame)
    assert found.crs == CRS
    assert list(found["region_id"]) == ["r0", "r1", "r2"]
    assert found.geometry.geom_equals_exact(frame.geometry, 0).all()


@pytest.mark.parametrize(
    ("shapes", "kinds"),
    [
        ((SQUARE, TWO), ["MultiPolygon", "Polygon"]),
        ((HOLED,), ["Polygon"]),
        ((shapely.force_3d(SQUARE, 4.0), SQUARE), ["Polygon", "Polygon Z"]),
        ((shapely.Polygon(),), ["Polygon"]),
        ((), []),
    ],
)
def test_geoparquet_metadata(tmp_path, shapes, kinds):
    frame = regions(*shapes)
    path = tmp_path / "regions.parquet"
    plain_table_writer(contract("regions"), frame)(path)
    geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert geo["version"] == "1.1.0" and geo["primary_column"] == "geometry"
    assert column["encoding"] == "WKB" and column["geometry_types"] == kinds
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32618}
    full = [s for s in shapes if not s.is_empty]
    assert column.get("bbox") == (list(shapely.total_bounds(full)) if full else None)
    found = gpd.read_parquet(path)
    assert found.crs == CRS and len(found) == len(shapes)
    assert list(found.geometry.to_wkb()) == list(frame.geometry.to_wkb())
    assert all(raw[4] < 0x80 for raw in read_arrow(path).column("geometry").to_pylist())  # ISO WKB


def test_rows_are_put_in_the_order_of_the_key(tmp_path):
    frame = regions(SQUARE, TWO, HOLED).iloc[[2, 0, 1]]
    path = tmp_path / "regions.parquet"
    plain_table_writer(contract("regions"), frame)(path)
    found = gpd.read_parquet(path)
    assert list(found["region_id"]) == ["r0", "r1", "r2"]
    assert found.geometry.iloc[1].equals(TWO)


def test_a_region_without_a_crs_has_none(tmp_path):
    path = tmp_path / "regions.parquet"
    plain_table_writer(contract("regions"), regions(SQUARE, crs=None))(path)
    assert gpd.read_parquet(path).crs is None


@pytest.mark.parametrize(
    "value",
    [
        pd.DataFrame(regions(SQUARE)),
        regions(SQUARE).rename_geometry("shape"),
        regions(SQUARE, None),
        pa.table({"region_id": ["a"]}),
    ],
)
def test_what_is_no_table_of_geometries_breaks_the_contract(tmp_path, value):
    with pytest.raises(ContractError):
        plain_table_writer(contract("regions"), value)(tmp_path / "regions.parquet")


def test_columns_of_mixed_types_break_the_contract(tmp_path):
    frame = coverage(1).assign(modality=["a", 1, None])
    with pytest.raises(ContractError, match="cannot be written"):
        plain_table_writer(contract(ASSET), frame)(tmp_path / "x.parquet")


def test_the_same_input_gives_the_same_bytes(tmp_path):
    def files(folder: Path) -> dict[str, bytes]:
        lake = Lake(str(folder))
        put(lake, 1, **checkpoint_writers("a", _checkpoint()), **{"x.txt": text_writer("x")})
        put_regions(lake, regions(SQUARE, TWO))
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    first = files(tmp_path / "a")
    time.sleep(0.01)
    assert files(tmp_path / "b") == first
    assert len(first) == 8  # two records, two locks less one, two tables, a checkpoint, a text


def test_provenance_stands_in_the_file(tmp_path):
    path = tmp_path / "x.parquet"
    provenance = {
        "fingerprint": "f",
        "city": CITY,
        "inputs": {"raw": {"pois": "1"}},
        "a": [1, None],
    }
    checker = Checker(contract(ASSET))
    table_writer(checker, coverage(1), provenance)(path)
    assert json.loads(pq.read_metadata(path).metadata[b"cityloom"]) == provenance
    assert provenance_of(path) == provenance
    assert pq.read_metadata(path).row_group(0).column(0).compression == "ZSTD"
    assert checker.rows == 3 and set(checker.missing.values()) == {0}


def test_provenance_stands_in_what_travels_beside_a_table(lake):
    provenance = {"fingerprint": "f", "inputs": {"upstream": {"regions": "1"}}}
    beside = {
        "map.parquet": plain_table_writer(contract(ASSET), coverage(1)),
        **checkpoint_writers("a", _checkpoint()),
        "x.txt": text_writer("x"),
    }
    files = {file: signed(file, write, provenance) for file, write in beside.items()}
    lake.commit(lake.stage(CITY, ASSET, files), fingerprint="f")
    handle = Lake(lake.root).handle(CITY, ASSET)
    assert provenance_of(handle.path("map.parquet")) == provenance
    assert provenance_of(handle.path("a.json")) == provenance
    assert len(handle.frame(file="map.parquet")) == 3
    assert handle.record("a") == _checkpoint().record == handle.checkpoint("a").record
    assert handle.path("x.txt").read_text() == "x"


def test_what_was_not_signed_says_nothing_of_itself(tmp_path):
    path = tmp_path / "x.parquet"
    plain_table_writer(contract(ASSET), coverage(1))(path)
    checkpoint_writers("a", _checkpoint())["a.json"](tmp_path / "a.json")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    for name in ("x.parquet", "a.json", "foreign.parquet"):
        assert provenance_of(tmp_path / name) == {}


def test_streams_are_written_part_by_part(tmp_path):
    path = tmp_path / "x.parquet"
    parts = [coverage(n, 1).assign(modality=f"m{n}") for n in range(4)]
    batches = (pa.RecordBatch.from_pandas(part, preserve_index=False) for part in parts)
    checker = Checker(contract(ASSET))
    table_writer(checker, batches, {})(path)
    assert read_arrow(path).column("items").to_pylist() == [0, 1, 2, 3]
    assert pq.read_metadata(path).num_row_groups == 4 and checker.rows == 4


def test_rows_of_some_regions_are_read_without_the_others(tmp_path):
    path = tmp_path / "x.parquet"
    parts = [pa.record_batch({"region_id": [f"r{n}a", f"r{n}b"], "n": [n, n]}) for n in range(4)]
    with pq.ParquetWriter(path, parts[0].schema) as writer:
        for part in parts:
            writer.write_batch(part)
    metadata = pq.read_metadata(path)
    damaged = bytearray(path.read_bytes())
    away = metadata.row_group(0).column(1)  # the numbers of regions that are not asked for
    start = away.dictionary_page_offset or away.data_page_offset
    damaged[start : start + away.total_compressed_size] = bytes(away.total_compressed_size)
    path.write_bytes(damaged)
    found = read_arrow(path, regions=["r3b", "r1a", "r1b", "none"])
    assert found.to_pydict() == {"region_id": ["r1a", "r1b", "r3b"], "n": [1, 1, 3]}
    assert len(read_arrow(path, regions=[])) == 0
    with pytest.raises(OSError):
        read_arrow(path)


def test_an_empty_stream_is_an_empty_table(tmp_path):
    path = tmp_path / "x.parquet"
    plain_table_writer(contract(ASSET), iter(()))(path)
    assert read_arrow(path).column_names == contract(ASSET).names()
    assert len(read_arrow(path)) == 0


def test_a_folder_that_looks_like_a_partition_is_no_column(tmp_path):
    path = tmp_path / "city=town" / "x.parquet"
    path.parent.mkdir()
    plain_table_writer(contract(ASSET), coverage(1))(path)
    assert read_arrow(path).column_names == contract(ASSET).names()
    assert read_arrow(path, ["items"]).column_names == ["items"]


def _checkpoint() -> Checkpoint:
    rng = np.random.default_rng(0)
    return Checkpoint(
        {
            "weight": rng.normal(size=(3, 4)).astype(np.float32).T,
            "scalar": np.array(5, np.int64),
            "empty": np.empty((0, 2)),
            "flags": np.array([True, False]),
        },
        {"fit": {"variant": "default", "fold": -1}, "name": "é"},
    )


def test_a_checkpoint_is_read_as_it_was_written(lake):
    checkpoint = _checkpoint()
    lake.commit(
        lake.stage(CITY, "x_checkpoint", checkpoint_writers("a", checkpoint)), fingerprint=""
    )
    handle = Lake(lake.root).handle(CITY, "x_checkpoint")
    assert handle.checkpoints == ["a"] and handle.files == ["a.json", "a.safetensors"]
    found = handle.checkpoint("a")
    assert found.record == checkpoint.record and set(found.tensors) == set(checkpoint.tensors)
    for name, want in checkpoint.tensors.items():
        assert found.tensors[name].dtype == want.dtype
        assert found.tensors[name].shape == want.shape
        np.testing.assert_array_equal(found.tensors[name], want)


def test_the_order_of_a_checkpoints_tensors_does_not_matter(tmp_path):
    tensors = _checkpoint().tensors
    other = Checkpoint(dict(reversed(tensors.items())), _checkpoint().record)
    for place, checkpoint in (("a", _checkpoint()), ("b", other)):
        (tmp_path / place).mkdir()
        for name, write in checkpoint_writers("x", checkpoint).items():
            write(tmp_path / place / name)
    for name in ("x.safetensors", "x.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
