"""Raw files, validated and brought into the city's CRS. Pixels stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from assets.stage import Context, Product, Written, stage
from model_code.city import City, check_files, named_files
from resources.raw import RawFiles


def _no(source: str, city: City) -> str:
    """Why a city has no such table: its config names no such source."""
    return "" if getattr(city.sources, source) else f"the city's YAML has no sources.{source}"


def _prepare(city: City, root: str, progress: Callable[[str], None]) -> None:
    """A simulated city's raw files are made first, so that all else sees them as given; all files
    of another city must be there, or nothing is computed."""
    if city.simulator is None:
        check_files(city, root)
        return
    from model_code.demo.ensure import ensure

    ensure(root, city.simulator, progress)


@stage(group="raw", kinds=("file",), config=("sources", "indicators", "boundary", "partition"),
       raw=("sources", "indicators", "boundary", "partition"), before=_prepare)  # fmt: skip
def raw_files(ctx: Context) -> Product:
    """Inventory of the raw files with digest, licence, date and origin."""
    import pandas as pd

    files = RawFiles(ctx.root)
    rows = [
        (named.key, path, size, sha256, named.licence, named.date, named.origin)
        for section in ("boundary", "partition", "sources", "indicators")
        for named in named_files(getattr(ctx.city, section), section)
        for path, (sha256, size) in files.entries(named.path).items()
    ]
    columns = ["source", "path", "bytes", "sha256", "licence", "date", "origin"]
    return Product(pd.DataFrame(rows, columns=columns))


def _outline(ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    return figures.partition_map(written.geo())


@stage(group="raw", kinds=("geopandas",), after=("raw_files",), config=("name", "boundary", "crs"),
       raw=("boundary",), picture=_outline)  # fmt: skip
def boundary(ctx: Context) -> Product:
    """The city's outline in its own CRS; every later table is in that CRS."""
    from model_code.geo.regions import make_boundary

    city = ctx.city
    return Product(make_boundary(city.name, city.boundary, city.crs, ctx.root))


def _crs(ctx: Context) -> str:
    return str(ctx.inputs["boundary"].frame(["crs"])["crs"][0])


@stage(group="raw", kinds=("rasterio",), inputs=("boundary",), config=("sources.imagery",),
       raw=("sources.imagery",), absent=partial(_no, "imagery"))  # fmt: skip
def imagery(ctx: Context) -> Product:
    """The satellite or aerial image as it will be read: size, bands, CRS, stretch."""
    from model_code.geo.raster import describe_imagery

    return Product(describe_imagery(ctx.city.sources.imagery, ctx.root, _crs(ctx)))


def _points(ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    frame = written.frame(["x_m", "y_m"])
    return figures.points_map(ctx.inputs["boundary"].geo(), frame["x_m"], frame["y_m"])


@stage(group="raw", kinds=("pillow",), inputs=("boundary",), config=("sources.street_views",),
       raw=("sources.street_views",), absent=partial(_no, "street_views"),
       picture=_points)  # fmt: skip
def street_views(ctx: Context) -> Product:
    """Street-level photographs with place, heading and time; every file is opened once."""
    from model_code.geo.street_views import read_street_views

    table, rejections = read_street_views(ctx.city.sources.street_views, ctx.root, _crs(ctx))
    ctx.rejections.extend(rejections)
    return Product(table)


@stage(group="raw", kinds=("pyarrow",), inputs=("boundary",), config=("sources.pois",),
       raw=("sources.pois",), absent=partial(_no, "pois"), picture=_points)  # fmt: skip
def pois(ctx: Context) -> Product:
    """Points of interest of all POI sources, filtered as the config says; streamed."""
    from model_code.geo.points import stream_pois

    return Product(stream_pois(ctx.city.sources.pois, ctx.root, _crs(ctx), ctx.rejections))


@stage(group="raw", kinds=("duckdb",), inputs=("boundary",), config=("sources.trips",),
       raw=("sources.trips",), absent=partial(_no, "trips"))  # fmt: skip
def trips(ctx: Context) -> Product:
    """Trips by points or zones, in UTC; streamed, never whole in memory."""
    from model_code.geo.points import stream_trips

    source = ctx.city.sources.trips
    return Product(stream_trips(source, ctx.root, _crs(ctx), ctx.rejections))


@stage(group="raw", kinds=("geopandas",), inputs=("boundary",), config=("sources.buildings",),
       raw=("sources.buildings",), absent=partial(_no, "buildings"))  # fmt: skip
def buildings(ctx: Context) -> Product:
    """Building footprints with heights."""
    from model_code.geo.buildings import read_buildings

    table, rejections = read_buildings(ctx.city.sources.buildings, ctx.root, _crs(ctx))
    ctx.rejections.extend(rejections)
    return Product(table)
