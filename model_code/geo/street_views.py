"""Street views: photographs with a place, checked once, and brought to one size by region."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageOps

from model_code.city import StreetViewImages, StreetViewSource, resolve
from model_code.contracts import arrow_schema
from model_code.errors import DataError
from model_code.geo.pixels import binary_column, slices
from model_code.geo.places import read_places
from model_code.geo.vector import Sieve, numbers
from model_code.rejections import Rejections
from model_code.tables import contract

THREADS = 8
# An image with more is a bomb, or of no use at the size that methods read; just below what Pillow
# warns of.
MAX_PIXELS = 89_000_000
# Pillow tells a format by content: without a list, an EPS by any name would start Ghostscript. Its reader
# of JPEG also reads MPO.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")


class UnsuitableImage(ValueError):
    """An image that could be read, but not for what it shows; its text is the reason."""


_ORIENTATION = 0x0112
_CLOCK_WITH_OFFSET = r"(?:[zZ]|[+-]\d\d:?\d\d)\s*$"


def read_street_views(
    source: StreetViewSource, root: str, crs: Any
) -> tuple[pd.DataFrame, Rejections]:
    """The table `street_views`: every photograph that has a place and can be read.

    A row is rejected, with the reason, when its file name is missing, leads out of the folder or
    was used by an earlier row; when it has no coordinates, or a heading or time that cannot be
    read; when its image is missing, empty, cannot be decoded to the end, has more than `MAX_PIXELS`,
    or is of a kind whose look is not known: animated, CMYK (of an unknown ink), 16 bits a channel (of
    an unknown range).

    Args:
        source: `sources.street_views` of the city. A time without an offset is in its `timezone`;
            in the hour that a clock change repeats, the earlier one.
        root: data root.
        crs: the city's CRS.

    Raises:
        DataError: the metadata cannot be read or lack a column, by config key.
    """
    names, key = source.columns, "sources.street_views"
    columns = {f"{key}.columns.{n}": getattr(names, n) for n in ("file", "heading_deg", "taken_at")}
    rows = read_places(
        source.path,
        root,
        f"{key}.path",
        lon=(f"{key}.columns.lon", names.lon),
        lat=(f"{key}.columns.lat", names.lat),
        columns=columns,
        crs=source.crs,
        city_crs=crs,
        given=source.format,
    )
    rejections = Rejections()
    sieve = Sieve(rejections, source.path, np.arange(len(rows)))
    file = rows[names.file].astype("string").fillna("").str.strip().str.removeprefix("./")
    sieve.reject((file == "").to_numpy(bool), "no file name")
    outside = file.str.startswith("/") | file.str.contains(r"(?:^|[/\\])\.\.(?:[/\\]|$)|://")
    sieve.reject(outside.to_numpy(bool), "file outside the images folder", file=file)
    sieve.reject(rows["x_m"].isna().to_numpy(bool), "no coordinates", file=file)
    heading = np.full(len(rows), np.nan)
    if names.heading_deg:
        given = rows[names.heading_deg]
        heading = numbers(pa.array(given, from_pandas=True))
        bad = (given.notna() & np.isnan(heading)) | (np.abs(heading) > 360)
        sieve.reject(bad.to_numpy(bool), "unreadable heading", given=given)
    taken_at = pd.Series(pd.NaT, rows.index, dtype="datetime64[us, UTC]")
    if names.taken_at:
        given = rows[names.taken_at]
        taken_at = to_utc(given, source.timezone)
        sieve.reject(
            (given.notna() & taken_at.isna()).to_numpy(bool), "unreadable time", given=given
        )
    repeated = file.where(sieve.good).duplicated() & sieve.good
    sieve.reject(repeated.to_numpy(bool), "file named by an earlier row", file=file)

    good = np.flatnonzero(sieve.good)
    paths = [f"{source.images.rstrip('/')}/{name}" for name in file.iloc[good]]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(inspect_image, (resolve(path, root) for path in paths)))
    missing, broken = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    detail = np.full(len(rows), "", object)
    detail[good] = [f"{path}: {result}" for path, result in zip(paths, found, strict=True)]
    missing[good] = [isinstance(result, FileNotFoundError) for result in found]
    broken[good] = [isinstance(result, Exception) for result in found]
    unsuitable = np.full(len(rows), "", object)
    unsuitable[good] = [str(r) if isinstance(r, UnsuitableImage) else "" for r in found]
    sieve.reject(missing, "no such image", detail=detail)
    for reason in sorted({*unsuitable} - {""}):
        sieve.reject(unsuitable == reason, reason, detail=detail)
    sieve.reject(broken, "unreadable image", detail=detail)

    kept = sieve.good[good]
    good = good[kept]
    usable = [result for result in found if not isinstance(result, Exception)]
    views = pd.DataFrame(
        {
            "view_id": file.iloc[good].astype("str").to_numpy(),
            "path": [path for path, keep in zip(paths, kept, strict=True) if keep],
            "sha256": [digest for digest, _, _ in usable],
            "width_px": np.array([width for _, width, _ in usable], np.int64),
            "height_px": np.array([height for _, _, height in usable], np.int64),
            "heading_deg": heading[good],
            **{name: rows[name].to_numpy(float)[good] for name in ("lon", "lat", "x_m", "y_m")},
        }
    )
    views["taken_at"] = taken_at.iloc[good].array
    return views.sort_values("view_id", ignore_index=True), rejections


def to_utc(clock: pd.Series, timezone: str) -> pd.Series:
    """Times as UTC; text without an offset is local to `timezone`; NaT where unreadable."""
    if pd.api.types.is_datetime64_any_dtype(clock.dtype):
        local = clock
    else:
        text = clock.astype("string")
        offset = text.str.contains(_CLOCK_WITH_OFFSET, regex=True).fillna(False).astype(bool)
        absolute = pd.to_datetime(text.where(offset), utc=True, format="ISO8601", errors="coerce")
        local = pd.to_datetime(text.mask(offset), format="ISO8601", errors="coerce")
    if local.dt.tz is None:
        first = np.ones(len(local), bool)
        local = local.dt.tz_localize(timezone, ambiguous=first, nonexistent="shift_forward")
    utc = local.dt.tz_convert("UTC")
    if not pd.api.types.is_datetime64_any_dtype(clock.dtype):
        utc = utc.fillna(absolute)
    return pd.Series(utc.astype("datetime64[us, UTC]"))


def inspect_image(url: str) -> tuple[str, int, int] | Exception:
    """Digest, width and height (as shown) of an image that decodes to its end, or what is wrong."""
    try:
        content = _content(url)
        if not content:
            raise UnsuitableImage("empty image file")
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if flaw := _flaw(image):
                raise UnsuitableImage(flaw)
            width, height = image.size
            if image.getexif().get(_ORIENTATION, 1) >= 5:  # shown turned by a quarter
                width, height = height, width
            image.draft("RGB", (8, 8))  # a JPEG is read to its end, but decoded small
            image.load()
    except Image.DecompressionBombError:
        return UnsuitableImage(_TOO_LARGE)
    except Exception as error:  # struct.error, zlib.error: readers of formats raise what they like
        return error
    return hashlib.sha256(content).hexdigest(), width, height


_TOO_LARGE = f"image of more than {MAX_PIXELS // 10**6} million pixels"


def _flaw(image: Image.Image) -> str:
    """Why an image cannot be used, told from its header; empty where it can."""
    if image.width * image.height > MAX_PIXELS:
        return _TOO_LARGE
    # Phones keep a second picture (depth, a preview) in an MPO; the first is the photograph.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        return "animated image"
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return f"{image.mode} image"
    # Pillow cuts 16-bit colours to 8 by itself: how they are packed tells what they were.
    packed = [
        tile[3] if isinstance(tile[3], str) else tile[3][0]
        for tile in getattr(image, "tile", ())
        if tile[3]
    ]
    if image.mode in ("I", "F") or any("16" in str(mode) for mode in (image.mode, *packed)):
        return "image of more than 8 bits a channel"
    return ""


def _content(url: str) -> bytes:
    with fsspec.open(url, "rb") as file:
        return bytes(file.read())


def region_street_views(
    street_views: pd.DataFrame,
    locator: Any,
    region_ids: Iterable[str],
    root: str,
    images: StreetViewImages,
    rejections: Rejections,
) -> Iterator[pa.RecordBatch]:
    """The table `region_street_views` in batches, ordered by region and view.

    Images are turned upright as their EXIF says, made RGB, and resized to one size (Lanczos).

    Args:
        street_views: the table `street_views`.
        locator: `locate(x_m, y_m)` gives the position of a region in `region_ids`, or -1.
        region_ids: ids of the regions, in the locator's order.
        root: data root.
        images: `street_view_images` of the city.
        rejections: takes views `outside all regions`.

    Raises:
        DataError: an image has changed or vanished since `street_views` was made.
    """
    region = np.asarray(
        locator.locate(street_views["x_m"].to_numpy(float), street_views["y_m"].to_numpy(float))
    )
    outside = np.flatnonzero(region < 0)
    rejections.add(
        "street_views", outside, "outside all regions", list(street_views["view_id"].iloc[outside])
    )
    inside = street_views.assign(region_id=np.asarray(list(region_ids), object)[region])
    inside = inside[region >= 0].sort_values(["region_id", "view_id"])
    schema = arrow_schema(contract("region_street_views"))
    height, width = images.height_px, images.width_px

    def load(row: tuple[str, str]) -> NDArray[np.uint8]:
        return _load_image(resolve(row[0], root), row[1], (width, height))

    with ThreadPoolExecutor(THREADS) as pool:
        for part in slices(len(inside), height * width * 3):
            rows = inside.iloc[part]
            pixels = list(pool.map(load, zip(rows["path"], rows["sha256"], strict=True)))
            yield pa.record_batch(
                {
                    "region_id": pa.array(rows["region_id"], pa.string()),
                    "view_id": pa.array(rows["view_id"], pa.string()),
                    "pixels": binary_column(np.stack(pixels)),
                    "height_px": np.full(len(rows), height, np.int32),
                    "width_px": np.full(len(rows), width, np.int32),
                    "heading_deg": pa.array(rows["heading_deg"], pa.float64(), from_pandas=True),
                    "lon": rows["lon"].to_numpy(float),
                    "lat": rows["lat"].to_numpy(float),
                },
                schema=schema,
            )


def _load_image(url: str, digest: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Upright RGB pixels [H, W, 3] of an image at (width, height) = `size`."""
    try:
        content = _content(url)
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError("its content is not the one that was checked")
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            # A JPEG may be decoded at a fraction of its size that is still twice what is wanted.
            image.draft(None, (2 * max(size), 2 * max(size)))
            small = (
                ImageOps.exif_transpose(image)
                .convert("RGB")
                .resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
            )
    except Exception as error:
        raise DataError(
            f"sources.street_views.images: {url} cannot be read any more ({error})",
            fix="run the stage street_views again, so that it sees the images as they are now",
        ) from error
    return np.asarray(small)
