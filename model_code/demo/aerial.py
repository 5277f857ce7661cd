"""What ground looks like from above: how density, greenery, water and industry are painted.

All by arithmetic over pixels of any shape [...], which may be a window of a city or a batch of
chips. Pixels are placed on a lattice (u, v) of blocks and lots, metres along each axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_code.demo.fields import Doubles, Floats, gaussian_field, stream

BLOCK_M = 500.0 / 3  # streets are this far apart; every third is a main road
MAIN_EVERY = 3
STREET_WIDTH_M, MAIN_WIDTH_M = 9.0, 16.0
LOT_M = (BLOCK_M / 3, BLOCK_M / 2)  # along u and along v

PIXEL_M = 8.0
TILE, TILE_STEP_M = 512, 4.0  # textures repeat after this many steps
_F = np.float32
_SHADOW_TO = np.array([-0.45, 0.55], _F)  # metres of shadow a metre of height, east and north
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


# What a pixel shows mostly, by code.
SHOWN = ("soil", "grass", "paved", "industry", "water", "greenery", "roads", "buildings")


@dataclass(frozen=True)
class Textures:
    """Crowns of trees and mottled ground, periodic [TILE, TILE]; stacks of goods by lattice cell."""

    crowns: Floats
    mottle: Floats
    stacks: np.ndarray


def draw_textures(seed: int) -> Textures:
    """Draw the textures of a city."""

    def texture(name: str, length_m: float) -> Floats:
        rng = stream(seed, f"orthophoto/{name}")
        return gaussian_field(rng, (TILE, TILE), TILE_STEP_M, length_m, periodic=True)

    stacks = stream(seed, "orthophoto/stacks").integers(0, 256, (256, 256), dtype=np.uint8)
    return Textures(texture("crowns", 9.0), texture("mottle", 60.0), stacks)


def footprints(
    density: Floats, dry: np.ndarray, built: Floats, size: Floats, shape_u: Floats, shape_v: Floats
) -> tuple[np.ndarray, Floats, Floats]:
    """Whether a building stands on each lot, and half its extent along u and v, metres (0: none).

    Size follows density alone; `built`, `size`, `shape_u` and `shape_v` are uniform draws.
    """
    stands = (built < 0.06 + 0.92 * density**0.8) & dry
    size = np.clip(0.25 * size + 0.85 * density, 0, 1)
    half_u = stands * LOT_M[0] * (0.17 + 0.15 * size + 0.06 * shape_u)
    half_v = stands * LOT_M[1] * (0.14 + 0.19 * size + 0.06 * shape_v)
    return stands, half_u, half_v


def building_height_m(density: Floats, centrality: Floats, tall: Floats) -> Floats:
    """Metres; `tall` is a standard normal draw."""
    storey = 1.3 + 5.0 * density**1.5 + 22.0 * density * centrality**2.2
    return np.asarray(3.2 * np.clip(storey * np.exp(0.28 * tall), 1, 90))


@dataclass(frozen=True)
class Roofs:
    """Buildings by lot [rows along v, columns along u], counted from the lot (first_u, first_v);
    `tint` and `shade` (0..255) set their colour. Where pictures of a batch have rows of their own,
    `first_v` is one number a picture, shaped as their pixels."""

    first_u: int
    first_v: int | npt.NDArray[np.int64]
    half_u: Floats
    half_v: Floats
    height_m: Floats
    tint: np.ndarray
    shade: np.ndarray

    def find(self, u: Floats, v: Floats) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Whether lattice points lie on a building, its row and column, and how far from its ridge."""
        lot_u, lot_v = u / LOT_M[0], v / LOT_M[1]
        floor_u, floor_v = np.floor(lot_u), np.floor(lot_v)
        column = np.clip(floor_u.astype(np.int32) - self.first_u, 0, self.half_u.shape[1] - 1)
        row = np.clip(floor_v.astype(np.int32) - self.first_v, 0, self.half_u.shape[0] - 1)
        du = (lot_u - floor_u - 0.5) * LOT_M[0]
        dv = (lot_v - floor_v - 0.5) * LOT_M[1]
        roof = (np.abs(du) < self.half_u[row, column]) & (np.abs(dv) < self.half_v[row, column])
        return roof, row, column, du


@dataclass(frozen=True)
class Ground:
    """What each pixel knows of its place: latents 0..1, metres to the shore (negative on water),
    textures, and where it lies on the lattice; float32 [...] each."""

    greenery: Floats
    density: Floats
    industry: Floats
    shore_m: Floats
    crowns: Floats
    mottle: Floats
    u: Floats
    v: Floats


def paint(
    ground: Ground, roofs: Roofs, stacks: np.ndarray, shown: npt.NDArray[np.uint8] | None = None
) -> Floats:
    """Colours of pixels, float32 [..., 3] in 0..255, without the camera's noise; `shown` [...] is
    filled with what each shows (see `SHOWN`), if it is given."""
    green, dense, industry, shore = (
        ground.greenery, ground.density, ground.industry, ground.shore_m,
    )  # fmt: skip
    crowns, mottle, u, v = ground.crowns, ground.mottle, ground.u, ground.v

    def show(name: str, where: np.ndarray) -> None:
        if shown is not None:
            shown[where] = SHOWN.index(name)

    # Open ground: soil to grass by greenery, paved by density, yards with stacks by industry.
    kind = np.digitize(mottle, [-0.6, 0.6])
    image = _SOIL[kind]
    show("soil", np.full(kind.shape, True))
    grass = _ramp(green + 0.10 * mottle, 0.25, 0.6)
    _blend(image, _GRASS[kind], grass)
    show("grass", grass > 0.5)
    bare = 1 - 0.6 * _ramp(green, 0.4, 0.9)
    paved = 0.85 * bare * _ramp(dense + 0.05 * mottle, 0.2, 0.8)
    _blend(image, _PAVED, paved)
    show("paved", paved > 0.5)
    yard = _ramp(industry + 0.05 * mottle, 0.35, 0.65)
    _blend(image, _YARD, 0.9 * yard)
    show("industry", yard > 0.5)
    image *= (1 + 0.035 * mottle)[..., None]
    stack = stacks[(v // _STACK_M[1]).astype(int) % 256, (u // _STACK_M[0]).astype(int) % 256]
    piled = stack < 90 * yard - 12
    image[piled] = _SHEDS[stack[piled] % len(_SHEDS)] * _F(0.8)
    show("industry", piled)

    # Water with a lighter bank.
    _blend(image, _BANK, 0.6 * _cover(20 - np.abs(shore - 8)))
    water = _cover(-shore)
    _blend(image, _WATER + 3 * mottle[..., None], water)
    show("water", water > 0.5)

    # Side streets end at the water and thin out where little is built; main roads have bridges.
    to_side: Floats = np.minimum(_to_line(u), _to_line(v))
    to_main: Floats = np.minimum(_to_line(u, MAIN_EVERY), _to_line(v, MAIN_EVERY))
    side = _cover(STREET_WIDTH_M / 2 - to_side) * _ramp(dense, 0.05, 0.3) * (shore > 15)
    road = np.maximum(side, _cover(MAIN_WIDTH_M / 2 - to_main))

    # Trees: crowns where the texture exceeds what greenery leaves bare; some stand over streets.
    leafy = (crowns > 2.1 - 3.4 * green * (1 - 0.8 * yard)) & (shore > 10)
    lit = (14 * np.clip(crowns - 1, -1.5, 2) + 3 * mottle)[leafy]
    image[leafy] = _TREE + lit[:, None]
    show("greenery", leafy)
    road = road * (1 - _F(0.35) * leafy)
    _blend(image, _ROAD + 3 * crowns[..., None], road)
    show("roads", road > 0.5)

    # Shadows fall from buildings that stand between the pixel and the sun.
    roof, row, column, du = roofs.find(u, v)
    shaded = np.zeros(roof.shape, bool)
    for reach_m in (8.0, 20.0, 40.0):
        cast, r, c, _ = roofs.find(u - reach_m * _SHADOW_TO[0], v - reach_m * _SHADOW_TO[1])
        shaded |= cast & (roofs.height_m[r, c] >= reach_m)
    image *= (1 - _F(0.42) * (shaded & ~roof))[..., None]

    # Roofs: one tint a building, the side towards the sun lighter; sheds of metal by industry.
    row, column, industry = row[roof], column[roof], industry[roof]
    tint, shade = roofs.tint[row, column], roofs.shade[row, column] / _F(255)
    show("buildings", roof)
    shed = industry > shade
    colour = np.where(shed[:, None], _SHEDS[tint % len(_SHEDS)], _ROOFS[tint % len(_ROOFS)])
    slope = np.where(shed, 0, np.sign(du[roof]))
    image[roof] = colour * ((1 + _F(0.07) * slope) * (_F(0.9) + _F(0.2) * shade))[:, None]
    if shown is not None:
        shown[roof] = np.where(shed, SHOWN.index("industry"), shown[roof])
    return image


def _to_line(a: Floats | Doubles, every: int = 1) -> Floats:
    """Distance to the nearest street line of one direction."""
    pitch = BLOCK_M * every
    return np.asarray(np.abs(a - np.round(a / pitch) * pitch))


def _blend(image: Floats, colour: Floats, share: Floats) -> None:
    """Cover a share [...] of each pixel of an image [..., 3] with a colour, in place."""
    image += (colour - image) * share[..., None]


def _cover(inside_m: Floats) -> Floats:
    """Share of a pixel that an edge covers, from the distance inside it."""
    return np.asarray(np.clip(inside_m / PIXEL_M + 0.5, 0, 1))


def _ramp(a: Floats, low: float, high: float) -> Floats:
    t = np.clip((a - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))
