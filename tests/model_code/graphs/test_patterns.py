"""Hours as graphs, beside loops over pairs of regions."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import AgglomerativeClustering

from model_code.graphs.patterns import flows_between, graph_distances, hour_patterns
from model_code.methods.base import HourlyFlows

REGIONS = 5
HOURS = np.array([0, 1, 7, 8, 9, 17, 18, 23])


def cube() -> np.ndarray:
    """Trips [24, N, N]: to region 0 in the morning, from it in the evening, few at night."""
    rng = np.random.default_rng(0)
    trips = np.zeros((24, REGIONS, REGIONS), np.int64)
    trips[HOURS] = rng.poisson(1, (len(HOURS), REGIONS, REGIONS))
    trips[[7, 8, 9], :, 0] += 20
    trips[[17, 18], 0] += 20
    return trips


def flows(trips: np.ndarray) -> HourlyFlows:
    hour, origin, destination = np.nonzero(trips)
    return HourlyFlows(origin, destination, hour, trips[hour, origin, destination].astype(float))


def naive_distances(graphs: np.ndarray, hours: np.ndarray) -> np.ndarray:
    """The paper's, with the time around the clock."""
    count, n = len(graphs), graphs.shape[1]
    sided = np.zeros(count)
    more = np.zeros(graphs.shape, bool)
    for t in range(count):
        for i in range(n):
            for j in range(n):
                sided[t] += abs(graphs[t, i, j] - graphs[t, j, i])
                more[t, i, j] = graphs[t, i, j] > graphs[:, i, j].mean()
    total = np.zeros((count, count))
    for values in (graphs.mean(axis=(1, 2)), graphs.var(axis=(1, 2)), sided):
        away = np.abs(values[:, None] - values)
        total += away / away.max()
    away = np.array([[(more[a] ^ more[b]).sum() for b in range(count)] for a in range(count)])
    total += away / away.max()
    for a in range(count):
        for b in range(count):
            between = min((hours[a] - hours[b]) % 24, (hours[b] - hours[a]) % 24)
            total[a, b] *= 1 / (1 + np.exp(-between / 24))
    return total


def test_distances_are_those_of_the_paper() -> None:
    trips = cube()
    expected = naive_distances(trips[HOURS], HOURS)
    np.testing.assert_allclose(graph_distances(flows(trips), REGIONS, HOURS), expected, atol=1e-12)


def test_the_clock_goes_round() -> None:
    """The same two graphs are the nearer, the fewer hours lie between them."""
    trips = np.zeros((24, REGIONS, REGIONS), np.int64)
    trips[[0, 8], 0, 1] = 2
    trips[23, 1, 2] = 5
    hours = np.array([0, 8, 23])
    away = graph_distances(flows(trips), REGIONS, hours)
    assert 0 < away[0, 2] < away[1, 2]


def test_morning_evening_and_night_are_patterns() -> None:
    found = hour_patterns(flows(cube()), REGIONS, 3)
    expected = np.full(24, -1)
    expected[[0, 1, 23]], expected[[7, 8, 9]], expected[[17, 18]] = 0, 1, 2
    np.testing.assert_array_equal(found, expected)


def test_clusters_are_those_of_complete_linkage() -> None:
    trips = np.random.default_rng(1).poisson(1, (24, REGIONS, REGIONS))
    away = naive_distances(trips, np.arange(24))
    for patterns in (2, 7, 23):
        model = AgglomerativeClustering(patterns, metric="precomputed", linkage="complete")
        theirs, ours = model.fit_predict(away), hour_patterns(flows(trips), REGIONS, patterns)
        pairs = set(zip(theirs.tolist(), ours.tolist(), strict=True))
        assert len(pairs) == patterns == len(set(ours.tolist()))
        first = [ours.tolist().index(k) for k in range(patterns)]
        assert first == sorted(first)  # numbered by their first hours


def test_few_hours_are_patterns_of_their_own() -> None:
    trips = cube()
    trips[[0, 1, 8, 9, 17, 18, 23]] = 0
    one = hour_patterns(flows(trips), REGIONS, 7)
    assert one[7] == 0 and (np.delete(one, 7) == -1).all()
    many = hour_patterns(flows(cube()), REGIONS, 24)
    assert many[HOURS].tolist() == list(range(len(HOURS)))


def test_hours_that_are_equal_are_apart_by_nothing_but_one_pattern_more_is_found() -> None:
    trips = np.zeros((24, REGIONS, REGIONS), np.int64)
    trips[:3, 0, 1] = 2
    given = flows(trips)
    assert (graph_distances(given, REGIONS, np.arange(3)) == 0).all()
    assert len(set(hour_patterns(given, REGIONS, 2)[:3].tolist())) == 2


def test_trips_between_visible_regions_alone_are_numbered_anew() -> None:
    trips, visible = cube(), np.array([True, False, True, True, False])
    own = flows_between(flows(trips), visible)
    expected = flows(trips[:, visible][:, :, visible])
    for name in ("origin", "destination", "hour", "count"):
        np.testing.assert_array_equal(getattr(own, name), getattr(expected, name))
