"""What the pictures of an embedded city show, as the renderer knows it.

For proving that scores of captions work on a city's own pictures. No captioner, segmenter, painter
or method reads this.
"""

from __future__ import annotations

import numpy as np

from model_code.demo.aerial import PIXEL_M
from model_code.demo.orthophoto import GroundPainter
from model_code.demo.pairs import Facts, SeenScenes, shown_facts
from model_code.demo.street_views import draw_views
from model_code.demo.streets import Lots, Streets
from model_code.progress import Meter, Say, silent


def chip_facts(lots: Lots) -> list[Facts]:
    """Of the chip of each cell [N], the shares of what its ground shows (see
    `model_code.demo.pairs.satellite_facts`)."""
    place, painter = lots.streets.latents.place, GroundPainter(lots)
    pixels = round(place.cell_m / PIXEL_M)
    offset = np.asarray((np.arange(pixels) + 0.5) * (place.cell_m / pixels))
    facts: list[Facts] = []
    for row in range(place.rows):  # a row of cells at once: the whole city may not fit in memory
        x = np.asarray(np.add.outer(np.arange(place.columns) * place.cell_m, offset)).ravel()
        shown = np.zeros((pixels, len(x)), np.uint8)
        painter.clear(x, np.asarray(row * place.cell_m + offset), shown)
        by_cell = shown.reshape(pixels, place.columns, pixels).swapaxes(0, 1)
        facts += shown_facts(by_cell.reshape(place.columns, -1))
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
