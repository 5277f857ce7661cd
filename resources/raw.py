"""Raw files of a city: which there are, and the digest of their content."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import fsspec

from model_code.city import City, resolve
from model_code.fingerprint import digest, file_digest


class RawFiles:
    """Digests of raw files below a data root. A file is read again only when its size or its
    modification time has changed; what was read is remembered in a small local database."""

    def __init__(self, root: str, memory: Path | None = None) -> None:
        self.root = root
        name = f"cityloom-digests-{digest(root)[:12]}.sqlite"
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
        url = resolve(path, self.root)
        found = dict(self._digest_all(url))
        if not found:
            return {path: ("missing", 0)}
        base = resolve("", self.root)
        return {name.removeprefix(base).lstrip("/"): entry for name, entry in found.items()}

    def _digest_all(self, url: str) -> Iterator[tuple[str, tuple[str, int]]]:
        fs, path = fsspec.core.url_to_fs(url)
        paths = sorted(fs.glob(path)) if "*" in path else [path]
        files = sorted(f for p in paths if fs.exists(p) for f in fs.find(p))
        if not isinstance(fs, fsspec.implementations.local.LocalFileSystem):
            # object stores tell of a change by their own tag, without a download
            for file in files:
                yield fs.unstrip_protocol(file), (digest(fs.ukey(file)), int(fs.size(file) or 0))
            return
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._memory, timeout=60)) as memory, memory:
            memory.execute(
                "CREATE TABLE IF NOT EXISTS seen (path TEXT PRIMARY KEY, size INTEGER, "
                "changed_ns INTEGER, sha256 TEXT)"
            )
            for file in files:
                stat = Path(file).stat()
                key = (stat.st_size, max(stat.st_mtime_ns, stat.st_ctime_ns))
                row = memory.execute(
                    "SELECT size, changed_ns, sha256 FROM seen WHERE path = ?", (file,)
                ).fetchone()
                if row is None or row[:2] != key:
                    row = (*key, file_digest(file))
                    memory.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", (file, *row))
                yield file, (row[2], stat.st_size)
