"""Draws of near and of distant ones, found by a k-d tree: points on a map, or rows of counts.

N points, n of them usable, k neighbours, B points in a batch, T triplets.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from model_code.errors import DataError
from model_code.methods.base import Floats, Mask

_EARTH_M = 6_371_008.8  # mean radius
TRIES = 4  # draws of one that fits before the anchor is given up
_ROWS = 256  # points whose distances to all others are looked at together
_TIE = 1e-9  # relative difference of distances that rounding may make


def on_sphere(lonlat_deg: Floats) -> Floats:
    """Places [N, 2] as points [N, 3] in metres, whose distances are straight lines through the Earth:
    within a city, those on the ground."""
    lon, lat = np.radians(np.asarray(lonlat_deg, np.float64)).T
    return _EARTH_M * np.stack(
        [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1
    )


def first_of(drawn: Tensor, fits: Tensor) -> tuple[Tensor, Tensor]:
    """Of several draws a row [T, TRIES] the first that `fits` [T, TRIES]: which rows [T] have one, and
    what it is, of these."""
    found = fits.any(dim=1)
    first = fits[found].long().argmax(dim=1, keepdim=True)
    return found, drawn[found].gather(1, first)[:, 0]


class NearSampler:
    """Draws points that are near an anchor, and points that are not. Who is not usable is read nowhere.

    Attributes:
        rows: [n] the usable points.
        nearest: [n, k] the nearest others of each, by their place in `rows`; the first `count` [n] of
            them are near.
    """

    def __init__(
        self, points: Floats, usable: Mask, *, neighbours: int, radius: float | None = None
    ) -> None:
        """Of points [N, d] those that are `usable` [N], two at least. Near is who is among so many
        nearest `neighbours`; with a `radius`, in the unit of the points, only within it too. Distant is
        who is farther than the last of these, or than the radius."""
        members = np.flatnonzero(usable)
        own = np.asarray(points, np.float64)[members]
        each = np.arange(len(own))
        k = min(neighbours, len(own) - 1)
        # Cells of equal points cannot be split at their median.
        distance, found = cKDTree(own, balanced_tree=False).query(own, k + 1)
        oneself = found == each[:, None]
        oneself[~oneself.any(axis=1), -1] = True  # beyond so many in the same place
        found, distance = found[~oneself].reshape(-1, k), distance[~oneself].reshape(-1, k)
        self.rows = torch.from_numpy(members)
        self.points = torch.from_numpy(own)
        self.position = torch.full((len(usable),), -1)
        self.position[self.rows] = torch.arange(len(own))
        self.nearest = torch.from_numpy(found)
        if radius is None:
            self.count = torch.full((len(own),), k)
            self.reach = torch.from_numpy(distance[:, -1].copy())
        else:
            self.count = torch.from_numpy((distance <= radius).sum(axis=1))
            self.reach = torch.full((len(own),), float(radius), dtype=torch.float64)
        self.reach *= 1 + _TIE
        self.within = radius is not None

    def check_triplets(self, method: str) -> None:
        """See that `method` can learn from these points.

        Raises:
            DataError: none has both one that is near and one that is distant.
        """
        anchors = (self.count > 0).nonzero()[:, 0]
        for some in torch.split(anchors, _ROWS):
            away = torch.cdist(self.points[some], self.points)
            if (away > self.reach[some][:, None]).any():
                return
        key = "radius_m" if self.within else "neighbours"
        if not len(anchors):
            what, fix = "near", f"raise the method's `{key}`"
        else:
            what, fix = "distant", f"lower the method's `{key}`"
        raise DataError(
            f"{method}: of {len(self.rows)} pictures none has another that is {what}, so that there is "
            "nothing to learn",
            fix=f"{fix}, or give the city more pictures in more places",
        )

    def pairs(self, index: Tensor) -> Tensor:
        """Pairs [T, 2] of an anchor and one that is near, for those of `index` [B] that have one."""
        return self.rows[torch.stack(self._near(index), dim=1)]

    def triplets(self, index: Tensor) -> Tensor:
        """Triplets [T, 3] of an anchor, one that is near and one that is distant, for those of `index`
        [B] that have both; who finds no distant one in a few draws is left out."""
        anchor, near = self._near(index)
        others = torch.randint(max(len(self.rows) - 1, 1), (len(anchor), TRIES))
        others += others >= anchor[:, None]  # any but the anchor
        away = (self.points[others] - self.points[anchor][:, None]).norm(dim=2)
        distant = away > self.reach[anchor][:, None]
        found, far = first_of(others, distant)
        return self.rows[torch.stack([anchor[found], near[found], far], dim=1)]

    def _near(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Anchors [T] and one that is near each [T], by their places in `rows`."""
        anchor = self.position[index]
        anchor = anchor[anchor >= 0]
        anchor = anchor[self.count[anchor] > 0]
        chance = torch.rand(len(anchor), dtype=torch.float64)
        return anchor, self.nearest[anchor, (chance * self.count[anchor]).long()]
