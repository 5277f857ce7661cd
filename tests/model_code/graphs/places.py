"""A small city for tests of graphs: places, POIs and trips, some regions without either."""

from __future__ import annotations

import numpy as np

from model_code.graphs.views import Graph, distance_graph, function_graph, mobility_graph

CATEGORIES = 5


def places(n: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    """`xy` [N, 2], `counts` [N, C] (regions 3 and 7 have no POIs), `trips` [N, N] (regions 5 and 7 have
    none)."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(4, (n, CATEGORIES)).astype(np.float32)
    counts[[3, 7]] = 0
    trips = rng.poisson(rng.random((n, n)) * 3)
    trips[[5, 7]] = 0
    trips[:, [5, 7]] = 0
    return {"xy": rng.random((n, 2)) * 1000, "counts": counts, "trips": trips}


def graphs(
    city: dict[str, np.ndarray], k: int, visible: np.ndarray | None = None
) -> dict[str, Graph]:
    n = len(city["xy"])
    visible = np.ones(n, bool) if visible is None else visible
    origin, destination = np.nonzero(city["trips"])
    count = city["trips"][origin, destination].astype(float)
    return {
        "function": function_graph(city["counts"], k, visible),
        "mobility": mobility_graph(origin, destination, count, k, visible),
        "distance": distance_graph(city["xy"], k, visible),
    }


def dense(city: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The paper's matrices, written out pair by pair: symmetric, without diagonal, largest weight 1."""
    n = len(city["xy"])
    found = {name: np.zeros((n, n)) for name in ("function", "mobility", "distance")}
    logs = np.log1p(city["trips"].astype(float))
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            a, b = city["counts"][i].astype(float), city["counts"][j].astype(float)
            if a.any() and b.any():
                found["function"][i, j] = a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)
            shares = [
                logs[p, q] / logs[p].sum() if logs[p].sum() else 0.0 for p, q in ((i, j), (j, i))
            ]
            found["mobility"][i, j] = sum(shares) / 2
            found["distance"][i, j] = 1 / np.linalg.norm(city["xy"][i] - city["xy"][j])
    return {name: values / values.max() for name, values in found.items()}
