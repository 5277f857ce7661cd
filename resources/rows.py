"""Rows that were paid for once, kept by the digest of all that they rest on: a caption, a score.

They stand beside an asset's versions, in shards that are only ever added, each complete or absent,
named by its content and checked when it is read. So a killed run loses its last batch at most, and
a changed image costs one row. What is wrong with a shard costs its rows again, and nothing else.
"""

from __future__ import annotations

import contextlib
import io
import os
import uuid
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from resources.disk import writing

if TYPE_CHECKING:
    import pandas as pd

    from resources.lake import Lake

FOLDER = "rows"
_KEY = "row_key"
# Above this many shards, reading them costs more than writing all rows as one.
_MANY = 64


class RowStore:
    """The kept rows of one kind, below one asset of one city. The asset's lock is held by the run
    whose processes use it.

    Rows of a kind have the same columns; `warn` is told of a shard that cannot be used. The one
    process that `tidies` writes many shards as one: several would all do the same work.
    """

    def __init__(
        self,
        lake: Lake,
        city: str,
        asset: str,
        kind: str,
        warn: Callable[[str], None],
        *,
        tidies: bool,
    ) -> None:
        self._tidies = tidies
        self._lake, self._city, self._asset, self._warn = lake, city, asset, warn
        self._folder = f"{lake.folder(city, asset)}/{FOLDER}/{kind}"
        # Each has a row a key, and at least twice the rows of the next: a row is moved log2(rows)
        # times at most, however many are added one after the other.
        self._parts: list[pd.DataFrame] = []
        self._read_shards: set[str] = set()

    def known(self, keys: Iterable[str]) -> pd.DataFrame:
        """Kept rows of these keys, indexed by key; a key without a row is left out."""
        import pandas as pd

        self._refresh()
        wanted, found = pd.Index(list(keys)).unique(), []
        for part in self._parts:  # the oldest first: the row of a key is the same for ever
            at = part.index.get_indexer(wanted)
            found.append(part.take(at[at >= 0]))
            wanted = wanted[at < 0]
        return _joined(found)

    def rows(self) -> pd.DataFrame:
        """All kept rows, indexed by key."""
        self._refresh()
        self._parts = [_joined(self._parts)]
        return self._parts[0]

    def add(self, rows: pd.DataFrame) -> None:
        """Keep rows, indexed by their keys; the row of a key is the same for ever.

        Raises:
            LakeWriteError: the disk is full, or may not be written.
        """

        if rows.empty:
            return
        self._read_shards.add(Path(self._write(rows)).name)
        self._take([rows])

    def _take(self, parts: list[pd.DataFrame]) -> None:
        for part in parts:
            self._parts.append(part[~part.index.duplicated()])
            while len(self._parts) > 1 and len(self._parts[-2]) < 2 * len(self._parts[-1]):
                self._parts[-2:] = [_joined(self._parts[-2:])]

    def _refresh(self) -> None:
        """Take in what other processes have added; a shard is read once."""
        while True:
            shards = self._shards()
            new = [shard for shard in shards if Path(shard).name not in self._read_shards]
            try:
                parts = [part for part in map(self._read, new) if part is not None]
            except FileNotFoundError:  # the leading process has just written them as one
                continue
            break
        self._read_shards.update(Path(shard).name for shard in new)
        self._take(parts)
        if self._tidies and len(shards) > _MANY:
            self._parts = [_joined(self._parts)]
            written = Path(self._write(self._parts[0])).name
            self._read_shards.add(written)
            for shard in shards:
                if Path(shard).name != written:
                    with contextlib.suppress(FileNotFoundError):
                        self._lake.fs.rm(shard)

    def _shards(self) -> list[str]:
        fs = self._lake.fs
        fs.invalidate_cache()
        if not fs.exists(self._folder):
            return []
        return sorted(
            path for path in fs.ls(self._folder, detail=False) if path.endswith(".parquet")
        )

    def _read(self, path: str) -> pd.DataFrame | None:
        import pandas as pd

        content = self._lake.fs.cat_file(path)
        if sha256(content).hexdigest()[:32] != Path(path).stem:
            self._warn(f"{path} is damaged; its rows are made again")
            return None
        return pd.read_parquet(io.BytesIO(content)).set_index(_KEY)

    def _write(self, rows: pd.DataFrame) -> str:
        """The path of the shard that holds the rows, safe on the disk."""
        buffer = io.BytesIO()
        rows.rename_axis(_KEY).reset_index().to_parquet(buffer, index=False, compression="zstd")
        content = buffer.getvalue()
        target = f"{self._folder}/{sha256(content).hexdigest()[:32]}.parquet"
        with writing(self._city, self._asset, self._folder):
            self._put(content, target)
        return target

    def _put(self, content: bytes, target: str) -> None:
        if not self._lake.local:
            self._lake.fs.pipe_file(target, content)
            return
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """One row a key, the first."""
    import pandas as pd

    if not (found := [part for part in parts if len(part)]):
        return parts[0] if parts else pd.DataFrame()
    together = pd.concat(found)
    return together[~together.index.duplicated()]
