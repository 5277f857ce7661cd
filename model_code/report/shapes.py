"""Polygons as plain arrays of points, for matplotlib and for the page's canvas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray


def outlines(geometry: NDArray[Any]) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]]:
    """Polygons as closed outlines, and which geometry each belongs to.

    A multipolygon gives one outline a part. Holes are joined to their shell by a seam that is
    walked in both directions, so that one ring draws both.

    Shapes:
        geometry [N] polygons or multipolygons -> P outlines [V, 2], and owners [P].
    """
    parts, owner = shapely.get_parts(geometry, return_index=True)
    rings, polygon = shapely.get_rings(
        shapely.orient_polygons(parts, exterior_cw=False), return_index=True
    )
    points, ring = shapely.get_coordinates(rings, return_index=True)
    starts = np.searchsorted(ring, np.arange(len(rings)))
    ends = np.searchsorted(ring, np.arange(len(rings)), side="right")
    shells = np.searchsorted(polygon, np.arange(len(parts)))
    is_hole = np.ones(len(rings), bool)
    is_hole[shells] = False
    seam_ends = points[starts[shells[polygon[is_hole]]]]
    points = np.insert(points, ends[is_hole], seam_ends, axis=0)
    lengths = np.bincount(polygon[ring], minlength=len(parts))
    lengths += np.bincount(polygon[is_hole], minlength=len(parts))
    return np.split(points, np.cumsum(lengths)[:-1]), owner


@dataclass(frozen=True)
class Rings:
    """Rings on a grid of whole units, y downwards, to be filled by the even-odd rule.

    Shapes:
        x, y [V] uint16; lengths [R] points a ring; owner [R] geometry a ring; `unit` the width of
        one unit and `origin` the upper left corner, both in the geometry's own units.
    """

    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    lengths: NDArray[np.uint32]
    owner: NDArray[np.uint32]
    width: int
    height: int
    unit: float
    origin: tuple[float, float]


def quantised_rings(geometry: NDArray[Any], *, across: int = 8192, detail: int = 1500) -> Rings:
    """Rings of `geometry` [N] rounded to a grid of `across` units along the longer side.

    Borders are simplified together (neighbours keep their shared border) to a tolerance of a
    `detail`-th of the longer side, which is below a pixel on the page.
    """
    west, south, east, north = shapely.total_bounds(geometry)
    extent = max(east - west, north - south)
    simple = geometry
    if shapely.get_num_coordinates(geometry).sum() > 16 * len(geometry):  # more than cells have
        simple = shapely.coverage_simplify(geometry, extent / detail)
        # A region that the simplification swallows keeps its own outline.
        simple = np.where(shapely.is_empty(simple), geometry, simple)
    unit = extent / across
    parts, part_owner = shapely.get_parts(simple, return_index=True)
    rings, ring_part = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    x = np.round((points[:, 0] - west) / unit).astype(np.uint16)
    y = np.round((north - points[:, 1]) / unit).astype(np.uint16)
    keep = np.ones(len(x), bool)
    keep[1:] = (x[1:] != x[:-1]) | (y[1:] != y[:-1]) | (ring[1:] != ring[:-1])
    return Rings(
        x=x[keep],
        y=y[keep],
        lengths=np.bincount(ring[keep], minlength=len(rings)).astype(np.uint32),
        owner=part_owner[ring_part].astype(np.uint32),
        width=round((east - west) / unit),
        height=round((north - south) / unit),
        unit=float(unit),
        origin=(float(west), float(north)),
    )
