"""The contract of every table: columns, types, units, keys, in one place.

From a contract come the Arrow schema that a file is written with, the blocking check that runs
before a file is renamed into place, and `docs/tables.md`. Names carry units (`area_km2`); metres
are metres in the city's CRS; every table is ordered by its key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    pass

Kind = Literal[
    "string", "int8", "int32", "int64", "float32", "float64", "bool", "binary", "timestamp",
    "geometry", "vector", "strings",
]  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column. `low`/`high` bound numbers (inclusive); `choices` bounds strings."""

    name: str
    kind: Kind
    about: str
    nullable: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A named set of columns with the key that rows are ordered by and unique in."""

    name: str
    about: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def geometry(self) -> str | None:
        """Name of the geometry column, which makes the file GeoParquet."""
        return next((c.name for c in self.columns if c.kind == "geometry"), None)

    def names(self) -> list[str]:
        return [c.name for c in self.columns]


def _table(name: str, about: str, key: Iterable[str], *columns: Column) -> Table:
    table = Table(name, about, columns, tuple(key))
    unknown = set(table.key) - set(table.names())
    if unknown:
        raise ValueError(f"table {name}: key columns {unknown} are no columns")
    return table


_REGION = Column("region_id", "string", "id of the region, stable from run to run")
_X = Column("x_m", "float64", "easting in the city's CRS")
_Y = Column("y_m", "float64", "northing in the city's CRS")
_FIT = (
    Column("variant", "string", "`default`, or the name of a variant in the city's YAML"),
    Column("split", "string", "`random` | `spatial`; `all` where no label and no split was seen"),
    Column("fold", "int32", "fold of the split; -1 where split is `all`", low=-1),
    Column("seed", "int32", "training seed"),
)

_IMAGE = (
    Column("view", "string", "kind of picture", choices=("satellite", "street_view")),
    Column("image_id", "string", "the region of a chip, or the id of a street view"),
    _REGION,
)

_DESCRIBED = (
    Column(
        "form",
        "string",
        "`levels`; `levels_lite` where the captioner is told less of behaviour",
        choices=("levels", "levels_lite"),
    ),
    Column(
        "modality",
        "string",
        "what is described",
        choices=("heights", "pois", "satellite", "street_view"),
    ),
)

_BOARD = (
    Column("city", "string", "city"),
    Column("method", "string", "method"),
    *_FIT[:1],
    Column("task", "string", "indicator"),
    *_FIT[1:],
    Column("scale", "string", "scale of the figure",
           choices=("transformed", "original", "class")),
    Column("metric", "string", "metric",
           choices=("r2", "rmse", "mae", "mape", "accuracy", "macro_f1", "macro_recall")),
    Column("value", "float64", "value; null when it is not estimable", nullable=True),
    Column("inputs", "string", "modalities that the method read, comma-separated"),
    Column("protocol", "string", "which regions pretraining saw",
           choices=("transductive", "inductive", "supervised", "supervised, transductive")),
    Column("captioner", "string", "captioner behind the texts; empty without texts"),
    Column("target_in_inputs", "bool", "the target is contained in an input"),
    Column("left_out", "int64", "test values that the metric leaves out (true zeros of mape)",
           low=0),
    Column("n_train", "int64", "training regions with a label", low=0),
    Column("n_test", "int64", "test regions with a label", low=0),
)  # fmt: skip

_ANSWER = (
    Column("captioner", "string", "model and revision"),
    Column("settings", "string", "decoding settings, JSON"),
    Column("prompt", "string", "prompt's name, version and digest; empty where the model has none"),
    Column("seed", "int64", "seed of the try", low=0),
    Column("temperature", "float64", "temperature of the try", low=0),
    Column("tokens_in", "int64", "tokens read", low=0),
    Column("tokens_out", "int64", "tokens written", low=0),
    Column("took_s", "float64", "how long it took when it was made, waits left out; null where the "
           "captioner does not measure it", nullable=True, low=0),
    Column("requests", "int32", "times that the model was asked until it answered, or was given up; "
           "each after the first with another seed, and warmer, where the answer was malformed",
           low=0),
)  # fmt: skip

_ALL = (
    _table(
        "raw_files",
        "Inventory of the raw files that the city's YAML names, with what to cite.",
        ["source", "path"],
        Column("source", "string", "dotted config key that names the file"),
        Column("path", "string", "as the config says it; files of a folder one by one"),
        Column("bytes", "int64", "size", low=0),
        Column("sha256", "string", "digest of the content"),
        Column("licence", "string", "as the config says it"),
        Column("date", "string", "as the config says it"),
        Column("origin", "string", "as the config says it"),
    ),
    _table(
        "boundary",
        "The city's outline in its own CRS (one row); every later table is in that CRS.",
        ["city"],
        Column("city", "string", "name of the city"),
        Column("crs", "string", "EPSG code of the city's CRS", nullable=False),
        Column("area_km2", "float64", "area inside", low=0),
        Column("geometry", "geometry", "polygon or multipolygon"),
    ),
    _table(
        "imagery",
        "The satellite or aerial image as the reader sees it; pixels stay in the raw file.",
        ["path"],
        Column("path", "string", "as the config says it"),
        Column("crs", "string", "CRS of the file"),
        Column("width_px", "int64", "width", low=1),
        Column("height_px", "int64", "height", low=1),
        Column("bands", "int32", "bands in the file", low=1),
        Column("dtype", "string", "type of a pixel"),
        Column("nodata", "float64", "value that means no data", nullable=True),
        Column("pixel_x_m", "float64", "ground width of a pixel at the image's centre", low=0),
        Column("pixel_y_m", "float64", "ground height of a pixel at the image's centre", low=0),
        Column("stretch_low", "vector", "value that becomes 0, by chosen band"),
        Column("stretch_high", "vector", "value that becomes 255, by chosen band"),
        Column("geometry", "geometry", "footprint"),
    ),
    _table(
        "street_views",
        "Photographs with a place; unreadable ones are in `rejected`.",
        ["view_id"],
        Column("view_id", "string", "file name without its folder"),
        Column("path", "string", "path of the image file, relative to the data root"),
        Column("sha256", "string", "digest of the image file"),
        Column("width_px", "int64", "width", low=1),
        Column("height_px", "int64", "height", low=1),
        Column("heading_deg", "float64", "compass heading", nullable=True, low=-360, high=360),
        Column("taken_at", "timestamp", "time of the photograph, UTC", nullable=True),
        Column("lon", "float64", "longitude, EPSG:4326", low=-180, high=180),
        Column("lat", "float64", "latitude, EPSG:4326", low=-90, high=90),
        _X,
        _Y,
    ),
    _table(
        "pois",
        "Points of interest of all POI sources, filtered as the config says.",
        ["poi_id"],
        Column("poi_id", "int64", "position in the sources as read, rejected rows included", low=0),
        Column("category", "string", "category as the source has it"),
        Column("name", "string", "name", nullable=True),
        Column("comments", "strings", "comments; null when the source has none", nullable=True),
        _X,
        _Y,
    ),
    _table(
        "trips",
        "Trips by points or by zone ids; streamed, never whole in memory.",
        ["trip_id"],
        Column("trip_id", "int64", "position in the source as read, rejected rows included", low=0),
        Column("started_at", "timestamp", "start, UTC"),
        Column("trip_count", "int64", "trips that the row stands for", low=0),
        Column("origin_x_m", "float64", "easting of the start", nullable=True),
        Column("origin_y_m", "float64", "northing of the start", nullable=True),
        Column("destination_x_m", "float64", "easting of the end", nullable=True),
        Column("destination_y_m", "float64", "northing of the end", nullable=True),
        Column("origin_zone", "string", "zone of the start", nullable=True),
        Column("destination_zone", "string", "zone of the end", nullable=True),
    ),
    _table(
        "buildings",
        "Building footprints with heights.",
        ["building_id"],
        Column("building_id", "int64", "position in the sources as read", low=0),
        Column("height_m", "float64", "height above ground", nullable=True, low=0),
        Column("footprint_m2", "float64", "area of the footprint", low=0),
        Column("geometry", "geometry", "footprint"),
    ),
    _table(
        "regions",
        "The units of everything that follows.",
        ["region_id"],
        _REGION,
        Column("area_km2", "float64", "area", low=0),
        Column("inside_share", "float64", "share of the cell inside the boundary", low=0, high=1.001),
        _X,
        _Y,
        Column("lon", "float64", "longitude of the representative point", low=-180, high=180),
        Column("lat", "float64", "latitude of the representative point", low=-90, high=90),
        Column("geometry", "geometry", "polygon or multipolygon"),
    ),
    _table(
        "adjacency",
        "Pairs of regions that share a border, in both directions.",
        ["region_id", "neighbour_id"],
        _REGION,
        Column("neighbour_id", "string", "id of the neighbour"),
        Column("border_m", "float64", "length of the shared border", low=0),
    ),
    _table(
        "region_chips",
        "One image a region, cut from the imagery.",
        ["region_id"],
        _REGION,
        Column("pixels", "binary", "uint8 [height_px, width_px, bands] in C order"),
        Column("height_px", "int32", "height", low=1),
        Column("width_px", "int32", "width", low=1),
        Column("bands", "int32", "bands", low=1),
        Column("ground_m", "float64", "width on the ground", low=0),
        Column("valid_share", "float64", "share of pixels that hold data", low=0, high=1),
    ),
    _table(
        "region_street_views",
        "Every street view with its region, brought to one size.",
        ["region_id", "view_id"],
        _REGION,
        Column("view_id", "string", "as in `street_views`"),
        Column("pixels", "binary", "uint8 [height_px, width_px, 3] in C order"),
        Column("height_px", "int32", "height", low=1),
        Column("width_px", "int32", "width", low=1),
        Column("heading_deg", "float64", "compass heading", nullable=True, low=-360, high=360),
        Column("lon", "float64", "longitude", low=-180, high=180),
        Column("lat", "float64", "latitude", low=-90, high=90),
    ),
    _table(
        "region_pois",
        "POIs that lie in a region, with it.",
        ["poi_id"],
        Column("poi_id", "int64", "as in `pois`", low=0),
        _REGION,
        Column("category", "string", "category as the source has it"),
    ),
    _table(
        "poi_counts",
        "POIs by region and category; a pair without a row has none.",
        ["region_id", "category"],
        _REGION,
        Column("category", "string", "category"),
        Column("poi_count", "int64", "POIs", low=1),
    ),
    _table(
        "poi_texts",
        "Names and comments of a region's POIs.",
        ["region_id"],
        _REGION,
        Column("names", "strings", "names, ordered by poi_id"),
        Column("comments", "strings", "comments, ordered by poi_id; null without a comment source",
               nullable=True),
        Column("name_categories", "strings", "category of the POI of each name"),
        Column("comment_categories", "strings", "category of the POI of each comment; null like them",
               nullable=True),
    ),
    _table(
        "musecl_triplets",
        "Triplets of pictures as MuseCL draws them in training: examples to look at.",
        ["view", "triplet", "role"],
        Column("view", "string", "kind of picture", choices=("satellite", "street_view")),
        Column("triplet", "int32", "number of the triplet, from 0", low=0),
        Column("role", "string", "role of the picture", choices=("anchor", "negative", "positive")),
        _REGION,
        Column("similarity", "float64", "of the anchor's region, 1 / distance in POI counts (chips) or "
               "in out- and inflow (street views); null for the anchor", nullable=True, low=0),
        Column("pixels", "binary", "uint8 [height_px, width_px, 3] in C order"),
        Column("height_px", "int32", "height", low=1),
        Column("width_px", "int32", "width", low=1),
    ),
    _table(
        "urbanmmcl_graphs",
        "The strongest links of each of UrbanMMCL's graphs.",
        ["view", "region_a", "region_b"],
        Column("view", "string", "graph", choices=("distance", "function", "mobility")),
        Column("region_a", "string", "the region whose id comes first"),
        Column("region_b", "string", "the other"),
        Column("weight", "float64", "of the link; the strongest of a graph has 1", low=0, high=1),
    ),
    _table(
        "urbanmmcl_views",
        "What UrbanMMCL's embedding is the fusion of, in the first fit of the default; rows of one view have "
        "one width.",
        ["view", "region_id"],
        Column("view", "string", "`whole` (the embedding), `modalities` (the node feature), or a graph's vector",
               choices=("distance", "function", "mobility", "modalities", "whole")),
        _REGION,
        Column("vector", "vector", "float32 [D]"),
    ),
    _table(
        "urbanmoe_outputs",
        "What UrbanMoE's experts put out in the first fit of the default, in two dimensions: of up to three tasks, "
        "for some of the regions that it was not trained on.",
        ["branch", "task", "number", "region_id"],
        Column("branch", "string", "branch", choices=("image", "text")),
        Column("task", "string", "indicator"),
        Column("number", "int32", "of the expert among those that the task may use; the last is their mixture",
               low=0),
        _REGION,
        Column("kind", "string", "whose the expert is", choices=("mixture", "own", "pair", "shared")),
        Column("weight", "float64", "what the task's router gives it for this region, 0 where it is shut off; null "
               "for the mixture", nullable=True, low=0, high=1),
        Column("axis_1", "float64", "first axis"),
        Column("axis_2", "float64", "second axis"),
        Column("projection", "string", "`pca` where t-SNE is not to be had: of fewer than 5 outputs, of more than "
               "3,000, of equal ones", choices=("pca", "tsne")),
        Column("spread", "float64", "squared distance from the mean output of the same expert, both of length one: 0 "
               "where it puts out the same for all regions, 1 where outputs have nothing in common; null for the "
               "mixture, and for a single region", nullable=True, low=0),
        Column("own_nearest", "float64", "1: of all experts' outputs for other regions the nearest is of the same "
               "expert; 0: it is of another; null as `spread` is", nullable=True, low=0, high=1),
    ),
    _table(
        "lmemr_attention",
        "What regions give to their neighbours in LMEMR's graph attention, in the first fit of the default: "
        "means over heads and blocks.",
        ["modality", "region_id", "neighbour_id"],
        Column("modality", "string", "modality", choices=("heights", "pois", "satellite", "street_view")),
        _REGION,
        Column("neighbour_id", "string", "region that it attends to"),
        Column("weight", "float64", "its share; those of a region and modality sum to 1", low=0, high=1),
    ),
    _table(
        "lmemr_states",
        "States of LMEMR's modalities after the graph, in two dimensions, with and without the contrast "
        "between modalities (the variant that differs in `inter` alone, where the city has one).",
        ["contrast", "modality", "region_id"],
        Column("contrast", "string", "contrast between modalities", choices=("with", "without")),
        Column("modality", "string", "modality", choices=("heights", "pois", "satellite", "street_view")),
        _REGION,
        Column("axis_1", "float64", "first axis"),
        Column("axis_2", "float64", "second axis"),
        Column("projection", "string", "`pca` below 30 regions", choices=("pca", "tsne")),
        Column("match_share", "float64", "in what share of the other modalities the nearest state is of this "
               "very region; null without any other", nullable=True, low=0, high=1),
    ),
    _table(
        "flows",
        "Trips between regions. Rows from a ready matrix have no hour.",
        ["source", "origin_id", "destination_id", "hour"],
        Column("source", "string", "`od` (a ready matrix) or `trips`", choices=("od", "trips")),
        Column("origin_id", "string", "region of the start"),
        Column("destination_id", "string", "region of the end"),
        Column("hour", "int8", "local hour of the start", nullable=True, low=0, high=23),
        Column("trip_count", "float64", "trips; fractions where zones are shared by area", low=0),
    ),
    _table(
        "mobility",
        "Out- and inflow of each region, by hour where it is known; zero rows are written out.",
        ["source", "region_id", "hour"],
        Column("source", "string", "as in `flows`", choices=("od", "trips")),
        _REGION,
        Column("hour", "int8", "local hour of the start", nullable=True, low=0, high=23),
        Column("outflow", "float64", "trips that start here", low=0),
        Column("inflow", "float64", "trips that end here", low=0),
    ),
    _table(
        "heights",
        "Building-height map of each region that has buildings.",
        ["region_id"],
        _REGION,
        Column("pixels", "binary", "float32 metres [height_px, width_px] in C order; NaN = no height"),
        Column("height_px", "int32", "height", low=1),
        Column("width_px", "int32", "width", low=1),
        Column("building_count", "int64", "footprints that overlap the region", low=0),
        Column("with_height_share", "float64", "share of them with a height", low=0, high=1),
        Column("built_share", "float64", "share of the region under footprints", low=0, high=1.001),
        Column("mean_height_m", "float64", "weighted by footprint", nullable=True, low=0),
    ),
    _table(
        "image_shares",
        "What chips and street views show, measured by the segmenter of their view.",
        ["view", "image_id"],
        *_IMAGE,
        Column("sha256", "string", "digest of the pixels"),
        Column("segmenter", "string", "model and revision"),
        Column("classes", "strings", "classes of the segmenter"),
        Column("shares", "vector", "share of the pixels by class; empty where it cannot judge"),
        Column("note", "string", "why the segmenter cannot judge the picture; empty where it can"),
    ),
    _table(
        "image_features",
        "Frozen features of chips and street views, by the city's `image_encoder`.",
        ["view", "image_id"],
        *_IMAGE,
        Column("sha256", "string", "digest of the pixels"),
        Column("encoder", "string", "model and revision"),
        Column("feature", "vector", "numbers of the encoder's width"),
    ),
    _table(
        "captions",
        "Every caption of every image, one try a row.",
        ["view", "image_id", "attempt"],
        *_IMAGE,
        Column("attempt", "int32", "number of the try, from 0", low=0),
        Column("sha256", "string", "digest of the pixels"),
        Column("status", "string", "whether there is a caption; the next run tries errors again",
               choices=("ok", "error")),
        Column("text", "string", "the caption; empty where there was none"),
        Column("error", "string", "why there is none; else empty"),
        *_ANSWER,
    ),
    _table(
        "caption_scores",
        "How well each caption fits its image (docs/captions.md says what each score is).",
        ["view", "image_id", "attempt"],
        *_IMAGE[:2],
        Column("attempt", "int32", "number of the try, from 0", low=0),
        Column("clip_cosine", "float64", "cosine of image and text", nullable=True, low=-1.001,
               high=1.001),
        Column("clip_score", "float64", "CLIPScore, 0 to 1", nullable=True, low=0, high=1),
        Column("clip_by", "string", "`whole`, or `sentences` where it is too long for the tower",
               choices=("whole", "sentences", "")),
        Column("cycle_paper", "float64", "1 - mean difference over all classes, as printed",
               nullable=True, low=0, high=1),
        Column("cycle_present", "float64", "the same over classes that either picture shows",
               nullable=True, low=0, high=1),
        Column("cycle_score", "float64", "1 - half the sum of differences", nullable=True, low=0,
               high=1),
        Column("perception_score", "float64", "PerceptionScore", nullable=True, low=0, high=1),
        Column("note", "string", "what was left out, and why; else empty"),
    ),
    _table(
        "calibrated_captions",
        "The best try of each image, and whether it is fit for pretraining.",
        ["view", "image_id"],
        *_IMAGE,
        Column("attempt", "int32", "the try that was taken; -1 where none gave a caption", low=-1),
        Column("tries", "int32", "how many there were", low=1),
        Column("text", "string", "the caption; empty where there is none"),
        Column("first_text", "string", "the first try, whatever its score: what is read without "
               "calibration"),
        Column("perception_score", "float64", "its score", nullable=True, low=0, high=1),
        Column("kept", "bool", "false: left out of pretraining"),
        Column("reason", "string", "why it is not kept; else empty"),
        Column("captioner", "string", "model and revision"),
    ),
    _table(
        "poi_descriptions",
        "What each region is used for, written from its POIs alone.",
        ["region_id"],
        _REGION,
        Column("status", "string", "whether there is a text; the next run tries errors again",
               choices=("ok", "error")),
        Column("text", "string", "the description; empty where there is none"),
        Column("error", "string", "why there is none; else empty"),
        *_ANSWER,
    ),
    _table(
        "region_descriptions",
        "Each modality of each region in three levels, as a captioner tells them.",
        ["form", "modality", "region_id"],
        *_DESCRIBED,
        _REGION,
        Column("tries", "int32", "how often it was asked", low=1),
        Column("land", "string", "what stands there and what it is for; empty where the answer is bad"),
        Column("activity", "float64", "how busy it is, 0 to 100", nullable=True, low=0, high=100),
        Column("departures", "vector", "how strongly people leave by hour from midnight, 0 to 1 [24]; "
               "empty where the answer is bad"),
        Column("text", "string", "the three levels as the sentences that are encoded; empty likewise"),
        Column("status", "string", "`ok`, or `error`: the next run asks again",
               choices=("ok", "error")),
        Column("error", "string", "what is wrong with the last answer; else empty"),
        *_ANSWER,
    ),
    _table(
        "description_features",
        "Descriptions as vectors of a sentence encoder.",
        ["form", "modality", "region_id"],
        *_DESCRIBED,
        _REGION,
        Column("encoder", "string", "model and revision"),
        Column("feature", "vector", "float32, a unit vector; empty where there is no description"),
    ),
    _table(
        "location_features",
        "GeoCLIP's features of the places of street views.",
        ["region_id", "view_id"],
        _REGION,
        Column("view_id", "string", "as in `street_views`"),
        Column("feature", "vector", "float32 [512]"),
    ),
    _table(
        "indicators",
        "What is to be predicted, and how much of the city has it.",
        ["indicator"],
        Column("indicator", "string", "name, as in the city's YAML"),
        Column("kind", "string", "kind of target",
               choices=("regression", "classification", "hourly")),
        Column("transform", "string", "applied before standardising", choices=("none", "log1p")),
        Column("unit", "string", "unit of the original value"),
        Column("description", "string", "what it is"),
        Column("contained_in", "strings", "input tables that hold the target already"),
        Column("classes", "strings", "labels of a classification, by code; else empty"),
        Column("regions", "int64", "regions with a label", low=0),
        Column("region_share", "float64", "share of the regions with a label", low=0, high=1),
    ),
    _table(
        "targets",
        "Indicator values by region, original scale; a missing label has no row.",
        ["indicator", "region_id", "slot"],
        Column("indicator", "string", "name"),
        _REGION,
        Column("slot", "int32", "0; the hour of an hourly indicator", low=0, high=23),
        Column("value", "float64", "value; for a classification the code of its label"),
        Column("coverage", "float64", "share of the region that had data", low=0, high=1.001),
    ),
    _table(
        "splits",
        "Which regions train, validate and test; every method reads the same.",
        ["split", "fold", "region_id"],
        Column("split", "string", "kind", choices=("random", "spatial")),
        Column("fold", "int32", "fold (random: repeat)", low=0),
        _REGION,
        Column("part", "string", "role", choices=("train", "val", "test")),
        Column("block", "string", "spatial block; empty for a random split"),
    ),
    _table(
        "coverage",
        "What share of the regions each modality reaches.",
        ["modality"],
        Column("modality", "string", "modality"),
        Column("items", "int64", "things of it that lie in regions, each counted once", low=0),
        Column("regions", "int64", "regions that have it", low=0),
        Column("region_share", "float64", "share of the regions that have it", low=0, high=1),
    ),
    _table(
        "rejected",
        "Every raw row that did not become part of a table, with the reason.",
        ["stage", "source", "row", "reason"],
        Column("stage", "string", "table that it was meant for"),
        Column("source", "string", "file or table that it comes from"),
        Column("row", "int64", "position in that source", low=0),
        Column("reason", "string", "short reason, the same for all rows of its sort"),
        Column("detail", "string", "what was found; empty after the first 10,000 rows of one reason in one "
               "source"),
        Column("items", "float64", "items that the row stands for; fractions where zones are shared by "
               "area, 0 for a note without a loss", low=0),
    ),
    _table(
        "embeddings",
        "Region embeddings of one method; rows of one fit have one width.",
        ["variant", "split", "fold", "seed", "region_id"],
        *_FIT,
        _REGION,
        Column("embedding", "vector", "float32 [D]"),
    ),
    _table(
        "embedding_map",
        "Embeddings of a method's first fit in two dimensions, and in clusters.",
        ["region_id"],
        _REGION,
        Column("pca_1", "float64", "first principal component"),
        Column("pca_2", "float64", "second principal component"),
        Column("tsne_1", "float64", "t-SNE; null for very few or very many regions", nullable=True),
        Column("tsne_2", "float64", "t-SNE, second axis", nullable=True),
        Column("cluster", "int32", "k-means cluster, the largest is 0", low=0),
    ),
    _table(
        "predictions",
        "Predictions for test regions.",
        ["variant", "task", "split", "fold", "seed", "region_id", "slot"],
        *_FIT,
        Column("task", "string", "indicator"),
        _REGION,
        Column("slot", "int32", "0; the hour of an hourly indicator", low=0, high=23),
        Column("y_true", "float64", "transformed scale; code of a class"),
        Column("y_pred", "float64", "transformed scale; code of a class"),
        Column("y_true_original", "float64", "original scale; code of a class"),
        Column("y_pred_original", "float64", "original scale; code of a class"),
    ),
    _table(
        "leaderboard",
        "Every figure of every method, one a row.",
        ["method", "variant", "task", "split", "fold", "seed", "scale", "metric"],
        *_BOARD,
    ),
    _table(
        "hourly_metrics",
        "Every figure of the hourly targets, by hour of the day.",
        ["method", "variant", "task", "split", "fold", "seed", "hour", "scale", "metric"],
        *_BOARD[1:7],
        Column("hour", "int32", "local hour of the day", low=0, high=23),
        *_BOARD[7:10],
        Column("left_out", "int64", "test values that the metric leaves out (true zeros of mape)",
               low=0),
        Column("n_test", "int64", "test regions with a label", low=0),
    ),
    _table(
        "transfer",
        "Figures of encoders that were pretrained in other cities, with heads of this one.",
        ["method", "pretrained_on", "task", "split", "fold", "seed", "scale", "metric"],
        Column("pretrained_on", "string", "city whose regions pretraining saw"),
        *_BOARD,
    ),
    _table(
        "comparisons",
        "Paired bootstrap between methods on the same test regions (all folds and seeds joined).",
        ["task", "split", "metric", "method_a", "variant_a", "method_b", "variant_b"],
        Column("task", "string", "indicator"),
        Column("split", "string", "split"),
        Column("metric", "string", "metric"),
        Column("method_a", "string", "the better method"),
        Column("variant_a", "string", "its variant"),
        Column("method_b", "string", "the other method"),
        Column("variant_b", "string", "its variant"),
        Column("difference", "float64", "a minus b; null when not estimable", nullable=True),
        Column("low", "float64", "2.5 % quantile of the difference", nullable=True),
        Column("high", "float64", "97.5 % quantile of the difference", nullable=True),
        Column("regions", "int64", "test regions that were resampled", low=0),
    ),
    _table(
        "reachable",
        "What could be reached on a simulated city: the true function, and kriging added.",
        ["task", "split", "fold"],
        Column("task", "string", "indicator"),
        *_FIT[1:3],
        Column("scale", "string", "scale of the figures", choices=("transformed", "class")),
        Column("metric", "string", "metric", choices=("r2", "macro_f1")),
        Column("true_function", "float64", "the noise-free function alone; null when not estimable",
               nullable=True),
        Column("with_kriging", "float64", "plus kriging of the training residuals", nullable=True),
        Column("n_test", "int64", "test regions", low=0),
    ),
)  # fmt: skip

TABLES: dict[str, Table] = {table.name: table for table in _ALL}

# Made when it is read, of what stands beside the data: it says nothing of the data, and no file of
# the lake depends on it.
TIMINGS = _table(
    "timings",
    'What the last computation of each asset took, and what it holds: `read("timings", city=...)`, '
    "no asset of its own. `cityloom sizes` adds it up.",
    ["asset"],
    Column("asset", "string", "asset of the city that stands in the lake"),
    Column("bytes", "int64", "size of its files; 0 where the city has no such asset", low=0),
    Column("seconds", "float64", "how long the computation took; missing where nothing was computed "
           "here", nullable=True, low=0),
    Column("process_peak_mib", "float64", "peak memory of the process until then, all earlier steps "
           "of the run included", nullable=True, low=0),
    Column("made_at", "timestamp", "when the computation ended, UTC", nullable=True),
)  # fmt: skip


def contract(name: str) -> Table:
    """The contract of a table; an unknown name lists the choices."""
    if name not in TABLES:
        raise KeyError(f"no contract for table {name!r}; known: {', '.join(sorted(TABLES))}")
    return TABLES[name]


def markdown() -> str:
    """All contracts as the page `docs/tables.md`."""
    lines = ["# Tables", "", "Made from `model_code/tables.py` by `make tables`.", ""]
    for table in (*TABLES.values(), TIMINGS):
        lines += [f"## {table.name}", "", table.about, "", f"Key: {', '.join(table.key)}.", ""]
        lines += ["| column | type | may be missing | what it is |", "|---|---|---|---|"]
        for column in table.columns:
            bounds = _bounds(column)
            missing = "yes" if column.nullable else ""
            about = column.about.replace("|", "\\|") + (f" ({bounds})" if bounds else "")
            lines.append(f"| `{column.name}` | {column.kind} | {missing} | {about} |")
        lines.append("")
    return "\n".join(lines)


def _bounds(column: Column) -> str:
    if column.choices:
        return "one of " + ", ".join(f"`{choice}`" for choice in column.choices)
    low = "" if column.low is None else f"at least {column.low:g}"
    high = "" if column.high is None else f"at most {column.high:g}"
    return ", ".join(text for text in (low, high) if text)
