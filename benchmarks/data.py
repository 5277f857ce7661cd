"""Speed and memory of the data stages, beside the bare library and the naive way, in one run.

    python benchmarks/data.py [SECTION ...] [--quick]

Each row is a process of its own, held to two cores; its time is the best of three (`CPU s` is that
of all its threads, and tells more on a busy machine), its memory the peak of the process. The first
row of a way is at a tenth of the size: the time of a way with a goal must not grow faster than that
(eleven times at most, for what timing is worth). Exits with 1 when a goal is missed.

A way that joins points is held against a bare group-by and the join's own time; beside it stands
the strict ratio, against the barest that could be asked: a group-by of ids that are given.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Work = Callable[[], Any]
BOX = (-74.1, 40.6, -73.9, 40.78)  # degrees: about 17 x 20 km
CRS = "EPSG:32618"
GROWTH = 11.0  # most times the time that ten times the items may take


class Goal(NamedTuple):
    """A way, the others that it is held against (one after the other), and the ratio of speed to
    reach; missed against `strict`, that is told, but is no failure."""

    way: str
    others: tuple[str, ...]
    ratio: float
    strict: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """What is compared: `make` writes files, each way returns what is to be timed.

    `ways` gives name -> (function of folder and size, share of the size that it works on).
    """

    size: int
    ways: dict[str, tuple[Callable[[Path, int], Work], float]]
    goals: tuple[Goal, ...]
    make: Callable[[Path, int], None] | None = None
    memory_goal_mib: dict[str, int] = field(default_factory=dict)


# --- points to regions ---------------------------------------------------------------------------


def lonlat(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    west, south, east, north = BOX
    return rng.uniform(west, east, n), rng.uniform(south, north, n)


def xy(n: int) -> tuple[np.ndarray, np.ndarray]:
    import pyproj

    return pyproj.Transformer.from_crs("EPSG:4326", CRS, always_xy=True).transform(*lonlat(n))


def regions_of(partition: Any) -> Any:
    from model_code.city import Boundary
    from model_code.geo.regions import make_boundary, make_regions

    return make_regions(make_boundary("box", Boundary(bbox=BOX), CRS, ""), partition, "")[0]


def polygons_of(count: int) -> Any:
    """Irregular polygons without gaps, with about 50 vertices each."""
    import geopandas as gpd
    import shapely

    seeds = shapely.MultiPoint(np.column_stack(xy(count)))
    cells = shapely.get_parts(shapely.voronoi_polygons(seeds))
    cells = shapely.segmentize(cells, 0.055 * 17_000 / np.sqrt(count) * np.sqrt(6))
    ids = np.arange(len(cells)).astype(str)
    return gpd.GeoDataFrame({"region_id": ids}, geometry=cells, crs=CRS)


def h3_ours(folder: Path, n: int) -> Work:
    from model_code.city import Hexagons
    from model_code.geo.join import Locator

    partition = Hexagons(kind="h3", resolution=9)
    locator, (lon, lat) = Locator(regions_of(partition), partition), lonlat(n)
    return lambda: locator.locate_lonlat(lon, lat)


def h3_bare(folder: Path, n: int) -> Work:
    import h3ronpy.vector

    lon, lat = lonlat(n)
    return lambda: h3ronpy.vector.coordinates_to_cells(lat, lon, 9)


def h3_naive(folder: Path, n: int) -> Work:
    import h3

    points = list(zip(*(v.tolist() for v in lonlat(n)), strict=True))
    return lambda: [h3.latlng_to_cell(lat, lon, 9) for lon, lat in points]


def squares_ours(folder: Path, n: int) -> Work:
    from model_code.city import Squares
    from model_code.geo.join import Locator

    partition = Squares(kind="square", size_m=500)
    locator, (lon, lat) = Locator(regions_of(partition), partition), lonlat(n)
    return lambda: locator.locate_lonlat(lon, lat)


def squares_bare(folder: Path, n: int) -> Work:
    import pyproj

    project = pyproj.Transformer.from_crs("EPSG:4326", CRS, always_xy=True).transform
    lon, lat = lonlat(n)

    def work() -> Any:
        x, y = project(lon, lat)
        return np.floor(x / 500).astype(np.int64), np.floor(y / 500).astype(np.int64)

    return work


def sjoin(regions: Any, x: np.ndarray, y: np.ndarray) -> Any:
    import geopandas as gpd

    points = gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, y), crs=CRS)
    return gpd.sjoin(points, regions[["geometry"]], how="left", predicate="within")


def squares_naive(folder: Path, n: int) -> Work:
    from model_code.city import Squares

    regions, (x, y) = regions_of(Squares(kind="square", size_m=500)), xy(n)
    return lambda: sjoin(regions, x, y)


def polygons_ours(folder: Path, n: int) -> Work:
    from model_code.city import Polygons
    from model_code.geo.join import Locator

    regions, (x, y) = polygons_of(20_000), xy(n)
    # A new locator each time: sjoin builds its tree each time too.
    return lambda: Locator(regions, Polygons(kind="polygons", path="", id="")).locate(x, y)


def polygons_naive(folder: Path, n: int) -> Work:
    regions, (x, y) = polygons_of(20_000), xy(n)
    return lambda: sjoin(regions, x, y)


# --- counts --------------------------------------------------------------------------------------

CATEGORIES, NAMES = 60, 1_000


def counts_make(folder: Path, n: int) -> None:
    """POIs as the stages `pois` and `region_pois` write them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from model_code.contracts import arrow_schema
    from model_code.tables import contract

    rng = np.random.default_rng(0)
    x, y = xy(n)
    categories, names = (
        pa.array([f"{kind} {i}" for i in range(count)])
        for kind, count in (("category", CATEGORIES), ("name", NAMES))
    )
    columns = {
        "poi_id": np.arange(n),
        "category": categories.take(pa.array(rng.geometric(0.05, n).clip(1, CATEGORIES) - 1)),
        "name": names.take(pa.array(rng.integers(0, NAMES, n))),
        "x_m": x,
        "y_m": y,
    }
    schema = arrow_schema(contract("pois"))
    pois = [
        pa.array(columns[f.name]).cast(f.type) if f.name in columns else pa.nulls(n, f.type)
        for f in schema
    ]
    pq.write_table(pa.table(pois, schema=schema), folder / "pois.parquet", compression="zstd")
    located(folder)


def located(folder: Path) -> None:
    """The table `region_pois`, as its stage writes it."""
    from model_code.city import Squares
    from model_code.contracts import Checker
    from model_code.geo.flows import region_pois
    from model_code.geo.join import Locator
    from model_code.rejections import Rejections
    from model_code.tables import contract
    from resources.lake import table_writer

    partition = Squares(kind="square", size_m=500, min_inside_share=0)
    regions = regions_of(partition)
    ids = regions["region_id"].to_numpy(object)
    batches = region_pois(
        str(folder / "pois.parquet"), Locator(regions, partition), ids, Rejections()
    )
    table_writer(Checker(contract("region_pois")), batches, {})(folder / "region_pois.parquet")


def counts_ours(folder: Path, n: int) -> Work:
    from model_code.geo.flows import count_pois

    return lambda: count_pois(str(folder / "region_pois.parquet"))


def counts_bare(folder: Path, n: int) -> Work:
    import duckdb

    file = folder / "region_pois.parquet"
    query = f"SELECT region_id, category, count(*) FROM '{file}' GROUP BY ALL"
    return lambda: duckdb.connect().sql(query).to_arrow_table()


def counts_located(folder: Path, n: int) -> Work:
    return lambda: located(folder)


def counts_naive(folder: Path, n: int) -> Work:
    import pandas as pd

    def work() -> Any:
        return (
            pd.read_parquet(folder / "region_pois.parquet")
            .groupby(["region_id", "category"])
            .size()
        )

    return work


# --- flows ---------------------------------------------------------------------------------------

ZONES = 300


def flows_make(folder: Path, n: int) -> None:
    """Trips by zone ids and by points, as the stage `trips` writes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from model_code.contracts import arrow_schema
    from model_code.tables import contract

    rng = np.random.default_rng(0)
    schema = arrow_schema(contract("trips"))
    names = pa.array([str(i) for i in range(ZONES)])
    box = [v.min() for v in xy(1000)], [v.max() for v in xy(1000)]
    writers = [
        pq.ParquetWriter(folder / f"{kind}.parquet", schema, compression="zstd")
        for kind in ("zones", "points")
    ]
    start = 1_514_764_800_000_000  # 2018-01-01
    for at in range(0, n, 1_000_000):
        m = min(1_000_000, n - at)
        seconds = np.sort(rng.integers(0, 86_400 * 365, m))
        common = {
            "trip_id": np.arange(at, at + m),
            "started_at": (start + seconds * 1_000_000).astype("datetime64[us]"),
            "trip_count": np.ones(m, np.int64),
        }
        zones = (rng.beta(1, 3, (2, m)) * ZONES).astype(np.int64)
        by_zone = {f"{e}_zone": names.take(pa.array(z)) for e, z in zip(ENDS, zones, strict=True)}
        by_point = {
            f"{end}_{axis}_m": rng.uniform(box[0][k], box[1][k], m)
            for end in ENDS
            for k, axis in enumerate("xy")
        }
        for writer, columns in zip(writers, (by_zone, by_point), strict=True):
            columns = common | columns
            arrays = [
                pa.array(columns[f.name]).cast(f.type) if f.name in columns else pa.nulls(m, f.type)
                for f in schema
            ]
            writer.write_table(pa.table(arrays, schema=schema))
    for writer in writers:
        writer.close()


ENDS = ("origin", "destination")


def flows_bare(folder: Path, n: int) -> Work:
    import duckdb

    query = (
        "SELECT origin_zone, destination_zone, hour(started_at) AS hour, sum(trip_count)"
        f" FROM '{folder / 'zones.parquet'}' GROUP BY ALL"
    )
    return lambda: duckdb.connect().sql(query).to_arrow_table()


def flows_ours(folder: Path, n: int) -> Work:
    import pandas as pd

    from model_code.geo.flows import count_flows

    ids = np.array(sorted(str(i) for i in range(ZONES)), object)
    shares = pd.DataFrame({"zone": ids, "region": np.arange(ZONES), "share": 1.0})
    path = str(folder / "zones.parquet")
    return lambda: count_flows(path, None, ids, timezone="America/New_York", shares=shares)


def flow_regions() -> tuple[Any, Any]:
    from model_code.city import Squares
    from model_code.geo.join import Locator

    partition = Squares(kind="square", size_m=1000, min_inside_share=0)
    regions = regions_of(partition)
    return Locator(regions, partition), regions["region_id"].to_numpy(object)


def flows_points(folder: Path, n: int) -> Work:
    from model_code.geo.flows import count_flows

    locator, ids = flow_regions()
    path = str(folder / "points.parquet")
    return lambda: count_flows(path, locator, ids, timezone="America/New_York")


def flows_join(folder: Path, n: int) -> Work:
    """The join alone: read the points and locate both ends, by batches."""
    import pyarrow.parquet as pq

    locator, _ = flow_regions()
    names = [f"{end}_{axis}_m" for end in ENDS for axis in "xy"]

    def work() -> None:
        for batch in pq.ParquetFile(folder / "points.parquet").iter_batches(1 << 20, columns=names):
            points = [batch.column(name).to_numpy() for name in names]
            locator.locate(*points[:2])
            locator.locate(*points[2:])

    return work


def flows_points_bare(folder: Path, n: int) -> Work:
    """Bare scan and group-by of the points' file, by five columns that it reckons: the squares of
    both ends, from their coordinates, and the hour."""
    import duckdb

    columns = ", ".join(
        f"CAST({e}_{a}_m // 1000 AS INTEGER) AS {e}_{a}" for e in ENDS for a in "xy"
    )
    query = (
        f"SELECT {columns}, hour(started_at) AS hour, sum(trip_count)"
        f" FROM '{folder / 'points.parquet'}' GROUP BY ALL"
    )
    return lambda: duckdb.connect().sql(query).to_arrow_table()


def flows_naive(folder: Path, n: int) -> Work:
    import pandas as pd

    path = folder / "zones.parquet"

    def work() -> Any:
        trips = pd.read_parquet(path)
        hour = trips["started_at"].dt.tz_convert("America/New_York").dt.hour
        return trips.groupby(["origin_zone", "destination_zone", hour])["trip_count"].sum()

    return work


# --- chips ---------------------------------------------------------------------------------------

IMAGE_PX, CELL_PX, CHIP_PX = 10_000, 100, 64


def chips_make(folder: Path, n: int) -> None:
    """An aerial image of 1 m pixels with a region of 100 m for each chip: 10,000 x 10,000 pixels
    for 10,000 chips; in strips as rasterio writes it, and as a COG has it (tiles, deflate)."""
    import rasterio

    rng = np.random.default_rng(0)
    height = -(-n // (IMAGE_PX // CELL_PX)) * CELL_PX
    roofs = rng.integers(0, 200, (3, height // 10, IMAGE_PX // 10), np.uint8)
    pixels = roofs.repeat(10, axis=1).repeat(10, axis=2)
    pixels += rng.integers(0, 50, pixels.shape, np.uint8)
    profile = {"count": 3, "height": height, "width": IMAGE_PX, "dtype": "uint8", "crs": CRS}
    transform = rasterio.Affine(1, 0, 500_000, 0, -1, 4_510_000)
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    for name, layout in (("strips.tif", {}), ("tiles.tif", {**tiles, "interleave": "pixel"})):
        with rasterio.open(
            folder / name, "w", "GTiff", transform=transform, **profile, **layout
        ) as f:
            f.write(pixels)


def chip_regions(n: int) -> Any:
    import geopandas as gpd
    import shapely

    row, col = np.divmod(np.arange(n), IMAGE_PX // CELL_PX)
    x, y = 500_000.0 + col * CELL_PX, 4_510_000.0 - row * CELL_PX
    ids = [f"r{i:06d}" for i in range(n)]
    cells = shapely.box(x, y - CELL_PX, x + CELL_PX, y)
    return gpd.GeoDataFrame({"region_id": ids}, geometry=cells, crs=CRS)


def chips_ours(name: str) -> Callable[[Path, int], Work]:
    def prepare(folder: Path, n: int) -> Work:
        from model_code.city import Chips, ImagerySource
        from model_code.geo.raster import cut_chips, describe_imagery
        from model_code.rejections import Rejections

        regions, source = chip_regions(n), ImagerySource(path=name)
        imagery = describe_imagery(source, str(folder), CRS)
        chips = Chips(size_px=CHIP_PX)

        def work() -> int:
            batches = cut_chips(regions, imagery, source, chips, str(folder), Rejections())
            return sum(batch.num_rows for batch in batches)

        return work

    return prepare


def chips_naive(name: str) -> Callable[[Path, int], Work]:
    """Open, read the window with GDAL's own average, close; the pixels are the same."""

    def prepare(folder: Path, n: int) -> Work:
        import rasterio
        from rasterio.enums import Resampling

        boxes = chip_regions(n).bounds.to_numpy()
        shape = (3, CHIP_PX, CHIP_PX)

        def work() -> int:
            chips = np.empty((n, CHIP_PX, CHIP_PX, 3), np.uint8)
            for i, box in enumerate(boxes):
                with rasterio.open(folder / name) as f:
                    window = f.window(*box)
                    chip = f.read(window=window, out_shape=shape, resampling=Resampling.average)
                chips[i] = np.moveaxis(chip, 0, -1)
            return len(chips)

        return work

    return prepare


SECTIONS = {
    "h3": Section(
        5_000_000,
        {
            "cityloom": (h3_ours, 1),
            "bare h3ronpy": (h3_bare, 1),
            "naive: h3 loop": (h3_naive, 0.02),
        },
        (Goal("cityloom", ("bare h3ronpy",), 0.9),),
    ),
    "squares": Section(
        5_000_000,
        {
            "cityloom": (squares_ours, 1),
            "bare pyproj + floor": (squares_bare, 1),
            "naive: geopandas sjoin": (squares_naive, 0.1),
        },
        (Goal("cityloom", ("bare pyproj + floor",), 0.9),),
    ),
    "polygons": Section(
        5_000_000,
        {"cityloom": (polygons_ours, 1), "naive: geopandas sjoin": (polygons_naive, 1)},
        (Goal("cityloom", ("naive: geopandas sjoin",), 1.5),),
    ),
    "counts": Section(
        5_000_000,
        {
            "cityloom": (counts_ours, 1),
            "bare DuckDB": (counts_bare, 1),
            "naive: pandas groupby": (counts_naive, 0.1),
            "cityloom, locating and writing them": (counts_located, 1),
        },
        (Goal("cityloom", ("bare DuckDB",), 0.8),),
        counts_make,
    ),
    "flows": Section(
        30_000_000,
        {
            "cityloom, region ids": (flows_ours, 1),
            "bare DuckDB, region ids": (flows_bare, 1),
            "naive: pandas groupby": (flows_naive, 0.1),
            "cityloom, points": (flows_points, 1),
            "the join alone": (flows_join, 1),
            "bare DuckDB, squares of points": (flows_points_bare, 1),
        },
        (
            Goal("cityloom, region ids", ("bare DuckDB, region ids",), 1 / 1.5),
            Goal(
                "cityloom, points",
                ("bare DuckDB, squares of points", "the join alone"),
                1 / 1.5,
                strict=("bare DuckDB, region ids", "the join alone"),
            ),
        ),
        flows_make,
        {"cityloom, region ids": 4096, "cityloom, points": 4096},
    ),
    "chips": Section(
        10_000,
        {
            "cityloom, tiles": (chips_ours("tiles.tif"), 1),
            "naive: open and read, tiles": (chips_naive("tiles.tif"), 0.1),
            "cityloom, strips": (chips_ours("strips.tif"), 1),
            "naive: open and read, strips": (chips_naive("strips.tif"), 0.1),
        },
        (
            Goal("cityloom, tiles", ("naive: open and read, tiles",), 5),
            Goal("cityloom, strips", ("naive: open and read, strips",), 5),
        ),
        chips_make,
    ),
}


# --- running and printing ------------------------------------------------------------------------

MAKE = "make"


def child(section: str, way: str, folder: Path, n: int) -> None:
    """Time one way of one section; prints seconds and peak memory as JSON."""
    declared = SECTIONS[section]
    if way == MAKE:
        declared.make(folder, n)
        print("{}")
        return
    work = declared.ways[way][0](folder, n)
    seconds, cpu = [], []
    for _ in range(3):
        start, start_cpu = time.perf_counter(), time.process_time()
        work()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": min(seconds), "cpu": min(cpu), "peak_mib": peak}))


def measure(section: str, size: int) -> dict[str, dict[str, float]]:
    """Seconds for each item and peak memory of every way at one size."""
    declared = SECTIONS[section]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        if declared.make:
            run(section, MAKE, Path(folder), size)
        for way, (_, share) in declared.ways.items():
            n = max(1, int(size * share))
            if share < 1 and declared.make:  # it works on a file: one of its own size
                (part := Path(folder) / f"part {share}").mkdir(exist_ok=True)
                run(section, MAKE, part, n)
            else:
                part = Path(folder)
            found[way] = {"n": n, **run(section, way, part, n)}
    return found


def run(section: str, way: str, folder: Path, n: int) -> dict[str, float]:
    """One way in a process of its own (a child's peak memory starts at its parent's)."""
    command = [sys.executable, __file__, "--child", section, way, str(folder), str(n)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def table(section: str, size: int, tenth: dict[str, Any], full: dict[str, Any]) -> bool:
    """Print one section; whether its goals are met."""
    print(f"\n{section}: {size:,} items")
    print(f"  {'way':32}{'items':>12}{'seconds':>10}{'CPU s':>9}{'million/s':>11}{'peak MiB':>10}")
    for way in SECTIONS[section].ways:
        for row in (tenth[way], full[way]):
            rate = row["n"] / row["seconds"] / 1e6
            print(
                f"  {way:32}{row['n']:>12,}{row['seconds']:>10.3f}{row['cpu']:>9.3f}{rate:>11.2f}"
                f"{row['peak_mib']:>10.0f}"
            )

    def ratio(way: str, others: tuple[str, ...], by: str) -> float:
        """How many times as fast an item is made as by the others, one after the other."""
        each = {w: full[w][by] / full[w]["n"] for w in (way, *others)}
        return sum(each[w] for w in others) / each[way]

    met = True
    for way, others, goal, strict in SECTIONS[section].goals:
        fast, thrifty = (ratio(way, others, by) for by in ("seconds", "cpu"))
        met &= fast >= goal
        print(
            f"  {way} is {fast:.2f} times as fast as {' + '.join(others)} (goal {goal:.2f});"
            f" by CPU time {thrifty:.2f}"
        )
        if strict:
            fast, thrifty = (ratio(way, strict, by) for by in ("seconds", "cpu"))
            found = "met" if fast >= goal else "missed"
            print(
                f"  strictly, {fast:.2f} times as fast as {' + '.join(strict)} (goal {goal:.2f} {found},"
                f" for information); by CPU time {thrifty:.2f}"
            )
        growth = full[way]["seconds"] / tenth[way]["seconds"]
        met &= growth <= GROWTH
        print(f"  {way}: 10 times the items take {growth:.1f} times the time (at most {GROWTH:g})")
    for way, goal_mib in SECTIONS[section].memory_goal_mib.items():
        met &= full[way]["peak_mib"] < goal_mib
        print(f"  {way}: peak {full[way]['peak_mib']:.0f} MiB (goal below {goal_mib})")
    return met


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        section, way, folder, n = sys.argv[2:]
        child(section, way, Path(folder), int(n))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="sizes of a hundredth")
    asked = parser.parse_args()
    unknown = set(asked.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown sections {sorted(unknown)}; known: {', '.join(SECTIONS)}")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    met = True
    for name in asked.sections or SECTIONS:
        size = SECTIONS[name].size // (100 if asked.quick else 1)
        met &= table(name, size, measure(name, size // 10), measure(name, size))
    return 0 if met or asked.quick else 1


if __name__ == "__main__":
    sys.exit(main())
