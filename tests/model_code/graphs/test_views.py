from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from model_code.graphs import views
from model_code.graphs.views import (
    Graph,
    alike_trips_graph,
    distance_graph,
    function_graph,
    mobility_graph,
)
from tests.model_code.graphs.places import dense, graphs, places

NAMES = ("function", "mobility", "distance")


@pytest.mark.parametrize("name", NAMES)
def test_with_all_neighbours_a_view_is_the_dense_matrix(name: str) -> None:
    city = places()
    found = graphs(city, k=len(city["xy"]))[name]
    np.testing.assert_allclose(found.matrix().toarray(), dense(city)[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [1, 4])
def test_a_region_has_its_k_strongest_neighbours_and_those_that_have_it(name: str, k: int) -> None:
    city = places()
    whole = dense(city)[name]
    rank = (-whole).argsort(axis=1, kind="stable").argsort(axis=1)
    kept = (rank < k) & (whole > 0)
    expected = np.where(kept | kept.T, whole, 0)
    expected /= expected.max()
    found = graphs(city, k)[name]
    np.testing.assert_allclose(found.matrix().toarray(), expected, rtol=1e-5, atol=1e-7)
    assert found.weight.max() == 1 and found.weight.min() > 0 and found.weight.dtype == np.float32
    assert (found.row != found.column).all()
    same_row = found.row[1:] == found.row[:-1]
    assert (np.diff(found.column)[same_row] > 0).all()


def test_regions_without_pois_or_trips_have_no_neighbour_there() -> None:
    found = graphs(places(), k=5)
    degree = {name: np.diff(graph.start) for name, graph in found.items()}
    assert set(np.flatnonzero(degree["function"] == 0)) == {3, 7}
    assert set(np.flatnonzero(degree["mobility"] == 0)) == {5, 7}
    assert degree["distance"].min() >= 5


def test_regions_in_one_place_and_with_equal_pois() -> None:
    everyone = np.ones(30, bool)
    near = distance_graph(np.repeat([[0.0, 0.0], [3.0, 4.0]], 15, axis=0), 4, everyone)
    np.testing.assert_array_equal(near.weight, 1)  # as if as far apart as the nearest that are
    assert (np.diff(near.start) >= 4).all() and (near.row != near.column).all()
    alone = distance_graph(np.zeros((30, 2)), 4, everyone)
    assert np.isfinite(alone.weight).all()
    alike = function_graph(np.ones((30, 3), np.float32), 4, everyone)
    np.testing.assert_allclose(alike.weight, 1)
    assert (np.diff(alike.start) >= 4).all() and (alike.row != alike.column).all()


def test_regions_of_equal_pois_are_linked_to_those_beside_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not to the first rows of the city; nor are all their pairs looked at, but a tree is asked."""
    k, side, n = 10, 71, 5000
    looked_at = 0

    def watched(points: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        nonlocal looked_at
        looked_at += len(one)
        return original(points, one, other)

    original = views._squared_distances
    monkeypatch.setattr(views, "_squared_distances", watched)
    row, column = np.divmod(np.arange(n), side)
    xy_m = np.column_stack([column, row]) * 500.0
    graph = function_graph(np.ones((n, 5)), k, np.ones(n, bool), xy_m)
    assert np.diff(graph.start).max() <= 2 * k and np.allclose(graph.weight, 1)
    steps = np.abs(graph.row - graph.column)
    assert (np.abs(graph.row // side - graph.column // side) <= 6).all() and steps.max() < 7 * side
    assert looked_at == 0
    function_graph(np.random.default_rng(0).poisson(4, (n, 20)), k, np.ones(n, bool), xy_m)
    assert n * k <= looked_at < n * 100


@pytest.mark.parametrize("kind", ["full", "sparse", "one each", "few kinds"])
def test_neighbours_by_blocks_are_those_of_all_pairs(kind: str) -> None:
    """More regions than a block and a tile have, one in ten of them not visible, with and without
    ties; nearer places decide those."""
    n, k = 2600, 6
    rng = np.random.default_rng(0)
    counts = {
        "full": lambda: rng.poisson(4, (n, 20)),
        "sparse": lambda: rng.poisson(0.02, (n, 200)),
        "one each": lambda: np.eye(500)[rng.integers(0, 500, n)],
        "few kinds": lambda: rng.poisson(0.7, (n, 3)),
    }[kind]().astype(float)
    visible = rng.random(n) < 0.9
    xy_m = rng.random((n, 2)) * 5000
    has = counts.any(axis=1)
    unit = np.where(has[:, None], counts / np.linalg.norm(counts, axis=1).clip(1e-9)[:, None], 0)
    low, high = xy_m[visible].min(axis=0), xy_m[visible].max(axis=0)
    points = np.hstack([unit, 1e-6 * (xy_m - low) / (high - low).max()])
    found = function_graph(counts, k, visible, xy_m)
    for region in rng.choice(np.flatnonzero(has), 80, replace=False):
        distance = np.square(points - points[region]).sum(axis=1)
        distance[~(has & visible)] = distance[region] = np.inf
        nearest = distance.argsort(kind="stable")[:k]
        expected = set(nearest[unit[nearest] @ unit[region] > 0])  # no weight, no link
        linked = set(found.column[found.start[region] : found.start[region + 1]])
        assert expected <= linked if visible[region] else expected == linked


def test_regions_with_no_category_in_common_are_not_linked() -> None:
    found = function_graph(np.eye(6, 3, dtype=np.float32)[[0, 0, 1, 1, 2, 2]], 5, np.ones(6, bool))
    assert connected_components(found.matrix())[0] == 3
    np.testing.assert_array_equal(found.column, [1, 0, 3, 2, 5, 4])


def test_no_region_no_trip_and_no_poi() -> None:
    one, none = np.ones(1, bool), np.empty(0, np.int64)
    for graph in (
        function_graph(np.zeros((1, 3), np.float32), 5, one),
        distance_graph(np.zeros((1, 2)), 5, one),
        mobility_graph(none, none, np.empty(0), 5, np.ones(3, bool)),
        function_graph(np.zeros((4, 3), np.float32), 5, np.ones(4, bool)),
    ):
        assert not len(graph.column) and graph.mean_weight == 0
        np.testing.assert_array_equal(graph.normalised().toarray(), np.eye(len(graph)))


def test_trips_within_a_region_count_in_its_sum_and_link_nothing() -> None:
    found = mobility_graph(
        np.array([0, 0, 1]), np.array([0, 1, 2]), np.ones(3), 5, np.ones(3, bool)
    )
    np.testing.assert_allclose(found.matrix().toarray(), [[0, 0.5, 0], [0.5, 0, 1], [0, 1, 0]])


@pytest.mark.parametrize("name", NAMES)
def test_regions_that_are_not_visible_change_no_other_row(name: str) -> None:
    city, visible = places(), np.arange(40) % 4 > 0
    found = graphs(city, 5, visible)[name]
    assert visible[found.column].all()
    own = city["counts"][~visible].any(axis=1) if name == "function" else slice(None)
    if name != "mobility":
        assert (np.diff(found.start)[~visible][own] == 5).all()
    other = places(seed=1)
    mixed = {
        "xy": np.where(visible[:, None], city["xy"], other["xy"]),
        "counts": np.where(visible[:, None], city["counts"], other["counts"]),
        "trips": np.where(visible[:, None] & visible, city["trips"], other["trips"]),
    }
    changed = graphs(mixed, 5, visible)[name]

    def rows(graph: Graph) -> np.ndarray:
        return graph.matrix().toarray()[visible]

    np.testing.assert_array_equal(rows(found), rows(changed))
    assert found.mean_weight == changed.mean_weight
    assert not np.array_equal(found.matrix().toarray(), changed.matrix().toarray())
    alone = {
        "xy": city["xy"][visible],
        "counts": city["counts"][visible],
        "trips": city["trips"][visible][:, visible],
    }
    np.testing.assert_allclose(
        rows(found)[:, visible], graphs(alone, 5)[name].matrix().toarray(), rtol=1e-6
    )


def test_the_mean_is_over_all_pairs() -> None:
    city = places()
    n = len(city["xy"])
    for name, whole in dense(city).items():
        assert graphs(city, n)[name].mean_weight == pytest.approx(whole.sum() / n / (n - 1))


# --- regions alike in their trips ------------------------------------------------------------------


def alike(trips: np.ndarray, k: int, visible: np.ndarray | None = None) -> Graph:
    visible = np.ones(len(trips), bool) if visible is None else visible
    origin, destination = np.nonzero(trips)
    count = trips[origin, destination].astype(float)
    return alike_trips_graph(origin, destination, count, k, visible)


@pytest.fixture(params=[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)], ids=["dense", "full", "sparse"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, share in zip(("_DENSE_SHARE", "_FULL_SHARE"), request.param, strict=True):
        monkeypatch.setattr(views, name, share)
    monkeypatch.setattr(views, "_BLOCK", 7)
    monkeypatch.setattr(views, "_STRIP", 11)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("k", [1, 4, 40])
def test_regions_whose_trips_go_to_the_same_places_are_linked(k: int) -> None:
    trips = places()["trips"]
    n = len(trips)
    whole = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j and trips[i].any() and trips[j].any():
                a, b = trips[i].astype(float), trips[j].astype(float)
                whole[i, j] = a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)
    rank = (-whole).argsort(axis=1, kind="stable").argsort(axis=1)
    kept = (rank < k) & (whole > 0)
    expected = np.where(kept | kept.T, whole, 0)
    found = alike(trips, k)
    np.testing.assert_allclose(found.matrix().toarray(), expected / expected.max(), rtol=1e-6)
    assert set(np.flatnonzero(np.diff(found.start) == 0)) == {5, 7}


@pytest.mark.usefixtures("either_way")
def test_trips_of_regions_that_are_not_visible_change_no_other_row() -> None:
    trips, visible = places()["trips"], np.arange(40) % 4 > 0
    found = alike(trips, 5, visible)
    assert visible[found.column].all()
    between = visible[:, None] & visible
    changed = alike(np.where(between, trips, places(seed=1)["trips"]), 5, visible)
    first, second = (graph.matrix().toarray() for graph in (found, changed))
    np.testing.assert_array_equal(first[visible], second[visible])
    assert not np.array_equal(first, second)
    alone = alike(trips[visible][:, visible], 5)
    np.testing.assert_array_equal(first[visible][:, visible], alone.matrix().toarray())
    seen = found.seen()
    np.testing.assert_array_equal(seen.matrix().toarray(), alone.matrix().toarray())
    assert seen.visible.all() and len(seen) == visible.sum()


def test_no_trips_or_none_that_end_in_a_place_of_another_s() -> None:
    none = np.empty(0, np.int64)
    assert not len(alike_trips_graph(none, none, np.empty(0), 5, np.ones(3, bool)).column)
    assert not len(alike(np.eye(4), 2).column)


def test_how_visible_rows_are_multiplied_hangs_on_them_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ways: list[bool] = []

    def watched(*arguments: Any) -> Any:
        ways.append(arguments[-1])
        return original(*arguments)

    original = views._most_alike_rows
    monkeypatch.setattr(views, "_most_alike_rows", watched)
    visible = np.arange(200) < 150
    few = (np.arange(200)[:, None] + [1, 2]) % 150
    trips = np.zeros((200, 200))
    trips[np.arange(200)[:, None], few] = 1
    alike(trips, 3, visible)
    trips[~visible] = 1
    alike(trips, 3, visible)
    trips[visible, :20] = 1
    alike(trips, 3, visible)
    assert ways == [False] * 4 + [True] * 2


def test_a_place_where_all_trips_end_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_BLOCK", 128)
    monkeypatch.setattr(views, "_STRIP", 256)
    n = 2500
    own = np.arange(n)
    for side in (own, np.zeros(n, np.int64)):  # with a place of two regions each, or all alike
        origin, destination = np.concatenate([own, own]), np.concatenate([own * 0, side // 2])
        tracemalloc.start()
        found = alike_trips_graph(origin, destination, np.ones(2 * n), 3, np.ones(n, bool))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8e6
        assert (np.diff(found.start) >= 3).all()


def test_alike_trips_of_a_large_city_are_found_without_a_matrix() -> None:
    rng, n = np.random.default_rng(0), 20_000
    origin = np.repeat(np.arange(n), 10)
    destination = (origin + rng.integers(-20, 20, len(origin))) % n
    tracemalloc.start()
    found = alike_trips_graph(origin, destination, np.ones(len(origin)), 5, np.ones(n, bool))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * n / 4  # a quarter of a byte for each pair
    assert (np.diff(found.start) >= 5).all()
