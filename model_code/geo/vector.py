"""Reading vector files and tables, wherever they lie: what every geo stage shares."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

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


def suffix(url: str) -> str:
    """Lower-case suffix of a path or URL, such as `.csv`."""
    return PurePosixPath(url).suffix.lower()


@contextlib.contextmanager
def _opened(url: str) -> Iterator[Any]:
    """What pyarrow reads from: the path itself, or an open file of an fsspec URL."""
    if "://" not in url:
        yield url
        return
    import fsspec

    with fsspec.open(url, "rb") as file:
        yield file


def is_geoparquet(url: str) -> bool:
    """Whether a file is Parquet with a geometry column; a broken file is for its reader to name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if suffix(url) not in (".parquet", ".geoparquet"):
        return False
    try:
        with _opened(url) as file:
            return b"geo" in (pq.read_schema(file).metadata or {})
    except (OSError, pa.ArrowInvalid):
        return False


def read_geo(url: str, key: str) -> gpd.GeoDataFrame:
    """A vector file (GeoParquet, or whatever GDAL reads) with its CRS.

    Raises:
        DataError: unreadable, without geometry, or without a CRS; names the config key.
    """
    import geopandas as gpd
    import pyogrio

    fix = f"give {key} a GeoParquet, GeoJSON, GeoPackage or zipped shapefile"
    try:
        with _opened(url) as file:
            if suffix(url) in (".parquet", ".geoparquet"):
                frame = gpd.read_parquet(file)
            else:
                frame = gpd.read_file(file if isinstance(file, str) else io.BytesIO(file.read()))
    except (OSError, ValueError, pyogrio.errors.DataSourceError) as error:
        raise DataError(f"{key}: cannot read {url}: {error}", fix=fix) from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise DataError(f"{key}: {url} has no geometry", fix=fix)
    if frame.crs is None:
        raise DataError(f"{key}: {url} says no CRS", fix="write the file with its CRS")
    return frame


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


def table_columns(url: str, key: str) -> list[str]:
    """Column names of a Parquet or CSV file.

    Raises:
        DataError: another format, or unreadable; names the config key.
    """
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    try:
        with _opened(url) as file:
            if suffix(url) in (".parquet", ".geoparquet"):
                return list(pq.read_schema(file).names)
            if suffix(url) == ".csv":
                with csv.open_csv(file) as reader:
                    return list(reader.schema.names)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{key}: cannot read {url}: {error}", fix="mend the file") from error
    raise DataError(f"{key}: {url} is neither Parquet nor CSV", fix=f"convert it, or change {key}")


def record_batches(
    url: str,
    columns: list[str],
    key: str,
    batch_rows: int = 1 << 18,
    coded: Sequence[str] = (),
) -> Iterator[pa.RecordBatch]:
    """Rows of a Parquet or CSV file in their order, streamed; every CSV column comes as text, a
    `coded` column of Parquet as a dictionary of texts.

    Raises:
        DataError: a line with too many or too few fields, or bytes that are no UTF-8.
    """
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    try:
        with _opened(url) as file:
            if suffix(url) != ".csv":
                with pq.ParquetFile(file, read_dictionary=list(coded)) as parquet:
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
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{key}: cannot read {url}: {error}", fix="mend the file") from error


def read_columns(url: str, columns: list[str], key: str) -> pa.Table:
    """The columns of a Parquet or CSV file as one table (CSV: all text)."""
    import pyarrow as pa

    batches = list(record_batches(url, columns, key))
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
