"""Raw files of a city: which there are, and the digest of their content."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from model_code.city import City, resolve
from model_code.fingerprint import digest, file_digest

_TAGS = frozenset({"etag", "content-md5", "digest", "last-modified"})
# A file that was changed less than this ago may change again without a new time stamp.
_SETTLED_NS = 2_000_000_000


class RawFiles:
    """Digests of raw files below a data root. A file is read again only when its size or its
    modification time has changed; what was read is remembered in a small local database."""

    def __init__(self, root: str, memory: Path | None = None) -> None:
        self.root = root
        name = f"cityloom-digests-{os.getuid()}-{digest(root)[:12]}.sqlite"
        self._memory = memory or Path(tempfile.gettempdir()) / name

    def digests(self, city: City, sections: Iterable[str]) -> dict[str, dict[str, str]]:
        """By config key, the digest of each file that it names (a folder or pattern: of each file
        in it). A file that is not there has the digest `missing`."""
        return {
            section: {
                name: entry
                for path in city.files(section)
                for name, (entry, _) in self.entries(path).items()
            }
            for section in sections
        }

    def entries(self, path: str) -> dict[str, tuple[str, int]]:
        """Files that a path of the config stands for: digest and bytes by name below the root."""
        fs, local = fsspec.core.url_to_fs(resolve(path, self.root))
        places = sorted(fs.glob(local)) if "*" in local else [local]
        files = sorted(file for place in places if fs.exists(place) for file in fs.find(place))
        if not files:
            return {path: ("missing", 0)}
        base = str(fs._strip_protocol(self.root)).rstrip("/") + "/"
        here = isinstance(fs, LocalFileSystem)
        found = self._local(files) if here else {file: _remote(fs, file) for file in files}
        return {
            file.removeprefix(base)
            if here or file.startswith(base)
            else fs.unstrip_protocol(file): entry
            for file, entry in found.items()
        }

    def _local(self, files: list[str]) -> dict[str, tuple[str, int]]:
        stats = {file: Path(file).stat() for file in files}
        states = {f: (s.st_size, s.st_mtime_ns, s.st_ctime_ns) for f, s in stats.items()}
        known = self._remembered(files)
        new = {file: file_digest(file) for file in files if known.get(file, ())[:3] != states[file]}
        settled = time.time_ns() - _SETTLED_NS
        self._remember(
            [(f, *states[f], value) for f, value in new.items() if states[f][2] < settled]
        )
        return {file: (new.get(file) or known[file][3], states[file][0]) for file in files}

    def _remembered(self, files: list[str]) -> dict[str, Any]:
        """(bytes, modified, changed, digest) by path; nothing where the database cannot be read."""
        with contextlib.suppress(sqlite3.DatabaseError), self._open() as memory:
            rows = memory.execute(
                "SELECT path, size, modified_ns, changed_ns, sha256 FROM seen "
                "WHERE path IN (SELECT value FROM json_each(?))", (json.dumps(files),)
            )  # fmt: skip
            return {path: tuple(row) for path, *row in rows}
        return {}

    def _remember(self, rows: list[tuple[Any, ...]]) -> None:
        """Only saves time later: a database that is damaged is started anew, a busy one left."""
        if not rows:
            return
        try:
            with self._open() as memory, memory:
                memory.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", rows)
        except sqlite3.OperationalError:
            return
        except sqlite3.DatabaseError:
            self._memory.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(self._memory, timeout=10)) as memory:
            memory.execute(
                "CREATE TABLE IF NOT EXISTS seen (path TEXT PRIMARY KEY, size INTEGER, "
                "modified_ns INTEGER, changed_ns INTEGER, sha256 TEXT)"
            )
            yield memory


def _remote(fs: Any, file: str) -> tuple[str, int]:
    """Object stores tell of a change by their own tag, without a download; a web server by its
    ETag or date."""
    info = fs.info(file)
    tags = {k: str(v) for k, v in info.items() if k.lower() in _TAGS}
    return digest([fs.ukey(file), tags, info.get("size")]), int(info.get("size") or 0)
