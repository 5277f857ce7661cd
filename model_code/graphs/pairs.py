"""Losses over all pairs of a city's regions, of which a step sees some rows: the objectives of MVURE (Zhang
et al. 2020) and HREP (Zhou et al. 2023).

Each is a mean over the regions of a step, and that of all regions in one step is its expectation: a step
on rows that are drawn at random is unbiased.

V regions that are seen, B of a step, M that have trips, W width of a vector, C categories of POIs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from model_code.graphs.multiview import ViewGraph
from model_code.losses import triplet_loss
from model_code.methods.base import Floats


class Trips:
    """Trips between V regions, divided by how many start in a region on average.

    Attributes:
        moving: [M] int64, the regions where a trip starts or ends; nothing is known of the others.
    """

    def __init__(self, matrix: Any) -> None:
        """`matrix` [V, V], scipy sparse: from row to column."""
        out = matrix.tocsr()
        both = np.asarray(out.sum(axis=1)).ravel() + np.asarray(out.sum(axis=0)).ravel()
        moving = np.flatnonzero(both > 0)
        out = (out * (len(moving) / max(float(out.sum()), 1e-30))).astype(np.float32)
        self.moving = torch.from_numpy(moving)
        self._out, self._into = out[:, moving].tocsr(), out.T.tocsr()[:, moving].tocsr()

    def out(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Trips from the regions `index` [B] to those that move, where there are any: whose they are
        [E], by the place in `index`; where they go [E], by the place in `moving`; and their number [E]."""
        return _entries(self._out[index.numpy()])

    def into(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Trips to the regions `index` [B] from those that move, likewise."""
        return _entries(self._into[index.numpy()])


def _entries(matrix: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [E] and columns [E] int64, and values [E], of what is in a sparse matrix."""
    found = matrix.tocoo()
    row, column = (part.astype(np.int64) for part in found.coords)
    return torch.from_numpy(row), torch.from_numpy(column), torch.from_numpy(found.data)


def mobility_loss(source: Tensor, destination: Tensor, trips: Trips, index: Tensor) -> Tensor:
    """Cross-entropy of where trips go, and of whence they come, against the softmax of inner products of a
    region's vector as a source and of another's as a destination [V, W]: sums over the trips of the
    regions `index` [B]. A region without trips is nobody's destination and has none."""
    place = index.to(source.device)
    columns = trips.moving.to(source.device)
    total = source.new_zeros(())
    if not len(columns):
        return total
    for own, other, entries in (
        (source, destination, trips.out),
        (destination, source, trips.into),
    ):
        row, column, weight = (part.to(source.device) for part in entries(index))
        rows = own.index_select(0, place)
        logits = rows @ other.index_select(0, columns).T  # [B, M]
        sums = weight.new_zeros(len(rows)).index_add(0, row, weight)
        total = total + (logits.logsumexp(dim=1) * sums).sum()
        total = total - (weight * logits[row, column]).sum()
    return total / len(index)


def similarity_loss(vectors: Tensor, unit: Tensor, index: Tensor) -> Tensor:
    """Mean squared difference of inner products of vectors [V, W] and of unit vectors [V, C] of POI counts,
    between the regions `index` [B] and all; a region without POIs, whose row is zero, is in no pair."""
    has = unit.any(dim=1)
    others = has.nonzero()[:, 0]
    place = index.to(vectors.device)
    rows = place[has.index_select(0, place)]
    if not len(rows):
        return vectors.sum() * 0
    given = unit.index_select(0, rows) @ unit.index_select(0, others).T
    found = vectors.index_select(0, rows) @ vectors.index_select(0, others).T
    return ((found - given) ** 2).sum() / (len(index) * len(others))


def neighbour_loss(vectors: Tensor, graph: ViewGraph, index: Tensor, margin: float = 1.0) -> Tensor:
    """Triplet loss on vectors [V, W]: each region of `index` [B] is nearer, by `margin`, to one of its
    neighbours than to a region that is none, both drawn at random. A region that lacks either is left
    out."""
    degree = graph.links.degree[index]
    rows = index[(degree > 0) & (graph.others.count[index] > 0)]
    degree = graph.links.degree[rows]
    chance = torch.rand(len(rows), dtype=torch.float64)
    near = graph.links.column[graph.links.start[rows] + (chance * degree).long()]
    far = graph.others.draw(rows, 1)[:, 0]
    own, near, far = (vectors.index_select(0, i.to(vectors.device)) for i in (rows, near, far))
    return triplet_loss(own, near, far, margin, "euclidean") * (len(rows) / len(index))


def unit_rows(counts: Floats) -> Tensor:
    """Counts [V, C] as vectors of length one; a row without any stays zero."""
    length = np.linalg.norm(counts, axis=1, keepdims=True)
    return torch.from_numpy((counts / np.where(length > 0, length, 1)).astype(np.float32))
