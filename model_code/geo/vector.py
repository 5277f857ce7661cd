"""Reading vector files and tables, wherever they lie: what every geo stage shares."""

from __future__ import annotations

import contextlib
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from model_code.city import resolve
from model_code.errors import DataError
from model_code.rejections import Rejections

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import pyarrow as pa

# Texts that stand for a missing value in a CSV.
_CSV_NULLS = ["", "NaN", "nan", "NULL", "null"]
_PACKED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz"}
# Suffixes by format of the config; GDAL wants the first of them on a file that has none of them.
_SUFFIXES = {
    "csv": (".csv",),
    "parquet": (".parquet", ".geoparquet"),
    "npy": (".npy",),
    "geojson": (".geojson", ".json"),
    "geopackage": (".gpkg",),
    "shapefile": (".zip", ".shz", ".shp"),
}
# What readers raise of a file that is not what it should be, beside their own errors.
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)


def expand(path: str, root: str, key: str) -> list[str]:
    """The files that a path of the config names (`*` allowed), sorted.

    Raises:
        DataError: no such file; names the config key.
    """
    import fsspec

    url = resolve(path, root)
    fs, local = fsspec.core.url_to_fs(url)
    found = sorted(fs.glob(local)) if "*" in local else [local] if fs.exists(local) else []
    if not found:
        raise DataError(f"{key}: no such file: {url}", fix=f"put the file there, or change {key}")
    return [str(fs.unstrip_protocol(f)) if "://" in url else f for f in found]


def one_file(path: str, root: str, key: str) -> str:
    """The file that a path of the config names, where there can be one only.

    Raises:
        DataError: no such file, or several; names the config key.
    """
    found = expand(path, root, key)
    if len(found) > 1:
        raise DataError(f"{key}: {path} names {len(found)} files", fix="name one file")
    return found[0]


def _path(url: str) -> PurePosixPath:
    """A path or URL without the query of a web address, which may hold a signature; of a chain such as
    `simplecache::https://...`, the query is that of its last link."""
    parts = urlsplit(url.rpartition("::")[2])
    return PurePosixPath(parts.path if parts.scheme in ("http", "https") else url)


def packing(url: str) -> str | None:
    """How a file is compressed, by its last suffix, in fsspec's words."""
    return _PACKED.get(_path(url).suffix.lower())


def _suffix(url: str) -> str:
    """Lower-case suffix of a path or URL, such as `.csv`, without that of a compression."""
    path = _path(url)
    return (path.with_suffix("") if packing(url) else path).suffix.lower()


def format_of(url: str, given: str | None) -> str:
    """What a file is: the word of the config, else by its suffix; empty for GDAL to find out."""
    known = (name for name, suffixes in _SUFFIXES.items() if _suffix(url) in suffixes)
    return given or next(known, "")


def is_table(url: str, given: str | None) -> bool:
    """Whether a file is a table without geometries: a CSV, or Parquet that is no GeoParquet."""
    form = format_of(url, given)
    return form == "csv" or (form == "parquet" and not _is_geoparquet(url))


@contextlib.contextmanager
def _opened(url: str) -> Iterator[Any]:
    """What pyarrow reads from: the path itself, or an open file of an fsspec URL or of what is
    compressed."""
    if "://" not in url and not packing(url):
        yield url
        return
    import fsspec

    with fsspec.open(url, "rb", compression=packing(url)) as file:
        yield file


def _is_geoparquet(url: str) -> bool:
    """Whether a Parquet file has a geometry column; a broken one is for its reader to name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with _opened(url) as file:
            return b"geo" in (pq.read_schema(file).metadata or {})
    except (*BROKEN, pa.ArrowInvalid):
        return False


@contextlib.contextmanager
def _for_gdal(url: str, given: str | None) -> Iterator[str]:
    """A path on this machine whose suffix GDAL knows: the file itself, or a copy."""
    import fsspec

    own = _suffix(url)
    wanted = own if given is None or own in _SUFFIXES[given] else _SUFFIXES[given][0]
    if wanted == own and "://" not in url and not packing(url):
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="cityloom-") as folder:
        copy = Path(folder) / f"file{wanted}"
        with fsspec.open(url, "rb", compression=packing(url)) as file, copy.open("wb") as target:
            shutil.copyfileobj(file, target)
        yield str(copy)


def read_geo(
    url: str, key: str, given: str | None = None, crs: str | None = None, *, own_wins: bool = False
) -> gpd.GeoDataFrame:
    """A vector file (GeoParquet, or whatever GDAL reads) with its CRS.

    Args:
        url: path or fsspec URL.
        key: config key of the path.
        given: `format` of the config.
        crs: `crs` of the config, for a file that states none.
        own_wins: whether a file may state another than `crs`; else that is an error.

    Raises:
        DataError: unreadable, without geometry, without a CRS or with another; names the config
            key.
    """
    import geopandas as gpd
    import pyogrio

    fix = f"give {key} a GeoParquet, GeoJSON, GeoPackage or zipped shapefile"
    try:
        if format_of(url, given) == "parquet":
            with _opened(url) as file:
                frame = gpd.read_parquet(file)
        else:
            with _for_gdal(url, given) as path:
                frame = gpd.read_file(path)
    except (*BROKEN, ValueError, pyogrio.errors.DataSourceError) as error:
        raise DataError(f"{key}: cannot read {url}: {error}", fix=fix) from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise DataError(f"{key}: {url} has no geometry", fix=fix)
    if frame.crs is None or not own_wins:
        return frame.set_crs(crs_of(frame.crs, crs, url, key), allow_override=True)
    return frame


def crs_of(stated: Any, given: str | None, url: str, key: str) -> Any:
    """The CRS of a file: what it states, else what the config gives.

    Args:
        stated: CRS in the file, or None.
        given: `crs` of the config, or None.
        url: the file, for the message.
        key: config key of its path.

    Raises:
        DataError: there is neither, or they differ; names the config key.
    """
    import pyproj

    of_crs = f"{key.removesuffix('.path')}.crs"
    if stated is None and given is None:
        raise DataError(
            f"{key}: {url} says no CRS",
            fix=f"say it as `{of_crs}`, such as EPSG:32618, or write it into the file",
        )
    if stated is None or given is None:
        return given if stated is None else stated
    own, wanted = (pyproj.CRS.from_user_input(crs) for crs in (stated, given))
    # A shapefile tells its CRS by other names, not always the same in every digit.
    if not own.equals(wanted, ignore_axis_order=True) and own.to_epsg() != wanted.to_epsg():
        raise DataError(
            f"{of_crs}: {given} ({wanted.name}), but {url} states {own.to_string():.60} ({own.name})",
            fix=f"take {of_crs} out, or write the right CRS into the file",
        )
    return stated


def check_columns(have: list[str], wanted: Mapping[str, str | None], url: str) -> None:
    """Every column that the config names must be in the file.

    Args:
        have: columns of the file.
        wanted: config key -> column name (None: not asked for).
        url: the file, for the message.

    Raises:
        DataError: naming every missing column by its config key, and what the file has.
    """
    missing = {key: name for key, name in wanted.items() if name and name not in have}
    if missing:
        what = "; ".join(f"{key}: no column {name!r}" for key, name in missing.items())
        raise DataError(f"{what} in {url}", fix=f"name one of its columns: {', '.join(have)}")


def table_columns(url: str, key: str, given: str | None = None) -> list[str]:
    """Column names of a Parquet or CSV file; `given` is the `format` of the config.

    Raises:
        DataError: another format, or unreadable; names the config key.
    """
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    form = format_of(url, given)
    try:
        with _opened(url) as file:
            if form == "parquet":
                return list(pq.read_schema(file).names)
            if form == "csv":
                with csv.open_csv(file) as reader:
                    return list(reader.schema.names)
    except (*BROKEN, pa.ArrowInvalid) as error:
        raise _unreadable(url, key, given, error) from error
    raise DataError(
        f"{key}: {url} is neither Parquet nor CSV",
        fix=f"convert it, or say `{key.removesuffix('.path')}.format: csv` (or parquet) if it is one",
    )


def _unreadable(url: str, key: str, given: str | None, error: Exception) -> DataError:
    advice = f", or change {key.removesuffix('.path')}.format" if given else ""
    return DataError(f"{key}: cannot read {url}: {error}", fix=f"mend the file{advice}")


def record_batches(
    url: str,
    columns: list[str],
    key: str,
    batch_rows: int = 1 << 18,
    given: str | None = None,
) -> Iterator[pa.RecordBatch]:
    """Rows of a Parquet or CSV file in their order, streamed; every CSV column comes as text. `given`
    is the `format` of the config.

    Raises:
        DataError: a line with too many or too few fields, or bytes that are no UTF-8.
    """
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    try:
        with _opened(url) as file:
            if format_of(url, given) != "csv":
                with pq.ParquetFile(file) as parquet:
                    yield from parquet.iter_batches(batch_rows, columns=columns)
                return
            convert = csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()),
                include_columns=columns,
                null_values=_CSV_NULLS,
                strings_can_be_null=True,
            )
            # About 64 bytes a line: blocks of a size like Parquet's batches.
            read = csv.ReadOptions(block_size=min(batch_rows * 64, 1 << 24))
            parse = csv.ParseOptions(newlines_in_values=True)
            with csv.open_csv(file, read, parse, convert) as reader:
                yield from reader
    except (*BROKEN, pa.ArrowInvalid) as error:
        raise _unreadable(url, key, given, error) from error


def read_columns(url: str, columns: list[str], key: str, given: str | None = None) -> pa.Table:
    """The columns of a Parquet or CSV file as one table (CSV: all text)."""
    import pyarrow as pa

    batches = list(record_batches(url, columns, key, given=given))
    if batches:
        return pa.Table.from_batches(batches).select(columns)
    return pa.table({name: pa.array([], pa.string()) for name in columns})


def in_parts(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The same rows as tables of `rows` each, the last of what is left (one of none if there are
    batches without rows alone), so that a file's layout does not tell how its sources were read."""
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += batch.num_rows
        while count >= rows:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, rows)
            waiting, count = table.slice(rows).to_batches(), count - rows
    if waiting:
        yield pa.Table.from_batches(waiting)


def numbers(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """A column as float64; NaN where it is null or no number."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    try:
        parsed = pc.utf8_trim_whitespace(column).cast(pa.float64())
        return np.asarray(parsed.to_numpy(zero_copy_only=False), np.float64)
    except pa.ArrowInvalid:
        return np.asarray(pd.to_numeric(column.to_pandas(), errors="coerce"), np.float64)


def as_ids(column: Any) -> pd.Series:
    """Ids as text, null where there is none; 7, 7.0 and "7" are the same id."""
    import pandas as pd

    values = column.to_pandas() if hasattr(column, "to_pandas") else pd.Series(column)
    if pd.api.types.is_float_dtype(values.dtype):
        whole = values.dropna() % 1 == 0
        values = values.astype("Int64") if whole.all() else values
    elif values.dtype == object:
        values = values.convert_dtypes()
        if pd.api.types.is_float_dtype(values.dtype):
            return as_ids(values)
    return values.astype("str").where(values.notna(), None)


class Sieve:
    """Which rows of one batch are still good; each bad row is noted once, with its first reason.

    Args:
        rejections: where bad rows are noted.
        source: file or table, as it shall stand in `rejected`.
        rows: [B] positions of the batch's rows in that source.
    """

    def __init__(self, rejections: Rejections, source: str, rows: NDArray[np.int64]) -> None:
        self._rejections, self._source, self._rows = rejections, source, rows
        self.good = np.ones(len(rows), bool)
        self.items = np.ones(len(rows))

    def reject(self, bad: Any, reason: str, **found: Any) -> None:
        """Take out the rows of `bad` [B] that are still good; what was `found` there (each [B])
        becomes the detail."""
        hit = np.flatnonzero(np.asarray(bad, bool) & self.good)
        values = [np.asarray(v, object)[hit] for v in found.values()]
        detail = [
            ", ".join(f"{name} {value}" for name, value in zip(found, row, strict=True))
            for row in zip(*values, strict=True)
        ]
        self._rejections.add(self._source, self._rows[hit], reason, detail or "", self.items[hit])
        self.good[hit] = False


def project(
    x: NDArray[np.float64], y: NDArray[np.float64], source: Any, target: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates [N] from one CRS to another, x (or longitude) first; inf where there is none."""
    import pyproj

    x, y = np.array(x, np.float64), np.array(y, np.float64)
    transform_in_place(pyproj.Transformer.from_crs(source, target, always_xy=True), x, y)
    return x, y


def transform_in_place(transformer: Any, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Run a pyproj transformer over coordinates [N] where they stand."""
    if len(x) == 1:  # pyproj turns an array of one into a scalar by a way that numpy deprecates
        x[0], y[0] = transformer.transform(float(x[0]), float(y[0]))
    else:
        transformer.transform(x, y, inplace=True)


def polygonal(geometries: NDArray[Any]) -> NDArray[Any]:
    """Valid polygons and multipolygons [N]: broken ones mended, lines and points within them left
    out; an empty polygon where nothing remains. None stays None."""
    import shapely

    geometries = np.array(geometries, object)
    bad = ~shapely.is_valid(geometries) & ~shapely.is_missing(geometries)
    geometries[bad] = shapely.make_valid(geometries[bad])
    mixed = np.flatnonzero(
        ~np.isin(shapely.get_type_id(geometries), (3, 6)) & ~shapely.is_missing(geometries)
    )
    if len(mixed):
        parts, owner = shapely.get_parts(geometries[mixed], return_index=True)
        nested, inner = shapely.get_parts(parts, return_index=True)  # a multipolygon inside
        owner = owner[inner]
        area = shapely.get_type_id(nested) == 3
        geometries[mixed] = shapely.Polygon()
        if area.any():  # `multipolygons` wants indices without a gap
            kept, piece = np.unique(owner[area], return_inverse=True)
            geometries[mixed[kept]] = shapely.multipolygons(nested[area], indices=piece)
    return geometries
