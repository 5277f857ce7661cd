"""Random walks from all regions at once, and the subgraphs that they visit (UrbanMMCL, 3.4.3).

N regions, E edges, B regions that are asked for, S = 1 + steps places of a walk.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Links:
    """Which regions of a graph are linked, for tensors of regions."""

    def __init__(self, start: Tensor, column: Tensor) -> None:
        """`start` [N + 1] and `column` [E] as in `views.Graph`."""
        self.start, self.column, self.regions = start, column, len(start) - 1
        self.degree = start.diff()
        self._key = torch.repeat_interleave(torch.arange(self.regions), self.degree)
        self._key = self._key * self.regions + column  # ascending
        back = column * self.regions + torch.repeat_interleave(
            torch.arange(self.regions), self.degree
        )
        self.symmetric = torch.equal(self._key, back.sort().values)

    def of(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The edges [K] of the regions `index` [B], and for each its position in `index`."""
        degree = self.degree[index]
        owner = torch.repeat_interleave(torch.arange(len(index)), degree)
        first = torch.repeat_interleave(degree.cumsum(0) - degree, degree)
        return self.start[index][owner] + torch.arange(len(owner)) - first, owner

    def within(self, walks: Tensor) -> tuple[Tensor, Tensor]:
        """For every two places of walks [B, S] the edge between their regions [B, S, S], and whether
        there is one (in either direction: a region that is not visible is linked one way)."""
        places = walks.shape[1]
        left, right = torch.triu_indices(places, places, 1)
        edge, there = self._find(walks[:, left], walks[:, right])
        if not self.symmetric:
            back, also = self._find(walks[:, right], walks[:, left])
            edge, there = torch.where(there, edge, back), there | also
        edges = walks.new_zeros(len(walks), places, places)
        linked = torch.zeros(edges.shape, dtype=torch.bool)
        for p, q in ((left, right), (right, left)):
            edges[:, p, q], linked[:, p, q] = edge, there
        return edges, linked

    def _find(self, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        wanted = row * self.regions + column
        if not len(self._key):
            return torch.zeros_like(wanted), torch.zeros_like(wanted, dtype=torch.bool)
        edge = torch.searchsorted(self._key, wanted).clamp(max=len(self._key) - 1)
        return edge, self._key[edge] == wanted


def random_walks(links: Links, weight: Tensor, origin: Tensor, chance: Tensor) -> Tensor:
    """Walks [B, S] from the regions `origin` [B] along edges of `weight` [E], each with a probability
    in proportion to its weight (eq 22); where there is no edge a walk stays.

    `chance` [B, S - 1] are numbers in 0..1, one a step.
    """
    total = torch.cat([weight.new_zeros(1, dtype=torch.float64), weight.double().cumsum(0)])
    walk = [origin]
    for step in chance.double().unbind(1):
        first, last = links.start[walk[-1]], links.start[walk[-1] + 1]
        aim = total[first] + step * (total[last] - total[first])
        edge = torch.searchsorted(total, aim, right=True) - 1
        edge = torch.minimum(torch.maximum(edge, first), last - 1)
        there = total[last] > total[first]
        walk.append(
            torch.where(there, links.column[edge.clamp(min=0)], walk[-1])
            if len(weight)
            else walk[-1]
        )
    return torch.stack(walk, dim=1)


def first_visits(walks: Tensor) -> Tensor:
    """Which places [B, S] of walks [B, S] are first visits: a subgraph has each region once."""
    same = walks[:, :, None] == walks[:, None, :]
    return ~same.tril(-1).any(dim=2)
