"""Three views of one city as sparse graphs: function, mobility, distance (UrbanMMCL, 3.4.1).

Every view keeps the k strongest neighbours of a region, found by an index or in the flows, never in a
matrix of all pairs; with k = N - 1 it is the dense graph of the paper. Weights are scaled to 0..1 by
the strongest of the view and symmetric, since a decoder of inner products is, and a region is no
neighbour of itself.

A region that is not `visible` is linked to visible regions and none to it: what it holds changes no
other region.

N regions, E edges (both directions are two), C categories of POIs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from model_code.methods.base import Floats, Mask, RegionData

Ints = NDArray[np.int64]

_TIE = 1e-6  # how far apart, on the unit sphere, places set two ends of a city
_ALIKE = 2e-6  # difference of cosines that single precision does not tell
_BLOCK = 512  # regions whose cosines with all others are looked at together
_FEW = 4  # times k + 1: more in a region's window that are as near as its k-th are a crowd
_PAIRS = 2**16  # whose distances are computed at once
_DENSE_SHARE = 0.02  # of pairs with trips, above which rows of trips are multiplied as dense ones
_FULL_SHARE = (
    0.125  # of a product of sparse rows, above which its largest are sought as in a dense one
)
_STRIP = 2048  # others at a time whose trips are compared with a block's
_WINDOW = 2048  # like regions whose cosines tell how large the largest are at least
_TILE = 512  # others at a time: a block's cosines with them stay in the processor's cache
_TOGETHER = 16  # others of which the largest cosine is looked at first


@dataclass(frozen=True)
class Graph:
    """Weighted edges by row: those of region i are `column[start[i]:start[i + 1]]`, ascending.

    Shapes: start [N + 1], column [E] int64; weight [E] float32, above 0 and up to 1; visible [N].
    """

    start: Ints
    column: Ints
    weight: NDArray[np.float32]
    visible: Mask

    def __len__(self) -> int:
        return len(self.start) - 1

    @cached_property
    def row(self) -> Ints:
        """The row of each edge [E]."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    @cached_property
    def mean_weight(self) -> float:
        """Mean weight over all pairs of two visible regions, linked or not."""
        regions = int(self.visible.sum())
        return float(self.weight[self.visible[self.row]].sum() / max(regions * (regions - 1), 1))

    def seen(self) -> Graph:
        """The graph of the V visible regions alone, numbered anew in their order."""
        kept = np.flatnonzero(self.visible)
        own = self.matrix()[kept][:, kept]
        own.sort_indices()
        start, column = own.indptr.astype(np.int64), own.indices.astype(np.int64)
        return Graph(start, column, own.data, np.ones(len(kept), bool))

    def matrix(self) -> Any:
        """The weights as a sparse matrix [N, N]."""
        return sp.csr_array((self.weight, self.column, self.start), shape=(len(self), len(self)))

    def normalised(self) -> Any:
        """D^-1/2 (A + I) D^-1/2, sparse [N, N]: what a graph convolution multiplies by (Kipf and
        Welling 2017)."""
        own = self.matrix() + sp.eye_array(len(self), dtype=np.float32, format="csr")
        root = sp.diags_array(own.sum(axis=1).astype(np.float32) ** -0.5)
        return (root @ own @ root).tocsr()


def trips_of(data: RegionData) -> tuple[Ints, Ints, Floats]:
    """Origins, destinations and counts [F] of a city that has trips."""
    origin, destination, count = data.flow_origin, data.flow_destination, data.flow_count
    assert origin is not None and destination is not None and count is not None
    return origin, destination, count


def trip_matrix(origin: Ints, destination: Ints, count: Floats, regions: int) -> Any:
    """Trips [F] from row to column, sparse [N, N]; a pair may come in several rows."""
    pair = (origin, destination)
    return sp.csr_array((np.asarray(count, np.float64), pair), shape=(regions, regions))


def function_graph(counts: Floats, k: int, visible: Mask, xy_m: Floats | None = None) -> Graph:
    """Cosines of POI counts [N, C]; a region without POIs has no neighbour. Of regions that are alike to
    about six digits the nearer ones by their centroids `xy_m` [N, 2] come first.

    On the unit sphere the nearest points are those of the largest cosine.
    """
    length = np.linalg.norm(counts, axis=1)
    has = length > 0
    unit = np.zeros(counts.shape, np.float64)
    unit[has] = counts[has] / length[has, None]
    points = unit
    if xy_m is not None and visible.any():
        low, high = xy_m[visible].min(axis=0), xy_m[visible].max(axis=0)
        points = np.hstack([unit, _TIE * (xy_m - low) / max(float((high - low).max()), 1e-9)])
    row, column = _most_alike(unit, points, k, has, visible)
    return _graph(row, column, np.einsum("ec,ec->e", unit[row], unit[column]), visible)


def distance_graph(xy_m: Floats, k: int, visible: Mask) -> Graph:
    """One over the distance of centroids [N, 2]; of two in one place that of the nearest two that are
    apart."""
    row, column = _nearest(xy_m, k, np.ones(len(xy_m), bool), visible)
    distance = np.linalg.norm(xy_m[row] - xy_m[column], axis=1)
    apart = distance[visible[row] & (distance > 0)]
    least = apart.min() if len(apart) else 1.0
    return _graph(row, column, 1 / np.maximum(distance, least), visible)


def mobility_graph(origin: Ints, destination: Ints, count: Floats, k: int, visible: Mask) -> Graph:
    """log1p of the trips [F] from region to region as shares of each origin's sum (its trips within
    itself count there), the mean of both directions."""
    n = len(visible)
    trips = trip_matrix(origin, destination, count, n)
    logs = trips.log1p().tocoo()
    use = visible[logs.col] | (logs.row == logs.col)  # a sum leaves out regions that are not seen
    total = np.bincount(logs.row[use], logs.data[use], minlength=n)
    share = sp.csr_array(
        (logs.data / np.where(total > 0, total, 1)[logs.row], (logs.row, logs.col)), shape=(n, n)
    )
    both = ((share + share.T) / 2).tocoo()
    kept = (both.row != both.col) & visible[both.col] & (both.data > 0)
    row, column, weight = both.row[kept], both.col[kept], both.data[kept]
    row, column, weight = strongest(row, column, weight, k)
    return _graph(row, column, weight, visible)


def alike_trips_graph(
    origin: Ints, destination: Ints, count: Floats, k: int, visible: Mask
) -> Graph:
    """Cosines of the trips [F] that start in two regions, by where they end; with both ends swapped, of
    those that end in two regions, by where they start. Only the share between a region and visible ones
    counts (and with itself, of a visible one), and a region without such trips has no neighbour.

    Rows of trips are as long as the city has regions, so that only what is in them is multiplied, where
    that is little."""
    n, seen = len(visible), np.flatnonzero(visible)
    trips = trip_matrix(origin, destination, count, n)[:, seen]
    length = np.sqrt(trips.multiply(trips).sum(axis=1))
    unit = (sp.diags_array(1 / np.where(length > 0, length, 1)) @ trips).tocsr()
    members = np.flatnonzero((length > 0) & visible)
    others = np.flatnonzero((length > 0) & ~visible)
    k = min(k, len(members) - 1)
    if k < 1:
        nothing = np.empty(0, np.int64)
        return _graph(nothing, nothing, np.empty(0), visible)
    strips = [members[first : first + _STRIP] for first in range(0, len(members), _STRIP)]
    rows = [unit[strip] for strip in strips]
    # Visible regions are looked at by themselves: how a sum is rounded must not hang on the others.
    dense = sum(part.nnz for part in rows) > _DENSE_SHARE * len(members) * len(seen)
    found = [
        _most_alike_rows(unit, askers[first : first + _BLOCK], strips, rows, k, dense)
        for askers in (members, others)
        for first in range(0, len(askers), _BLOCK)
    ]
    row, column, cosine = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _graph(row, column, cosine, visible)


def _most_alike_rows(
    unit: Any, block: Ints, strips: list[Ints], rows: list[Any], k: int, dense: bool
) -> tuple[Ints, Ints, Floats]:
    """Triples (region of the block, one of the k members most alike to it, cosine above 0) of sparse unit
    rows [N, V]; of equally alike ones the first. The members come in `strips`, each with its `rows`: of a
    strip no more than k are kept, so that a place where all trips end fills no memory."""
    own = unit[block].toarray() if dense else unit[block]
    found = []
    for strip, others in zip(strips, rows, strict=True):
        product = own @ (others.toarray() if dense else others).T
        if dense or product.nnz > _FULL_SHARE * len(block) * len(strip):
            product = product if dense else product.toarray()
            product[block[:, None] == strip] = 0
            least = np.partition(product, -min(k, len(strip)), axis=1)[:, -min(k, len(strip))]
            row, column = np.nonzero((product >= least[:, None]) & (product > 0))
            cosine = product[row, column]
        else:
            product = product.tocoo()
            kept = (block[product.row] != strip[product.col]) & (product.data > 0)
            row, column, cosine = product.row[kept], product.col[kept], product.data[kept]
        found.append(strongest(block[row], strip[column], cosine, k))
    row, column, cosine = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return strongest(row, column, cosine, k)


def strongest(row: Ints, column: Ints, value: Floats, k: int) -> tuple[Ints, Ints, Floats]:
    """The k largest of each row, of equal ones the first columns, in this order."""
    order = np.lexsort((column, -value, row))
    row, column, value = row[order], column[order], value[order]
    chosen = np.arange(len(row)) - np.searchsorted(row, row) < k
    return row[chosen], column[chosen], value[chosen]


def _nearest(
    points: Floats, k: int, usable: Mask, visible: Mask, askers: Ints | None = None
) -> tuple[Ints, Ints]:
    """Pairs (region, one of the k visible regions nearest to it) among the `usable` ones, for all of
    them or for the `askers`. A k-d tree: quick where neighbours are far nearer than others are, as in
    the plane."""
    from scipy.spatial import cKDTree

    members = np.flatnonzero(usable & visible)
    askers = np.flatnonzero(usable) if askers is None else askers
    k = min(k, len(members) - 1)
    if k < 1 or not len(askers):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # Cells of equal points cannot be split at their median.
    tree = cKDTree(points[members], balanced_tree=False)
    found = members[tree.query(points[askers], k + 1)[1]]  # a visible region is nearest to itself
    own = found == askers[:, None]
    own[~own.any(axis=1), -1] = True  # or is beyond so many in its own place, or is not visible
    return np.repeat(askers, k), found[~own]


def _most_alike(
    unit: Floats, points: Floats, k: int, usable: Mask, visible: Mask
) -> tuple[Ints, Ints]:
    """As `_nearest` of `points` [N, C + 2], which lie within `_TIE` of the unit vectors [N, C]; no number
    of these is below zero.

    Counts of many categories fill the space, where a k-d tree prunes nothing. So all cosines are
    computed in single precision, a block of like regions with a tile of all others at a time, and the
    few are kept that may be among the k largest: a region's window of like regions tells how large
    these are at least, and only where the largest cosine of a group reaches that the group is looked at.
    Double precision then chooses. Where many in the window are as near as the k-th (equal counts, or no
    category in common) they would not be few: such regions ask the tree.
    """
    import torch  # its single-precision product of so few columns takes half the time of numpy's

    order = _alike_order(unit, np.flatnonzero(usable))
    members = order[visible[order]]
    k = min(k, len(members) - 1)
    if k < 1:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    vectors = unit[members].astype(np.float32)
    # What fills the last group up is like nothing: counts are not below zero.
    padded = np.pad(vectors, ((0, -len(members) % _TOGETHER), (0, 0)), constant_values=-1)
    tiles = torch.split(torch.from_numpy(padded), _TILE)
    # One place for all products: memory that is asked for anew is handed out page by page.
    products = np.empty(_BLOCK * _TILE, np.float32)
    position = np.cumsum(visible[order])  # members up to each of `order`
    rows, columns, crowded = [], [], []
    for first in range(0, len(order), _BLOCK):
        block = order[first : first + _BLOCK]
        middle = int(position[min(first + _BLOCK // 2, len(order) - 1)])
        near = slice(max(0, middle - max(_WINDOW // 2, k + 1)), middle + max(_WINDOW // 2, k + 1))
        own = unit[block].astype(np.float32)
        cosines = own @ vectors[near].T
        at_least = np.partition(cosines, -k - 1, axis=1)[:, -k - 1] - _ALIKE
        few = (cosines >= at_least[:, None]).sum(axis=1) <= _FEW * (k + 1)
        crowded.append(block[~few])
        block, at_least = block[few], at_least[few]
        if not len(block):
            continue
        turned = torch.from_numpy(own[few]).T
        found = []
        for number, tile in enumerate(tiles):
            product = products[: len(tile) * len(block)].reshape(len(tile), len(block))
            torch.mm(tile, turned, out=torch.from_numpy(product))
            groups = product.reshape(-1, _TOGETHER, len(block))
            group, row = np.divmod(np.flatnonzero(groups.max(axis=1) >= at_least), len(block))
            hit, within = np.nonzero(groups[group, :, row] >= at_least[row, None])
            found.append((row[hit], number * _TILE + group[hit] * _TOGETHER + within))
        row, other = (np.concatenate(parts) for parts in zip(*found, strict=True))
        apart = block[row] != members[other]
        row, column = row[apart], members[other[apart]]
        best = np.lexsort((column, _squared_distances(points, block[row], column), row))
        row, column = row[best], column[best]
        chosen = np.arange(len(row)) - np.searchsorted(row, row) < k
        rows.append(block[row[chosen]])
        columns.append(column[chosen])
    more = _nearest(points, k, usable, visible, np.concatenate(crowded))
    return np.concatenate([*rows, more[0]]), np.concatenate([*columns, more[1]])


def _squared_distances(points: Floats, one: Ints, other: Ints) -> Floats:
    """Of pairs of points, [P]; a part of the pairs at a time, for they may be many."""
    parts = [
        ((points[one[i : i + _PAIRS]] - points[other[i : i + _PAIRS]]) ** 2).sum(axis=1)
        for i in range(0, len(one), _PAIRS)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def _alike_order(unit: Floats, regions: Ints) -> Ints:
    """The regions so that like ones stand together: halved again and again at the median of the
    category that tells them best apart."""
    parts = [regions]
    while len(parts[0]) > _BLOCK:
        halves = []
        for part in parts:
            values = unit[part]
            values = values[:, values.var(axis=0).argmax()]
            split = np.argpartition(values, len(part) // 2)
            halves += [part[split[: len(part) // 2]], part[split[len(part) // 2 :]]]
        parts = halves
    return np.concatenate(parts)


def _graph(row: Ints, column: Ints, weight: Floats, visible: Mask) -> Graph:
    """Linked where either of two visible regions has the other among its neighbours."""
    n = len(visible)
    largest = weight[visible[row]].max(initial=0)
    scaled = np.minimum(weight / (largest or 1), 1).astype(np.float32)
    edges = sp.csr_array((scaled, (row, column)), shape=(n, n))
    seen = sp.csr_array((scaled, (row, column)), shape=(n, n))
    seen.data[~visible[np.repeat(np.arange(n), np.diff(seen.indptr))]] = 0
    edges = edges.maximum(seen.T).tocsr()
    edges.eliminate_zeros()
    edges.sort_indices()
    return Graph(edges.indptr.astype(np.int64), edges.indices.astype(np.int64), edges.data, visible)
