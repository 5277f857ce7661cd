"""Reading imagery: what a file is, and one square chip a region cut from it.

A chip's pixel is the exact area-weighted mean of the image's pixels below it, over those with data.
Pixels are rectangles, so the mean is separable: R X C', where X are the pixels below a chip, and R
and C say how long each row and column of the chip lies over each row and column of the image. (Of
an image with more than 16 pixels along one pixel of a chip, whole blocks are averaged first.) The
image is read once, tile by tile, and the chips of a tile are made together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import geopandas as gpd
import numpy as np
import pyarrow as pa
import rasterio
import shapely
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from model_code.city import Chips, ImagerySource, resolve
from model_code.contracts import arrow_schema
from model_code.errors import DataError
from model_code.geo.pixels import binary_column, slices
from model_code.geo.vector import crs_of, project
from model_code.rejections import Rejections
from model_code.tables import contract

TILE_PX = 1024
OVERVIEW_PX = 1024
BLOCKS_ALONG_CHIP = 2048
IN_MEMORY_BYTES = 256 << 20
GATHER = 1 << 19  # pixels at a time: what a core's own cache holds
# Schemes that GDAL reads itself, a window at a time; all others are opened through fsspec.
OF_GDAL = ("file", "http", "https", "ftp", "s3", "gs", "az", "oss")
DRIVERS = {"geotiff": "GTiff"}  # GDAL's, by the config's `format`


@contextmanager
def open_raster(
    path: str,
    key: str,
    bands: tuple[int, ...] = (),
    given: str | None = None,
    crs: str | None = None,
) -> Iterator[tuple[Any, Any]]:
    """An open rasterio dataset that has all of `bands`, and its CRS (rasterio's).

    Args:
        path: path or fsspec URL.
        key: config key of the path.
        bands: 1-based.
        given: `format` of the config.
        crs: `crs` of the config, for a file that states none.

    Raises:
        DataError: naming the config key, if it cannot be read, has no CRS or another than the
            config says, or lacks a band.
    """
    try:
        raster = _open(path, DRIVERS.get(given or ""))
    except (rasterio.errors.RasterioIOError, ImportError, OSError, ValueError) as error:
        raise DataError(
            f"{key}: cannot read the raster {path} ({error})",
            fix="give a GeoTIFF, or another format that rasterio opens"
            + (f", or change {key.removesuffix('.path')}.format" if given else ""),
        ) from error
    with raster:
        own = rasterio.crs.CRS.from_user_input(crs_of(raster.crs, crs, path, key))
        lacking = [band for band in bands if not 1 <= band <= raster.count]
        if lacking:
            name = "bands" if key.endswith("imagery.path") else "band"
            raise DataError(
                f"{key.removesuffix('.path')}.{name}: {path} has {raster.count} band(s), "
                f"not {', '.join(map(str, lacking))}",
                fix=f"choose from 1..{raster.count}",
            )
        try:
            yield raster, own
        except rasterio.errors.RasterioIOError as error:
            raise DataError(
                f"{key}: {path} opens, but its pixels cannot be read ({error})",
                fix="the file is damaged or incomplete; fetch it again",
            ) from error


def _open(path: str, driver: str | None) -> Any:
    scheme, separator, _ = path.partition("://")
    if not separator or (scheme in OF_GDAL and "::" not in path):
        return rasterio.open(path, driver=driver)
    fs, inside = fsspec.core.url_to_fs(path)
    return rasterio.open(inside, driver=driver, opener=fs)


def read_window(
    raster: Any,
    bands: tuple[int, ...],
    window: Window,
    nodata: float | None,
    decimation: int = 1,
    resampling: Resampling = Resampling.average,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels [B, H, W] and whether all bands have data [H, W].

    Invalid pixels are 0. With a decimation d, one pixel stands for d x d (from the file's overviews
    where it has them); the window must be a multiple of d.
    """
    shape = (len(bands), int(window.height) // decimation, int(window.width) // decimation)
    options = {"window": window, "out_shape": shape, "resampling": resampling}
    pixels = raster.read(bands, **options)
    valid = np.ones(shape[1:], bool)
    if ColorInterp.alpha in raster.colorinterp:
        # Asked for a mask, GDAL heeds an alpha band of 8 or 16 bits only.
        alpha = raster.colorinterp.index(ColorInterp.alpha) + 1
        valid &= raster.read(alpha, window=window, out_shape=shape[1:], resampling=resampling) > 0
    elif any(MaskFlags.all_valid not in raster.mask_flag_enums[band - 1] for band in bands):
        valid &= (raster.read_masks(bands, **options) > 0).all(0)
    if nodata is not None:
        valid &= (pixels != nodata).all(0)
    if np.issubdtype(pixels.dtype, np.floating):
        valid &= np.isfinite(pixels).all(0)
    if not valid.all():
        pixels[:, ~valid] = 0
    return pixels, valid


def apply(affine: Any, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points [N, 2] moved by an affine transform."""
    a, b, c, d, e, f = affine[:6]
    return np.column_stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f])


def describe_imagery(source: ImagerySource, root: str, crs: Any) -> gpd.GeoDataFrame:
    """The table `imagery` (one row): the file as the reader sees it, and its stretch.

    Percentiles are taken by band over the valid pixels of an even sample of the whole image (every
    k-th row and column, at most 1024 of each).

    Args:
        source: `sources.imagery` of the city.
        root: data root, see `model_code.city.resolve`.
        crs: the city's CRS, of the footprint.

    Raises:
        DataError: the file cannot be read, has no CRS, lacks a band, needs a stretch, or holds no
            valid pixel.
    """
    with _opened(source, root) as (raster, own_crs):
        low, high = _stretch(raster, source)

        def to_city(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            x, y = apply(raster.transform, xy).T
            return np.column_stack(project(x, y, own_crs, crs))

        outline = shapely.transform(
            shapely.segmentize(
                shapely.box(0, 0, raster.width, raster.height), max(raster.shape) / 16
            ),
            to_city,
        )
        row, col = raster.height / 2, raster.width / 2
        corners = np.array([[col, row], [col + 1, row], [col, row + 1]])
        centre, right, below = to_city(corners)
        return gpd.GeoDataFrame(
            {
                "path": [source.path],
                "crs": [own_crs.to_string()],
                "width_px": [raster.width],
                "height_px": [raster.height],
                "bands": np.array([raster.count], np.int32),
                "dtype": [raster.dtypes[source.bands[0] - 1]],
                "nodata": np.array([_nodata(raster, source)], float),
                "pixel_x_m": [float(np.hypot(*(right - centre)))],
                "pixel_y_m": [float(np.hypot(*(below - centre)))],
                "stretch_low": [low.tolist()],
                "stretch_high": [high.tolist()],
            },
            geometry=[outline],
            crs=crs,
        )


def _opened(source: ImagerySource, root: str) -> Any:
    """The image and its CRS, see `open_raster`."""
    path, key = resolve(source.path, root), "sources.imagery.path"
    return open_raster(path, key, source.bands, source.format, source.crs)


def _nodata(raster: Any, source: ImagerySource) -> float | None:
    return source.nodata if source.nodata is not None else raster.nodata


def _stretch(raster: Any, source: ImagerySource) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By band, the values that become 0 and 255."""
    stretch, bands = source.stretch, len(source.bands)
    if stretch.kind == "range":
        return np.full(bands, stretch.low), np.full(bands, stretch.high)
    if stretch.kind == "none":
        dtypes = {raster.dtypes[band - 1] for band in source.bands}
        if dtypes != {"uint8"}:
            raise DataError(
                f"sources.imagery.stretch: {source.path} holds {', '.join(sorted(dtypes))}, "
                "which does not fit into 0..255 as it is",
                fix="set sources.imagery.stretch: {kind: percentile, low: 2, high: 98} or a range",
            )
        return np.zeros(bands), np.full(bands, 255.0)
    step = max(1, -(-max(raster.shape) // OVERVIEW_PX))
    height, width = (side // step * step for side in raster.shape)
    window = Window(0, 0, width, height)
    pixels, valid = read_window(
        raster, source.bands, window, source.nodata, step, Resampling.nearest
    )
    if not valid.any():
        raise DataError(
            f"sources.imagery.path: {source.path} has no valid pixel",
            fix="check sources.imagery.nodata and the file",
        )
    low, high = np.percentile(pixels[:, valid], [stretch.low, stretch.high], axis=1)
    return low, np.where(high > low, high, low + 1)  # a constant band becomes black


def cut_chips(
    regions: gpd.GeoDataFrame,
    imagery: gpd.GeoDataFrame,
    source: ImagerySource,
    chips: Chips,
    root: str,
    rejections: Rejections,
) -> Iterator[pa.RecordBatch]:
    """The table `region_chips` in batches, ordered as `regions` is.

    A chip is square in the city's CRS, north up, centred on the region's bounds. An image in
    another CRS, or with rotated or skewed pixels, is warped to the city's CRS at its own resolution
    (bilinear) before the mean is taken. A chip's pixel is valid when data covers half of it; other
    pixels are 0.

    Args:
        regions: the table `regions` [N], with a CRS.
        imagery: the table `imagery` (one row), for its stretch.
        source: `sources.imagery` of the city.
        chips: `chips` of the city.
        root: data root.
        rejections: takes a region without a row: `no image`, or `too little image` when less than
            `chips.min_valid_share` of its pixels are valid.

    Raises:
        DataError: as `describe_imagery`.
    """
    size, bands = chips.size_px, len(source.bands)
    west, south, east, north = regions.geometry.bounds.to_numpy(float).T
    side = np.maximum(east - west, north - south)
    ground = side if chips.ground_m is None else np.full(len(regions), chips.ground_m)
    corner = np.column_stack([(west + east - ground) / 2, (south + north + ground) / 2])
    low = np.asarray(imagery["stretch_low"].iloc[0], float)
    high = np.asarray(imagery["stretch_high"].iloc[0], float)

    with tempfile.TemporaryFile() as spill:
        shape = (len(regions), size, size, bands)
        pixels: NDArray[np.uint8]
        if int(np.prod(shape)) <= IN_MEMORY_BYTES:
            pixels = np.zeros(shape, np.uint8)
        else:  # chips are made in the order of the image, and leave in the order of the regions
            pixels = np.memmap(spill, np.uint8, "w+", shape=shape)
        valid_share = np.zeros(len(regions))
        with (
            _opened(source, root) as (raster, own_crs),
            _in_city_crs(raster, own_crs, regions.crs, source) as image,
        ):
            for chosen, bright, share in _square_means(image, source, corner, ground, size):
                bright -= low.astype(bright.dtype)[:, None, None]
                bright *= (255 / (high - low)).astype(bright.dtype)[:, None, None]
                np.rint(bright, out=bright).clip(0, 255, out=bright)
                valid = share >= 0.5 - 1e-6
                bright *= valid[:, None]
                pixels[chosen] = np.moveaxis(bright.astype(np.uint8), 1, -1)
                valid_share[chosen] = valid.mean(axis=(1, 2))

        ids = regions["region_id"].to_numpy(str)
        without = np.flatnonzero(valid_share == 0)
        rejections.add("regions", without, "no image", list(ids[without]))
        few = np.flatnonzero((valid_share > 0) & (valid_share < chips.min_valid_share))
        details = [f"{ids[i]}: {valid_share[i]:.3f} of its pixels are valid" for i in few]
        rejections.add("regions", few, "too little image", details)

        kept = np.flatnonzero((valid_share > 0) & (valid_share >= chips.min_valid_share))
        schema = arrow_schema(contract("region_chips"))
        for part in slices(len(kept), size * size * bands):
            rows = kept[part]
            count = len(rows)
            yield pa.record_batch(
                {
                    "region_id": ids[rows],
                    "pixels": binary_column(pixels[rows]),
                    "height_px": np.full(count, size, np.int32),
                    "width_px": np.full(count, size, np.int32),
                    "bands": np.full(count, bands, np.int32),
                    "ground_m": ground[rows],
                    "valid_share": valid_share[rows],
                },
                schema=schema,
            )


@contextmanager
def _in_city_crs(raster: Any, own_crs: Any, crs: Any, source: ImagerySource) -> Iterator[Any]:
    """The raster itself when it is north up in the city's CRS and GDAL knows what has no data (so
    that no average mixes it in); else a view of it that is so."""
    a, b, _, d, e, _ = raster.transform[:6]
    target = rasterio.crs.CRS.from_user_input(crs)
    nodata = _nodata(raster, source)
    masked = any(MaskFlags.all_valid not in flags for flags in raster.mask_flag_enums)
    if nodata is None and not masked and np.issubdtype(np.dtype(raster.dtypes[0]), np.floating):
        nodata = np.nan
    if own_crs == target and b == d == 0 and a > 0 > e and nodata in (None, raster.nodata):
        yield raster
        return
    options: dict[str, Any] = {"add_alpha": ColorInterp.alpha not in raster.colorinterp}
    if nodata is not None:
        options = {"src_nodata": nodata, "nodata": nodata}
    if raster.crs is None:
        options["src_crs"] = own_crs
    with WarpedVRT(raster, crs=target, resampling=Resampling.bilinear, **options) as view:
        yield view


def _square_means(
    image: Any,
    source: ImagerySource,
    corner: NDArray[np.float64],
    ground: NDArray[np.float64],
    size: int,
) -> Iterator[tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]]:
    """Area-weighted means over squares of the ground, each divided into size x size pixels.

    Args:
        image: open dataset, north up.
        source: its bands and nodata.
        corner: [N, 2] upper left corners in the image's CRS.
        ground: [N] sides in the CRS's unit.
        size: pixels along a side.

    Yields:
        Indices [n] of squares that touch the image, means [n, B, size, size] over the part with
        data (0 where there is none), and the share of each pixel with data [n, size, size].
    """
    # Single precision holds sums of 16-bit pixels below one pixel of a chip; others need double.
    small = all(np.dtype(image.dtypes[b - 1]).itemsize <= 2 for b in source.bands)
    real = np.float32 if small else np.float64
    start = apply(~image.transform, corner)
    step = np.column_stack([ground / image.transform.a, -ground / image.transform.e]) / size
    # Far larger pixels on the ground than in the image: blocks of d x d are read as one, d a power
    # of two, so that 8 of them or more (2 for large chips) lie along each pixel of a chip.
    blocks = np.clip(BLOCKS_ALONG_CHIP / size, 2, 8)
    octave = np.floor(np.log2(np.maximum(step.min(axis=1) / blocks, 1))).astype(np.int64)
    for level in np.unique(octave):
        d = 2 ** int(level)
        limit = np.array([image.width // d, image.height // d])
        begin, pace = start / d, step / d
        low = np.floor(begin).clip(0, limit).astype(np.int64)
        high = np.ceil(begin + pace * size).clip(0, limit).astype(np.int64)
        inside = np.flatnonzero((octave == level) & (low < high).all(axis=1))
        # Neighbours together, row of tiles by row of tiles, and within a tile by their size.
        place = (low + high)[inside, ::-1] // (2 * TILE_PX)
        inside = inside[np.lexsort((ground[inside], place[:, 1], place[:, 0]))]
        place = (low + high)[inside, ::-1] // (2 * TILE_PX)
        tiles = np.flatnonzero(np.r_[True, (place[1:] != place[:-1]).any(axis=1)])
        for chosen in np.split(inside, tiles[1:]) if len(inside) else ():
            origin, end = low[chosen].min(axis=0), high[chosen].max(axis=0)
            window = Window(*(origin * d), *((end - origin) * d))
            pixels, valid = read_window(image, source.bands, window, source.nodata, d)
            # The share of each pixel with data is one more band, unless all have data.
            planes = pixels if valid.all() else np.concatenate([pixels, valid[None]])
            extent = (high - low)[chosen].max(axis=0)
            for part in slices(len(chosen), planes[:, 0, 0].size * int(extent.prod()), GATHER):
                some = chosen[part]
                begun, cells = begin[some] - origin, (high - low)[some].max(axis=0)
                first = np.minimum(low[some] - origin, end - origin - cells)
                across = _overlaps(begun[:, 0], pace[some, 0], size, first[:, 0], cells[0], real)
                down = _overlaps(begun[:, 1], pace[some, 1], size, first[:, 1], cells[1], real)
                windows = sliding_window_view(planes, (len(planes), cells[1], cells[0]))[0]
                below = windows[first[:, 1], first[:, 0]].astype(real)
                sums = down[:, None] @ below @ across[:, None].swapaxes(2, 3)
                if len(planes) > len(pixels):
                    sums, weight = sums[:, :-1], sums[:, -1]
                else:
                    weight = down.sum(axis=2)[:, :, None] * across.sum(axis=2)[:, None]
                sums /= np.maximum(weight, real(1e-6))[:, None]
                yield some, sums, weight / pace[some].prod(axis=1)[:, None, None]


def _overlaps(
    begin: NDArray[np.float64],
    pace: NDArray[np.float64],
    size: int,
    first: NDArray[np.int64],
    cells: int,
    real: Any,
) -> NDArray[Any]:
    """Length that each of `size` steps of width `pace` from `begin` [n] shares with each of the
    unit cells from `first` on: [n, size, cells]."""
    edges = (begin - first)[:, None] + pace[:, None] * np.arange(size + 1)
    passed = np.clip(edges[:, :, None] - np.arange(cells), 0, 1)
    return np.diff(passed, axis=1).astype(real)
