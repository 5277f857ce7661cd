"""From tables in the lake to the arrays that methods read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from model_code.errors import DataError
from resources.lake import Handle

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from model_code.methods.base import RegionData, Targets

# The table by region of each modality; location comes with the regions themselves.
TABLE_OF = {
    "imagery": "region_chips",
    "street_views": "region_street_views",
    "pois": "poi_counts",
    "poi_texts": "poi_texts",
    "poi_descriptions": "poi_descriptions",
    "flows": "flows",
    "buildings": "heights",
    "chip_captions": "calibrated_captions",
    "view_captions": "calibrated_captions",
    "view_locations": "location_features",
    "shares": "image_shares",
    "image_features": "image_features",
    "descriptions": "description_features",
    "adjacency": "adjacency",
    "towers": "clip_checkpoint",
}


def region_ids(regions: Handle) -> Any:
    """Ids of the regions [N] in the order of every array."""
    return regions.frame(["region_id"])["region_id"].to_numpy(str)


def region_data(
    handles: Mapping[str, Handle], modalities: Collection[str], min_valid_share: float
) -> RegionData:
    """The inputs of a method as arrays in region order.

    Args:
        handles: `regions`, and the table of each modality that the method needs.
        modalities: which of them to load; the others stay None.
        min_valid_share: a chip with fewer valid pixels counts as absent.
    """
    import numpy as np

    from model_code.methods.base import RegionData

    places = handles["regions"].frame(["region_id", "lon", "lat", "x_m", "y_m", "area_km2"])
    ids = places["region_id"].to_numpy(str)
    loaders = {
        "imagery": lambda table: _chips(table, ids, min_valid_share),
        "street_views": lambda table: _views(table, ids),
        "pois": lambda table: _poi_counts(table, ids),
        "poi_texts": lambda table: _poi_texts(table, ids),
        "poi_descriptions": lambda table: _poi_descriptions(table, ids),
        "flows": lambda table: _flows(table, ids),
        "buildings": lambda table: _heights(table, ids),
        "chip_captions": lambda table: _chip_captions(table, ids),
        "view_captions": lambda table: _view_captions(table, _view_ids(handles)),
        "view_locations": lambda table: _locations(table, _view_ids(handles)),
        "shares": lambda table: _of_pictures(table, "shares", ids),
        "image_features": lambda table: _of_pictures(table, "feature", ids),
        "descriptions": lambda table: _descriptions(table, ids),
        "adjacency": lambda table: _neighbours(table, ids),
        "towers": lambda table: {"towers": {n: table.checkpoint(n) for n in table.checkpoints}},
    }
    loaded: dict[str, Any] = {}
    for modality in modalities:
        if modality in loaders:
            loaded |= loaders[modality](handles[TABLE_OF[modality]])
    return RegionData(
        region_ids=ids,
        lonlat_deg=places[["lon", "lat"]].to_numpy(np.float64),
        xy_m=places[["x_m", "y_m"]].to_numpy(np.float64),
        area_km2=places["area_km2"].to_numpy(np.float64),
        **loaded,
    )


def _images(
    table: pa.Table, dtype: str, shape: tuple[str, ...], channels: tuple[int, ...] = ()
) -> np.ndarray:
    """Column `pixels` as one array [rows, *shape, *channels], without a loop over rows."""
    import numpy as np
    import pyarrow as pa

    sizes = [set(table.column(name).to_pylist()) for name in shape]
    if any(len(size) > 1 for size in sizes):
        raise ValueError(
            f"images of one table differ in size: {dict(zip(shape, sizes, strict=True))}"
        )
    # large_binary: offsets of more than 2 GiB of pixels
    pixels = table.column("pixels").cast(pa.large_binary()).combine_chunks()
    if not len(pixels):
        return np.empty((0, *(1 for _ in shape), *channels), dtype)
    start, end = pixels.offset, pixels.offset + len(pixels)
    offsets = np.frombuffer(pixels.buffers()[1], np.int64)[[start, end]]
    data = np.frombuffer(pixels.buffers()[2], np.uint8)[offsets[0] : offsets[1]]
    return data.view(dtype).reshape(len(pixels), *(size.pop() for size in sizes), *channels)


def _index(ids: np.ndarray, found: Any) -> np.ndarray:
    """Position of each found id in the (sorted) region ids.

    Raises:
        DataError: an id that is no region, as when the regions were made anew and the table not.
    """
    import numpy as np

    wanted = np.asarray(found, dtype=str)
    position = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    check_regions(ids[position], wanted)
    return position


def check_regions(ids: Any, found: Any) -> None:
    """Raise DataError where a table's regions are not those of the `regions` table."""
    import numpy as np

    found = np.asarray(found, dtype=str)
    if len(ids) != len(found) or (np.asarray(ids) != found).any():
        raise DataError(
            "a table was made for other regions than those that stand in the lake now",
            fix="run the job whole_city (or what `make explain` calls to do)",
        )


def picture_arrays(
    handle: Handle, view: str, min_valid_share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids [B], regions [B] and pixels uint8 [B, H, W, 3] of the pictures of a view, ordered by id: the
    region's of a chip (those with too few valid pixels are left out), the view's of a street view."""
    import numpy as np

    table = handle.arrow()
    key, size, channels = "view_id", ("height_px", "width_px"), (3,)
    if view == "satellite":
        key, size, channels = "region_id", (*size, "bands"), ()
        table = table.filter(np.asarray(table.column("valid_share")) >= min_valid_share)
    table = table.sort_by(key)
    pixels = _images(table, "uint8", size, channels)
    colours = pixels[..., :3] if pixels.shape[3] >= 3 else pixels[..., :1].repeat(3, axis=3)
    ids, regions = (
        table.column(name).to_numpy(zero_copy_only=False) for name in (key, "region_id")
    )
    return ids, regions, colours


def picture_batches(
    handle: Handle, view: str, min_valid_share: float, rows: int = 256
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """As `picture_arrays`, in the order of the file and no more than `rows` at a time, whatever the
    size of the table."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    key, size, channels = "view_id", ("height_px", "width_px"), (3,)
    if view == "satellite":
        key, size, channels = "region_id", (*size, "bands"), ()
    with pq.ParquetFile(handle.path()) as file:
        for batch in file.iter_batches(rows):
            table = pa.table(batch)
            if view == "satellite":
                table = table.filter(np.asarray(table.column("valid_share")) >= min_valid_share)
            if not len(table):
                continue
            pixels = _images(table, "uint8", size, channels)
            colours = pixels[..., :3] if pixels.shape[3] >= 3 else pixels[..., :1].repeat(3, axis=3)
            ids, regions = (
                table.column(name).to_numpy(zero_copy_only=False) for name in (key, "region_id")
            )
            yield ids, regions, colours


def _chips(handle: Handle, ids: np.ndarray, min_valid_share: float) -> dict[str, Any]:
    import numpy as np

    table = handle.arrow()
    images = _images(table, "uint8", ("height_px", "width_px", "bands"))
    rows = _index(ids, table.column("region_id").to_numpy(zero_copy_only=False))
    chips = np.zeros((len(ids), *images.shape[1:]), np.uint8)
    present = np.zeros(len(ids), bool)
    chips[rows] = images
    present[rows] = table.column("valid_share").to_numpy() >= min_valid_share
    return {"chips": chips, "chip_present": present}


def _views(handle: Handle, ids: np.ndarray) -> dict[str, Any]:
    import numpy as np

    table = handle.arrow()
    place = [table.column(name).to_numpy() for name in ("lon", "lat")]
    return {
        "views": _images(table, "uint8", ("height_px", "width_px"), (3,)),
        "view_region": _index(ids, table.column("region_id").to_numpy(zero_copy_only=False)),
        "view_lonlat": np.stack(place, axis=1),
    }


def _poi_counts(handle: Handle, ids: np.ndarray) -> dict[str, Any]:
    import numpy as np
    import pandas as pd

    table = handle.frame()
    category, names = pd.factorize(table["category"], sort=True)
    counts = np.zeros((len(ids), len(names)), np.float32)
    counts[_index(ids, table["region_id"]), category] = table["poi_count"]
    return {"poi_counts": counts, "poi_categories": tuple(map(str, names))}


def _poi_texts(handle: Handle, ids: np.ndarray) -> dict[str, Any]:
    """Names and comments, each as one array with the region and the POI's category of each."""
    import numpy as np
    import pyarrow.compute as pc

    table = handle.arrow()
    region = _index(ids, table.column("region_id").to_numpy(zero_copy_only=False))
    found: dict[str, Any] = {}
    for name in ("name", "comment"):
        lists = table.column(f"{name}s").combine_chunks()
        owner = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
        categories = table.column(f"{name}_categories").combine_chunks().flatten()
        found[f"poi_{name}s"] = lists.flatten().to_numpy(zero_copy_only=False).astype(str)
        found[f"poi_{name}_region"] = region[owner].astype(np.int64)
        found[f"poi_{name}_category"] = categories.to_numpy(zero_copy_only=False).astype(str)
    return found


def _poi_descriptions(handle: Handle, ids: np.ndarray) -> dict[str, Any]:
    rows = handle.frame(["region_id", "text"]).set_index("region_id").reindex(ids)
    return {"poi_descriptions": rows["text"].fillna("").to_numpy(str)}


def _flows(handle: Handle, ids: np.ndarray) -> dict[str, Any]:
    """The ready matrix where there is one, else the trips of all hours."""
    import numpy as np

    from model_code.geo.coverage import one_source

    table = one_source(handle.frame())
    pairs = table.groupby(["origin_id", "destination_id"], as_index=False)["trip_count"].sum()
    return {
        "flow_origin": _index(ids, pairs["origin_id"]),
        "flow_destination": _index(ids, pairs["destination_id"]),
        "flow_count": pairs["trip_count"].to_numpy(np.float64),
    }


def _heights(handle: Handle, ids: np.ndarray) -> dict[str, Any]:
    import numpy as np

    table = handle.arrow()
    images = _images(table, "float32", ("height_px", "width_px"))
    rows = _index(ids, table.column("region_id").to_numpy(zero_copy_only=False))
    heights = np.zeros((len(ids), *images.shape[1:]), np.float32)
    present = np.zeros(len(ids), bool)
    heights[rows], present[rows] = images, True
    return {"heights": heights, "height_present": present}


def _view_ids(handles: Mapping[str, Handle]) -> np.ndarray:
    """Ids of the street views [M] in the order of `RegionData.views`."""
    views = handles[TABLE_OF["street_views"]]
    return views.arrow(["view_id"]).column("view_id").to_numpy(zero_copy_only=False)


def _captions(table: pd.DataFrame, ids: np.ndarray, of: str) -> dict[str, Any]:
    """Texts of each image `of` a region or view; one without a caption has an empty text that is not
    kept."""
    rows = table.set_index("image_id").reindex(ids)
    return {
        f"{of}_texts": rows["text"].fillna("").to_numpy(str),
        f"{of}_text_kept": rows["kept"].eq(True).to_numpy(bool),
        f"{of}_first_texts": rows["first_text"].fillna("").to_numpy(str),
    }


def _chip_captions(handle: Handle, ids: np.ndarray) -> dict[str, Any]:
    return _captions(handle.frame().query("view == 'satellite'"), ids, "chip")


def _view_captions(handle: Handle, ids: np.ndarray) -> dict[str, Any]:
    return _captions(handle.frame().query("view == 'street_view'"), ids, "view")


def _vectors(table: pd.DataFrame, column: str, ids: np.ndarray) -> np.ndarray:
    """Vectors float32 [B, D] of `ids`; a row of NaN for one that the table lacks, or has empty."""
    import numpy as np

    found = table.loc[table[column].map(len) > 0, column]
    width = len(found.iloc[0]) if len(found) else 0
    vectors = np.full((len(ids), width), np.nan, np.float32)
    position = found.index.get_indexer(ids)
    if width:
        there = position >= 0
        vectors[there] = np.stack(found.iloc[position[there]].to_list())
    return vectors


def _locations(handle: Handle, ids: np.ndarray) -> dict[str, Any]:
    table = handle.frame().set_index("view_id")
    return {"view_location_features": _vectors(table, "feature", ids)}


_NAMED = {"shares": "shares", "feature": "features"}


def _of_pictures(handle: Handle, column: str, ids: np.ndarray) -> dict[str, Any]:
    """Chips' vectors in region order, street views' in the order of `RegionData.views`."""
    table, named = handle.frame(["view", "image_id", "region_id", column]), _NAMED[column]
    chips = table[table["view"] == "satellite"].set_index("image_id")
    views = table[table["view"] == "street_view"].sort_values(["region_id", "image_id"])
    found: dict[str, Any] = {}
    if chips[column].map(len).any():
        found[f"chip_{named}"] = _vectors(chips, column, ids)
    if views[column].map(len).any():
        found["view_region"] = _index(ids, views["region_id"])
        views = views.set_index("image_id")
        found[f"view_{named}"] = _vectors(views, column, views.index.to_numpy())
    return found


def _descriptions(handle: Handle, ids: np.ndarray) -> dict[str, Any]:
    """Vectors in region order by form and modality."""
    found = {}
    for key, rows in handle.frame().groupby(["form", "modality"]):
        found[key] = _vectors(rows.set_index("region_id"), "feature", ids)
    return {"descriptions": found}


def _neighbours(handle: Handle, ids: np.ndarray) -> dict[str, Any]:
    import numpy as np

    table = handle.frame(["region_id", "neighbour_id"])
    pairs = [_index(ids, table[name]) for name in ("region_id", "neighbour_id")]
    return {"neighbours": np.stack(pairs, axis=1).astype(np.int64)}


def labels(targets: Handle, ids: Any) -> Targets:
    """All labels on the transformed scale, in region order."""
    from model_code.methods.run import targets_for

    return targets_for(targets.frame(), targets.frame(file="indicators.parquet"), ids)
