"""Dagster's history in SQLite, with connections that stay open."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from pathlib import Path

import dagster as dg
import pytest
import yaml

from resources import history
from tests.tiny import ROOT

PLAIN = {"sqlite": {"base_dir": ".dagster"}}
KEPT = yaml.safe_load((ROOT / "dagster.yaml").read_text())["storage"]
STEPS = 12


def instance(root: Path, storage: object) -> dg.DagsterInstance:
    """An instance whose database lies in `root`."""
    text = yaml.safe_dump({"storage": storage, "telemetry": {"enabled": False}})
    (root / "dagster.yaml").write_text(text.replace("base_dir: .dagster", f"base_dir: {root}"))
    return dg.DagsterInstance.from_config(str(root))


def job() -> dg.JobDefinition:
    assets = [
        dg.asset(name=f"a{i}", deps=[f"a{i - 1}"] if i else [])(lambda: None) for i in range(STEPS)
    ]
    return dg.Definitions(assets).resolve_implicit_global_asset_job_def()


def run(where: dg.DagsterInstance) -> str:
    done = job().execute_in_process(instance=where)
    assert done.success
    return done.run_id


def told(where: dg.DagsterInstance, run_id: str) -> list[tuple[str | None, str | None]]:
    """Type and step of each event of a run."""
    events = (log.dagster_event for log in where.all_logs(run_id))
    return [(event.event_type_value, event.step_key) for event in events if event]


def databases() -> int:
    """Databases that this process has open."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(entry.readlink()))
        except FileNotFoundError:  # the listing's own
            continue
    return sum(path.endswith(".db") for path in found)


def test_the_files_are_those_of_dagster(tmp_path: Path) -> None:
    with instance(tmp_path, KEPT) as kept:
        assert isinstance(kept.event_log_storage, history.Events)
        run_id = run(kept)
        events = told(kept, run_id)
    with instance(tmp_path, PLAIN) as plain:
        assert told(plain, run_id) == events
        other = run(plain)
        assert plain.get_run_by_id(run_id).status is dg.DagsterRunStatus.SUCCESS
    with instance(tmp_path, KEPT) as kept:
        assert {r.run_id for r in kept.get_runs()} == {run_id, other}
        assert told(kept, other) == events
        assert kept.get_latest_materialization_event(dg.AssetKey(["a0"])).run_id == other


def test_few_connections_serve_many_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    connect = sqlite3.connect

    def counting(path: str, **options: object) -> sqlite3.Connection:
        opened.append(path)
        return connect(path, **options)

    counts = []
    for name, storage in (("plain", PLAIN), ("kept", KEPT)):
        (tmp_path / name).mkdir()
        with instance(tmp_path / name, storage) as where:
            run(where)
            monkeypatch.setattr(sqlite3.dbapi2, "connect", counting)
            monkeypatch.setattr(sqlite3, "connect", counting)
            opened.clear()
            run(where)
            counts.append(len(opened))
            monkeypatch.undo()
    plain, kept = counts
    assert plain > 10 * STEPS
    assert kept < 2 * STEPS  # those of making and looking into a run's new database


def test_no_more_databases_stay_open_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_OPEN", 3)
    before = databases()
    with instance(tmp_path, KEPT) as where:
        runs = [run(where) for _ in range(5)]
        assert all(told(where, run_id) for run_id in runs)
        assert databases() - before <= 3 + 1  # and the one of the runs
    assert databases() == before


def test_a_database_that_was_deleted_is_made_anew(tmp_path: Path) -> None:
    with instance(tmp_path, KEPT) as here, instance(tmp_path, KEPT) as elsewhere:
        old = run(here)
        elsewhere.wipe()
        assert told(here, old) == []
        new = run(here)
        assert told(elsewhere, new) == told(here, new) != []


def test_reading_leaves_no_mark(tmp_path: Path) -> None:
    """Who looks on at a run is told of each change of its file, and then reads it."""
    with instance(tmp_path, KEPT) as where:
        run_id = run(where)
        path = tmp_path / "history" / "runs" / f"{run_id}.db"
        before = path.stat()
        assert told(where, run_id)
        after = path.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


def test_who_looks_on_is_told_while_the_run_goes_on(tmp_path: Path) -> None:
    """As the live page of a run in the UI, which reads in a process of its own what another writes."""
    with instance(tmp_path, KEPT) as here, instance(tmp_path, KEPT) as elsewhere:
        heard: list[str] = []
        enough, goes_on = threading.Event(), []

        def listen(entry: dg.EventLogEntry, cursor: str) -> None:
            heard.append(str(entry.step_key))
            enough.set()

        @dg.asset
        def first() -> None:
            enough.clear()

        @dg.asset(deps=[first])
        def second() -> None:
            goes_on.append(enough.wait(30))

        run_id = str(uuid.uuid4())
        elsewhere.watch_event_logs(run_id, None, listen)
        job = dg.Definitions([first, second]).resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=here, run_id=run_id).success
        elsewhere.end_watch_event_logs(run_id, listen)
        assert goes_on == [True] and "first" in heard
        elsewhere.event_log_storage.dispose()


def test_a_database_that_could_not_be_made_is_made_at_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance(tmp_path, KEPT) as where:
        make = history.Events._initdb

        def fails(self: history.Events, engine: object, **more: object) -> None:
            raise OSError("no space left on the device")

        monkeypatch.setattr(history.Events, "_initdb", fails)
        with pytest.raises(OSError, match="no space"):
            where.all_logs("a-run")
        monkeypatch.setattr(history.Events, "_initdb", make)
        assert where.all_logs("a-run") == []


def test_a_fork_opens_its_own(tmp_path: Path) -> None:
    kept = history._Kept()
    path = str(tmp_path / "a.db")
    engine, new = kept.engine(path)
    assert new and kept.engine(path) == (engine, False)
    kept._process -= 1  # as in a child of the process that opened it
    other, new = kept.engine(path)
    assert new and other is not engine
    kept.close()
