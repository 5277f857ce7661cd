"""Counts by region: points of interest, trips from region to region, in- and outflow.

Points and trips are counted by DuckDB over Parquet as a stream, in whole numbers, so that two runs
give the same bytes. For N regions an index is a row of the regions table.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from model_code.city import OdSource, Partition, Polygons, Zones
from model_code.errors import DataError
from model_code.geo.join import Locator
from model_code.geo.regions import polygon_ids, read_polygons
from model_code.geo.vector import (
    BROKEN,
    as_ids,
    check_columns,
    expand,
    format_of,
    numbers,
    packing,
    read_columns,
    record_batches,
    table_columns,
)
from model_code.hours import HOURS
from model_code.rejections import Rejections
from model_code.tables import contract

if TYPE_CHECKING:
    import duckdb
    import geopandas as gpd
    import pandas as pd
    import pyarrow as pa

Ids = NDArray[np.object_]


@contextlib.contextmanager
def _duckdb(path: str = "") -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of this call alone: no downloads, at most 2 GB of memory, then a temporary folder.

    Files of an fsspec URL are read through fsspec.
    """
    import duckdb

    with tempfile.TemporaryDirectory(prefix="cityloom-") as folder:
        config: dict[str, Any] = {
            "autoinstall_known_extensions": "false",
            "memory_limit": "2GB",
            "temp_directory": folder,
        }
        with duckdb.connect(config=config) as connection:
            if "://" in path:
                import fsspec

                connection.register_filesystem(fsspec.core.url_to_fs(path)[0])
            yield connection


_SLIVER = 1e-3  # share of a zone below which an overlap is a sliver of its border


# --- points of interest --------------------------------------------------------------------------


def region_pois(
    pois_path: str, locator: Locator, region_ids: Ids, rejections: Rejections
) -> Iterator[pa.RecordBatch]:
    """POIs that lie in a region, with it (contract `region_pois`), as a stream; the others are
    rejected, and `rejections` is complete when it has ended. Yielded + rejected = read.

    Args:
        pois_path: Parquet with the contract `pois`.
        locator: finds the regions of points.
        region_ids: [N] ids in the order of the regions table.
        rejections: where POIs in no region are noted.
    """
    import pyarrow as pa

    ids = pa.array(region_ids, pa.string())
    for batch in record_batches(pois_path, ["poi_id", "category", "x_m", "y_m"], "pois", 1 << 20):
        region = locator.locate(numbers(batch.column("x_m")), numbers(batch.column("y_m")))
        outside = batch.column("poi_id").to_numpy()[region < 0]
        rejections.add("pois", outside, "outside all regions")
        columns = {
            "poi_id": batch.column("poi_id"),
            "region_id": ids.take(pa.array(region, mask=region < 0)),
            "category": batch.column("category"),
        }
        yield pa.record_batch(columns).filter(pa.array(region >= 0))


def count_pois(region_pois_path: str) -> pa.Table:
    """POIs by region and category (contract `poi_counts`).

    Args:
        region_pois_path: Parquet with the contract `region_pois`.
    """
    with _duckdb(region_pois_path) as connection:
        return (
            connection.read_parquet(region_pois_path, hive_partitioning=False)
            .aggregate("region_id, category, count(*) AS poi_count")
            .order("region_id, category")
            .to_arrow_table()
        )


def _with_ids(table: pa.Table, columns: dict[str, str], region_ids: Ids) -> pd.DataFrame:
    """A table with indices made into one with ids: {column of indices: column of ids}."""
    import pyarrow as pa

    ids = pa.array(region_ids, pa.string())
    for old, new in columns.items():
        at = table.column_names.index(old)
        table = table.set_column(at, new, ids.take(table.column(old).combine_chunks()))
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _positions(texts: Any, ids: Any) -> NDArray[np.int64]:
    """Position in `ids` of each text; -1 where it is none of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(texts, pa.ChunkedArray):
        texts = pa.chunked_array([pa.array(texts, pa.string(), from_pandas=True)])
    found = pc.index_in(texts.cast(pa.string()), value_set=pa.array(ids, pa.string()))
    return np.asarray(pc.fill_null(found, -1).to_numpy(), np.int64)


def poi_texts(pois: pd.DataFrame, region_pois: pd.DataFrame) -> pd.DataFrame:
    """Names and comments of each region that has POIs (contract `poi_texts`), ordered by poi_id.

    `comments` is null in a region none of whose POIs comes from a source with comments.
    """
    import pyarrow as pa

    inside = pois.merge(region_pois[["poi_id", "region_id"]], on="poi_id")
    inside = inside.sort_values(["region_id", "poi_id"])
    inside["region"], ids = inside["region_id"].factorize()
    present = np.unique(inside["region"])
    told = inside.dropna(subset="comments")
    silent = pa.array(~np.isin(present, told["region"]))
    named = inside.dropna(subset="name")
    said = told.explode("comments").dropna(subset="comments")
    names, comments, name_categories, comment_categories = (
        _lists(rows["region"].to_numpy(np.int64), rows[column], present, missing)
        for rows, column, missing in (
            (named, "name", None),
            (said, "comments", silent),
            (named, "category", None),
            (said, "category", silent),
        )
    )
    frame: pd.DataFrame = pa.table(
        [pa.array(ids, pa.string()), names, comments, name_categories, comment_categories],
        contract("poi_texts").names(),
    ).to_pandas()
    return frame


def _lists(
    region: NDArray[np.int64], texts: Any, present: NDArray[np.int64], missing: Any
) -> pa.ListArray:
    """The texts of each of the regions that are present, as lists, null where `missing`; `region`
    ascends."""
    import pyarrow as pa

    offsets = np.append(np.searchsorted(region, present), len(region))
    texts = pa.array(texts, pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), texts, mask=missing)


# --- trips ---------------------------------------------------------------------------------------


def count_flows(
    trips_path: str,
    locator: Locator,
    region_ids: Ids,
    *,
    timezone: str,
    shares: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, Rejections]:
    """Trips by origin, destination and local hour of the start (contract `flows`, source `trips`).

    Both ends must lie in a region: any other trip is rejected. Trips between zones are shared to
    the regions by area at both ends; what falls on a part of a zone outside all regions is
    rejected with that part of the trips, as a row of the zone. Counted + rejected = read.

    Args:
        trips_path: Parquet with the contract `trips`.
        locator: finds the regions of points.
        region_ids: [N] ids in the order of the regions table.
        timezone: where the local hour is read.
        shares: of `zone_shares`, when trips name zones.
    """
    rejections = Rejections()
    with _duckdb(trips_path) as connection:
        hour = local_hour("started_at", timezone, *_time_range(connection, trips_path))
        if shares is not None:
            flows = _zone_flows(connection, trips_path, hour, shares, len(region_ids), rejections)
        else:
            flows = _point_flows(connection, trips_path, hour, locator, len(region_ids), rejections)
    return _flow_frame("trips", *flows, region_ids), rejections


def _flow_frame(
    source: str, origin: Any, destination: Any, hour: Any, count: Any, region_ids: Ids
) -> pd.DataFrame:
    """Contract `flows` of indices and counts, which are in order; hour None: no hour."""
    import pyarrow as pa

    n = len(count)
    table = pa.table(
        {
            "source": pa.repeat(source, n),
            "origin_id": pa.array(origin, pa.int64()),
            "destination_id": pa.array(destination, pa.int64()),
            "hour": pa.nulls(n, pa.int8()) if hour is None else pa.array(hour, pa.int8()),
            "trip_count": pa.array(count, pa.float64()),
        }
    )
    ends = {"origin_id": "origin_id", "destination_id": "destination_id"}
    frame = _with_ids(table, ends, region_ids)
    return frame.astype({"hour": "Int8"})


def _time_range(connection: duckdb.DuckDBPyConnection, path: str) -> tuple[int, int]:
    """First and last start in seconds since 1970 (0 without any trip)."""
    ends = "epoch_us(min(started_at)) // 1000000, epoch_us(max(started_at)) // 1000000"
    first, last = connection.read_parquet(path).aggregate(ends).fetchall()[0]
    return first or 0, last or 0


def local_hour(column: str, timezone: str, first: int, last: int) -> str:
    """SQL for the local hour of a UTC timestamp: the offsets in force between `first` and `last`
    (seconds since 1970) written out, several times faster than a calendar in the database."""
    changes = _offset_changes(timezone, first, last)

    def offset(changes: list[tuple[int, int]]) -> str:
        if len(changes) == 1:
            return str(changes[0][1] * 1_000_000)
        middle = len(changes) // 2
        early, late = offset(changes[:middle]), offset(changes[middle:])
        at = changes[middle][0] * 1_000_000
        return f"CASE WHEN epoch_us({column}) < {at} THEN {early} ELSE {late} END"

    # A million days keep the sum positive, where DuckDB's // rounds down.
    local = f"epoch_us({column}) + {1_000_000 * 86_400_000_000} + {offset(changes)}"
    return f"CAST(({local}) // 3600000000 % 24 AS TINYINT)"


def _offset_changes(timezone: str, first: int, last: int) -> list[tuple[int, int]]:
    """(second since 1970, offset from UTC in seconds from then on), the first at or before `first`.

    Offsets change at whole quarters of an hour (everywhere since the 1930s).
    """
    import pandas as pd

    def offsets(seconds: NDArray[np.int64]) -> NDArray[np.int64]:
        utc = pd.DatetimeIndex(seconds.astype("datetime64[s]")).tz_localize("UTC")
        local = utc.tz_convert(ZoneInfo(timezone)).tz_localize(None)
        return np.asarray((local - utc.tz_localize(None)) // pd.Timedelta(seconds=1), np.int64)

    day, quarter = 86_400, 900
    days = np.arange(first // day, last // day + 2) * day
    by_day = offsets(days)
    changes = [(int(days[0]), int(by_day[0]))]
    for at in np.flatnonzero(np.diff(by_day)):
        times = np.arange(days[at], days[at + 1] + quarter, quarter)
        within = offsets(times)
        changes += [
            (int(times[i + 1]), int(within[i + 1])) for i in np.flatnonzero(np.diff(within))
        ]
    return changes


def _point_flows(
    connection: duckdb.DuckDBPyConnection,
    path: str,
    hour: str,
    locator: Locator,
    n: int,
    rejections: Rejections,
) -> tuple[Any, Any, Any, Any]:
    """Flows of trips by points: each batch is located and added up, then the sums of all batches.

    Python hands DuckDB ready tables: PROJ must not run in a database's threads.
    """
    import pyarrow as pa

    names = ["trip_id", "trip_count", "started_at"]
    ends = [f"{end}_{axis}_m" for end in ("origin", "destination") for axis in ("x", "y")]
    connection.execute("CREATE TABLE sums (pair BIGINT, hour TINYINT, trips BIGINT)")
    for batch in record_batches(path, names + ends, "trips", 1 << 20):
        origin, destination = (
            locator.locate(numbers(batch.column(x)), numbers(batch.column(y)))
            for x, y in (ends[:2], ends[2:])
        )
        trip, count = (batch.column(c).to_numpy() for c in names[:2])
        for bad, reason in (
            (origin < 0, "origin outside all regions"),
            ((origin >= 0) & (destination < 0), "destination outside all regions"),
        ):
            rejections.add("trips", trip[bad], reason, items=count[bad])
        pair = np.where((origin >= 0) & (destination >= 0), origin * n + destination, -1)
        located = pa.table(
            [pair, batch.column("started_at"), batch.column("trip_count")],
            ["pair", "started_at", "trip_count"],
        )
        connection.from_arrow(located).filter("pair >= 0").aggregate(
            f"pair, {hour} AS hour, sum(trip_count)", "pair, hour"
        ).insert_into("sums")
    table = (
        connection.table("sums")
        .aggregate("pair, hour, CAST(sum(trips) AS BIGINT) AS trips", "pair, hour")
        .order("pair, hour")
        .to_arrow_table()
    )
    pair, hours, trips = (table.column(c).to_numpy() for c in ("pair", "hour", "trips"))
    return pair // n, pair % n, hours, trips


def _zone_flows(
    connection: duckdb.DuckDBPyConnection,
    path: str,
    hour: str,
    shares: pd.DataFrame,
    n: int,
    rejections: Rejections,
) -> tuple[Any, Any, Any, Any]:
    """Flows of trips by zones: added up by pair of zones and hour, then shared to regions."""
    import scipy.sparse as sparse

    trips = connection.read_parquet(path)
    table = trips.aggregate(
        f"origin_zone, destination_zone, {hour} AS hour, CAST(sum(trip_count) AS BIGINT) AS trips",
        "origin_zone, destination_zone, hour",
    ).to_arrow_table()
    zones = np.unique(shares["zone"].to_numpy(object))
    ends = [_positions(table.column(f"{end}_zone"), zones) for end in ("origin", "destination")]
    count = table.column("trips").to_numpy().astype(float)
    hours = table.column("hour").to_numpy()
    known = (ends[0] >= 0) & (ends[1] >= 0)
    if not known.all():
        _reject_unknown_zones(connection, path, zones, rejections)

    share = sparse.csr_array(
        (shares["share"], (_positions(shares["zone"], zones), shares["region"])), (len(zones), n)
    )
    inside = share.sum(axis=1)
    origin, destination, count, hours = ends[0][known], ends[1][known], count[known], hours[known]
    lost = (
        ("origin", origin, count * (1 - inside[origin])),
        ("destination", destination, count * inside[origin] * (1 - inside[destination])),
    )
    for end, zone, part in lost:
        items = np.bincount(zone, part, len(zones))
        at = np.flatnonzero(items > 0)
        detail = [f"zone {zones[z]}: {1 - inside[z]:.2%} of its area" for z in at]
        rejections.add("zones", at, f"{end} zone outside all regions", detail, items[at])

    found = []
    for h in np.unique(hours):
        now = hours == h
        pairs = sparse.csr_array((count[now], (origin[now], destination[now])), [len(zones)] * 2)
        flow = share.T @ pairs @ share
        flow.eliminate_zeros()
        flow = flow.tocoo()
        found.append((flow.row, flow.col, np.full(flow.nnz, h), flow.data))
    rows, columns, hours, values = (
        (np.concatenate(part) for part in zip(*found, strict=True)) if found else [np.empty(0)] * 4
    )
    order = np.lexsort((hours, columns, rows))
    return rows[order], columns[order], hours[order], values[order]


def _reject_unknown_zones(
    connection: duckdb.DuckDBPyConnection, path: str, zones: Any, rejections: Rejections
) -> None:
    """Note every trip whose origin or destination is no zone."""
    import pyarrow as pa

    known = connection.from_arrow(pa.table({"zone": pa.array(zones, pa.string())}))
    known.create_view("known_zones")
    found = (
        connection.read_parquet(path)
        .filter(
            "origin_zone IS NULL OR origin_zone NOT IN (FROM known_zones)"
            " OR destination_zone IS NULL OR destination_zone NOT IN (FROM known_zones)"
        )
        .project("trip_id, origin_zone, destination_zone, trip_count")
        .order("trip_id")
        .to_arrow_reader(1 << 18)
    )
    for batch in found:
        rows = batch.to_pandas()
        at_origin = ~rows["origin_zone"].isin(zones)
        for end, bad in (("origin", at_origin), ("destination", ~at_origin)):
            part = rows[bad]
            detail = ("zone " + part[f"{end}_zone"].astype(str)).tolist()
            items = part["trip_count"].to_numpy()
            rejections.add(
                "trips", part["trip_id"].to_numpy(), f"unknown {end} zone", detail, items
            )


def zone_shares(
    zones: Zones, regions: gpd.GeoDataFrame, root: str
) -> tuple[pd.DataFrame, Rejections]:
    """Share of each zone's area in each region: columns zone, region (index), share; and the rows
    of the file that are no zone, or not as they stand there.

    A row without id, geometry or area is rejected as no item: what it costs are trips, which
    `count_flows` counts. Zones with the same id are one. Overlaps below a thousandth of what a zone has in all regions are
    slivers of its border, and do not count. Where regions overlap, a zone's shares are scaled to add up to 1
    at most, so that no trip is counted twice. A zone outside all regions has one row of share 0.

    Raises:
        DataError: the file or its id column is missing; names the config key.
    """
    import pandas as pd
    import shapely

    rejections = Rejections()
    ids, shapes, _ = read_polygons(
        zones, regions.crs, root, "sources.trips.zones", rejections, lost=0
    )
    targets = regions.geometry.to_numpy()
    zone, region = shapely.STRtree(targets).query(shapes, predicate="intersects")
    common = shapely.area(shapely.intersection(shapes[zone], targets[region]))
    share = common / shapely.area(shapes)[zone]
    total = np.bincount(zone, share, len(ids))
    # Two drawings of one border never agree: a sliver is no overlap, and what it holds is shared
    # out among the zone's real ones.
    real = share >= _SLIVER * total[zone]
    zone, region, share = zone[real], region[real], share[real]
    share *= (total / np.maximum(np.bincount(zone, share, len(ids)), 1e-300))[zone]
    # Within rounding of 1, a zone lies in the regions as a whole.
    scale = np.where(total > 1 - 1e-9, np.maximum(total, 1e-300), 1.0)
    outside = np.flatnonzero(total == 0)
    frame = pd.DataFrame(
        {
            "zone": ids[np.concatenate([zone, outside])],
            "region": np.concatenate([region, np.zeros(len(outside), np.int64)]),
            "share": np.concatenate([share / scale[zone], np.zeros(len(outside))]),
        }
    )
    frame = frame[(frame["share"] > 0) | ~frame["zone"].isin(ids[total > 0])]
    return frame.sort_values(["zone", "region"], ignore_index=True), rejections


# --- ready matrices ------------------------------------------------------------------------------


def read_od(
    source: OdSource, regions: gpd.GeoDataFrame, partition: Partition, root: str
) -> tuple[pd.DataFrame, Rejections]:
    """A ready origin-destination matrix (contract `flows`, source `od`, no hours); zeros are left
    out. What is negative or no number, and what belongs to no region, is rejected. Files of one
    pattern add up.

    Args:
        source: `.npy` [M, M], rows and columns in the order of the rows of the polygons file that
            is the partition; or tables (Parquet, CSV) of region ids and counts.
        regions: contract `regions`.
        partition: the partition that they were made with.
        root: data root.

    Raises:
        DataError: the shape does not fit, or a column is missing; names the config key.
    """
    rejections = Rejections()
    ids = regions["region_id"].to_numpy(object)
    urls = expand(source.path, root, "sources.od.path")
    matrices = any(format_of(url, source.format) == "npy" for url in urls)
    order = None  # of the rows of a matrix
    if matrices and isinstance(partition, Polygons):
        _, order = polygon_ids(partition, root, "partition")
    first, pairs, counts = 0, [], []
    for url in urls:
        origin, destination, count = _entries(url, source, order)
        ends = [_positions(end, ids) for end in (origin, destination)]
        rows = np.arange(first, first + len(count))
        first += len(count)
        usable = np.isfinite(count) & (count >= 0)
        detail = [f"count {c}" for c in count[~usable]]
        rejections.add(source.path, rows[~usable], "no usable count", detail)
        for end, at, bad in (
            ("origin", origin, ends[0] < 0),
            ("destination", destination, (ends[0] >= 0) & (ends[1] < 0)),
        ):
            hit = usable & bad & (count > 0)
            detail = [f"region {i}" for i in at[hit]]
            rejections.add(source.path, rows[hit], f"{end} is no region", detail, count[hit])
        good = usable & (count > 0) & (ends[0] >= 0) & (ends[1] >= 0)
        pairs.append(ends[0][good] * len(ids) + ends[1][good])
        counts.append(count[good])
    pair, owner = np.unique(np.concatenate(pairs), return_inverse=True)
    total = np.bincount(owner, np.concatenate(counts), len(pair))
    return _flow_frame("od", pair // len(ids), pair % len(ids), None, total, ids), rejections


def _entries(url: str, source: OdSource, order: Ids | None) -> tuple[Any, Any, NDArray[np.float64]]:
    """Ids of both ends and counts of all entries of one file; `order` is as `_matrix` wants it."""
    key = "sources.od.path"
    if format_of(url, source.format) == "npy":
        return _matrix(url, order)
    columns = source.columns
    asked = {f"sources.od.columns.{role}": name for role, name in columns.model_dump().items()}
    check_columns(table_columns(url, key, source.format), asked, url)
    table = read_columns(url, list(dict.fromkeys(asked.values())), key, source.format)
    origin, destination = (
        as_ids(table.column(name)).to_numpy(object)
        for name in (columns.origin, columns.destination)
    )
    return origin, destination, numbers(table.column(columns.trip_count))


def _matrix(url: str, ids: Ids | None) -> tuple[Ids, Ids, NDArray[np.float64]]:
    """Ids of both ends and counts of all entries of a matrix file, row by row; `ids` [M] are those of the
    polygons file in the order of its rows, None where the partition is none."""
    import fsspec

    fix = (
        "give a square matrix of numbers with one row for each row of the polygons file, or a table"
    )
    if ids is None:
        raise DataError(
            f"sources.od.path: {url} is a matrix, but only given polygons have an order of rows",
            fix="set partition.kind: polygons, or give a table of region ids and counts",
        )
    try:
        with fsspec.open(url, "rb", compression=packing(url)) as file:
            content = io.BytesIO(file.read())
        matrix = np.load(content, allow_pickle=False)
        counts = np.asarray(matrix, np.float64)
    except (*BROKEN, ValueError, TypeError) as error:
        raise DataError(f"sources.od.path: cannot read {url}: {error}", fix=fix) from error
    if counts.shape != (len(ids), len(ids)):
        raise DataError(
            f"sources.od.path: {url} is {list(counts.shape)}, but the file of partition.path has "
            f"{len(ids)} rows, hence [{len(ids)}, {len(ids)}] is wanted",
            fix=fix,
        )
    return np.repeat(ids, len(ids)), np.tile(ids, len(ids)), counts.ravel()


# --- in- and outflow -----------------------------------------------------------------------------


def make_mobility(flows: pd.DataFrame, region_ids: Ids) -> pd.DataFrame:
    """Out- and inflow of every region (contract `mobility`), for each source and, where the source
    knows hours, each hour of the day; zeros are written out."""
    import pandas as pd

    n = len(region_ids)
    frames = []
    for source, rows in flows.groupby("source", sort=True):
        slots = 1 if rows["hour"].isna().all() else HOURS
        slot = rows["hour"].fillna(0).to_numpy(np.int64)
        out, into = (
            np.bincount(
                _positions(rows[end], region_ids) * slots + slot, rows["trip_count"], n * slots
            )
            for end in ("origin_id", "destination_id")
        )
        hour = pd.array(np.tile(np.arange(slots), n), "Int8")
        if slots == 1:
            hour[:] = pd.NA
        frames.append(
            pd.DataFrame(
                {
                    "source": source,
                    "region_id": np.repeat(region_ids, slots),
                    "hour": hour,
                    "outflow": out,
                    "inflow": into,
                }
            )
        )
    columns = ["source", "region_id", "hour", "outflow", "inflow"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
