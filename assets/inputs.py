"""From tables in the lake to the arrays that methods read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any, overload

from model_code.errors import DataError
from resources.lake import Handle

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from model_code.backends import Picture
    from model_code.methods.base import RegionData, Targets

_GROUPS = 2  # of pictures that are held: what is read in order goes from one to the next
# The table by region of each modality; location comes with the regions themselves.
TABLE_OF = {
    "imagery": "region_chips",
    "street_views": "region_street_views",
    "pois": "poi_counts",
    "poi_texts": "poi_texts",
    "poi_descriptions": "poi_descriptions",
    "flows": "flows",
    "hourly_flows": "flows",
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
        "hourly_flows": lambda table: _hourly_flows(table, ids),
        "buildings": lambda table: _heights(table, ids),
        "chip_captions": lambda table: _chip_captions(table, ids),
        "view_captions": lambda table: _view_captions(table, _view_ids(handles)),
        "view_locations": lambda table: _locations(table, _view_ids(handles)),
        "shares": lambda table: _image_shares(table, ids),
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

    sizes = [_one_size(table, name) for name in shape]
    # large_binary: offsets of more than 2 GiB of pixels
    pixels = table.column("pixels").cast(pa.large_binary()).combine_chunks()
    if not len(pixels):
        return np.empty((0, *(1 for _ in shape), *channels), dtype)
    start, end = pixels.offset, pixels.offset + len(pixels)
    offsets = np.frombuffer(pixels.buffers()[1], np.int64)[[start, end]]
    data = np.frombuffer(pixels.buffers()[2], np.uint8)[offsets[0] : offsets[1]]
    return data.view(dtype).reshape(len(pixels), *sizes, *channels)


def _one_size(table: pa.Table, name: str) -> int:
    """The value of a column that is the same in all rows; 0 without a row."""
    import pyarrow.compute as pc

    low, high = pc.min_max(table.column(name)).as_py().values()
    if low != high:
        raise ValueError(f"images of one table differ in size: {name} is {low} to {high}")
    return low or 0


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


class Pictures(Sequence["Picture"]):
    """The pictures of a view, uint8 [H, W, 3] each, in the order of their table, which is that of regions
    and ids. They are read when they are asked for, and no more than `_GROUPS` of the table's row groups
    are in memory, which the lake writes of 32 MiB at most. A part of them is one, too.

    Attributes:
        image_id: of the region for a chip (those with too few valid pixels are left out), of the view for
            a street view [B].
        region_id: of each [B].
        size_px: height and width.
    """

    def __init__(self, handle: Handle, view: str, min_valid_share: float) -> None:
        import numpy as np
        import pyarrow.parquet as pq

        satellite = view == "satellite"
        self._shape = ("height_px", "width_px", *(("bands",) if satellite else ()))
        key = "region_id" if satellite else "view_id"
        names = [key, "region_id", *self._shape, *(("valid_share",) if satellite else ())]
        table = handle.arrow(list(dict.fromkeys(names)))
        size = [_one_size(table, name) for name in self._shape]
        self.size_px = (size[0], size[1])
        valid = np.ones(len(table), bool)
        if satellite:
            valid = np.asarray(table.column("valid_share")) >= min_valid_share
        self._row = np.flatnonzero(valid)
        table = table.filter(valid)
        self.image_id, self.region_id = (
            table.column(name).to_numpy(zero_copy_only=False) for name in (key, "region_id")
        )
        self._file = pq.ParquetFile(handle.path())
        about = self._file.metadata
        rows = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
        self._first = np.cumsum([0, *rows])
        self._group = lru_cache(_GROUPS)(self._read)

    def __len__(self) -> int:
        return len(self._row)

    @overload
    def __getitem__(self, i: int) -> Picture: ...

    @overload
    def __getitem__(self, i: slice) -> Pictures: ...

    def __getitem__(self, i: int | slice) -> Picture | Pictures:
        import numpy as np

        if isinstance(i, slice):
            part = copy(self)
            part._row, part.image_id, part.region_id = (
                column[i] for column in (self._row, self.image_id, self.region_id)
            )
            return part
        row = self._row[i]
        group = int(np.searchsorted(self._first, row, "right")) - 1
        # A copy: who keeps a picture does not keep its group.
        picture: Picture = self._group(group)[row - self._first[group]].copy()
        return picture

    def _read(self, group: int) -> np.ndarray:
        table = self._file.read_row_group(group, columns=["pixels", *self._shape])
        pixels = _images(table, "uint8", self._shape, () if "bands" in self._shape else (3,))
        return pixels[..., :3] if pixels.shape[3] >= 3 else pixels[..., :1].repeat(3, axis=3)


def measured_shares(handle: Handle, view: str, ids: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Classes [K] of `image_shares`, and shares float32 [B, K] of the pictures `ids` of a view; a row of
    NaN where nothing was judged. No classes in a forecast, before anything was measured."""
    import numpy as np
    import pandas as pd
    import pyarrow.compute as pc

    if not handle.fingerprint:
        return [], np.empty((len(ids), 0), np.float32)
    classes = _classes(handle, view)
    table = handle.arrow(["view", "image_id", "shares"])
    table = table.filter(pc.equal(table.column("view"), view))
    lists = table.column("shares").combine_chunks()
    shares = np.full((len(ids), len(classes)), np.nan, np.float32)
    judged = np.flatnonzero(pc.list_value_length(lists).to_numpy(zero_copy_only=False))
    row = np.full(len(table), -1)
    row[judged] = np.arange(len(judged))
    named = pd.Index(table.column("image_id").to_numpy(zero_copy_only=False))
    if (place := named.get_indexer(ids)).min(initial=0) < 0:
        raise KeyError(f"image_shares lacks {np.asarray(ids)[place < 0][0]}")
    if len(judged):
        there = row[place] >= 0
        shares[there] = lists.flatten().to_numpy().reshape(len(judged), -1)[row[place][there]]
    return classes, shares


def _classes(handle: Handle, view: str) -> list[str]:
    """Classes of `image_shares`, which are the same of all pictures of a view."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(handle.path()) as file:
        for batch in file.iter_batches(1024, columns=["view", "classes"]):
            if (at := pc.index(batch.column("view"), view).as_py()) >= 0:
                classes: list[str] = batch.column("classes")[at].as_py()
                return classes
    return []


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


def _hourly_flows(handle: Handle, ids: np.ndarray) -> dict[str, Any]:
    """The trips by hour; a ready matrix has none."""
    import numpy as np
    import pyarrow.compute as pc

    from model_code.methods.base import HourlyFlows

    rows = handle.arrow()
    table = rows.filter(pc.equal(rows["source"], "trips")).to_pandas()
    flows = HourlyFlows(
        _index(ids, table["origin_id"]),
        _index(ids, table["destination_id"]),
        table["hour"].to_numpy(np.int64),
        table["trip_count"].to_numpy(np.float64),
    )
    return {"hourly_flows": flows}


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


def _image_shares(handle: Handle, ids: np.ndarray) -> dict[str, Any]:
    found = _of_pictures(handle, "shares", ids)
    if "chip_shares" in found:
        found["chip_classes"] = tuple(_classes(handle, "satellite"))
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
