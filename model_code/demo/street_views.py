"""Street views along the roads; they see greenery, water, industry, income and commerce."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from PIL import Image

from model_code.demo.fields import Doubles, Floats, stream
from model_code.demo.files import degrees
from model_code.demo.place import Ints
from model_code.demo.street_scene import Scenes, render
from model_code.demo.streets import Streets
from model_code.progress import Meter

_VIEWS_A_CELL = (3, 6)
_CELLS_WITHOUT = 0.04
_BATCH = 64
_FIRST_DAY = np.datetime64("2023-05-01")
_DAYS = 120


@dataclass(frozen=True)
class Views:
    """The street views of a city: where and when each is taken, by local clock, and the latents that
    it sees; each [M]."""

    seed: int
    x: Doubles
    y: Doubles
    heading_deg: Doubles
    day: Ints
    minute: Ints
    seen: dict[str, Floats]

    @property
    def files(self) -> list[str]:
        return [f"view_{i:06d}.jpg" for i in range(len(self.x))]

    def scenes(self) -> Iterator[tuple[slice, Scenes, np.random.Generator]]:
        """Batches of views, each with what it shows and the stream that draws the rest."""
        hour = (self.minute / 60).astype(np.float32)
        for start in range(0, len(self.x), _BATCH):
            batch = slice(start, start + _BATCH)
            parts: dict[str, Floats] = {name: values[batch] for name, values in self.seen.items()}
            rng = stream(self.seed, f"street_views/{start}")
            yield batch, Scenes(**parts, hour=hour[batch]), rng


def draw_views(streets: Streets) -> Views:
    """Three to six views a cell along its streets, and none in a few cells."""
    latents = streets.latents
    place = latents.place
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
    x, y = x[dry], y[dry]
    names = ("greenery", "water", "industry", "income", "commerce")
    seen = {name: latents.at(name, x, y) for name in names}
    return Views(latents.seed, x, y, heading[dry], day[dry], minute[dry], seen)


def write_street_views(folder: Path, streets: Streets, progress: Callable[[str], None]) -> None:
    """`metadata.csv` (file, lon, lat, heading_deg, taken_at by the local clock) and `images/*.jpg` of
    `draw_views`; the last three rows are deliberate bad ones: an unreadable picture, one outside the
    city, one without a place."""
    place, views = streets.latents.place, draw_views(streets)
    images = folder / "images"
    images.mkdir(parents=True)
    files = views.files
    meter = Meter(progress, "street views", len(files))
    for batch, scenes, rng in views.scenes():
        meter.at(batch.start)
        for file, pixels in zip(files[batch], render(scenes, rng), strict=True):
            (images / file).write_bytes(_jpeg(pixels))

    first, rest = (images / files[0]).read_bytes(), files[-1]
    (images / "unreadable.jpg").write_bytes(first[: len(first) // 8])
    (images / "outside.jpg").write_bytes((images / rest).read_bytes())
    (images / "no_place.jpg").write_bytes(first)
    bad_x = np.array([place.cell_m / 2, -4000.0, 0.0])
    lon, lat = place.lonlat(
        np.append(views.x, bad_x), np.append(views.y, [place.cell_m / 2, 500.0, 0.0])
    )
    lon[-1] = lat[-1] = np.nan
    minutes = np.append(views.day * 1440 + views.minute, [600, 660, 720])
    taken = _FIRST_DAY.astype("datetime64[m]") + minutes.astype("timedelta64[m]")
    table = pa.table(
        {
            "file": [*files, "unreadable.jpg", "outside.jpg", "no_place.jpg"],
            "lon": pa.array(degrees(lon), from_pandas=True),
            "lat": pa.array(degrees(lat), from_pandas=True),
            "heading_deg": np.round(np.append(views.heading_deg, [0.0, 90.0, 180.0]), 1),
            "taken_at": np.datetime_as_string(taken, unit="s"),
        }
    )
    pacsv.write_csv(table, folder / "metadata.csv")


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
