"""What a user says of a city: one YAML file, read into one checked model.

Unknown keys, wrong types and missing files are errors that name file, key and fix, all at once.
Paths are relative to the data root (`$CITYLOOM_DATA`, by default `data/`) unless they are absolute
or an fsspec URL such as `s3://bucket/key`.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args
from zoneinfo import ZoneInfo

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from model_code.calibration import CalibrationConfigs
from model_code.errors import ConfigError, Problem, UnknownCityError
from model_code.methods import BY_CAPTIONS, METHODS, SOURCES_OF, MethodConfig, Modality
from model_code.text.captioner_config import CaptionerChoice, TemplateChoice
from model_code.vision.clip_config import ClipConfig
from model_code.vision.model_choices import (
    COMMIT,
    SHA256,
    VIEWS,
    ClipChoice,
    Embedded,
    Hashed,
    ImageEncoderChoice,
    PainterChoice,
    SegmenterChoice,
    TextEmbeddingChoice,
)

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"


class Model(BaseModel):
    """Base of every config section: unknown keys are errors, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- values that are more than their type --------------------------------------------------------


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("unknown time zone; want an IANA name such as America/New_York") from None
    return name


def _crs(code: str) -> str:
    if not re.fullmatch(r"EPSG:[0-9]{4,6}", code):
        raise ValueError("want an EPSG code such as EPSG:32618")
    try:
        import pyproj
    except ImportError:  # a machine without the geo packages; whoever projects asks again
        return code
    try:
        pyproj.CRS.from_user_input(code)
    except pyproj.exceptions.CRSError:
        raise ValueError("PROJ knows no such code; see epsg.io") from None
    return code


def _city_crs(code: str) -> str:
    try:
        return code if code == "auto" else _crs(code)
    except ValueError as error:
        raise ValueError(f"{error}; or `auto`") from None


_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
# Field, lowest and highest value, and names of the values from the lowest on.
_CRON: tuple[tuple[str, int, int, list[str]], ...] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of the month", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)


def _cron(text: str) -> str:
    """Five fields of `*`, values, ranges and steps; what passes here, every scheduler takes."""
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(
            f"{len(fields)} fields; want five: minute hour day month weekday, such as `0 3 * * *`"
        )
    values = [
        {v for item in field.lower().split(",") for v in _cron_values(item, *about)}
        for field, about in zip(fields, _CRON, strict=True)
    ]
    days_in = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if min(values[2]) > max(days_in[month - 1] for month in values[3]):
        raise ValueError(f"no chosen month has a day {min(values[2])}")
    return text


def _cron_values(item: str, name: str, low: int, high: int, names: list[str]) -> Iterable[int]:
    found = re.fullmatch(
        r"(?:\*|([0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?)(?:/([0-9]{1,2}))?", item
    )
    numbers = {value: low + place for place, value in enumerate(names)}
    numbers |= {f"{n:0{width}}": n for n in range(low, high + 1) for width in (1, 2)}
    first, last, step = found.groups() if found else ("?", None, None)
    start = numbers.get(first, -1) if first else low
    single = first and not last and not step
    end = numbers.get(last, -1) if last else start if single else high
    if start < 0 or end < start or (step and not 1 <= int(step) <= high):
        raise ValueError(f"{name}: {item!r} is not in {low}-{high}, nor a range or step of these")
    return range(start, end + 1, int(step or 1))


TimeZone = Annotated[str, AfterValidator(_timezone)]
Crs = Annotated[str, AfterValidator(_crs)]
CityCrs = Annotated[str, AfterValidator(_city_crs)]
Cron = Annotated[str, AfterValidator(_cron)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _differ(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed is given twice")
    return seeds


# --- files ---------------------------------------------------------------------------------------


class Cited(Model):
    """What must be known to cite a file."""

    licence: str = "not stated"
    date: str = "not stated"
    origin: str = "not stated"


# What a file is, where its name does not tell. A compression (`.gz`, `.bz2`, `.xz`) is seen by its
# suffix in any case.
TableFormat = Literal["csv", "parquet"]
ShapeFormat = Literal["parquet", "geojson", "geopackage", "shapefile"]
RowFormat = Literal["csv", "parquet", "geojson", "geopackage", "shapefile"]


class Source(Cited):
    """A raw file with what must be known to read it and to cite it."""

    path: str


class ShapeSource(Source):
    """Geometries (GeoParquet, GeoJSON, GeoPackage, zipped shapefile, or what else GDAL reads).

    `format` is for a name whose suffix does not tell. `crs` is for a file that states none; one
    that states another is an error.
    """

    format: ShapeFormat | None = None
    crs: Crs | None = None


class RasterSource(Source):
    """What GDAL opens, told by its content; with `format: geotiff` a GeoTIFF or COG and nothing
    else. `crs` is for a file that states none; one that states another is an error."""

    format: Literal["geotiff"] | None = None
    crs: Crs | None = None


class PlaceSource(Source):
    """Rows with a place: a table with columns of longitude and latitude, or a file with geometries.

    `format` is for a name whose suffix does not tell. `crs` is that of the columns (by default
    EPSG:4326), and of geometries whose file states none; the CRS that a file states wins.
    """

    format: RowFormat | None = None
    crs: Crs | None = None


# --- place ---------------------------------------------------------------------------------------


class Boundary(Cited):
    """The city's outline: a box in degrees (west, south, east, north; EPSG:4326), or the union of
    the polygons of a file (`format` and `crs` as in `ShapeSource`)."""

    bbox: tuple[float, float, float, float] | None = None
    path: str | None = None
    format: ShapeFormat | None = None
    crs: Crs | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Boundary:
        if (self.bbox is None) == (self.path is None):
            raise ValueError("give either `bbox: [west, south, east, north]` or `path: FILE`")
        if self.bbox is not None:
            if self.format or self.crs:
                raise ValueError("a bbox is in degrees; `format` and `crs` go with `path` only")
            west, south, east, north = self.bbox
            if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
                raise ValueError(
                    "bbox is [west, south, east, north] in degrees, west < east, south < north"
                )
        return self


class Grid(Model):
    """What the two tilings share: what happens at the boundary.

    A cell whose share inside the boundary is below `min_inside_share` is left out; the remaining
    cells are kept whole (`edge: keep`) or cut at the boundary (`edge: clip`). When no cell reaches
    the share, the cells that touch the boundary stay, so that a small area gives at least one.
    """

    edge: Literal["keep", "clip"] = "keep"
    min_inside_share: float = Field(0.5, ge=0, le=1)


class Squares(Grid):
    kind: Literal["square"]
    size_m: float = Field(gt=0)


class Hexagons(Grid):
    kind: Literal["h3"]
    resolution: int = Field(ge=0, le=15)


class Polygons(ShapeSource):
    """Given polygons. Rows with the same id are dissolved into one region."""

    kind: Literal["polygons"]
    id: str


Partition = Annotated[Union[Squares, Hexagons, Polygons], Field(discriminator="kind")]


# --- sources -------------------------------------------------------------------------------------


class Stretch(Model):
    """How pixel values become 0..255: `none` (uint8 as it is), `range` (low..high in the values'
    units) or `percentile` (low..high in percent, over the whole image)."""

    kind: Literal["none", "range", "percentile"] = "none"
    low: float = 2.0
    high: float = 98.0

    @model_validator(mode="after")
    def _ordered(self) -> Stretch:
        if self.low >= self.high:
            raise ValueError("low must be below high")
        return self


class ImagerySource(RasterSource):
    """A GeoTIFF or COG; `bands` are 1-based and in the order red, green, blue."""

    bands: tuple[int, ...] = (1, 2, 3)
    stretch: Stretch = Stretch()
    nodata: float | None = None


class StreetViewColumns(Model):
    file: str = "file"
    lon: str = "lon"
    lat: str = "lat"
    heading_deg: str | None = None
    taken_at: str | None = None


class StreetViewSource(PlaceSource):
    """A table (CSV, Parquet, GeoParquet) of photographs in the folder `images`. A clock without an
    offset is in `timezone`, which is needed with `columns.taken_at`."""

    images: str
    columns: StreetViewColumns = StreetViewColumns()
    timezone: TimeZone = "UTC"


class PoiColumns(Model):
    lon: str | None = "lon"
    lat: str | None = "lat"
    category: str = "category"
    name: str | None = "name"
    comments: str | None = None


class PoiSource(PlaceSource):
    """Points of interest (Parquet, GeoParquet, CSV, GeoJSON); a geometry column wins over lon/lat."""

    columns: PoiColumns = PoiColumns()
    exclude_categories: tuple[str, ...] = ()


class Zones(ShapeSource):
    """Polygons to which the zone ids of trips or tables refer; shared to regions by area."""

    id: str


class TripColumns(Model):
    """Either the four coordinates or the two zone columns; `count` when a row is several trips."""

    started_at: str
    origin_lon: str | None = None
    origin_lat: str | None = None
    destination_lon: str | None = None
    destination_lat: str | None = None
    origin_zone: str | None = None
    destination_zone: str | None = None
    count: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> TripColumns:
        points = (self.origin_lon, self.origin_lat, self.destination_lon, self.destination_lat)
        zones = (self.origin_zone, self.destination_zone)
        if all(points) == all(zones) or any(points) == any(zones):
            raise ValueError(
                "name either origin_lon, origin_lat, destination_lon, destination_lat "
                "or origin_zone, destination_zone"
            )
        return self


class TripSource(Source):
    """Trips (Parquet or CSV). A clock without an offset is in `timezone`. Weekdays only when
    `days: weekday`. `zones` is needed when the columns are zone ids. `format` is for a name whose
    suffix does not tell."""

    format: TableFormat | None = None
    crs: Crs = "EPSG:4326"
    columns: TripColumns
    timezone: TimeZone
    days: Literal["all", "weekday", "weekend"] = "all"
    zones: Zones | None = None

    @model_validator(mode="after")
    def _zones_named(self) -> TripSource:
        if self.columns.origin_zone and self.zones is None:
            raise ValueError("trips with zone ids need `zones: {path, id}`")
        return self


class OdColumns(Model):
    origin: str = "origin"
    destination: str = "destination"
    trip_count: str = "trip_count"


class OdSource(Source):
    """A ready origin-destination matrix: `.npy` [N, N] in the order of the regions file, or a table
    whose `columns` are region ids and a count. Several files (`*` in the path) add up.
    `format` is for a name whose suffix does not tell."""

    format: Literal["csv", "parquet", "npy"] | None = None
    columns: OdColumns = OdColumns()


class BuildingSource(ShapeSource):
    """Footprint polygons; `height_m` names the column of heights in metres."""

    height_m: str | None = None


class TruthSource(Source):
    """What a simulator knows of its own indicators (see `model_code.demo`): the noise-free value of
    each indicator in each region, the noise's variance and its range."""


class Sources(Model):
    imagery: ImagerySource | None = None
    street_views: StreetViewSource | None = None
    pois: tuple[PoiSource, ...] = ()
    trips: TripSource | None = None
    od: OdSource | None = None
    buildings: tuple[BuildingSource, ...] = ()
    truth: TruthSource | None = None


# --- indicators ----------------------------------------------------------------------------------


class RasterValue(RasterSource):
    """Pixels of a raster over a region, weighted by area; nodata is left out."""

    kind: Literal["raster"]
    band: int = Field(1, ge=1)
    aggregate: Literal["mean", "sum", "majority"] = "mean"
    nodata: float | None = None


class RegionValue(Source):
    """A column of a table that is keyed by region id, or that lies in the polygons file itself.
    `format` is for a name whose suffix does not tell."""

    kind: Literal["regions"]
    format: RowFormat | None = None
    id: str
    value: str


class PointValue(PlaceSource):
    """Points with a value (none for `count`); one outside `min_value`..`max_value` is rejected."""

    kind: Literal["points"]
    lon: str = "lon"
    lat: str = "lat"
    value: str | None = None
    min_value: float | None = None
    max_value: float | None = None
    aggregate: Literal["count", "sum", "mean", "median"] = "count"

    @model_validator(mode="after")
    def _value_named(self) -> PointValue:
        if self.aggregate != "count" and self.value is None:
            raise ValueError(f"aggregate: {self.aggregate} needs `value`, the column to aggregate")
        return self


class PolygonValue(ShapeSource):
    """Other polygons with a value: `sum` shares a total by area, `mean` weights by area,
    `majority` takes the class with the largest area."""

    kind: Literal["polygons"]
    value: str
    aggregate: Literal["mean", "sum", "majority"] = "mean"


class CityValue(Model):
    """A count from the city's own tables."""

    kind: Literal["city"]
    count: Literal["pois", "comments", "trips_out", "trips_in", "hourly_outflow"]


IndicatorSource = Annotated[
    Union[RasterValue, RegionValue, PointValue, PolygonValue, CityValue],
    Field(discriminator="kind"),
]

# The input table that a count of the city's own tables is contained in.
COUNTED_IN = {
    "pois": ("pois",),
    "comments": ("pois",),
    "trips_out": ("flows",),
    "trips_in": ("flows",),
    "hourly_outflow": ("flows",),
}
# The sources, one of which it takes.
_COUNTED_FROM = {
    "pois": ("pois",),
    "comments": ("pois",),
    "trips_out": ("od", "trips"),
    "trips_in": ("od", "trips"),
    "hourly_outflow": ("trips",),
}


class Indicator(Model):
    """One target. `transform` is applied before standardising on the training regions;
    `per_km2` divides a total by the area of the region, before that;
    `min_coverage` is the share of a region that must have data, else its label is missing;
    `contained_in` names input tables (pois, flows, imagery, street_views, buildings) that hold the
    target already, or come from the same source."""

    source: IndicatorSource
    kind: Literal["regression", "classification", "hourly"] = "regression"
    transform: Literal["none", "log1p"] = "none"
    per_km2: bool = False
    unit: str = ""
    description: str = ""
    min_coverage: float = Field(0.5, ge=0, le=1)
    contained_in: tuple[Literal["imagery", "street_views", "pois", "flows", "buildings"], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Indicator:
        hourly = isinstance(self.source, CityValue) and self.source.count == "hourly_outflow"
        if hourly != (self.kind == "hourly"):
            raise ValueError("kind: hourly goes with source {kind: city, count: hourly_outflow}")
        if self.kind == "classification" and self.transform != "none":
            raise ValueError("a classification has no transform; remove the key")
        aggregate = getattr(self.source, "aggregate", "sum")
        if self.per_km2 and (self.kind == "classification" or aggregate not in ("sum", "count")):
            what = "class" if self.kind == "classification" else aggregate
            raise ValueError(
                f"per_km2 makes a density of a total, and a {what} is none; remove the key"
            )
        return self

    @property
    def inputs_with_target(self) -> tuple[str, ...]:
        """Input tables that contain this target, declared or by construction."""
        own = COUNTED_IN[self.source.count] if isinstance(self.source, CityValue) else ()
        return tuple(sorted({*self.contained_in, *own}))


# --- work ----------------------------------------------------------------------------------------


class Chips(Model):
    """One image a region: `size_px` pixels square over `ground_m` metres (`null`: the region's own
    extent, so that squares of 1 km give chips of 1 km)."""

    size_px: int = Field(64, ge=8, le=1024)
    ground_m: float | None = Field(None, gt=0)
    min_valid_share: float = Field(0.5, ge=0, le=1)


class StreetViewImages(Model):
    """Size to which street views are brought for the lake; the source files stay as they are."""

    height_px: int = Field(64, ge=8, le=1024)
    width_px: int = Field(96, ge=8, le=2048)


class Descriptions(Model):
    """Descriptions of regions in three levels, one a modality, for methods that read them. A region's
    street views are shown together on one sheet: so many of them. A bad answer is asked for again,
    until there are so many tries."""

    views: int = Field(4, ge=1, le=16)
    tries: int = Field(3, ge=1)


class Captions(Model):
    """Who writes captions of chips and street views, and who judges them. The defaults run anywhere,
    without a download; see `vision.model_choices` for the others.

    Of models in this process that are not embedded, the captioner's included, at most `memory_gib` are held
    at a time (those that were used last), where one alone does not need more; without it all stay. `keep_painted` keeps what was
    painted from each calibrated caption, as sheets of small pictures beside their sources.
    """

    captioner: CaptionerChoice = TemplateChoice()
    wrong_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="captions made wrong on purpose, to see what calibration is worth",
    )
    segmenter: SegmenterChoice = Embedded()
    painter: PainterChoice = Embedded()
    clip: ClipChoice = ClipConfig()
    text_embedding: TextEmbeddingChoice = Hashed()
    memory_gib: float | None = Field(None, gt=0)
    keep_painted: bool = False
    calibration: CalibrationConfigs = CalibrationConfigs()
    descriptions: Descriptions = Descriptions()
    seed: Seed = 0

    @model_validator(mode="after")
    def _fits_a_gpu(self) -> Captions:
        both = self.captioner.kind in ("vllm", "transformers") and self.painter.kind == "sdxl"
        if both and self.memory_gib is None:
            raise ValueError(
                f"captioner: {self.captioner.kind} and painter: sdxl hold their weights in this process; "
                "give memory_gib, what may be held at a time (the captioner then goes before the judges "
                "are loaded, and comes back for the next tries), or serve the captioner elsewhere "
                "(kind: openai)"
            )
        return self


class RandomSplit(Model):
    train: float = Field(0.6, gt=0, lt=1)
    val: float = Field(0.2, gt=0, lt=1)
    repeats: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _leaves_a_test(self) -> RandomSplit:
        if self.train + self.val >= 1:
            raise ValueError("train + val must leave a share for testing (below 1)")
        return self


class SpatialSplit(Model):
    """Squares of `block_m` metres are dealt to `folds`; each fold is the test set once, the next one
    the validation set. Repeated with other block origins."""

    block_m: float = Field(gt=0)
    folds: int = Field(5, ge=3)
    repeats: int = Field(1, ge=1)


class Splits(Model):
    seed: Seed = 0
    random: RandomSplit = RandomSplit()
    spatial: SpatialSplit | None = None


class MethodChoice(Model):
    """A method that this city runs: overrides of its hyper-parameters, and named variants of them."""

    config: dict[str, Any] = Field(default_factory=dict)
    variants: dict[Annotated[str, Field(pattern=NAME_PATTERN)], dict[str, Any]] = Field(
        default_factory=dict
    )


class Schedule(Model):
    cron: Cron
    timezone: TimeZone = "UTC"


class Simulator(Model):
    """This city's raw files are made by `model_code.demo`, into the folder `path` of the data root."""

    path: str
    regions: int = Field(ge=10, le=100_000)
    seed: Seed = 0
    north_km: float = Field(0.0, ge=0, le=4000)
    cell_m: float = Field(1000.0, ge=100, le=5000, description="side of a simulated cell")


class City(Model):
    """All that is known of a city before its first run. `timezone` is needed with `sources.trips`:
    hours of the day are read in it."""

    name: str = Field(pattern=NAME_PATTERN)
    title: str
    boundary: Boundary
    crs: CityCrs = "auto"
    timezone: TimeZone = "UTC"
    partition: Partition
    sources: Sources = Sources()
    simulator: Simulator | None = None
    chips: Chips = Chips()
    street_view_images: StreetViewImages = StreetViewImages()
    captions: Captions | None = None
    image_encoder: ImageEncoderChoice | None = None
    indicators: dict[Annotated[str, Field(pattern=NAME_PATTERN)], Indicator] = Field(min_length=1)
    splits: Splits = Splits()
    methods: dict[str, MethodChoice] = Field(min_length=1)
    transfer: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    seeds: Annotated[tuple[Seed, ...], AfterValidator(_differ)] = Field((0, 1, 2), min_length=1)
    min_modality_share: float = Field(0.2, ge=0, le=1)
    schedule: Schedule | None = None

    @cached_property
    def read_from(self) -> str:
        """The YAML that it was read from, for messages; `load_city` says so. No part of its value."""
        return f"city {self.name!r}"

    def files(self, section: str) -> tuple[str, ...]:
        """Raw files that the dotted config key `section` names, in the order of the YAML."""
        node = _at(self, section)
        return tuple(named.path for named in named_files(node, section))

    def view(self, keys: tuple[str, ...]) -> CityView:
        """Only what `keys` (dotted) name; anything else raises, so a stage reads what it declares."""
        return CityView(self, keys)


class Named(NamedTuple):
    """A path that the config names: its dotted key, and what to cite."""

    key: str
    path: str
    licence: str
    date: str
    origin: str


_PATH_KEYS = ("path", "images")


def named_files(node: Any, key: str = "") -> Iterator[Named]:
    """Every file, folder or pattern that a config node names."""
    if isinstance(node, Simulator):  # its path is written, not read
        return
    if isinstance(node, BaseModel):
        about = [str(getattr(node, k, "not stated")) for k in ("licence", "date", "origin")]
        for name in type(node).model_fields:
            value = getattr(node, name)
            if name in _PATH_KEYS and isinstance(value, str):
                yield Named(f"{key}.{name}".lstrip("."), value, *about)
            else:
                yield from named_files(value, f"{key}.{name}")
    elif isinstance(node, Mapping):
        for name, value in node.items():
            yield from named_files(value, f"{key}.{name}")
    elif isinstance(node, tuple):
        for position, value in enumerate(node):
            yield from named_files(value, f"{key}.{position}")


class CityView:
    """The part of a city's config that a stage has declared; reading more is an error."""

    def __init__(self, node: Any, keys: tuple[str, ...], prefix: str = "") -> None:
        self._node, self._keys, self._prefix = node, keys, prefix

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked by copy and pickle before there are keys
            raise AttributeError(name)
        if name in self._keys:
            return _at(self._node, name)
        below = tuple(k.partition(".")[2] for k in self._keys if k.startswith(f"{name}."))
        if below:
            return CityView(_at(self._node, name), below, f"{self._prefix}{name}.")
        raise AttributeError(
            f"config key {self._prefix + name!r} is read but not declared by the stage"
        )

    def dump(self) -> dict[str, Any]:
        """The declared keys with their values as plain JSON types: what a fingerprint hashes."""
        return {key: _plain(_at(self._node, key)) for key in self._keys}


def _at(node: Any, key: str) -> Any:
    """The value of a dotted key; None where a section on the way is not given.

    Raises:
        KeyError: no config can have such a key.
    """
    for part in key.split("."):
        if isinstance(node, BaseModel):
            if part not in type(node).model_fields:
                raise KeyError(f"no config key {key!r}: {type(node).__name__} has no {part!r}")
            node = getattr(node, part)
        elif isinstance(node, tuple):
            node = node[int(part)]
        elif isinstance(node, Mapping):
            node = node.get(part)
        elif node is not None:
            raise KeyError(f"no config key {key!r}: nothing is below {node!r}")
    return node


def _plain(node: Any) -> Any:
    if isinstance(node, BaseModel):
        return node.model_dump(mode="json")
    if isinstance(node, Mapping):
        return {k: _plain(v) for k, v in node.items()}
    if isinstance(node, tuple):
        return [_plain(v) for v in node]
    return node


# --- loading -------------------------------------------------------------------------------------


class _Loader(yaml.CSafeLoader):
    """YAML whose keys are words as written (`no:` is no False), each given once (plain YAML keeps
    the last one silently)."""

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        own = [key for key, _ in node.value]
        self.flatten_mapping(node)  # `<<: *other`
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be one word", key.start_mark
                )
        words = [key.value for key in own]
        for place, key in enumerate(own):
            if key.value in words[:place]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice", key.start_mark
                )
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}

    yaml_constructors = {  # noqa: RUF012 (PyYAML's own way of naming them)
        **yaml.CSafeLoader.yaml_constructors,
        yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG: _mapping,
    }


def load_city(path: Path | str, root: str | None = None) -> City:
    """Read one city's YAML.

    Args:
        root: data root; with it, a YAML with a problem is also told which of its local files are
            missing. Of one without, `check_files` tells.

    Raises:
        ConfigError: with every problem found: file, dotted key, what is wrong, how to mend it.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (SafeLoader)
        # As JSON: strict there means that text is no number and `yes` no 1, but a list is a tuple.
        text = json.dumps(raw, default=str)
    except OSError as error:
        raise ConfigError(str(path), [Problem("(file)", str(error), "check the path")]) from error
    except (yaml.YAMLError, ValueError) as error:  # such as bytes that are no UTF-8, a 13th month
        raise ConfigError(
            str(path), [Problem("(file)", f"not YAML: {error}", "mend the line that it names")]
        ) from error
    if not isinstance(raw, dict):
        problem = Problem("(file)", "the file holds no mapping", "start with `name: ...`")
        raise ConfigError(str(path), [problem])
    problems: list[Problem] = []
    try:
        city = City.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems += _problems(error, raw, City)
    problems += _method_problems(raw)
    problems += _source_problems(raw)
    problems += _clock_problems(raw)
    problems += _transfer_problems(raw)
    name = raw.get("name")
    if isinstance(name, str) and name != path.stem and re.fullmatch(NAME_PATTERN, name):
        what = f"the file is {path.name}, the name is {name!r}"
        problems.append(Problem("name", what, f"call the file {name}.yaml, or change the name"))
    if problems:
        problems += _missing(_local_files(raw, root), root) if root else ()
        raise ConfigError(str(path), problems)
    vars(city)["read_from"] = str(path)  # as a cached property keeps its value
    return city


def _local_files(raw: Any, root: str) -> Iterator[tuple[str, str]]:
    """Key and path of the files on this machine that a raw file names, as far as it can be read."""

    def walk(node: Any, key: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, Mapping | list):
            for name, value in node.items() if isinstance(node, Mapping) else enumerate(node):
                if name in _PATH_KEYS and isinstance(value, str):
                    yield f"{key}.{name}", value
                else:
                    yield from walk(value, f"{key}.{name}")

    if raw.get("simulator") is None:  # which makes what is not there
        for section in ("boundary", "partition", "sources", "indicators"):
            for key, path in walk(raw.get(section), section):
                if not re.search("://|::", resolve(path, root)):
                    yield key, path


def _problems(
    error: ValidationError, raw: Any, model: type[BaseModel], prefix: str = ""
) -> Iterator[Problem]:
    """What pydantic found in a section, in a user's words."""
    for found in error.errors(include_url=False):
        if not (found["type"] == "too_short" and found["input"]):  # all of its items are wrong
            yield _problem(found, raw, model, prefix)


def _problem(error: Any, raw: Any, model: type[BaseModel], prefix: str) -> Problem:
    location = [str(part) for part in error["loc"]]
    kind, context, last = error["type"], error.get("ctx", {}), location[-1] if location else ""
    # Tags of discriminated unions stand in `loc` but are no keys of the file.
    key_parts: list[str] = []
    node: Any = raw
    for part in location:
        if isinstance(node, Mapping) and part in node:
            node = node[part]
            key_parts.append(part)
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
            key_parts.append(part)
        elif part == last and kind in ("missing", "extra_forbidden"):
            key_parts.append(part)
    key = ".".join([*([prefix] if prefix else []), *key_parts]) or "(file)"
    if kind == "extra_forbidden":
        known = sorted({n for m in _models_at(location[:-1], model) for n in m.model_fields})
        return Problem(key, "unknown key", _nearest(last, known))
    if kind == "missing":
        fix = f"want {int(last) + 1} values or more" if last.isdigit() else f"add `{last}:`"
        return Problem(key, "missing key", fix)
    if kind == "union_tag_not_found":
        known = [tag for m in _models_at(location, model) for tag in _tags(m)]
        return Problem(f"{key}.kind", "missing key", f"add `kind:`, one of {', '.join(known)}")
    if kind == "union_tag_invalid":
        known = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
        what = f"unknown kind {context['tag']!r}"
        return Problem(f"{key}.kind", what, _nearest(context["tag"], known))
    if kind == "value_error":
        return Problem(key, str(context["error"]), "change the value as said")
    what = f"{error['msg']} (got {error['input']!r:.80})"
    fix = "change the value as said"
    if error["input"] is None:
        fix = "take the key out, or write `{}` where a section has its defaults"
    elif kind == "string_type":
        fix = f'write it in quotes: "{error["input"]}"'
    elif kind == "string_pattern_mismatch":
        fix = _ADVICE.get(context["pattern"], "") or _described(location, model)
    return Problem(key, what, fix)


_ADVICE = {
    NAME_PATTERN: "use a-z, 0-9 and _ only, starting with a letter",
    COMMIT: "give the commit in full, 40 hex digits; a branch or a tag can move",
    SHA256: "give the digest in full, 64 hex digits, as `sha256sum FILE` prints it",
}  # by pattern


def _described(location: list[str], model: type[BaseModel]) -> str:
    """Advice for a value that has not the form of its field: what the field says of itself."""
    fields = [
        m.model_fields[location[-1]]
        for m in _models_at(location[:-1], model)
        if location[-1] in m.model_fields
    ]
    told = [field.description for field in fields if field.description]
    return f"want {told[0]}" if told else "change the value as said"


def _nearest(word: str, known: Iterable[str]) -> str:
    """Advice for a word that is not known."""
    near = difflib.get_close_matches(word, list(known), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known here: {', '.join(known)}"


def _models_at(location: list[str], model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that may stand at a location of a pydantic error."""
    found = [model]
    for part in location:
        fields = [m.model_fields[part] for m in found if part in m.model_fields]
        below = [m for field in fields for m in _models(field.annotation)]
        # a mapping's key, a list position or a union's tag: stay, but prefer the tagged model
        found = below or [m for m in found if part in _tags(m)] or found
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in get_args(annotation) for m in _models(part)]


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    """Values of `kind` by which a union tells its models apart."""
    return get_args(getattr(model.model_fields.get("kind"), "annotation", None))


def _section(node: Any, *path: str) -> Mapping[str, Any]:
    """A mapping of the raw file; empty where there is none."""
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def _method_problems(raw: Any) -> Iterator[Problem]:
    """Unknown methods, and overrides that a method's config does not know or cannot take."""
    for name, choice in _section(raw, "methods").items():
        if name not in METHODS:
            yield Problem(f"methods.{name}", "unknown method", _nearest(name, sorted(METHODS)))
            continue
        own = _section(choice, "config")
        found = list(_setting_problems(METHODS[name].config, own, own, f"methods.{name}.config"))
        yield from found
        for variant, changes in _section(choice, "variants").items():
            key = f"methods.{name}.variants.{variant}"
            if variant == "default":
                yield Problem(key, "`default` is the config itself", "choose another name")
            elif isinstance(changes, Mapping):
                of_variant = _setting_problems(
                    METHODS[name].config, {**own, **changes}, changes, key
                )
                yield from (p for p in of_variant if p.key != key or not found)


def _setting_problems(
    config: type[BaseModel], settings: Mapping[str, Any], own: Mapping[str, Any], key: str
) -> Iterator[Problem]:
    """What a method's config says of settings, as far as it is about the keys of `own`."""
    try:
        config.model_validate_json(json.dumps(settings, default=str), strict=True)
    except ValidationError as error:
        for problem in _problems(error, settings, config, key):
            first = problem.key.removeprefix(key).lstrip(".").partition(".")[0]
            if not first or first in own:
                yield problem


def _needs(name: str, chosen: Any) -> list[Modality]:
    """What a method needs, with its own settings or with those of a variant."""
    spec = METHODS[name]
    base = _section(chosen, "config")
    unread = []
    for own in ({}, *_section(chosen, "variants").values()):
        try:
            unread.append(_as_far_as_right(spec.config, {**base, **(own or {})}).switched_off())
        except (ValidationError, TypeError):
            return list(spec.needs)
    return [need for need in spec.needs if not all(need in off for off in unread)]


def _as_far_as_right(config: type[MethodConfig], settings: Mapping[str, Any]) -> MethodConfig:
    """A method's settings, less those keys that are wrong by themselves, which are told elsewhere.

    Raises:
        ValidationError: they do not go together.
    """
    try:
        return config.model_validate_json(json.dumps(settings, default=str))
    except ValidationError as error:
        wrong = {str(found["loc"][0]) for found in error.errors() if found["loc"]}
        right = {key: value for key, value in settings.items() if key not in wrong}
        return config.model_validate_json(json.dumps(right, default=str))


_SEEN_IN = {"satellite": "imagery", "street_view": "street_views"}


def _segmented(raw: Any, view: str) -> bool:
    """Whether a segmenter is named for a view: one word or choice for all, or one a view."""
    choice = _section(raw, "captions").get("segmenter", "embedded")
    if isinstance(choice, Mapping) and "kind" not in choice:
        choice = choice.get(view, "none")
    return (choice.get("kind") if isinstance(choice, Mapping) else choice) != "none"


def _source_problems(raw: Any) -> Iterator[Problem]:
    """Methods and indicators that need a source which this city does not have."""
    given = {name for name, source in _section(raw, "sources").items() if source}
    for name, chosen in _section(raw, "methods").items():
        needs = _needs(name, chosen) if name in METHODS else []
        if raw.get("captions") is None and not BY_CAPTIONS.isdisjoint(needs):
            yield Problem(
                f"methods.{name}",
                f"the method needs {' and '.join(m for m in needs if m in BY_CAPTIONS)}, and this "
                "city has no captions",
                "add `captions: {}`, or take the method out",
            )
        if raw.get("captions") is not None and "shares" in needs:
            views = [
                v for v in (VIEWS[:1] if "imagery" in needs else VIEWS) if _SEEN_IN[v] in given
            ]
            if views and not any(_segmented(raw, view) for view in views):
                yield Problem(
                    f"methods.{name}",
                    "the method needs what a segmenter measures in pictures of the view "
                    f"{' or '.join(views)}, and there is none",
                    "name one in `captions.segmenter`, or take the method out",
                )
        if raw.get("image_encoder") is None and "image_features" in needs:
            yield Problem(
                f"methods.{name}",
                "the method needs image_features, and this city names no encoder",
                "add `image_encoder: clip` or a backbone, or take the method out",
            )
        for modality in needs:
            sources = SOURCES_OF[modality]
            if modality not in METHODS[name].optional and sources and given.isdisjoint(sources):
                yield Problem(
                    f"methods.{name}",
                    f"the method needs {modality}, and this city has no source of it",
                    f"add {' or '.join(f'`sources.{s}`' for s in sources)}, or take the method out",
                )
        kinds = METHODS[name].predicts if name in METHODS else ()
        indicators = _section(raw, "indicators").values()
        told = [_section(indicator).get("kind", "regression") for indicator in indicators]
        if kinds and told and not set(kinds) & set(map(str, told)):
            yield Problem(
                f"methods.{name}",
                f"the method predicts indicators of kind {' or '.join(kinds)}, and there is none",
                f"add one with `kind: {kinds[0]}`, or take the method out",
            )
    for name, indicator in _section(raw, "indicators").items():
        source = _section(indicator, "source")
        if "truth" in given and _section(indicator).get("per_km2"):
            yield Problem(
                f"indicators.{name}.per_km2",
                "what can be reached (`sources.truth`) is known of totals alone",
                "take `per_km2` or `sources.truth` out",
            )
        needed = _COUNTED_FROM.get(str(source.get("count"))) if source.get("kind") == "city" else ()
        if needed and given.isdisjoint(needed):
            yield Problem(
                f"indicators.{name}.source.count",
                f"{source['count']} are counted from a table that this city has no source of",
                f"add {' or '.join(f'`sources.{s}`' for s in needed)}, or take the indicator out",
            )


def _clock_problems(raw: Any) -> Iterator[Problem]:
    """Times whose time zone nobody has said: taken for UTC, they would be wrong without a trace."""
    fix = "add `timezone:`, an IANA name such as America/New_York (or UTC, if that is meant)"
    trips, views = _section(raw, "sources", "trips"), _section(raw, "sources", "street_views")
    if trips and "timezone" not in raw:
        what = "missing key: it says in which hours of the day the trips of the city are counted"
        yield Problem("timezone", what, fix)
    if _section(views, "columns").get("taken_at") is not None and "timezone" not in views:
        what = "missing key: it says what a clock in `columns.taken_at` shows that gives no offset"
        yield Problem("sources.street_views.timezone", what, fix)


def _transfer_problems(raw: Any) -> Iterator[Problem]:
    """Transfers of methods that this city does not run, that need labels, or from itself."""
    chosen = _section(raw, "methods")
    able = sorted(n for n in chosen if n in METHODS and METHODS[n].kind == "pretrained")
    for name, sources in _section(raw, "transfer").items():
        if name not in able:
            what = "the city runs no such pretrained method"
            yield Problem(f"transfer.{name}", what, _nearest(name, able))
        if isinstance(sources, list) and raw.get("name") in sources:
            what = "a city cannot be transferred to itself"
            yield Problem(f"transfer.{name}", what, f"take {raw['name']!r} out")


class Cities:
    """All cities of the config folders: those that load, and why the others do not."""

    def __init__(self, good: dict[str, City], bad: dict[str, ConfigError]) -> None:
        self.good, self.bad = good, bad

    @classmethod
    def load(cls, folders: tuple[Path, ...] | None = None) -> Cities:
        """Read every `*.yaml` of the folders; a bad file disables that city alone, and a name that
        stands in two folders is an error of the second."""
        good: dict[str, City] = {}
        bad: dict[str, ConfigError] = {}

        def refuse(name: str, path: Path, key: str, what: str, fix: str) -> None:
            bad[name] = ConfigError(str(path), [Problem(key, what, fix)])

        for folder in city_folders() if folders is None else folders:
            if not folder.is_dir():
                refuse(str(folder), folder, "(folder)", "no such folder",
                       "make it, or mend $CITYLOOM_CITIES")  # fmt: skip
            for path in sorted(folder.glob("*.y*ml")):
                if path.suffix != ".yaml":
                    refuse(str(path), path, "(file)", "not read", f"rename it {path.stem}.yaml")
                elif path.stem in good or path.stem in bad:
                    refuse(str(path), path, "name", f"{path.stem!r} stands in two folders",
                           "rename one file")  # fmt: skip
                else:
                    try:
                        good[path.stem] = load_city(path, data_root())
                    except ConfigError as error:
                        bad[path.stem] = error
        return cls(good, bad)

    def __getitem__(self, name: str | None) -> City:
        if name in self.good:
            return self.good[name]
        if name in self.bad:
            raise self.bad[name]
        listing = ", ".join(sorted(self.good)) or "none"
        near = difflib.get_close_matches(name or "", self.good, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownCityError(
            f"unknown city {name!r}" if name else "this run names no city",
            fix=f"{hint}give one of: {listing} "
            """(--tags '{"dagster/partition": "CITY"}'); a new city is a new file in """
            + " or ".join(map(str, city_folders())),
        )


def city_folders() -> tuple[Path, ...]:
    """`cities/` of the checkout, and the folder that `$CITYLOOM_CITIES` names."""
    own = Path(__file__).resolve().parent.parent / "cities"
    extra = os.environ.get("CITYLOOM_CITIES")
    return tuple(dict.fromkeys((own, Path(extra).expanduser().resolve()) if extra else (own,)))


def data_root() -> str:
    """Where raw files lie: `$CITYLOOM_DATA` (a folder or an fsspec URL), by default `data`."""
    root = os.environ.get("CITYLOOM_DATA") or str(Path(__file__).resolve().parent.parent / "data")
    return root if "://" in root else str(Path(root).expanduser().resolve())


def resolve(path: str, root: str) -> str:
    """A path of the config as an absolute path or URL."""
    return path if "://" in path or Path(path).is_absolute() else f"{root.rstrip('/')}/{path}"


def check_files(city: City, root: str, sections: tuple[str, ...] = ("",)) -> None:
    """Every file that the city names must exist.

    Raises:
        ConfigError: naming the YAML, and every missing file by its key.
    """
    named = (
        (key, path)
        for key, path, *_ in named_files(city)
        if any(key.startswith(section) for section in sections)
    )
    if problems := list(_missing(named, root)):
        raise ConfigError(city.read_from, problems)


def _missing(named: Iterable[tuple[str, str]], root: str) -> Iterator[Problem]:
    """Of these keys and paths, those that lead to no file."""
    import fsspec

    for key, path in named:
        url = resolve(path, root)
        try:
            fs, local = fsspec.core.url_to_fs(url)
            there = bool(fs.glob(local)) if "*" in local else fs.exists(local)
        except (ImportError, OSError, ValueError) as error:
            fix = f"mend {key} or $CITYLOOM_DATA, or install what opens such a URL"
            yield Problem(key, f"cannot look for {url}: {error}", fix)
            continue
        if not there:
            fix = f"put the file there, change {key}, or set $CITYLOOM_DATA (now {root})"
            yield Problem(key, f"no such file: {url}", fix)
