"""The lake: one folder a city and asset, on any fsspec path, that is old or new but never half.

    <lake>/<city>/<asset>/<version>/<files>     the version is a digest of the files' content
    <lake>/<city>/<asset>/current.json          which version counts, its digests, why it was made
    <lake>/<city>/<asset>/timing.json           how long it took (never in a data file)
    <lake>/<city>/<asset>/rows/                 rows that later versions need not pay for again

`current.json` is the commit: it is put in place by one atomic rename (on an object store by one
complete put) after all files are there and synced. Every file, and `current.json` itself, is checked
against its digest when it is read. This module knows nothing of Dagster.

    from resources.lake import read
    regions = read("regions", city="demo")
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
from filelock import FileLock, Timeout

from model_code.errors import (
    ContractError,
    CorruptTableError,
    DataError,
    LakeVersionError,
    LockedError,
    MissingTableError,
    ReplacedTableError,
)
from model_code.fingerprint import digest, file_digest
from resources.disk import writing
from resources.rows import FOLDER as ROWS

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import pyarrow as pa

    from model_code.contracts import Checker
    from model_code.methods.base import Checkpoint
    from model_code.tables import Table

# Raised with the layout, and with the code of this file that decides what a table holds.
LAKE_VERSION = 1
_SEGMENT = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FILE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,120}")
_PROVENANCE = "cityloom"  # where a file says what it was made from


def lake_root() -> str:
    """Where the lake lies: `$CITYLOOM_LAKE` (a folder or an fsspec URL), by default `lake/`."""
    root = os.environ.get("CITYLOOM_LAKE") or str(Path(__file__).resolve().parent.parent / "lake")
    return root if "://" in root else str(Path(root).expanduser().resolve())


@dataclass(frozen=True)
class Manifest:
    """What `current.json` says of an asset of a city."""

    city: str
    asset: str
    fingerprint: str
    inputs: dict[str, Any]
    version: str = ""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    absent: str = ""
    lake_version: int = LAKE_VERSION


Writer = Callable[[Path], None]


@dataclass
class Staged:
    """Files of a version that nobody can see yet."""

    city: str
    asset: str
    folder: Path
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, write: Writer) -> None:
        """Write one more file and note its digest.

        Raises:
            LakeWriteError: the disk is full, or may not be written.
        """
        path = self.folder / name
        with writing(self.city, self.asset, path):
            write(path)
            _sync(path)
        self.entries[name] = {"sha256": file_digest(path), "bytes": path.stat().st_size}

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Lake:
    """Reads and writes versions of assets. Safe for several processes on one machine."""

    def __init__(self, root: str | None = None, *, lock_seconds: float = 3600.0) -> None:
        self.root = root or lake_root()
        self.lock_seconds = lock_seconds
        self.fs, base = fsspec.core.url_to_fs(self.root)
        self._base = base.rstrip("/")
        self.local = "file" in (
            self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,)
        )
        # (path, size, mtime) of files whose digest this process has checked already
        self._verified: set[tuple[str, int, int]] = set()

    # --- names ---------------------------------------------------------------------------------

    def folder(self, city: str, asset: str) -> str:
        """Folder of an asset of a city.

        Raises:
            DataError: a name that could leave the lake, or meet another name on a disk that does
                not tell upper from lower case.
        """
        for what, name in (("city", city), ("asset", asset)):
            if not _SEGMENT.fullmatch(name):
                raise DataError(
                    f"{what} name {name!r} cannot be a folder of the lake",
                    fix="use a-z, 0-9 and _ only, starting with a letter",
                )
        return f"{self._base}/{city}/{asset}"

    # --- writing -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(
        self,
        city: str,
        asset: str,
        on_wait: Callable[[], None] | None = None,
        *,
        seconds: float | None = None,
    ) -> Iterator[None]:
        """Hold the asset of the city for one process; calls `on_wait` once if another holds it.

        Raises:
            LockedError: it is still held after `seconds` (by default the lake's `lock_seconds`).
        """
        patience = self.lock_seconds if seconds is None else seconds
        if self.local:
            path = Path(self.folder(city, asset)) / ".lock"
        else:  # object stores have no locks: processes of one machine still exclude each other
            name = hashlib.sha256(self.folder(city, asset).encode()).hexdigest()
            path = Path(tempfile.gettempdir()) / "cityloom-locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if on_wait:
                    on_wait()
                lock.acquire(timeout=patience)
        except Timeout as error:
            raise LockedError(
                f"another run holds {asset!r} of city {city!r} (waited {patience:g} s)",
                fix=f"wait for it, or end that process (lock file: {path})",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def workspace(self, city: str, asset: str, fingerprint: str) -> Path:
        """Local folder in which a long computation keeps what it needs to go on after a kill. It
        belongs to one fingerprint, and goes when a version is committed."""
        parent = Path(self.folder(city, asset) if self.local else self._scratch(city, asset))
        folder = parent / f".work-{fingerprint[:16]}"
        for other in parent.glob(".work-*"):
            if other != folder:
                shutil.rmtree(other)
        return folder

    def _scratch(self, city: str, asset: str) -> str:
        """Local stand-in for an asset's folder on an object store."""
        name = digest(self.folder(city, asset))[:16]
        return str(Path(tempfile.gettempdir()) / "cityloom-work" / name)

    def stage(self, city: str, asset: str, files: dict[str, Writer]) -> Staged:
        """Write all files of a new version where no reader looks. `commit` or `discard` it.

        Args:
            files: by file name, a function that writes the file at the path that it is given.
        Raises:
            DataError: a name cannot stand in the lake.
            ContractError: a writer found the table to break its contract; nothing is left behind.
            LakeWriteError: the disk is full, or may not be written.
        """
        folder = self.folder(city, asset)
        if bad := [name for name in files if not _FILE.fullmatch(name)]:
            raise DataError(f"file names {bad} cannot stand in the lake", fix="use a-z, 0-9, _.-")
        parent = Path(folder if self.local else self._scratch(city, asset))
        staged = Staged(city, asset, parent / f".writing-{uuid.uuid4().hex}")
        try:
            with writing(city, asset, self.root):
                staged.folder.mkdir(parents=True)
            for name, write in files.items():
                staged.add(name, write)
        except BaseException:
            staged.discard()
            raise
        return staged

    def stage_again(self, manifest: Manifest, city: str = "") -> Staged:
        """A copy of the version that stands, to change a file of it, or for another `city`."""
        files: dict[str, Writer] = {}
        for name in manifest.files:
            source = self.path(manifest.city, manifest.asset, name, manifest)
            files[name] = partial(shutil.copyfile, source)
        return self.stage(city or manifest.city, manifest.asset, files)

    def twin(self, asset: str, fingerprint: str) -> Manifest | None:
        """An undamaged version of this fingerprint in whatever city; None if there is none."""
        for city in self.cities():
            with contextlib.suppress(CorruptTableError, LakeVersionError):
                found = self.manifest(city, asset)
                if found and found.fingerprint == fingerprint and self.intact(found):
                    return found
        return None

    def commit(
        self,
        staged: Staged,
        *,
        fingerprint: str,
        inputs: dict[str, Any] | None = None,
        metadata: Iterable[dict[str, Any]] = (),
        checks: Iterable[dict[str, Any]] = (),
    ) -> Manifest:
        """Put a staged version in place and make it the current one; the old one then goes."""
        city, asset, entries = staged.city, staged.asset, dict(sorted(staged.entries.items()))
        folder = self.folder(city, asset)
        version = digest(entries)[:16]
        manifest = Manifest(
            city, asset, fingerprint, inputs or {}, version, entries, list(metadata), list(checks)
        )
        try:
            with writing(city, asset, self.root), self._committing(manifest):
                self._place(staged.folder, f"{folder}/{version}", entries)
        finally:
            staged.discard()
        self._sweep(folder, keep=version)
        if not self.local:
            shutil.rmtree(self._scratch(city, asset), ignore_errors=True)
        return manifest

    def write_absent(
        self, city: str, asset: str, reason: str, *, fingerprint: str, inputs: dict[str, Any]
    ) -> Manifest:
        """Record that this city has no such table, and why; an older version goes."""
        manifest = Manifest(city, asset, fingerprint, inputs, absent=reason)
        with writing(city, asset, self.root):
            if self.local:
                Path(self.folder(city, asset)).mkdir(parents=True, exist_ok=True)
            with self._committing(manifest):
                pass
        self._sweep(self.folder(city, asset), keep="")
        return manifest

    def _place(self, staging: Path, target: str, entries: dict[str, dict[str, Any]]) -> None:
        if not self.local:
            for name in entries:
                self.fs.put_file(str(staging / name), f"{target}/{name}")
            return
        final = Path(target)
        if final.is_dir():  # the same content was written before: replace file by file
            for name in entries:
                (staging / name).replace(final / name)
        else:
            staging.rename(final)
        _sync(final)
        _sync(final.parent)

    def _committing(self, manifest: Manifest) -> contextlib.AbstractContextManager[None]:
        """Makes the version count when the block is done."""
        content = asdict(manifest)
        content["sha256"] = digest(content)
        target = f"{self.folder(manifest.city, manifest.asset)}/current.json"
        return self._putting(target, json.dumps(content, sort_keys=True, indent=1))

    @contextlib.contextmanager
    def _putting(self, target: str, text: str) -> Iterator[None]:
        """Write a text before the block, and put it in place after it: a full disk is met before
        anything has changed."""
        if not self.local:
            yield
            self.fs.pipe_file(target, text.encode())
            return
        path = Path(target)
        temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
        try:
            temporary.write_text(text, encoding="utf-8")
            _sync(temporary)
            yield
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)

    def _sweep(self, folder: str, keep: str) -> None:
        """Remove what earlier versions and killed writers left; the lock is held by the caller."""
        self.fs.invalidate_cache()
        for entry in self.fs.ls(folder, detail=True):
            name = entry["name"].rstrip("/").rsplit("/", 1)[-1]
            if entry["type"] == "directory" and name not in (keep, ROWS):
                self.fs.rm(entry["name"], recursive=True)
            elif name.startswith((".current.json-", ".timing.json-")):
                self.fs.rm(entry["name"])

    def write_timing(self, city: str, asset: str, timing: dict[str, float]) -> None:
        """Keep seconds and peak memory of the last computation, and that it ended now, beside the data."""
        target = f"{self.folder(city, asset)}/timing.json"
        told = timing | {"made_at": datetime.now(UTC).isoformat(timespec="seconds")}
        with (
            writing(city, asset, self.root),
            self._putting(target, json.dumps(told, sort_keys=True)),
        ):
            pass

    # --- reading -------------------------------------------------------------------------------

    def manifest(self, city: str, asset: str) -> Manifest | None:
        """What stands in the lake for an asset of a city; None if nothing does.

        Raises:
            LakeVersionError: it was written with another layout.
            CorruptTableError: `current.json` cannot be read.
        """
        path = f"{self.folder(city, asset)}/current.json"
        fix = f"delete that file; then {_again(city, asset)}"
        try:
            raw = json.loads(self.fs.cat_file(path))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CorruptTableError(f"{path} is not JSON", fix=fix) from error
        if not isinstance(raw, dict):
            raise CorruptTableError(f"{path} holds no record of a version", fix=fix)
        if raw.get("lake_version") != LAKE_VERSION:
            raise LakeVersionError(
                f"{path} has lake version {raw.get('lake_version')}, this code reads {LAKE_VERSION}",
                fix="set $CITYLOOM_LAKE to a new folder, or run `make clean` and the job again",
            )
        if raw.pop("sha256", None) != digest(raw):
            raise CorruptTableError(f"{path} is not what was written", fix=fix)
        return Manifest(**raw)

    def intact(self, manifest: Manifest) -> bool:
        """All files of the version are there with the content that was written (on an object store:
        with their size; the content is checked when it is fetched)."""
        folder = f"{self.folder(manifest.city, manifest.asset)}/{manifest.version}"
        try:
            for file, want in manifest.files.items():
                if self.local:
                    self._verify(Path(folder) / file, manifest, file)
                elif self.fs.size(f"{folder}/{file}") != want["bytes"]:
                    return False
        except (CorruptTableError, FileNotFoundError):
            return False
        return True

    def handle(self, city: str, asset: str) -> Handle:
        """A lazy reader: nothing is opened until it is asked."""
        return Handle(self, city, asset)

    def path(self, city: str, asset: str, file: str, manifest: Manifest | None = None) -> Path:
        """A local, verified path of one file of the current version, or of that of `manifest`.

        Raises:
            MissingTableError, CorruptTableError
            ReplacedTableError: the version of `manifest` is no longer there.
        """
        wanted = manifest or self.manifest(city, asset)
        if wanted is None or wanted.absent or file not in wanted.files:
            why = "it was never made"
            fix = f"`cityloom run {city}` makes what is missing, `cityloom explain {city}` tells it"
            if wanted and wanted.absent:
                why, fix = wanted.absent, "give the city what it lacks, and run it again"
            elif wanted:
                why, fix = f"it has no file {file!r}", f"read one of {sorted(wanted.files)}"
            raise MissingTableError(
                f"{asset!r} of city {city!r} is not in the lake {self.root}: {why}", fix=fix
            )
        try:
            return self._local(f"{self.folder(city, asset)}/{wanted.version}/{file}", wanted, file)
        except FileNotFoundError as error:
            now = self.manifest(city, asset)
            if now and now.version == wanted.version:
                where = f"{self.folder(city, asset)}/{wanted.version}/{file}"
                raise CorruptTableError(f"{where} is gone", fix=_again(city, asset)) from error
            if manifest:
                raise _replaced(manifest) from error
            return self.path(city, asset, file)  # replaced while we looked

    def _local(self, remote: str, manifest: Manifest, file: str) -> Path:
        """The file itself, or a verified copy of a remote one in a local cache by content."""
        if self.local:
            return self._verify(Path(remote), manifest, file)
        content = str(manifest.files[file]["sha256"])
        path = Path(tempfile.gettempdir()) / "cityloom-cache" / content / file
        with contextlib.suppress(FileNotFoundError, CorruptTableError):
            return self._verify(path, manifest, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        try:
            self.fs.get_file(remote, str(temporary))
            self._verify(temporary, manifest, file, remote)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def _verify(self, path: Path, manifest: Manifest, file: str, shown: str = "") -> Path:
        """The path, if it holds what was written; a process reads a file once for this."""
        want, stat = manifest.files[file], path.stat()
        key = (str(path), stat.st_size, stat.st_mtime_ns)
        if key not in self._verified:
            if stat.st_size != want["bytes"] or file_digest(path) != want["sha256"]:
                raise CorruptTableError(
                    f"{shown or path} is damaged: it has {stat.st_size} bytes and not the content "
                    f"that was written ({want['bytes']} bytes, sha256 {want['sha256'][:12]}...)",
                    fix=_again(manifest.city, manifest.asset),
                )
            self._verified.add(key)
        return path

    def cities(self) -> list[str]:
        """Cities that have anything in the lake."""
        if not self.fs.exists(self._base):
            return []
        names = (e["name"].rstrip("/").rsplit("/", 1)[-1] for e in self.fs.ls(self._base, True))
        return sorted(name for name in names if _SEGMENT.fullmatch(name))

    def assets(self, city: str) -> list[str]:
        """Assets of a city that stand in the lake."""
        base = self.folder(city, "x").rsplit("/", 1)[0]
        if not self.fs.exists(base):
            return []
        entries = (e for e in self.fs.ls(base, True) if e["type"] == "directory")
        names = (e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries)
        return sorted(name for name in names if _SEGMENT.fullmatch(name))

    def timing(self, city: str, asset: str) -> dict[str, Any]:
        """What `write_timing` kept of the last computation; empty without it."""
        try:
            found = json.loads(self.fs.cat_file(f"{self.folder(city, asset)}/timing.json"))
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def timings(self, city: str) -> pd.DataFrame:
        """Contract `timings`: when each asset of a city was made, its seconds, peak memory and size."""
        import pandas as pd

        from model_code.tables import TIMINGS

        rows = []
        for asset in self.assets(city):
            manifest = self.manifest(city, asset)
            size = sum(f["bytes"] for f in manifest.files.values()) if manifest else 0
            rows.append({"asset": asset, "bytes": size, **self.timing(city, asset)})
        frame = pd.DataFrame(rows, columns=TIMINGS.names())
        frame["made_at"] = pd.to_datetime(frame["made_at"], utc=True)
        return frame.astype({"bytes": "int64", "seconds": "float64", "process_peak_mib": "float64"})

    def remove(self, city: str) -> None:
        """Delete everything that the lake holds of a city.

        Raises:
            LockedError: a run works on it.
        """
        base = self.folder(city, "x").rsplit("/", 1)[0]
        if self.fs.exists(base):
            with contextlib.ExitStack() as held:
                for asset in self.assets(city):
                    held.enter_context(self.lock(city, asset, seconds=0))
                self.fs.rm(base, recursive=True)

    def published(self, city: str, file: str) -> str:
        """Where `publish` puts a file: `<lake>/<city>/<file>`."""
        return f"{self.folder(city, 'x').rsplit('/', 1)[0]}/{file}"

    def publish(self, city: str, asset: str, file: str) -> str:
        """A copy of a file under a stable name, for people to open; the lock is held by the caller."""
        source, target = self.path(city, asset, file), self.published(city, file)
        folder = self.folder(city, asset)
        if not self.local:
            self.fs.put_file(str(source), target)
            return target
        # Beside the versions, so that the next commit sweeps what a kill leaves here.
        temporary = Path(folder) / f".writing-{uuid.uuid4().hex}"
        try:
            with writing(city, asset, self.root):
                temporary.mkdir()
                shutil.copyfile(source, temporary / file)
                (temporary / file).replace(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target


class Handle:
    """One asset of one city, read when asked; all of it from the version that stood when it was
    first asked. A table's file is `<asset>.parquet`."""

    def __init__(self, lake: Lake, city: str, asset: str) -> None:
        self.lake, self.city, self.asset = lake, city, asset
        self._seen: Manifest | None = None

    @property
    def manifest(self) -> Manifest | None:
        """What the lake says of it; None if it was never made."""
        self._seen = self._seen or self.lake.manifest(self.city, self.asset)
        return self._seen

    @property
    def exists(self) -> bool:
        """Whether the table stands in the lake."""
        return self.manifest is not None and not self.manifest.absent

    @property
    def left_out(self) -> bool:
        """Whether it is known that the city has no such table (for an optional modality).

        Raises:
            MissingTableError: it was never made, so nothing is known.
        """
        if self.manifest is None:
            raise MissingTableError(
                f"{self.asset!r} of city {self.city!r} is not in the lake {self.lake.root}",
                fix=_again(self.city, self.asset),
            )
        return bool(self.manifest.absent)

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint if self.manifest else ""

    def metadata(self, name: str) -> Any:
        """What the asset noted of itself when it was made; None where it did not."""
        entries = self.manifest.metadata if self.manifest else []
        return next((entry["value"] for entry in entries if entry["name"] == name), None)

    @property
    def files(self) -> list[str]:
        return sorted(self.manifest.files) if self.manifest else []

    def path(self, file: str | None = None) -> Path:
        """Local path of a file, verified; the table itself by default."""
        return self.lake.path(self.city, self.asset, file or f"{self.asset}.parquet", self.manifest)

    def arrow(self, columns: list[str] | None = None, file: str | None = None) -> pa.Table:
        """The table in Arrow."""
        with self._reading():
            return read_arrow(self.path(file), columns)

    def of_regions(self, regions: Collection[str]) -> pa.Table:
        """The rows of these regions; row groups without any are not read."""
        with self._reading():
            return read_arrow(self.path(), regions=regions)

    def batches(self, file: str | None = None) -> Iterator[pa.RecordBatch]:
        """The table as a stream."""
        with self._reading():
            yield from read_batches(self.path(file))

    def frame(self, columns: list[str] | None = None, file: str | None = None) -> pd.DataFrame:
        """The table in pandas; geometry stays WKB."""
        frame: pd.DataFrame = self.arrow(columns, file).to_pandas()
        return frame

    def geo(self) -> gpd.GeoDataFrame:
        """The table in geopandas, in the city's CRS."""
        import geopandas as gpd

        with self._reading():
            frame: gpd.GeoDataFrame = gpd.read_parquet(self.path())
        return frame

    def checkpoint(self, name: str) -> Checkpoint:
        """One checkpoint of a set: `<name>.safetensors` and `<name>.json`."""
        from safetensors.numpy import load_file

        from model_code.methods.base import Checkpoint

        with self._reading():
            return Checkpoint(load_file(self.path(f"{name}.safetensors")), self.record(name))

    def record(self, name: str) -> dict[str, Any]:
        """What a checkpoint says of itself, without its tensors and its provenance."""
        with self._reading():
            found: dict[str, Any] = json.loads(self.path(f"{name}.json").read_text("utf-8"))
        found.pop(_PROVENANCE, None)
        return found

    @property
    def checkpoints(self) -> list[str]:
        return [f.removesuffix(".json") for f in self.files if f.endswith(".json")]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """A file that goes between its check and its opening was replaced."""
        try:
            yield
        except FileNotFoundError as error:
            assert self._seen is not None
            raise _replaced(self._seen) from error


def read(table: str, city: str, *, lake: str | None = None) -> pd.DataFrame | gpd.GeoDataFrame:
    """A table of a city, for notebooks; a GeoDataFrame where it has a geometry.

    `read("timings", city="demo")` gives seconds, peak memory and bytes by asset.

    Raises:
        MissingTableError: the city has no such table (yet).
    """
    from model_code.tables import TABLES

    source = Lake(lake)
    if table == "timings":
        return source.timings(city)
    while True:
        handle = source.handle(city, table)
        try:
            geometry = table in TABLES and TABLES[table].geometry
            return handle.geo() if geometry else handle.frame()
        except ReplacedTableError:  # by a run that goes on meanwhile: read what stands now
            continue


# --- file formats --------------------------------------------------------------------------------


def read_arrow(
    path: Path, columns: list[str] | None = None, regions: Collection[str] | None = None
) -> pa.Table:
    """A Parquet file in Arrow, of some `regions` or of all; a folder named like `x=y` above it is no column of
    the table."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    chosen = None
    if regions is not None:
        chosen = pc.field("region_id").isin(pa.array(list(regions), pa.string()))
    return pq.read_table(path, columns=columns, filters=chosen, partitioning=None)


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """A Parquet file as a stream of record batches."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as parquet:
        yield from parquet.iter_batches(1 << 20)


def table_writer(checker: Checker, value: Any, provenance: dict[str, Any]) -> Writer:
    """Writes a value as the Parquet file of a contract, checking it part by part.

    Args:
        checker: of the table's contract; knows rows and missing values when the file is written.
        value: pandas or GeoDataFrame, Arrow table, or an iterable of record batches (streamed;
            its rows must come in the order of the key).
        provenance: JSON-able; goes into the file's metadata (see `provenance_of`).
    Raises:
        ContractError: while writing, before anything is committed.
    """

    def write(path: Path) -> None:
        import pyarrow.parquet as pq

        from model_code.contracts import arrow_schema

        table = checker.table
        schema = arrow_schema(table)
        metadata = {_PROVENANCE: json.dumps(provenance, sort_keys=True)}
        if table.geometry:
            metadata["geo"] = json.dumps(_geo_metadata(table, value), sort_keys=True)
        schema = schema.with_metadata(metadata)
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for part in _parts(table, value):
                checker.check(part)
                writer.write_table(part.replace_schema_metadata(metadata))

    return write


@dataclass(frozen=True)
class PlainTable:
    """Writes a value as the Parquet file of a contract; `signed` tells it what that was made from."""

    table: Table
    value: Any
    provenance: dict[str, Any] = field(default_factory=dict)

    def __call__(self, path: Path) -> None:
        from model_code.contracts import Checker

        table_writer(Checker(self.table), self.value, self.provenance)(path)


def plain_table_writer(table: Table, value: Any) -> Writer:
    """Writes a table that travels beside another one, under its own contract."""
    return PlainTable(table, value)


def signed(file: str, write: Writer, provenance: dict[str, Any]) -> Writer:
    """The writer of a file that travels beside a table, or without one, with its provenance in it: of a
    table in its metadata, of a checkpoint in its record. Pages and pictures are written as they are."""
    if isinstance(write, PlainTable):
        return replace(write, provenance=provenance)
    return partial(_signed_record, write, provenance) if file.endswith(".json") else write


def _signed_record(write: Writer, provenance: dict[str, Any], path: Path) -> None:
    write(path)
    record = json.loads(path.read_text("utf-8"))
    _write_record(path, {**record, _PROVENANCE: provenance})


def provenance_of(path: Path) -> dict[str, Any]:
    """What a table (Parquet) or a checkpoint (its JSON) was made from, said by the file itself: asset,
    city, fingerprint, and all that this is the digest of. Empty where it does not say."""
    if path.suffix == ".json":
        return dict(json.loads(path.read_text("utf-8")).get(_PROVENANCE, {}))
    import pyarrow.parquet as pq

    found = (pq.read_metadata(path).metadata or {}).get(_PROVENANCE.encode())
    return dict(json.loads(found)) if found else {}


def _parts(table: Table, value: Any) -> Iterator[pa.Table]:
    """The value as Arrow tables that conform to the contract; a frame is put in key order."""
    import pandas as pd
    import pyarrow as pa

    from model_code.contracts import conform

    if isinstance(value, pd.DataFrame):
        frame = value.reset_index(drop=True)
        if table.geometry:
            frame = pd.DataFrame(frame)
            frame[table.geometry] = value.geometry.to_wkb(flavor="iso").array
        try:
            value = pa.Table.from_pandas(frame, preserve_index=False)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise ContractError(
                f"table {table.name!r} cannot be written: {error}",
                fix="make the stage return columns of one type each, each once",
            ) from error
    if isinstance(value, pa.Table):
        # take() on a list<float32> column is slow and can overflow: skip it when already in order
        keys = [(k, "ascending") for k in table.key]
        whole = conform(table, value.replace_schema_metadata(None))
        order = whole.select(list(table.key))
        yield whole if order.sort_by(keys).equals(order) else whole.sort_by(keys)
        return
    for batch in value:
        yield conform(table, batch)


def _geo_metadata(table: Table, value: Any) -> dict[str, Any]:
    """GeoParquet 1.1 file metadata of a GeoDataFrame with one geometry column."""
    import geopandas as gpd
    import numpy as np

    column = table.geometry
    if not isinstance(value, gpd.GeoDataFrame) or value.geometry.name != column:
        raise ContractError(
            f"table {table.name!r} needs a GeoDataFrame whose geometry is {column!r}",
            fix="make the stage return one",
        )
    crs = value.crs.to_json_dict() if value.crs is not None else None
    deep = np.where(value.has_z, " Z", "")
    kinds = {f"{kind}{z}" for kind, z in zip(value.geom_type, deep, strict=True) if kind}
    about = {"encoding": "WKB", "geometry_types": sorted(kinds), "crs": crs}
    bounds = [float(x) for x in value.total_bounds]
    return {
        "version": "1.1.0",
        "primary_column": column,
        "columns": {column: {**about, "bbox": bounds} if np.isfinite(bounds).all() else about},
    }


def checkpoint_writers(name: str, checkpoint: Checkpoint) -> dict[str, Writer]:
    """The two files of a checkpoint: safetensors for the numbers, JSON for the record."""

    def tensors(path: Path) -> None:
        import numpy as np
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        try:
            save_file({k: np.asarray(v, order="C") for k, v in checkpoint.tensors.items()}, path)
        except SafetensorError as error:
            if code := re.search(r"os error (\d+)", str(error)):
                raise OSError(int(code[1]), str(error)) from error
            raise

    def record(path: Path) -> None:
        _write_record(path, checkpoint.record)

    return {f"{name}.safetensors": tensors, f"{name}.json": record}


def _write_record(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, sort_keys=True, indent=1), encoding="utf-8")


def text_writer(text: str) -> Writer:
    """Writes a text file, such as the report."""
    return lambda path: _write_text(path, text)


def bytes_writer(content: bytes) -> Writer:
    """Writes a binary file, such as a picture."""
    return lambda path: _write_bytes(path, content)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _replaced(manifest: Manifest) -> ReplacedTableError:
    return ReplacedTableError(
        f"{manifest.asset!r} of city {manifest.city!r} was replaced by another run while it was read",
        fix="run this again",
    )


def _sync(path: Path) -> None:
    """Make a file or a folder's entries durable before something refers to them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _again(city: str, asset: str) -> str:
    # Where Dagster's settings are: without them it keeps no history, and sends usage statistics.
    home = "" if os.environ.get("DAGSTER_HOME") else "DAGSTER_HOME=$PWD "
    command = f"{home}dagster asset materialize -m pipelines.definitions"
    return f"make it: {command} --select {asset} --partition {city}"
