"""Renders satellite chips of 1 km, a batch of pictures at a time, from what they show.

The same ground as a city's orthophoto, but each chip is a place of its own. B pictures; inside,
x and y are metres east and north of a chip's midpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from model_code.demo.aerial import (
    BLOCK_M,
    LOT_M,
    MAIN_EVERY,
    PIXEL_M,
    TILE,
    TILE_STEP_M,
    Ground,
    Roofs,
    Textures,
    building_height_m,
    draw_textures,
    footprints,
    paint,
)
from model_code.demo.fields import Draws, Floats

CHIP_M = 1000.0

Pictures = npt.NDArray[np.uint8]

# Lots of one chip, wide enough for any bend.
_ROWS, _COLUMNS = 30, 45
_BEND = 0.12  # typical slope of the streets' bend
_LEAST_WATER = 0.003
_DETAIL = {"density": 0.14, "greenery": 0.20, "industry": 0.10}  # how much each varies in a chip
_DETAIL_SCALE = 0.46  # the mottle of 60 m, stretched to the length of that variation


@dataclass(frozen=True)
class Grounds:
    """What the chips of a batch show, each float32 [B] in 0..1; water is its share of the chip, the
    others are levels."""

    density: Floats
    greenery: Floats
    water: Floats
    industry: Floats


def render(grounds: Grounds, rng: Draws, size_px: int = 64) -> Pictures:
    """Chips uint8 [B, size_px, size_px, 3], north up; what the grounds leave open is drawn."""
    return render_shown(grounds, rng, size_px)[0]


def render_shown(grounds: Grounds, rng: Draws, size_px: int = 64) -> tuple[Pictures, Pictures]:
    """`render`, and what each of its own pixels of 8 m shows: uint8 [B, H, W], see `aerial.SHOWN`."""
    b = len(grounds.density)
    n = round(CHIP_M / PIXEL_M)
    axis = ((np.arange(n) + 0.5) * PIXEL_M - CHIP_M / 2).astype(np.float32)
    x, y = axis[None, None, :], -axis[None, :, None]  # [1, 1, W], [1, H, 1]
    textures = _textures()

    def uniform(shape: int | tuple[int, ...], low: float = 0, high: float = 1) -> Floats:
        values: Floats = rng.random(shape, dtype=np.float32)
        return np.float32(low) + np.float32(high - low) * values

    # Lattice = bend (x, y) + offset.
    bend = np.clip(_BEND * rng.standard_normal((b, 2, 2), dtype=np.float32), -0.25, 0.25)
    bend += np.eye(2, dtype=np.float32)
    pitch = BLOCK_M * MAIN_EVERY
    offset = uniform((b, 2), -pitch / 2, pitch / 2)
    bent = [[_c(bend[:, i, j]) for j in range(2)] for i in range(2)]
    u = bent[0][0] * x + bent[0][1] * y + _c(offset[:, 0])
    v = bent[1][0] * x + bent[1][1] * y + _c(offset[:, 1])

    # Where each chip cuts the textures out: [B, 4 uses, 2].
    cut = uniform((b, 4, 2), 0, TILE)

    def texture(tile: Floats, use: int, x: Floats, y: Floats, scale: float = 1.0) -> Floats:
        step = np.float32(scale / TILE_STEP_M)
        at = np.broadcast_arrays(_c(cut[:, use, 1]) + step * y, _c(cut[:, use, 0]) + step * x)
        out: Floats = map_coordinates(tile, at, order=1, mode="grid-wrap", output=np.float32)
        return out

    def level(name: str, x: Floats, y: Floats) -> Floats:
        use = 1 + list(_DETAIL).index(name)
        varies = np.float32(_DETAIL[name]) * texture(textures.mottle, use, x, y, _DETAIL_SCALE)
        return np.clip(_c(getattr(grounds, name)) + varies, 0, 1)

    river = uniform((b, 5))
    shore = _to_river(river, x, y)
    # The river is as wide as the share of water asks; a dry chip lies far from it.
    rank = np.clip((grounds.water * n * n).astype(np.int64), 0, n * n - 1)
    half_width = np.take_along_axis(np.sort(shore.reshape(b, -1), axis=1), rank[:, None], axis=1)
    half_width[grounds.water < _LEAST_WATER] = -1e4
    shore -= half_width[:, :, None]

    # Lots, [B, rows, columns], placed on the ground by the inverse of the bend.
    shape = (b, _ROWS, _COLUMNS)
    first_u, first_v = -(_COLUMNS // 2), -(_ROWS // 2)
    lot_u = ((first_u + np.arange(_COLUMNS) + 0.5) * LOT_M[0]).astype(np.float32)[None, None, :]
    lot_v = ((first_v + np.arange(_ROWS) + 0.5) * LOT_M[1]).astype(np.float32)[None, :, None]
    back = np.linalg.inv(bend).astype(np.float32)
    from_u, from_v = lot_u - _c(offset[:, 0]), lot_v - _c(offset[:, 1])
    lot_x = _c(back[:, 0, 0]) * from_u + _c(back[:, 0, 1]) * from_v
    lot_y = _c(back[:, 1, 0]) * from_u + _c(back[:, 1, 1]) * from_v
    density = level("density", lot_x, lot_y)
    dry = _to_river(river, lot_x, lot_y) - half_width[:, :, None] > 45
    stands, half_u, half_v = footprints(density, dry, *(uniform(shape) for _ in range(4)))
    tall = rng.standard_normal(shape, dtype=np.float32)
    height = stands * building_height_m(density, _c(uniform(b, 0, 0.8)), tall)
    own_row = first_v - _ROWS * np.arange(b)[:, None, None]
    sizes = (a.astype(np.float32).reshape(-1, _COLUMNS) for a in (half_u, half_v, height))
    colours = (rng.integers(0, 256, shape, np.uint8).reshape(-1, _COLUMNS) for _ in range(2))
    roofs = Roofs(first_u, own_row, *sizes, *colours)

    ground = Ground(
        greenery=level("greenery", x, y),
        density=level("density", x, y),
        industry=level("industry", x, y),
        shore_m=shore,
        crowns=texture(textures.crowns, 0, x, y),
        mottle=texture(textures.mottle, 0, x, y),
        u=u,
        v=v,
    )
    shown = np.zeros((b, n, n), np.uint8)
    image = paint(ground, roofs, textures.stacks, shown)
    image += 2.0 * rng.standard_normal((b, n, n), dtype=np.float32)[..., None]
    shrink = _area_means(n, size_px)
    chips = (shrink @ image.transpose(0, 3, 1, 2) @ shrink.T).transpose(0, 2, 3, 1)
    pixels: Pictures = np.clip(chips + 0.5, 0, 255).astype(np.uint8)
    return pixels, shown


@cache
def _textures() -> Textures:
    """Of no city: chips cut them where chance says."""
    return draw_textures(0)


def _to_river(draws: Floats, x: Floats, y: Floats) -> Floats:
    """Distance to the midline of a winding river, about metres: [B, ...] from draws [B, 5]."""
    angle, off, bow, length, phase = (_c(a) for a in draws.T)
    turn = np.float32(2 * np.pi)
    along = x * np.cos(turn * angle) + y * np.sin(turn * angle)
    across = y * np.cos(turn * angle) - x * np.sin(turn * angle)
    winding = 90 * bow * np.sin(turn * (along / (700 + 900 * length) + phase))
    return np.asarray(np.abs(across - winding - 700 * (off - np.float32(0.5))), np.float32)


def _area_means(from_px: int, to_px: int) -> Floats:
    """Averages of the part of the old pixels that each new pixel covers, [to_px, from_px]."""
    edge = np.arange(to_px + 1) * (from_px / to_px)
    old = np.arange(from_px)
    covered = np.minimum(edge[1:, None], old + 1) - np.maximum(edge[:-1, None], old)
    weights = np.clip(covered, 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _c(values: Floats) -> Floats:
    """[B] as [B, 1, 1]."""
    return values[:, None, None]
