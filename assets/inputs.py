"""From tables in the lake to the arrays that methods read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from model_code.errors import DataError
from resources.lake import Handle

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from model_code.methods.base import RegionData, Targets

# The table by region of each modality; location comes with the regions themselves.
TABLE_OF = {
    "imagery": "region_chips",
    "street_views": "region_street_views",
    "pois": "poi_counts",
    "flows": "flows",
    "buildings": "heights",
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
        "flows": lambda table: _flows(table, ids),
        "buildings": lambda table: _heights(table, ids),
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


def labels(targets: Handle, ids: Any) -> Targets:
    """All labels on the transformed scale, in region order."""
    from model_code.methods.run import targets_for

    return targets_for(targets.frame(), targets.frame(file="indicators.parquet"), ids)
