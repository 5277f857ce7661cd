"""The latent fields, from which every file of the embedded city is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree
from scipy.special import ndtr

from model_code.demo.fields import Doubles, Floats, bilinear_grid, gaussian_field, stream
from model_code.demo.place import Place

NAMES = (
    "centrality", "density", "greenery", "water", "industry", "income", "commerce", "employment",
)  # fmt: skip

_NODE_M = 250.0  # nodes of the smooth fields are at most this far apart
_MARGIN_M = 1500.0  # the fields reach beyond the city: streets and shadows cross its border
_TILE, _TILE_STEP_M, _DETAIL_LENGTH_M = 512, 25.0, 130.0
_DETAIL = {
    "density": 0.14, "greenery": 0.20, "industry": 0.10, "income": 0.08, "commerce": 0.12,
    "employment": 0.08,
}  # fmt: skip
_KM2_PER_CENTRE = 120.0
_RIVER_HALF_WIDTH_M, _WATERSIDE_M = 65.0, 350.0


@dataclass(frozen=True)
class Latents:
    """Smooth fields in 0..1 on nodes `step_m` apart, and detail within a region.

    `smooth` holds every latent but water, which follows from `river_m`, the distance to the river's
    midline, signed by its side. A latent at a point is smooth + detail; a region's latent is the
    mean of the smooth field over its nodes: detail has mean zero.
    """

    place: Place
    seed: int
    step_m: float
    margin_m: float
    smooth: dict[str, Floats]
    river_m: Floats
    detail: dict[str, Floats] = field(repr=False)

    @property
    def water(self) -> Floats:
        """Nearness of water: 1 on it, falling off over a few hundred metres."""
        return _nearness(_to_shore(self.river_m))

    def with_field(self, name: str, change: Callable[[Floats], Floats]) -> Latents:
        """The same city with one latent changed (`river_m` for water) and all others as they are."""
        if name == "river_m":
            return replace(self, river_m=change(self.river_m).astype(np.float32))
        changed = np.clip(change(self.smooth[name]), 0, 1).astype(np.float32)
        return replace(self, smooth={**self.smooth, name: changed})

    def region(self, name: str) -> Doubles:
        """Mean of a latent over each region, [N]."""
        values = self.water if name == "water" else self.smooth[name]
        return self._cell_means(values)

    def regions(self) -> dict[str, Doubles]:
        """Every latent by region."""
        return {name: self.region(name) for name in NAMES}

    def at(self, name: str, x: Doubles, y: Doubles) -> Floats:
        """A latent at points, detail included, 0..1."""
        if name == "water":
            return _nearness(self.shore_at(x, y))
        values = self.sample(self.smooth[name], x, y)
        if name in self.detail:
            u, v = x / _TILE_STEP_M, y / _TILE_STEP_M
            values += map_coordinates(self.detail[name], [v, u], order=1, mode="grid-wrap")
        return np.clip(values, 0, 1)

    def shore_at(self, x: Doubles, y: Doubles) -> Floats:
        """Distance to the water's edge at points, metres; negative on the water."""
        return _to_shore(self.sample(self.river_m, x, y))

    def sample(self, nodes: Floats, x: Doubles, y: Doubles) -> Floats:
        """A field of nodes at points, bilinear."""
        u, v = (np.asarray(a) + self.margin_m for a in (x, y))
        position = [v / self.step_m - 0.5, u / self.step_m - 0.5]
        out: Floats = map_coordinates(nodes, position, order=1, mode="nearest", output=np.float32)
        return out

    def sample_grid(self, nodes: Floats, x: Doubles, y: Doubles) -> Floats:
        """`sample` on the grid of the axes x [W] and y [H], by way of the axes: [H, W]."""
        return bilinear_grid(
            nodes,
            (np.asarray(x) + self.margin_m) / self.step_m - 0.5,
            (np.asarray(y) + self.margin_m) / self.step_m - 0.5,
            wrap=False,
        )

    def grid(self, name: str, x: Doubles, y: Doubles) -> Floats:
        """`at` on the grid of the axes x [W] and y [H]: [H, W]."""
        values = self.sample_grid(self.smooth[name], x, y)
        if name in self.detail:
            u, v = np.asarray(x) / _TILE_STEP_M, np.asarray(y) / _TILE_STEP_M
            values += bilinear_grid(self.detail[name], u, v, wrap=True)
        return np.clip(values, 0, 1)

    def shore_grid(self, x: Doubles, y: Doubles) -> Floats:
        """`shore_at` on the grid of the axes x [W] and y [H]: [H, W]."""
        return _to_shore(self.sample_grid(self.river_m, x, y))

    def _cell_means(self, nodes: Floats) -> Doubles:
        place, per_cell = self.place, round(self.place.cell_m / self.step_m)
        edge = round(self.margin_m / self.step_m)
        shape = (place.rows, per_cell, place.columns, per_cell)
        inner = nodes[edge : edge + place.rows * per_cell, edge : edge + place.columns * per_cell]
        means: Doubles = inner.reshape(shape).mean(axis=(1, 3), dtype=np.float64)
        return means.ravel()[: place.regions]


def draw_latents(place: Place, seed: int) -> Latents:
    """Draw all latent fields of a city."""
    per_cell = math.ceil(place.cell_m / _NODE_M)
    step = place.cell_m / per_cell
    edge = math.ceil(_MARGIN_M / step)
    shape = (place.rows * per_cell + 2 * edge, place.columns * per_cell + 2 * edge)
    axes = [(np.arange(n) + 0.5 - edge) * step for n in shape]
    y, x = np.meshgrid(*axes, indexing="ij")

    def draw(name: str, length_m: float) -> Floats:
        return gaussian_field(stream(seed, f"latent/{name}"), shape, step, length_m)

    rng = stream(seed, "latent/centres")
    central = _centrality(rng, place, x, y)
    pull = 2.0 * (central - 0.35)
    angle = 2 * math.pi * rng.random()
    # The gradient spans the city: -0.5 to 0.5 from one side to the other.
    across = (x / place.width_m - 0.5) * math.cos(angle) + (y / place.height_m - 0.5) * math.sin(
        angle
    )
    wealth = 1.6 * across + 0.5 * draw("income/long", 12_000) + 0.75 * draw("income", 1800)
    green = draw("greenery", 1200)
    dense = draw("density", 1400)
    smooth = {
        "centrality": central,
        "density": ndtr(0.85 * dense + 0.7 * pull),
        "greenery": ndtr(0.9 * green - 0.35 * dense - 0.2 * pull),
        "industry": ndtr(2.0 * (draw("industry", 1600) - 0.25 * pull - 0.6)),
        "income": ndtr(wealth),
        "commerce": ndtr(0.9 * draw("commerce", 1100) + 0.5 * pull),
        "employment": ndtr(0.9 * draw("employment", 1500) + 0.35 * pull),
    }
    detail = {
        name: amplitude
        * gaussian_field(
            stream(seed, f"detail/{name}"), (_TILE, _TILE), _TILE_STEP_M, _DETAIL_LENGTH_M,
            periodic=True,
        )
        for name, amplitude in _DETAIL.items()
    }  # fmt: skip
    return Latents(
        place=place,
        seed=seed,
        step_m=step,
        margin_m=edge * step,
        smooth={name: values.astype(np.float32) for name, values in smooth.items()},
        river_m=_river(draw("water", 4000), rng, place, step, edge),
        detail=detail,
    )


def _centrality(rng: np.random.Generator, place: Place, x: Doubles, y: Doubles) -> Doubles:
    """1 at the main centre and less at the others, falling off exponentially."""
    extent = np.array([place.width_m, place.height_m])
    others = int(place.regions * place.cell_m**2 / 1e6 / _KM2_PER_CENTRE)
    at = np.vstack([extent * rng.uniform(0.4, 0.6, (1, 2)), extent * rng.random((others, 2))])
    weight = np.concatenate([[1.0], rng.uniform(0.4, 0.9, others)])
    reach = np.concatenate([[4000.0], rng.uniform(1500, 3500, others)])
    near = min(len(at), 8)
    distance, which = cKDTree(at).query(np.column_stack([x.ravel(), y.ravel()]), k=near)
    distance, which = distance.reshape(-1, near), which.reshape(-1, near)
    pulls = weight[which] * np.exp(-distance / reach[which])
    main = np.exp(-np.hypot(x - at[0, 0], y - at[0, 1]) / reach[0])
    return np.asarray(np.maximum(pulls.max(axis=1).reshape(x.shape), main))


def _to_shore(river_m: Floats) -> Floats:
    return np.asarray(np.abs(river_m) - np.float32(_RIVER_HALF_WIDTH_M))


def _nearness(shore_m: Floats) -> Floats:
    return np.exp(-np.maximum(shore_m, 0) / np.float32(_WATERSIDE_M))


def _river(
    height: Floats, rng: np.random.Generator, place: Place, step_m: float, edge: int
) -> Floats:
    """Signed distance to a river that follows one contour of a smooth field, [rows, columns].

    The contour passes near the city's centre. Where the field is flat, the river widens to a lake.
    """
    rows, columns = height.shape
    j = edge + int((rows - 2 * edge) * rng.uniform(0.3, 0.7))
    i = edge + int((columns - 2 * edge) * rng.uniform(0.3, 0.7))
    level = height - height[j, i]
    dy, dx = np.gradient(level, step_m)
    slope = np.sqrt(dx**2 + dy**2 + (0.12 / 4000) ** 2)
    return np.asarray(level / slope, np.float32)
