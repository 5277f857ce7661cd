"""Points of interest and trips: read, checked row by row, projected into the city's CRS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_code.city import PoiSource, TripSource
from model_code.errors import DataError
from model_code.geo.vector import (
    Sieve,
    as_ids,
    check_columns,
    expand,
    in_parts,
    is_table,
    numbers,
    project,
    read_geo,
    record_batches,
    table_columns,
)
from model_code.rejections import Rejections

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Floats = NDArray[np.float64]

# Rows of POIs that are written together, however they were read.
_PART_ROWS = 1 << 20
# What follows a time of day in a clock that says its offset from UTC.
_OFFSET = r"\d:\d{2}.*(?:[Zz]|[+-]\d{2}(?::?\d{2})?)$"


# --- points of interest --------------------------------------------------------------------------


def stream_pois(
    sources: tuple[PoiSource, ...],
    root: str,
    crs: Any,
    rejections: Rejections,
    batch_rows: int = 1 << 18,
) -> Iterator[pa.Table]:
    """The points of interest of all sources (contract `pois`), in the order of the sources; tables
    are read batch by batch.

    A geometry column wins over lon/lat (a line or polygon stands at a point on it), and the CRS
    that its file states wins over `crs` of the config. `columns.name` may be left at its default
    where a file has no such column. A comment column holds lists, or one comment a row as text.
    `rejections` is complete when the stream has ended.

    Args:
        sources: Parquet, GeoParquet, CSV, or what GDAL reads (GeoJSON, GeoPackage).
        root: data root.
        crs: the city's CRS.
        rejections: where bad rows are noted.
        batch_rows: about how many rows of a table stand in memory at a time, beside the part of
            the result that is being filled.

    Raises:
        DataError: a file or a column is missing; names the config key.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        first = 0
        for number, source in enumerate(sources):
            key, rows = f"sources.pois.{number}", 0
            for url in expand(source.path, root, f"{key}.path"):
                for places in _places(source, url, key, batch_rows):
                    yield _pois(places, source, crs, first, rows, rejections)
                    rows += len(places.x)
            first += rows

    return in_parts(batches(), _PART_ROWS)


class _Places(NamedTuple):
    """Columns by role, CRS and coordinates [B] of some rows of a file, as they are."""

    columns: dict[str, Any]
    crs: Any
    x: Floats
    y: Floats


def _pois(
    places: _Places, source: PoiSource, crs: Any, first: int, done: int, rejections: Rejections
) -> pa.RecordBatch:
    """The good ones of some rows; `first` rows stand in earlier sources, `done` in this one before."""
    import pandas as pd
    import pyarrow as pa

    from model_code.contracts import arrow_schema
    from model_code.tables import contract

    columns, file_crs, x, y = places
    rows = np.arange(done, done + len(x))
    sieve = Sieve(rejections, source.path, rows)
    sieve.reject(~(np.isfinite(x) & np.isfinite(y)), "no coordinates")
    x_m, y_m = _projected(x, y, file_crs, crs, sieve)

    category = as_ids(columns["category"]).str.strip()
    sieve.reject((category.isna() | (category == "")).to_numpy(), "no category")
    excluded = category.isin(source.exclude_categories).to_numpy()
    sieve.reject(excluded, "excluded by config", category=category)
    frame = pd.DataFrame(
        {
            "poi_id": first + rows,
            "category": category,
            "name": _texts(columns.get("name"), len(rows)),
            "comments": _comments(columns.get("comments"), len(rows)),
            "x_m": x_m,
            "y_m": y_m,
        }
    )[sieve.good]
    schema = arrow_schema(contract("pois"))
    arrays = [pa.array(frame[field.name], field.type, from_pandas=True) for field in schema]
    return pa.record_batch(arrays, schema=schema)


def _places(source: PoiSource, url: str, key: str, batch_rows: int) -> Iterator[_Places]:
    """The rows of a file in their order: of a table batch by batch, else all of them."""
    import shapely

    wanted = {
        role: name
        for role, name in source.columns.model_dump().items()
        if name and role not in ("lon", "lat")
    }
    vector = not is_table(url, source.format)
    if vector:
        frame = read_geo(url, f"{key}.path", source.format, source.crs, own_wins=True)
        have = [c for c in frame.columns if c != frame.geometry.name]
    else:
        have = table_columns(url, f"{key}.path", source.format)
    if "name" not in source.columns.model_fields_set and wanted.get("name") not in have:
        wanted.pop("name", None)
    asked = {f"{key}.columns.{role}": name for role, name in wanted.items()}
    if not vector:
        asked |= {
            f"{key}.columns.lon": source.columns.lon or "lon",
            f"{key}.columns.lat": source.columns.lat or "lat",
        }
    check_columns(have, asked, url)
    if vector:
        shapes = frame.geometry.to_numpy()
        points = shapely.point_on_surface(shapes)
        is_point = shapely.get_type_id(shapes) == 0
        points[is_point] = shapes[is_point]
        columns = {role: frame[name] for role, name in wanted.items()}
        yield _Places(columns, frame.crs, shapely.get_x(points), shapely.get_y(points))
        return
    names = list(dict.fromkeys(asked.values()))
    for batch in record_batches(url, names, f"{key}.path", batch_rows, given=source.format):
        columns = {role: batch.column(name) for role, name in wanted.items()}
        x, y = (numbers(batch.column(asked[f"{key}.columns.{axis}"])) for axis in ("lon", "lat"))
        yield _Places(columns, source.crs or "EPSG:4326", x, y)


def _projected(x: Floats, y: Floats, source: Any, target: Any, sieve: Sieve) -> tuple[Floats, ...]:
    """Coordinates in the city's CRS; rows that are nowhere on Earth are rejected."""
    import pyproj

    if pyproj.CRS.from_user_input(source).is_geographic:
        with np.errstate(invalid="ignore"):
            off = (np.abs(x) > 180) | (np.abs(y) > 90)
        sieve.reject(off, "coordinates out of range", x=x, y=y)
    x_m, y_m = project(np.where(sieve.good, x, 0.0), np.where(sieve.good, y, 0.0), source, target)
    off = ~(np.isfinite(x_m) & np.isfinite(y_m))
    sieve.reject(off, "coordinates out of range", x=x, y=y)
    return x_m, y_m


def _texts(column: Any, rows: int) -> NDArray[np.object_]:
    """Texts [rows]; None where there is none."""
    if column is None:
        return np.full(rows, None, object)
    texts = as_ids(column)
    values = texts.to_numpy(object)
    values[texts.isna().to_numpy()] = None
    return values


def _comments(column: Any, rows: int) -> NDArray[np.object_]:
    """Arrays of texts [rows]; None throughout where the source has no comments."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    if column is None:
        return np.full(rows, None, object)
    values = column if isinstance(column, pa.Array) else pa.array(column, from_pandas=True)
    if kinds.is_list(values.type) or kinds.is_large_list(values.type):
        row, texts = pc.list_parent_indices(values), pc.list_flatten(values)
    else:
        row, texts = pa.array(np.arange(rows)), values
    told = texts.is_valid()
    ends = np.cumsum(np.bincount(row.filter(told).to_numpy(), minlength=rows))
    offsets = pa.array(np.append(0, ends), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, texts.filter(told).cast(pa.string()))
    return np.asarray(lists.to_numpy(zero_copy_only=False), object)


# --- trips ---------------------------------------------------------------------------------------


def stream_trips(
    source: TripSource,
    root: str,
    crs: Any,
    rejections: Rejections,
    batch_rows: int = 1 << 18,
) -> Iterator[pa.RecordBatch]:
    """Trips (contract `trips`) in the order of the file, batch by batch; never whole in memory.

    Times: text is ISO 8601. A clock that says its offset is taken at its word; one without is in
    `source.timezone`, where an hour that comes twice (autumn) is the first of the two, and one that
    does not exist (spring) becomes the next moment that does. Weekdays are those of the local time.
    A row without usable count, time or place is rejected, and so are the days that the config
    leaves out; `rejections` is complete when the stream has ended.

    Args:
        source: Parquet or CSV files.
        root: data root.
        crs: the city's CRS.
        rejections: where bad rows are noted.
        batch_rows: about how many rows stand in memory at a time.

    Raises:
        DataError: a file or a column is missing, or a column holds no times; names the config key.
    """
    key, given = "sources.trips.path", source.format
    wanted = {
        f"sources.trips.columns.{role}": name
        for role, name in source.columns.model_dump().items()
        if name
    }
    first = 0
    for url in expand(source.path, root, key):
        check_columns(table_columns(url, key, given), wanted, url)
        names = list(dict.fromkeys(wanted.values()))
        for batch in record_batches(url, names, key, batch_rows, given=given):
            yield _trips(batch, source, crs, first, rejections)
            first += batch.num_rows


def _trips(
    batch: pa.RecordBatch, source: TripSource, crs: Any, first: int, rejections: Rejections
) -> pa.RecordBatch:
    import pandas as pd
    import pyarrow as pa

    from model_code.contracts import arrow_schema
    from model_code.tables import contract

    names, rows = source.columns, np.arange(first, first + batch.num_rows)
    sieve = Sieve(rejections, source.path, rows)
    trips: dict[str, Any] = {"trip_id": rows}

    count = numbers(batch.column(names.count)) if names.count else np.ones(len(rows))
    whole = np.isfinite(count) & (count >= 0) & (count % 1 == 0) & (count < 2**53)
    sieve.reject(~whole, "no usable count", count=count)
    sieve.items = np.where(whole, count, 1.0)
    trips["trip_count"] = np.where(whole, count, 0).astype(np.int64)

    clock = batch.column(names.started_at)
    started = utc_times(clock, source.timezone, "sources.trips.columns.started_at")
    sieve.reject(started.isna(), "no usable time", time=clock)
    trips["started_at"] = started
    if source.days != "all":
        weekend = started.tz_convert(source.timezone).day_of_week >= 5
        off = weekend if source.days == "weekday" else ~weekend
        sieve.reject(off, "excluded by config")

    for end in ("origin", "destination"):
        if names.origin_zone:
            zone = as_ids(batch.column(getattr(names, f"{end}_zone")))
            sieve.reject(zone.isna(), f"no {end} zone")
            trips[f"{end}_zone"] = zone
        else:
            x, y = (
                numbers(batch.column(getattr(names, f"{end}_{axis}"))) for axis in ("lon", "lat")
            )
            sieve.reject(~(np.isfinite(x) & np.isfinite(y)), f"no {end} coordinates")
            trips[f"{end}_x_m"], trips[f"{end}_y_m"] = _projected(x, y, source.crs, crs, sieve)

    kept = pd.DataFrame(trips)[sieve.good]
    schema = arrow_schema(contract("trips"))
    columns = [
        pa.array(kept[field.name], field.type, from_pandas=True)
        if field.name in kept
        else pa.nulls(len(kept), field.type)
        for field in schema
    ]
    return pa.record_batch(columns, schema=schema)


def utc_times(clock: pa.Array | pa.ChunkedArray, timezone: str, key: str) -> pd.DatetimeIndex:
    """Times in UTC, microseconds; NaT where there is none. The rules are those of `stream_trips`.

    Raises:
        DataError: the column holds neither times nor text; names the config key.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.types as kinds

    if kinds.is_string(clock.type) or kinds.is_large_string(clock.type):
        texts = clock.to_pandas().str.strip()
        stated = texts.str.contains(_OFFSET, regex=True, na=False)
        local = pd.to_datetime(texts.where(~stated), format="ISO8601", errors="coerce")
        times = _in_zone(pd.DatetimeIndex(local), timezone)
        if stated.any():
            own = pd.to_datetime(texts.where(stated), format="ISO8601", errors="coerce", utc=True)
            times = times.where(~stated, pd.DatetimeIndex(own).as_unit("us"))
        return times
    if not (kinds.is_timestamp(clock.type) or kinds.is_date(clock.type)):
        raise DataError(
            f"{key}: the column holds {clock.type}, not times", fix="give times or ISO 8601 text"
        )
    zone = clock.type.tz if kinds.is_timestamp(clock.type) else None
    # Nanoseconds may be cut: no table here is finer than a microsecond.
    plain = clock.cast(pa.timestamp("us", zone), safe=False).cast(pa.timestamp("us"))
    naive = pd.DatetimeIndex(plain.to_numpy(zero_copy_only=False))
    return naive.tz_localize("UTC") if zone else _in_zone(naive, timezone)


def _in_zone(naive: pd.DatetimeIndex, timezone: str) -> pd.DatetimeIndex:
    first = np.ones(len(naive), bool)  # of two hours with one name the earlier, in summer time
    local = naive.as_unit("us").tz_localize(timezone, ambiguous=first, nonexistent="shift_forward")
    return local.tz_convert("UTC")
