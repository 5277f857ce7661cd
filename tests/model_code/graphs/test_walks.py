from __future__ import annotations

import numpy as np
import torch

from model_code.graphs.walks import Links, first_visits, random_walks
from tests.model_code.graphs.places import graphs, places


def links_of(name: str = "mobility", k: int = 4) -> tuple[Links, torch.Tensor, np.ndarray]:
    graph = graphs(places(), k)[name]
    links = Links(torch.from_numpy(graph.start), torch.from_numpy(graph.column))
    return links, torch.from_numpy(graph.weight), graph.matrix().toarray()


def test_each_step_is_drawn_in_proportion_to_the_weights() -> None:
    links, weight, matrix = links_of()
    walkers, origin = 40_000, 11
    chance = torch.rand(walkers, 2, generator=torch.Generator().manual_seed(0))
    walks = random_walks(links, weight, torch.full((walkers,), origin), chance).numpy()
    step = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1e-12)
    for place, expected in ((1, step[origin]), (2, step[origin] @ step)):
        seen = np.bincount(walks[:, place], minlength=len(matrix)) / walkers
        assert (seen[expected == 0] == 0).all()
        error = np.sqrt(expected * (1 - expected) / walkers)
        assert (np.abs(seen - expected) <= 4.5 * error).all()


def test_walks_of_all_regions_keep_to_edges_and_stay_where_there_is_none() -> None:
    links, weight, matrix = links_of()
    n = len(matrix)
    chance = torch.rand(n, 20, generator=torch.Generator().manual_seed(1))
    walks = random_walks(links, weight, torch.arange(n), chance).numpy()
    assert walks.shape == (n, 21)
    lonely = matrix.sum(axis=1) == 0
    assert lonely.any() and (walks[lonely] == np.flatnonzero(lonely)[:, None]).all()
    ahead, behind = walks[~lonely, 1:], walks[~lonely, :-1]
    assert (matrix[behind, ahead] > 0).all()


def test_the_ends_of_a_chance_and_weights_of_zero() -> None:
    links, weight, matrix = links_of()
    for value in (0.0, 1.0 - 1e-12, 1.0):
        chance = torch.full((len(matrix), 3), value, dtype=torch.float64)
        walks = random_walks(links, weight, torch.arange(len(matrix)), chance).numpy()
        moved = walks[:, 1] != walks[:, 0]
        assert (moved == (matrix.sum(axis=1) > 0)).all()
        assert (matrix[walks[moved, 0], walks[moved, 1]] > 0).all()
    walks = random_walks(links, 0 * weight, torch.arange(len(matrix)), chance)
    assert (walks == walks[:, :1]).all()
    empty = Links(torch.zeros(4, dtype=torch.long), torch.empty(0, dtype=torch.long))
    walks = random_walks(empty, torch.empty(0), torch.arange(3), torch.rand(3, 2))
    assert torch.equal(walks, torch.arange(3)[:, None].expand(3, 3))
    assert not empty.within(walks)[1].any()


def test_first_visits_are_the_set_of_a_walk() -> None:
    walks = torch.randint(6, (50, 9), generator=torch.Generator().manual_seed(2))
    mask = first_visits(walks)
    for walk, first in zip(walks.tolist(), mask, strict=True):
        assert [walk[i] for i in first.nonzero()[:, 0].tolist()] == list(dict.fromkeys(walk))


def test_edges_are_found_by_region_and_by_pair_in_either_direction() -> None:
    links, weight, matrix = links_of("distance")
    index = torch.tensor([3, 0, 3])
    edge, owner = links.of(index)
    again = np.zeros((3, len(matrix)))
    again[owner, links.column[edge]] = weight[edge]
    np.testing.assert_array_equal(again, matrix[index])
    edge, there = links.within(torch.arange(len(matrix))[None])
    np.testing.assert_array_equal(np.where(there, weight[edge], 0)[0], matrix)
    one_way = Links(torch.tensor([0, 1, 1]), torch.tensor([1]))
    edge, there = one_way.within(torch.tensor([[0, 1, 1], [1, 0, 0]]))
    expected = torch.tensor([[0, 1, 1], [1, 0, 0], [1, 0, 0]], dtype=torch.bool)
    assert torch.equal(there, expected.expand(2, 3, 3)) and not edge.any()
    assert links.symmetric and not one_way.symmetric
