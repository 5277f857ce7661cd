"""Streets and buildings: a bent lattice of blocks and lots.

Streets follow the lines of a lattice (u, v) that a smooth displacement bends: ground = lattice +
displacement(lattice). Every building is a rectangle of the lattice, so the picture finds a pixel's
building by arithmetic and the footprints are the same shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model_code.demo.aerial import BLOCK_M, LOT_M, building_height_m, footprints
from model_code.demo.fields import Doubles, Floats, gaussian_field, stream
from model_code.demo.files import quads_wkb
from model_code.demo.latents import Latents

_BEND_M, _BEND_LENGTH_M = 380.0, 3000.0
_NULL_HEIGHT_SHARE = 0.02
_CHUNK_LOTS = 2_000_000

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Streets:
    """The bend of the lattice, and back."""

    latents: Latents
    bend_u: Floats
    bend_v: Floats
    back_u: Floats
    back_v: Floats

    def ground(self, u: Doubles, v: Doubles) -> tuple[Doubles, Doubles]:
        """Points of the lattice on the ground."""
        sample = self.latents.sample
        return u + sample(self.bend_u, u, v), v + sample(self.bend_v, u, v)

    def lattice(self, x: Doubles, y: Doubles) -> tuple[Doubles, Doubles]:
        """Points of the ground on the lattice, to a metre or better."""
        sample = self.latents.sample
        return self._refined(x, y, x - sample(self.back_u, x, y), y - sample(self.back_v, x, y))

    def lattice_grid(self, x: Doubles, y: Doubles) -> tuple[Floats, Floats]:
        """`lattice` on the grid of the axes x [W] and y [H]: [H, W] each."""
        east, north = (a.astype(np.float32) for a in (x[None, :], y[:, None]))
        u = east - self.latents.sample_grid(self.back_u, x, y)
        v = north - self.latents.sample_grid(self.back_v, x, y)
        return self._refined(east, north, u, v)

    def _refined(self, x: Any, y: Any, u: Any, v: Any) -> tuple[Any, Any]:
        """One more step towards u + bend(u, v) = x: nodes of the way back are too far apart."""
        sample = self.latents.sample
        return x - sample(self.bend_u, u, v), y - sample(self.bend_v, u, v)

    def onto_street(
        self, x: Doubles, y: Doubles, rng: np.random.Generator
    ) -> tuple[Doubles, Doubles, Doubles]:
        """Points moved to a street of their own cell (a few find none and stay), and the street's
        compass heading in degrees."""
        u, v = self.lattice(x, y)
        north = rng.random(len(x)) < 0.5
        best_x, best_y, found = x.copy(), y.copy(), np.zeros(len(x), bool)
        heading = np.zeros(len(x))
        for along_v in (north, ~north):  # the drawn direction, else the other one
            su = np.where(along_v, np.round(u / BLOCK_M) * BLOCK_M, u)
            sv = np.where(along_v, v, np.round(v / BLOCK_M) * BLOCK_M)
            sx, sy = self.ground(su, sv)
            ahead_x, ahead_y = self.ground(su + 5.0 * ~along_v, sv + 5.0 * along_v)
            place = self.latents.place
            fits = (place.cell(sx, sy) == place.cell(x, y)) & place.clear_of_border(sx, sy)
            take = fits & ~found
            best_x, best_y = np.where(take, sx, best_x), np.where(take, sy, best_y)
            turn = np.degrees(np.arctan2(ahead_x - sx, ahead_y - sy))
            heading = np.where(take, turn, heading)
            found |= fits
        return best_x, best_y, heading % 360


def draw_streets(latents: Latents) -> Streets:
    """Draw the bend of a city's streets; it depends on no latent."""
    shape = latents.river_m.shape
    bend_u, bend_v = (
        np.float32(_BEND_M)
        * gaussian_field(stream(latents.seed, f"bend/{a}"), shape, latents.step_m, _BEND_LENGTH_M)
        for a in "uv"
    )
    axes = [(np.arange(n) + 0.5) * latents.step_m - latents.margin_m for n in shape]
    y, x = np.meshgrid(*axes, indexing="ij")
    u, v = x, y
    for _ in range(12):  # u = x - bend(u, v): a contraction, since the bend is gentle
        u, v = x - latents.sample(bend_u, u, v), y - latents.sample(bend_v, u, v)
    return Streets(latents, bend_u, bend_v, (x - u).astype(np.float32), (y - v).astype(np.float32))


@dataclass(frozen=True)
class Lots:
    """One lot of the lattice an array element [rows along v, columns along u].

    A lot holds a building where `half_u` is above 0. Size follows density alone; height follows
    density and centrality.
    """

    streets: Streets
    first_u: int
    first_v: int
    half_u: Floats
    half_v: Floats
    height_m: Floats

    def centre(self, rows: slice) -> tuple[Doubles, Doubles]:
        """Centres of the lots of some rows on the lattice."""
        u = (self.first_u + np.arange(self.half_u.shape[1]) + 0.5) * LOT_M[0]
        v = (self.first_v + np.arange(self.half_u.shape[0])[rows] + 0.5) * LOT_M[1]
        grid_v, grid_u = np.meshgrid(v, u, indexing="ij")
        return grid_u, grid_v


def draw_lots(streets: Streets) -> Lots:
    """Draw every lot of the city and of a narrow rim around it."""
    latents = streets.latents
    place, rim = latents.place, 4 * _BEND_M
    first_u, last_u = _lot_range(-rim, place.width_m + rim, LOT_M[0])
    first_v, last_v = _lot_range(-rim, place.height_m + rim, LOT_M[1])
    shape = (last_v - first_v, last_u - first_u)
    half_u, half_v, height = (np.zeros(shape, np.float32) for _ in range(3))
    lots = Lots(streets, first_u, first_v, half_u, half_v, height)
    rng = stream(latents.seed, "lots")
    for rows in _row_chunks(shape):
        x, y = streets.ground(*lots.centre(rows))
        built, size, shape_u, shape_v = rng.random((4, *x.shape), dtype=np.float32)
        tall = rng.standard_normal(x.shape, dtype=np.float32)
        density = latents.at("density", x, y)
        centrality = latents.at("centrality", x, y)
        # The river is the one thing besides density that a footprint knows: none stands in water.
        dry = latents.shore_at(x, y) > 45
        stands, half_u[rows], half_v[rows] = footprints(density, dry, built, size, shape_u, shape_v)
        height[rows] = stands * building_height_m(density, centrality, tall)
    return lots


def building_parts(lots: Lots) -> Iterator[pa.Table]:
    """The buildings of the city's cells: `geometry` (WKB), `height_m` (a few null), in chunks."""
    place = lots.streets.latents.place
    rng = stream(lots.streets.latents.seed, "buildings/nulls")
    for rows in _row_chunks(lots.half_u.shape):
        u, v = lots.centre(rows)
        x, y = lots.streets.ground(u, v)
        stands = (lots.half_u[rows] > 0) & (place.cell(x, y) >= 0)
        cu, cv = u[stands][:, None], v[stands][:, None]
        half_u, half_v = lots.half_u[rows][stands][:, None], lots.half_v[rows][stands][:, None]
        x, y = lots.streets.ground(
            cu + half_u * np.array([-1, 1, 1, -1]), cv + half_v * np.array([-1, -1, 1, 1])
        )
        unknown = rng.random(len(cu)) < _NULL_HEIGHT_SHARE
        heights = np.round(lots.height_m[rows][stands].astype(np.float64), 1)
        yield pa.table(
            {
                "geometry": quads_wkb(np.stack(place.lonlat(x, y), axis=-1)),
                "height_m": pa.array(heights, mask=unknown),
            }
        )


def _lot_range(low_m: float, high_m: float, lot_m: float) -> tuple[int, int]:
    return int(np.floor(low_m / lot_m)), int(np.ceil(high_m / lot_m))


def _row_chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, _CHUNK_LOTS // shape[1])
    return (slice(i, min(i + step, shape[0])) for i in range(0, shape[0], step))
