"""What the pictures of an embedded city show, as the renderer knows it.

For proving that scores of captions work on a city's own pictures. No captioner, segmenter, painter
or method reads this.
"""

from __future__ import annotations

import numpy as np

from model_code.demo.aerial import PIXEL_M
from model_code.demo.latents import Latents
from model_code.demo.pairs import Facts, SeenScenes, ground_facts
from model_code.demo.street_views import draw_views
from model_code.demo.streets import Streets
from model_code.progress import Meter, Say, silent


def chip_facts(latents: Latents) -> list[Facts]:
    """Of the chip of each cell [N], the mean over its pixels of what the ground shows (see
    `model_code.demo.pairs.satellite_facts`)."""
    place = latents.place
    pixels = round(place.cell_m / PIXEL_M)
    offset = np.asarray((np.arange(pixels) + 0.5) * (place.cell_m / pixels))
    facts: list[Facts] = []
    for row in range(place.rows):  # a row of cells at once: the whole city may not fit in memory
        x = np.asarray(np.add.outer(np.arange(place.columns) * place.cell_m, offset)).ravel()
        y = np.asarray(row * place.cell_m + offset)
        density, greenery, industry = (
            latents.grid(name, x, y) for name in ("density", "greenery", "industry")
        )
        water = (latents.shore_grid(x, y) < 0).astype(np.float32)
        shown = ground_facts(density, greenery, water, industry)
        means = {
            name: values.reshape(pixels, place.columns, pixels).mean(axis=(0, 2))
            for name, values in shown.items()
        }
        facts += [
            {name: float(v[column]) for name, v in means.items()} for column in range(place.columns)
        ]
    return facts[: place.regions]


def view_facts(streets: Streets, progress: Say = silent) -> dict[str, Facts]:
    """Of each street view by its file's name, the shares and numbers of what is to be seen (see
    `model_code.demo.pairs.street_facts`); its scenes are rendered again."""
    views = draw_views(streets)
    meter = Meter(progress, "street views", len(views.files))
    facts: dict[str, Facts] = {}
    for batch, scenes, rng in views.scenes():
        seen = SeenScenes(scenes, rng)
        pictures = seen.render()
        facts |= dict(zip(views.files[batch], seen.facts(pictures), strict=True))
        meter.at(len(facts))
    return facts
