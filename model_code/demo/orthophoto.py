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

from model_code.demo.fields import Doubles, Floats, gaussian_field, stream
from model_code.demo.files import GEOTIFF
from model_code.demo.latents import bilinear_grid
from model_code.demo.place import EPSG
from model_code.demo.streets import (
    BLOCK_M,
    LOT_M,
    MAIN_EVERY,
    MAIN_WIDTH_M,
    STREET_WIDTH_M,
    Lots,
)

PIXEL_M = 8.0
_WINDOW = (512, 512)  # rows, columns; one block of the file
_F = np.float32
_SHADOW_TO = np.array([-0.45, 0.55], _F)  # metres of shadow a metre of height, east and north
_TILE, _TILE_STEP_M = 512, 4.0
_STACK_M = (26.0, 11.0)  # containers and heaps in the yards of industry

_SOIL = np.array([[171, 152, 118], [186, 170, 132], [150, 138, 104]], np.float32)
_GRASS = np.array([[122, 140, 82], [108, 130, 74], [136, 148, 92]], np.float32)
_PAVED = np.array([158, 154, 147], np.float32)
_YARD = np.array([141, 139, 138], np.float32)
_ROAD = np.array([112, 112, 115], np.float32)
_WATER = np.array([62, 88, 104], np.float32)
_BANK = np.array([178, 168, 138], np.float32)
_TREE = np.array([64, 93, 53], np.float32)
_ROOFS = np.array(
    [[168, 98, 76], [184, 116, 90], [142, 86, 72], [126, 112, 104], [104, 104, 110], [196, 186, 170],
     [150, 136, 122], [214, 208, 198]], np.float32,
)  # fmt: skip
_SHEDS = np.array(
    [[208, 212, 216], [226, 228, 228], [126, 152, 182], [168, 178, 186], [150, 172, 158],
     [188, 150, 130]], np.float32,
)  # fmt: skip


def write_orthophoto(path: Path, lots: Lots, progress: Callable[[str], None]) -> None:
    """Write an RGB GeoTIFF (uint8, 8 m a pixel) of the block of cells."""
    place = lots.streets.latents.place
    width, height = (math.ceil(m / PIXEL_M) for m in (place.width_m, place.height_m))
    north = place.northing_m + place.height_m
    transform = Affine(PIXEL_M, 0, place.easting_m, 0, -PIXEL_M, north)
    painter = _Painter(lots)
    with rasterio.open(
        path, "w", width=width, height=height, count=3, dtype="uint8", crs=f"EPSG:{EPSG}",
        transform=transform, photometric="RGB", interleave="pixel", bigtiff="if_safer", **GEOTIFF,
    ) as file:  # fmt: skip
        for top in range(0, height, _WINDOW[0]):
            progress(f"orthophoto: row {top:,} of {height:,}")
            rows = np.arange(top, min(top + _WINDOW[0], height))
            y = np.asarray(place.height_m - (rows + 0.5) * PIXEL_M)
            for left in range(0, width, _WINDOW[1]):
                columns = np.arange(left, min(left + _WINDOW[1], width))
                x = np.asarray((columns + 0.5) * PIXEL_M)
                pixels = painter.paint(x, y, f"{top}/{left}")
                window = Window(left, top, len(columns), len(rows))
                file.write(pixels.transpose(2, 0, 1), window=window)


class _Painter:
    def __init__(self, lots: Lots) -> None:
        self.lots = lots
        self.latents = lots.streets.latents
        seed = self.latents.seed

        def texture(name: str, length_m: float) -> Floats:
            rng = stream(seed, f"orthophoto/{name}")
            shape = (_TILE, _TILE)
            return gaussian_field(rng, shape, _TILE_STEP_M, length_m, periodic=True)

        self.crowns, self.mottle = texture("crowns", 9.0), texture("mottle", 60.0)
        rng = stream(seed, "orthophoto/stacks")
        self.stacks = rng.integers(0, 256, (256, 256), dtype=np.uint8)
        rng = stream(seed, "orthophoto/roofs")
        self.tint = rng.integers(0, 256, lots.half_u.shape, dtype=np.uint8)
        self.shade = rng.integers(0, 256, lots.half_u.shape, dtype=np.uint8)

    def paint(self, x: Doubles, y: Doubles, window: str) -> np.ndarray:
        """uint8 [H, W, 3] at the pixel centres of the axes x [W] and y [H]."""
        latents = self.latents
        green, dense = latents.grid("greenery", x, y), latents.grid("density", x, y)
        industry = latents.grid("industry", x, y)
        shore = latents.shore_grid(x, y)
        crowns = _texture(self.crowns, x, y)
        mottle = _texture(self.mottle, x, y)
        u, v = self.lots.streets.lattice_grid(x, y)

        # Open ground: soil to grass by greenery, paved by density, yards with stacks by industry.
        kind = np.digitize(mottle, [-0.6, 0.6])
        image = _SOIL[kind]
        _blend(image, _GRASS[kind], _ramp(green + 0.10 * mottle, 0.25, 0.6))
        bare = 1 - 0.6 * _ramp(green, 0.4, 0.9)
        _blend(image, _PAVED, 0.85 * bare * _ramp(dense + 0.05 * mottle, 0.2, 0.8))
        yard = _ramp(industry + 0.05 * mottle, 0.35, 0.65)
        _blend(image, _YARD, 0.9 * yard)
        image *= (1 + 0.035 * mottle)[..., None]
        stack = self.stacks[
            (v // _STACK_M[1]).astype(int) % 256, (u // _STACK_M[0]).astype(int) % 256
        ]
        piled = stack < 90 * yard - 12
        image[piled] = _SHEDS[stack[piled] % len(_SHEDS)] * _F(0.8)

        # Water with a lighter bank.
        _blend(image, _BANK, 0.6 * _cover(20 - np.abs(shore - 8)))
        _blend(image, _WATER + 3 * mottle[..., None], _cover(-shore))

        # Side streets end at the water and thin out where little is built; main roads have bridges.
        to_side: Floats = np.minimum(_to_line(u), _to_line(v))
        to_main: Floats = np.minimum(_to_line(u, MAIN_EVERY), _to_line(v, MAIN_EVERY))
        side = _cover(STREET_WIDTH_M / 2 - to_side) * _ramp(dense, 0.05, 0.3) * (shore > 15)
        road = np.maximum(side, _cover(MAIN_WIDTH_M / 2 - to_main))

        # Trees: crowns where the texture exceeds what greenery leaves bare; some stand over streets.
        leafy = (crowns > 2.1 - 3.4 * green * (1 - 0.8 * yard)) & (shore > 10)
        lit = (14 * np.clip(crowns - 1, -1.5, 2) + 3 * mottle)[leafy]
        image[leafy] = _TREE + lit[:, None]
        _blend(image, _ROAD + 3 * crowns[..., None], road * (1 - _F(0.35) * leafy))

        # Shadows fall from buildings that stand between the pixel and the sun.
        roof, row, column, du = self._lookup(u, v)
        shaded = np.zeros(roof.shape, bool)
        for reach_m in (8.0, 20.0, 40.0):
            cast, r, c, _ = self._lookup(u - reach_m * _SHADOW_TO[0], v - reach_m * _SHADOW_TO[1])
            shaded |= cast & (self.lots.height_m[r, c] >= reach_m)
        image *= (1 - _F(0.42) * (shaded & ~roof))[..., None]

        # Roofs: one tint a building, the side towards the sun lighter; sheds of metal by industry.
        row, column, industry = row[roof], column[roof], industry[roof]
        tint, shade = self.tint[row, column], self.shade[row, column] / _F(255)
        shed = industry > shade
        colour = np.where(shed[:, None], _SHEDS[tint % len(_SHEDS)], _ROOFS[tint % len(_ROOFS)])
        slope = np.where(shed, 0, np.sign(du[roof]))
        image[roof] = colour * ((1 + _F(0.07) * slope) * (_F(0.9) + _F(0.2) * shade))[:, None]

        rng = stream(latents.seed, f"orthophoto/noise/{window}")
        image += 2.0 * rng.standard_normal(image.shape[:2], dtype=np.float32)[..., None]
        return np.clip(image + 0.5, 0, 255).astype(np.uint8)

    def _lookup(
        self, u: Floats, v: Floats
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Whether lattice points lie on a building, its row and column, and how far from its ridge."""
        lots = self.lots
        lot_u, lot_v = u / LOT_M[0], v / LOT_M[1]
        floor_u, floor_v = np.floor(lot_u), np.floor(lot_v)
        column = np.clip(floor_u.astype(np.int32) - lots.first_u, 0, lots.half_u.shape[1] - 1)
        row = np.clip(floor_v.astype(np.int32) - lots.first_v, 0, lots.half_u.shape[0] - 1)
        du = (lot_u - floor_u - 0.5) * LOT_M[0]
        dv = (lot_v - floor_v - 0.5) * LOT_M[1]
        roof = (np.abs(du) < lots.half_u[row, column]) & (np.abs(dv) < lots.half_v[row, column])
        return roof, row, column, du


def _texture(tile: Floats, x: Doubles, y: Doubles) -> Floats:
    return bilinear_grid(tile, x / _TILE_STEP_M, y / _TILE_STEP_M, wrap=True)


def _to_line(a: Floats, every: int = 1) -> Floats:
    """Distance to the nearest street line of one direction."""
    pitch = BLOCK_M * every
    return np.asarray(np.abs(a - np.round(a / pitch) * pitch))


def _blend(image: Floats, colour: Floats, share: Floats) -> None:
    """Cover a share [H, W] of each pixel of an image [H, W, 3] with a colour, in place."""
    image += (colour - image) * share[..., None]


def _cover(inside_m: Floats) -> Floats:
    """Share of a pixel that an edge covers, from the distance inside it."""
    return np.asarray(np.clip(inside_m / PIXEL_M + 0.5, 0, 1))


def _ramp(a: Floats, low: float, high: float) -> Floats:
    t = np.clip((a - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))
