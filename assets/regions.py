"""Everything by region: chips, street views, POIs, flows, heights, labels, splits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from assets.stage import Context, Product, Written, stage
from model_code.city import City
from model_code.errors import DataError

_PARTITION = ("partition",)


def _no(*sources: str) -> Any:
    """Why a city has no such table: its config names none of the sources."""

    def why(city: City) -> str:
        if any(getattr(city.sources, source) for source in sources):
            return ""
        return f"the city's YAML has no {' and no '.join(f'sources.{s}' for s in sources)}"

    return why


def _map(ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    return figures.partition_map(written.geo())


@stage(group="regions", kinds=("geopandas",), inputs=("boundary",), config=_PARTITION,
       raw=_PARTITION, picture=_map)  # fmt: skip
def regions(ctx: Context) -> Product:
    """The city cut into squares, H3 cells or given polygons, with stable ids."""
    from model_code.geo.regions import make_regions

    table, rejections = make_regions(ctx.inputs["boundary"].geo(), ctx.city.partition, ctx.root)
    ctx.rejections.extend(rejections)
    return Product(table)


@stage(group="regions", kinds=("shapely",), inputs=("regions",))
def adjacency(ctx: Context) -> Product:
    """Pairs of regions that share a border."""
    from model_code.geo.regions import make_adjacency

    return Product(make_adjacency(ctx.inputs["regions"].geo()))


def locator(ctx: Context) -> Any:
    """Finds the region of a point.

    Raises:
        DataError: the regions in the lake were cut with another partition than the YAML has now.
    """
    from model_code.geo.join import Locator

    regions = ctx.inputs["regions"]
    manifest = regions.lake.manifest(ctx.name, "regions")
    made_with = manifest.inputs["config"]["partition"] if manifest else None
    if made_with != ctx.city.partition.model_dump(mode="json"):
        raise DataError(
            f"the regions of {ctx.name!r} were made with another `partition` than the YAML has now",
            fix="run the job whole_city, which makes them anew",
        )
    return Locator(regions.geo(), ctx.city.partition)


def _ids(ctx: Context) -> Any:
    return ctx.inputs["regions"].frame(["region_id"])["region_id"].to_numpy()


def _chip_sheet(ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    return figures.chip_sheet(_sample(written, 24), total=written.rows)


def _sample(written: Written, count: int) -> Any:
    """Rows spread evenly over a table, for a contact sheet."""
    import numpy as np

    table = written.arrow()
    rows = np.unique(np.linspace(0, max(len(table) - 1, 0), min(count, len(table))).astype(int))
    return table.take(rows).to_pandas()


@stage(group="features", kinds=("rasterio",), inputs=("regions", "imagery"),
       config=("sources.imagery", "chips"), raw=("sources.imagery",), absent=_no("imagery"),
       picture=_chip_sheet)  # fmt: skip
def region_chips(ctx: Context) -> Product:
    """One image a region, cut from the imagery."""
    from model_code.geo.raster import cut_chips

    return Product(
        cut_chips(
            ctx.inputs["regions"].geo(),
            ctx.inputs["imagery"].geo(),
            ctx.city.sources.imagery,
            ctx.city.chips,
            ctx.root,
            ctx.rejections,
        )
    )


def _view_sheet(ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    return figures.view_sheet(_sample(written, 24), total=written.rows)


@stage(group="features", kinds=("pillow",), inputs=("regions", "street_views"),
       config=(*_PARTITION, "street_view_images"), raw=("sources.street_views",),
       absent=_no("street_views"), picture=_view_sheet)  # fmt: skip
def region_street_views(ctx: Context) -> Product:
    """Every street view with its region, brought to one size."""
    from model_code.geo.street_views import region_street_views as join

    views = ctx.inputs["street_views"].frame()
    images = ctx.city.street_view_images
    return Product(join(views, locator(ctx), _ids(ctx), ctx.root, images, ctx.rejections))


@stage(group="features", kinds=("shapely",), inputs=("regions", "pois"), config=_PARTITION,
       absent=_no("pois"))  # fmt: skip
def region_pois(ctx: Context) -> Product:
    """The region of each POI that lies in one."""
    from model_code.geo.flows import region_pois as join

    path = str(ctx.inputs["pois"].path())
    return Product(join(path, locator(ctx), _ids(ctx), ctx.rejections))


@stage(group="features", kinds=("duckdb",), inputs=("region_pois",), absent=_no("pois"))
def poi_counts(ctx: Context) -> Product:
    """POIs by region and category."""
    from model_code.geo.flows import count_pois

    return Product(count_pois(str(ctx.inputs["region_pois"].path())))


@stage(group="features", kinds=("pandas",), inputs=("pois", "region_pois"), absent=_no("pois"))
def poi_texts(ctx: Context) -> Product:
    """Names and comments of the POIs of each region."""
    from model_code.geo.flows import poi_texts as gather

    return Product(gather(ctx.inputs["pois"].frame(), ctx.inputs["region_pois"].frame()))


def _flow_map(ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    return figures.flow_map(written.frame(), ctx.inputs["regions"].geo())


@stage(group="features", kinds=("duckdb",), inputs=("regions", "trips"),
       config=(*_PARTITION, "timezone", "sources.od", "sources.trips"),
       raw=("sources.od", "sources.trips.zones", "partition"), absent=_no("trips", "od"),
       picture=_flow_map)  # fmt: skip
def flows(ctx: Context) -> Product:
    """Trips between regions: from the ready matrix, and by hour from the trips."""
    import pandas as pd

    from model_code.geo.flows import count_flows, read_od, zone_shares

    city, table = ctx.city, ctx.inputs["regions"].geo()
    parts = []
    if city.sources.od:
        part, rejections = read_od(city.sources.od, table, city.partition, ctx.root)
        ctx.rejections.extend(rejections)
        parts.append(part)
    if ctx.has("trips"):
        zones = city.sources.trips.zones
        shares = None
        if zones:
            shares, rejections = zone_shares(zones, table, ctx.root)
            ctx.rejections.extend(rejections)
        path = str(ctx.inputs["trips"].path())
        part, rejections = count_flows(
            path, locator(ctx), _ids(ctx), timezone=city.timezone, shares=shares
        )
        ctx.rejections.extend(rejections)
        parts.append(part)
    return Product(pd.concat(parts, ignore_index=True))


def _hours(ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    return figures.hour_profile(written.frame())


@stage(group="features", kinds=("pandas",), inputs=("regions", "flows"),
       absent=_no("trips", "od"), picture=_hours)  # fmt: skip
def mobility(ctx: Context) -> Product:
    """Out- and inflow of each region, by hour where it is known."""
    from model_code.geo.flows import make_mobility

    return Product(make_mobility(ctx.inputs["flows"].frame(), _ids(ctx)))


def _height_sheet(ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    return figures.height_sheet(_sample(written, 24), total=written.rows)


@stage(group="features", kinds=("rasterio",), inputs=("regions", "buildings"),
       absent=_no("buildings"), picture=_height_sheet)  # fmt: skip
def heights(ctx: Context) -> Product:
    """Building-height map of each region that has buildings."""
    from model_code.geo.buildings import height_maps

    buildings, table = ctx.inputs["buildings"].geo(), ctx.inputs["regions"].geo()
    return Product(height_maps(buildings, table, ctx.rejections))


def _target_map(ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    return figures.target_maps(ctx.inputs["regions"].geo(), written.frame())


def _target_inputs(city: City) -> tuple[str, ...]:
    counts = {getattr(indicator.source, "count", "") for indicator in city.indicators.values()}
    pois = ("poi_counts",) if "pois" in counts else ()
    pois += ("pois", "region_pois") if "comments" in counts else ()
    flows = ("mobility",) if counts & {"trips_out", "trips_in", "hourly_outflow"} else ()
    return ("regions", *pois, *flows)


@stage(group="targets", kinds=("rasterio",), inputs=("regions", "pois", "region_pois", "poi_counts", "mobility"),
       reads=_target_inputs, config=(*_PARTITION, "indicators"), raw=("indicators", "partition"),
       picture=_target_map)  # fmt: skip
def targets(ctx: Context) -> Product:
    """Indicator values by region, on their original scale."""
    from model_code.geo.targets import make_targets
    from model_code.tables import contract
    from resources.lake import plain_table_writer

    table, catalogue, rejections = make_targets(
        ctx.city.indicators,
        ctx.inputs["regions"].geo(),
        locator(ctx),
        ctx.root,
        **{name: ctx.inputs[name].frame() for name in ctx.inputs if name != "regions"},
    )
    ctx.rejections.extend(rejections)
    writer = plain_table_writer(contract("indicators"), catalogue)
    return Product(table, files={"indicators.parquet": writer})


@stage(group="targets", kinds=("pandas",), inputs=("targets",))
def indicators(ctx: Context) -> Product:
    """What is to be predicted, and how much of the city has it."""
    return Product(ctx.inputs["targets"].frame(file="indicators.parquet"))


def _split_map(ctx: Context, written: Written) -> bytes:
    from model_code.report import figures

    return figures.split_map(ctx.inputs["regions"].geo(), written.frame())


@stage(group="targets", kinds=("numpy",), inputs=("regions",), config=("splits",),
       picture=_split_map)  # fmt: skip
def splits(ctx: Context) -> Product:
    """Which regions train, validate and test; every method reads the same."""
    from model_code.evaluation.splits import make_splits

    places = ctx.inputs["regions"].frame(["region_id", "x_m", "y_m"])
    return Product(make_splits(places, ctx.city.splits))


_BY_REGION = {
    "imagery": "region_chips",
    "street_views": "region_street_views",
    "pois": "poi_counts",
    "flows": "flows",
    "buildings": "heights",
}


@stage(group="targets", kinds=("pandas",), inputs=("regions", "buildings", *_BY_REGION.values()))
def coverage(ctx: Context) -> Product:
    """What share of the regions each modality reaches."""
    from model_code.geo.coverage import make_coverage

    columns = {
        "imagery": ["region_id"],
        "street_views": ["region_id"],
        "pois": ["region_id", "poi_count"],
        "flows": ["source", "origin_id", "destination_id", "trip_count"],
        "buildings": ["region_id"],
    }
    tables = {
        modality: ctx.inputs[table].frame(columns[modality])
        for modality, table in _BY_REGION.items()
        if ctx.has(table)
    }
    return Product(make_coverage(_ids(ctx), tables, _buildings_in_regions(ctx)))


def _buildings_in_regions(ctx: Context) -> int:
    """Buildings that lie in any region: all but those that `heights` has rejected."""
    if not ctx.has("heights"):
        return 0
    heights = ctx.inputs["heights"]
    lost = 0
    if "rejected.parquet" in heights.files:
        lost = round(heights.frame(["items"], "rejected.parquet")["items"].sum())
    return len(ctx.inputs["buildings"].frame(["building_id"])) - lost


_REJECTING = (
    "regions", "street_views", "pois", "trips", "buildings",
    "region_chips", "region_street_views", "region_pois", "flows", "heights", "targets",
)  # fmt: skip


def _rejected_bars(ctx: Context, written: Written) -> bytes:
    from model_code.rejections import summary
    from model_code.report import figures

    return figures.rejected_bars(summary(written.batches()))


@stage(group="targets", kinds=("pyarrow",), inputs=_REJECTING, picture=_rejected_bars)
def rejected(ctx: Context) -> Product:
    """Every raw row that did not become part of a table, with the reason."""
    return Product(_all_rejected(ctx))


def _all_rejected(ctx: Context) -> Iterator[Any]:
    """Of one stage after the other, in the order of their names: that is the table's."""
    for name in sorted(ctx.inputs):
        handle = ctx.inputs[name]
        if ctx.has(name) and "rejected.parquet" in handle.files:
            yield from handle.batches("rejected.parquet")
