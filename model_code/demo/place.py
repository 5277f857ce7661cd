"""Where the embedded city lies: N square cells in the middle of the Atlantic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from model_code.demo.fields import Doubles
from model_code.errors import DataError

EPSG = 32625
TIMEZONE = "Atlantic/Azores"
MIN_REGIONS, MAX_REGIONS = 10, 100_000
_NEAR_EASTING_M, _SOUTH_NORTHING_M = 500_000, 4_000_000
_EDGE_M = (
    1.0  # points keep this far from a cell's border, so that rounding never moves them over it
)

_TO_LONLAT = pyproj.Transformer.from_crs(EPSG, 4326, always_xy=True)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """Cells numbered row by row from the south-west; the northernmost row may be short.

    `x`, `y` everywhere in `model_code.demo` are metres east and north of the block's corner, which
    is a multiple of `cell_m` in the UTM zone, so that cells are those of `floor(x / cell_m)`.
    """

    regions: int
    cell_m: float = 1000.0
    north_km: float = 0.0  # how far from the usual place, so that two cities need not overlap

    def __post_init__(self) -> None:
        if not MIN_REGIONS <= self.regions <= MAX_REGIONS:
            raise DataError(
                f"cannot simulate a city of {self.regions:,} regions",
                fix=f"choose {MIN_REGIONS} to {MAX_REGIONS:,} regions",
            )
        if not (math.isfinite(self.cell_m) and 100 <= self.cell_m <= 5000):
            raise DataError(
                f"cannot simulate cells of {self.cell_m} m", fix="choose 100 to 5000 metres"
            )
        if not 0 <= self.north_km <= 4000:
            raise DataError(
                f"cannot simulate a city {self.north_km} km north", fix="choose 0 to 4000 km"
            )
        if self.columns * self.cell_m > 700_000:
            raise DataError(
                f"{self.regions:,} cells of {self.cell_m:g} m do not fit into one UTM zone",
                fix="choose fewer or smaller cells",
            )

    @property
    def columns(self) -> int:
        return math.isqrt(self.regions - 1) + 1

    @property
    def rows(self) -> int:
        return -(-self.regions // self.columns)

    @property
    def width_m(self) -> float:
        return self.columns * self.cell_m

    @property
    def height_m(self) -> float:
        return self.rows * self.cell_m

    @property
    def easting_m(self) -> float:
        """Easting of the block's western edge."""
        return math.floor((_NEAR_EASTING_M - self.width_m / 2) / self.cell_m) * self.cell_m

    @property
    def northing_m(self) -> float:
        """Northing of the block's southern edge."""
        south = _SOUTH_NORTHING_M + 1000 * self.north_km
        return math.floor(south / self.cell_m) * self.cell_m

    @cached_property
    def corner(self) -> Doubles:
        """South-western corner of each cell, [N, 2]."""
        row, column = np.divmod(np.arange(self.regions), self.columns)
        return np.column_stack([column, row]) * float(self.cell_m)

    @property
    def centre(self) -> Doubles:
        """Centre of each cell, [N, 2]."""
        return self.corner + self.cell_m / 2

    def cell(self, x: Doubles, y: Doubles) -> Ints:
        """Number of the cell at each point; -1 outside."""
        column = np.floor(x / self.cell_m).astype(np.int64)
        row = np.floor(y / self.cell_m).astype(np.int64)
        number = row * self.columns + column
        inside = (column >= 0) & (column < self.columns) & (row >= 0) & (number < self.regions)
        return np.where(inside, number, -1)

    def scatter(self, rng: np.random.Generator, cell: Ints) -> tuple[Doubles, Doubles]:
        """A uniform point in each given cell, clear of its border."""
        inner = self.cell_m - 2 * _EDGE_M
        x = self.corner[cell, 0] + _EDGE_M + inner * rng.random(len(cell))
        y = self.corner[cell, 1] + _EDGE_M + inner * rng.random(len(cell))
        return x, y

    def clear_of_border(self, x: Doubles, y: Doubles) -> npt.NDArray[np.bool_]:
        """Whether points keep the distance from their cell's border that `scatter` keeps."""
        low, high = _EDGE_M, self.cell_m - _EDGE_M
        dx, dy = x % self.cell_m, y % self.cell_m
        return (dx >= low) & (dx <= high) & (dy >= low) & (dy <= high)

    def lonlat(self, x: Doubles, y: Doubles) -> tuple[Doubles, Doubles]:
        """Degrees, EPSG:4326."""
        lon, lat = _TO_LONLAT.transform(x + self.easting_m, y + self.northing_m)
        return np.asarray(lon), np.asarray(lat)

    def squares(self, corner: Doubles, size_m: float) -> Any:
        """Squares with the given south-western corners [M, 2] as polygons in degrees, [M]."""
        steps = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) * size_m
        ring = corner[:, None, :] + steps
        return shapely.polygons(np.stack(self.lonlat(ring[..., 0], ring[..., 1]), axis=-1))

    def boundary(self) -> Any:
        """The union of the cells as one polygon in degrees, with a vertex at each cell's corner:
        a straight line of UTM is none in degrees."""
        full, rest = divmod(self.regions, self.columns)
        whole = shapely.box(0, 0, self.width_m, full * self.cell_m)
        short = shapely.box(0, 0, rest * self.cell_m, self.height_m)
        outline = shapely.segmentize(shapely.union(whole, short), self.cell_m)
        return shapely.transform(outline, self.lonlat, interleaved=False)
