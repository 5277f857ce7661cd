"""Hours of a city's trips that are alike, clustered into mobility patterns (MGFN, section 3.1).

Each hour is a graph of trips. Two hours are the further apart the more their graphs differ in mean, in
variance, in how one-sided trips are, and in which pairs of regions have more of them than on average over
the hours, and the more hours lie between them.

T hours that have trips, V visible regions, P pairs of them that have trips in any hour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from model_code.methods.base import Floats, HourlyFlows, Mask

HOURS = 24


def flows_between(flows: HourlyFlows, visible: Mask) -> HourlyFlows:
    """The trips between two visible regions, which are numbered anew in their order."""
    place = np.cumsum(visible) - 1
    kept = visible[flows.origin] & visible[flows.destination] & (flows.count > 0)
    origin, destination = place[flows.origin[kept]], place[flows.destination[kept]]
    return HourlyFlows(origin, destination, flows.hour[kept], flows.count[kept])


def hour_patterns(flows: HourlyFlows, regions: int, patterns: int) -> NDArray[np.int64]:
    """The pattern of each hour [24], counted from 0 in the order of their first hours; -1 for an hour
    without trips. There are as many as asked for, or as many as there are hours with trips.

    Complete linkage, as in the authors' code.
    """
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    hours = np.unique(flows.hour)
    found = np.full(HOURS, -1)
    if len(hours) <= patterns:
        found[hours] = np.arange(len(hours))
        return found
    away = graph_distances(flows, regions, hours)
    tree = linkage(squareform(away, checks=False), "complete")
    found[hours] = cut_tree(tree, patterns)[:, 0]
    return found


def graph_distances(flows: HourlyFlows, regions: int, hours: NDArray[np.int64]) -> Floats:
    """The mobility graph distance between `hours` [T], [T, T] (equations 1 to 7): each of four
    distances over its largest, summed, times the sigmoid of the time between, around the clock and as
    a share of a day. Graphs have all pairs of `regions`, most without a trip."""
    graphs = _graphs(flows, regions, hours)
    pairs = regions**2
    mean = graphs.sum(axis=1) / pairs
    variance = graphs.multiply(graphs).sum(axis=1) / pairs - mean**2
    parts = [np.abs(np.subtract.outer(v, v)) for v in (mean, variance, _one_sided(graphs, regions))]
    parts.append(_structure(graphs))
    between = np.abs(np.subtract.outer(hours, hours))
    between = np.minimum(between, HOURS - between)
    total = sum(part / max(float(part.max()), 1e-30) for part in parts)
    return np.asarray(total / (1 + np.exp(-between / HOURS)))


def _graphs(flows: HourlyFlows, regions: int, hours: NDArray[np.int64]) -> Any:
    """Trips by hour and pair of regions, sparse [T, V * V]."""
    place = np.searchsorted(hours, flows.hour), flows.origin * regions + flows.destination
    count = np.asarray(flows.count, np.float64)
    return sp.csr_array((count, place), shape=(len(hours), regions**2))


def _one_sided(graphs: Any, regions: int) -> Floats:
    """By hour, how far trips of a pair differ from those of the way back, over all pairs, [T]."""
    found = graphs.tocoo()
    hour, pair = found.coords
    turned = pair % regions * regions + pair // regions
    back = sp.csr_array((found.data, (hour, turned)), shape=graphs.shape)
    return np.asarray(abs(graphs - back).sum(axis=1))


def _structure(graphs: Any) -> Floats:
    """Pairs that have more trips than on average over the hours in one hour and not in the other,
    [T, T]."""
    found = graphs.tocoo()
    hour, pair = found.coords
    pairs, pair = np.unique(pair, return_inverse=True)
    mean = np.bincount(pair, found.data, len(pairs)) / graphs.shape[0]
    more = found.data > mean[pair]
    shape = (graphs.shape[0], len(pairs))
    code = sp.csr_array((np.ones(more.sum()), (hour[more], pair[more])), shape=shape)
    own = code.sum(axis=1)
    return np.asarray(np.add.outer(own, own) - 2 * (code @ code.T).toarray())
