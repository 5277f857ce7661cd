"""Dagster's SQLite history with connections that stay open.

Dagster opens and closes a database for every event. In write-ahead mode whoever closes it last writes
all of it back to the disk and waits for that, so a run of many short steps waits most of its time. The
files are Dagster's own, unchanged: `storage: sqlite` reads them too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster._config import UserConfigSchema
from dagster._core.event_api import EventHandlerFn
from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    SqliteEventLogStorage,
    SqliteEventLogStorageWatchdog,
)
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import create_engine, event, make_url
from sqlalchemy.engine import Connection, Engine
from watchdog.events import FileSystemEvent
from watchdog.observers import Observer

_OPEN = 8  # databases at once: the index of all runs, and the runs that are written or looked at


class History(DagsterSqliteStorage):
    """All that Dagster keeps, below `base_dir`: what `storage: custom` of a `dagster.yaml` names."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._run_storage = Runs(self._run_storage._conn_string)
        self._event_log_storage = Events(self._event_log_storage._base_dir)

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return DagsterSqliteStorage.config_type()

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Any
    ) -> History:
        return cls.from_local(inst_data=inst_data, **config_value)


class Events(SqliteEventLogStorage):
    """The events of all runs: an index, and a database for each run."""

    def __init__(self, base_dir: str) -> None:
        self._kept = _Kept()
        super().__init__(base_dir)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            path = self.path_for_shard(shard)
            engine, new = self._kept.engine(path)
            if new:
                try:
                    self._initdb(engine)
                except BaseException:
                    self._kept.forget(path)
                    raise
            with engine.begin() as connection:
                yield connection

    def watch(self, run_id: str, cursor: str | None, callback: EventHandlerFn) -> None:
        observer: Any = self._obs
        if observer is None:
            observer = self._obs = Observer()  # type: ignore[assignment]
            observer.start()
        onlooker = Onlooker(self, run_id, callback, cursor)
        watch = observer.schedule(onlooker, self._base_dir, recursive=True)
        self._watchers[run_id][callback] = onlooker, watch

    def dispose(self) -> None:
        super().dispose()
        self._kept.close()


class Onlooker(SqliteEventLogStorageWatchdog):
    """Who looks on at a run is told of what is written ahead, too: the database itself changes only
    now and then."""

    def __init__(
        self, storage: Events, run_id: str, callback: EventHandlerFn, cursor: str | None
    ) -> None:
        super().__init__(storage, run_id, callback, cursor)
        self._patterns = [self._log_path, f"{self._log_path}-wal"]

    def on_modified(self, event: FileSystemEvent) -> None:
        self._process_log()


class Runs(SqliteRunStorage):
    """The runs, and the marks of the daemon."""

    def __init__(self, conn_string: str) -> None:
        self._kept = _Kept()
        super().__init__(conn_string)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        engine, _ = self._kept.engine(make_url(self._conn_string).database or "")
        with engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        super().dispose()
        self._kept.close()


class _Kept:
    """The databases that were used last, each with its engine and so with its open connection."""

    def __init__(self) -> None:
        self._engines: dict[str, tuple[Engine, os.stat_result]] = {}
        self._lock = threading.Lock()
        self._process = os.getpid()

    def engine(self, path: str) -> tuple[Engine, bool]:
        """The engine of a database, and whether it is new. A file that another process deleted or
        replaced since has a new one."""
        with self._lock:
            if self._process != os.getpid():  # a fork holds none of the locks of its parent
                for old, _ in self._engines.values():
                    old.dispose(close=False)
                self._engines.clear()
                self._process = os.getpid()
            file = _stat(Path(path))
            engine, before = self._engines.pop(path, (None, file))
            if engine is not None and not os.path.samestat(file, before):
                engine.dispose()
                engine = None
            new = engine is None
            engine = engine or _engine(path)
            self._engines[path] = engine, file
            if len(self._engines) > _OPEN:
                self._engines.pop(next(iter(self._engines)))[0].dispose()
        return engine, new

    def forget(self, path: str) -> None:
        """Let the next call make the engine of this database anew."""
        with self._lock:
            if found := self._engines.pop(path, None):
                found[0].dispose()

    def close(self) -> None:
        with self._lock:
            for engine, _ in self._engines.values():
                engine.dispose()
            self._engines.clear()


def _stat(path: Path) -> os.stat_result:
    """Of a file, which is made where it is absent and not touched otherwise: onlookers would be told."""
    try:
        return path.stat()
    except FileNotFoundError:
        path.touch()
        return path.stat()


def _engine(path: str) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        max_overflow=-1,  # no thread waits for another's connection
        connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def _(connection: Any, record: object) -> None:
        # A killed process loses nothing so; a power cut may lose the last events, never the database.
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine
