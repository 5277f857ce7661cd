"""The orthophoto: what density, greenery, water and industry look like from above.

It sees centrality only by the shadows of tall buildings, and neither income nor commerce nor
employment. Written window by window.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.windows import Window

from model_code.demo.aerial import PIXEL_M, TILE_STEP_M, Ground, Roofs, draw_textures, paint
from model_code.demo.fields import Doubles, Floats, bilinear_grid, stream
from model_code.demo.files import GEOTIFF
from model_code.demo.place import EPSG
from model_code.demo.streets import Lots
from model_code.progress import Meter

_WINDOW = (512, 512)  # rows, columns; one block of the file


def write_orthophoto(path: Path, lots: Lots, progress: Callable[[str], None]) -> None:
    """Write an RGB GeoTIFF (uint8, 8 m a pixel) of the block of cells."""
    place = lots.streets.latents.place
    width, height = (math.ceil(m / PIXEL_M) for m in (place.width_m, place.height_m))
    north = place.northing_m + place.height_m
    transform = Affine(PIXEL_M, 0, place.easting_m, 0, -PIXEL_M, north)
    painter = GroundPainter(lots)
    with rasterio.open(
        path, "w", width=width, height=height, count=3, dtype="uint8", crs=f"EPSG:{EPSG}",
        transform=transform, photometric="RGB", interleave="pixel", bigtiff="if_safer", **GEOTIFF,
    ) as file:  # fmt: skip
        meter = Meter(progress, "orthophoto, rows of pixels", height)
        for top in range(0, height, _WINDOW[0]):
            meter.at(top)
            rows = np.arange(top, min(top + _WINDOW[0], height))
            y = np.asarray(place.height_m - (rows + 0.5) * PIXEL_M)
            for left in range(0, width, _WINDOW[1]):
                columns = np.arange(left, min(left + _WINDOW[1], width))
                x = np.asarray((columns + 0.5) * PIXEL_M)
                pixels = painter.paint(x, y, f"{top}/{left}")
                window = Window(left, top, len(columns), len(rows))
                file.write(pixels.transpose(2, 0, 1), window=window)


class GroundPainter:
    """Paints windows of a city's ground."""

    def __init__(self, lots: Lots) -> None:
        self.streets = lots.streets
        self.latents = lots.streets.latents
        self.textures = draw_textures(self.latents.seed)
        rng = stream(self.latents.seed, "orthophoto/roofs")
        tint, shade = (rng.integers(0, 256, lots.half_u.shape, dtype=np.uint8) for _ in range(2))
        self.roofs = Roofs(
            lots.first_u, lots.first_v, lots.half_u, lots.half_v, lots.height_m, tint, shade
        )

    def paint(self, x: Doubles, y: Doubles, window: str) -> np.ndarray:
        """uint8 [H, W, 3] at the pixel centres of the axes x [W] and y [H]."""
        image = self.clear(x, y)
        rng = stream(self.latents.seed, f"orthophoto/noise/{window}")
        image += 2.0 * rng.standard_normal(image.shape[:2], dtype=np.float32)[..., None]
        return np.clip(image + 0.5, 0, 255).astype(np.uint8)

    def clear(self, x: Doubles, y: Doubles, shown: np.ndarray | None = None) -> Floats:
        """The same without noise; `shown` as in `aerial.paint`."""
        latents = self.latents
        u, v = self.streets.lattice_grid(x, y)
        ground = Ground(
            greenery=latents.grid("greenery", x, y),
            density=latents.grid("density", x, y),
            industry=latents.grid("industry", x, y),
            shore_m=latents.shore_grid(x, y),
            crowns=_texture(self.textures.crowns, x, y),
            mottle=_texture(self.textures.mottle, x, y),
            u=u,
            v=v,
        )
        return paint(ground, self.roofs, self.textures.stacks, shown)


def _texture(tile: Floats, x: Doubles, y: Doubles) -> Floats:
    return bilinear_grid(tile, x / TILE_STEP_M, y / TILE_STEP_M, wrap=True)
