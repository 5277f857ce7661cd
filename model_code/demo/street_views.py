"""Street views along the roads; they see greenery, water, industry, income and commerce."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from PIL import Image

from model_code.demo.fields import Floats, stream
from model_code.demo.files import degrees
from model_code.demo.street_scene import Scenes, render
from model_code.demo.streets import Streets
from model_code.progress import Meter

_VIEWS_A_CELL = (3, 6)
_CELLS_WITHOUT = 0.04
_BATCH = 64
_FIRST_DAY = np.datetime64("2023-05-01")
_DAYS = 120


def write_street_views(folder: Path, streets: Streets, progress: Callable[[str], None]) -> None:
    """`metadata.csv` (file, lon, lat, heading_deg, taken_at by the local clock) and `images/*.jpg`,
    three to six a cell along its streets and none in a few; the last three rows are deliberate bad
    ones: an unreadable picture, one outside the city, one without a place."""
    latents = streets.latents
    place = latents.place
    images = folder / "images"
    images.mkdir(parents=True)
    rng = stream(latents.seed, "street_views/places")
    low, high = _VIEWS_A_CELL
    count = rng.integers(low, high + 1, place.regions)
    count[rng.random(place.regions) < _CELLS_WITHOUT] = 0
    cell = np.repeat(np.arange(place.regions), count)
    x, y, heading = streets.onto_street(*place.scatter(rng, cell), rng)
    heading = (heading + 180 * rng.integers(0, 2, len(cell))) % 360
    minute = rng.integers(7 * 60, 20 * 60 + 30, len(cell))
    day = rng.integers(0, _DAYS, len(cell))
    dry = latents.shore_at(x, y) > 0
    x, y, heading = x[dry], y[dry], heading[dry]
    minute, day = minute[dry], day[dry]

    files = [f"view_{i:06d}.jpg" for i in range(len(x))]
    names = ("greenery", "water", "industry", "income", "commerce")
    seen = {name: latents.at(name, x, y) for name in names}
    hour = (minute / 60).astype(np.float32)
    meter = Meter(progress, "street views", len(x))
    for start in range(0, len(x), _BATCH):
        meter.at(start)
        batch = slice(start, start + _BATCH)
        parts: dict[str, Floats] = {name: values[batch] for name, values in seen.items()}
        scene_rng = stream(latents.seed, f"street_views/{start}")
        for file, pixels in zip(
            files[batch], render(Scenes(**parts, hour=hour[batch]), scene_rng), strict=True
        ):
            (images / file).write_bytes(_jpeg(pixels))

    first, rest = (images / files[0]).read_bytes(), files[-1]
    (images / "unreadable.jpg").write_bytes(first[: len(first) // 8])
    (images / "outside.jpg").write_bytes((images / rest).read_bytes())
    (images / "no_place.jpg").write_bytes(first)
    bad_x = np.array([place.cell_m / 2, -4000.0, 0.0])
    lon, lat = place.lonlat(np.append(x, bad_x), np.append(y, [place.cell_m / 2, 500.0, 0.0]))
    lon[-1] = lat[-1] = np.nan
    minutes = np.append(day * 1440 + minute, [600, 660, 720])
    taken = _FIRST_DAY.astype("datetime64[m]") + minutes.astype("timedelta64[m]")
    table = pa.table(
        {
            "file": [*files, "unreadable.jpg", "outside.jpg", "no_place.jpg"],
            "lon": pa.array(degrees(lon), from_pandas=True),
            "lat": pa.array(degrees(lat), from_pandas=True),
            "heading_deg": np.round(np.append(heading, [0.0, 90.0, 180.0]), 1),
            "taken_at": np.datetime_as_string(taken, unit="s"),
        }
    )
    pacsv.write_csv(table, folder / "metadata.csv")


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
