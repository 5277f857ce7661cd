"""Each loss beside its naive twin, in value and gradient, on rows of uneven number."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.nn import functional as F

from model_code.graphs.multiview import ViewGraph
from model_code.graphs.pairs import (
    Trips,
    mobility_loss,
    neighbour_loss,
    similarity_loss,
    unit_rows,
)
from model_code.graphs.views import distance_graph
from tests.model_code.graphs.places import places

REGIONS, WIDTH = 40, 6
ROWS = [torch.arange(REGIONS), torch.tensor([9, 3, 5, 31, 7, 0, 12]), torch.tensor([4])]


def vectors(count: int = 1) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(REGIONS, WIDTH, generator=rng).requires_grad_() for _ in range(count)]


def same(ours: torch.Tensor, twin: torch.Tensor, of: list[torch.Tensor]) -> None:
    torch.testing.assert_close(ours, twin, rtol=1e-5, atol=1e-6)
    for a, b in zip(torch.autograd.grad(ours, of), torch.autograd.grad(twin, of), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("index", ROWS, ids=len)
def test_the_loss_of_trips_is_the_cross_entropy_of_both_ends(index: torch.Tensor) -> None:
    source, destination = both = vectors(2)
    matrix = places()["trips"].astype(float)
    moving = [i for i in range(REGIONS) if matrix[i].any() or matrix[:, i].any()]
    assert len(moving) == REGIONS - 2
    matrix = matrix / (matrix.sum() / len(moving))
    twin = torch.zeros(())
    for i in index.tolist():
        to = torch.log_softmax(torch.stack([source[i] @ destination[j] for j in moving]), dim=0)
        came = torch.log_softmax(torch.stack([destination[i] @ source[j] for j in moving]), dim=0)
        for place, j in enumerate(moving):
            twin = twin - matrix[i, j] * to[place] - matrix[j, i] * came[place]
    ours = mobility_loss(source, destination, Trips(sp.csr_array(matrix)), index)
    same(ours, twin / len(index), both)


@pytest.mark.parametrize("index", ROWS, ids=len)
def test_the_loss_of_likeness_is_over_pairs_that_have_pois(index: torch.Tensor) -> None:
    (values,) = of = vectors()
    counts = places()["counts"]
    unit = unit_rows(counts)
    has = [i for i in range(REGIONS) if counts[i].any()]
    assert len(has) == REGIONS - 2
    twin = torch.zeros(())
    for i in (i for i in index.tolist() if i in has):
        for j in has:
            cosine = F.cosine_similarity(*torch.from_numpy(counts[[i, j]]), dim=0)
            twin = twin + (values[i] @ values[j] - cosine) ** 2 / len(has)
    same(similarity_loss(values, unit, index), twin / len(index), of)


def test_a_step_on_some_rows_is_unbiased() -> None:
    source, destination = vectors(2)
    trips = Trips(sp.csr_array(places()["trips"].astype(float)))
    unit = unit_rows(places()["counts"])
    everyone = torch.arange(REGIONS)
    parts = torch.randperm(REGIONS, generator=torch.Generator().manual_seed(3)).split(8)
    for loss in (
        lambda index: mobility_loss(source, destination, trips, index),
        lambda index: similarity_loss(source, unit, index),
    ):
        mean = np.mean([loss(part).item() for part in parts])
        assert mean == pytest.approx(loss(everyone).item(), rel=1e-5)


def test_triplets_are_of_neighbours_and_of_others() -> None:
    (values,) = of = vectors()
    graph = distance_graph(places()["xy"], 3, np.ones(REGIONS, bool))
    view, index = ViewGraph(graph), torch.tensor([3, 8, 8, 20, 39])
    torch.manual_seed(1)
    ours = neighbour_loss(values, view, index)
    torch.manual_seed(1)
    chance = torch.rand(len(index), dtype=torch.float64)
    far = view.others.draw(index, 1)[:, 0]
    linked, twin = graph.matrix().toarray() > 0, torch.zeros(())
    for i, share, other in zip(index.tolist(), chance.tolist(), far.tolist(), strict=True):
        own = np.flatnonzero(linked[i])
        near = own[int(share * len(own))]
        assert not linked[i, other] and other != i
        closer, farther = (F.pairwise_distance(values[i], values[j]) for j in (near, other))
        twin = twin + F.relu(1 + closer - farther) / len(index)
    same(ours, twin, of)


def test_who_has_no_neighbour_or_nobody_else_is_in_no_triplet() -> None:
    (values,) = vectors()
    alone = ViewGraph(distance_graph(places()["xy"][:1], 3, np.ones(1, bool)))
    assert neighbour_loss(values[:1], alone, torch.tensor([0])).item() == 0
    full = ViewGraph(distance_graph(places()["xy"], REGIONS, np.ones(REGIONS, bool)))
    assert neighbour_loss(values, full, torch.arange(REGIONS)).item() == 0


def test_a_step_reads_the_trips_that_there_are_and_no_pairs_without() -> None:
    matrix = places()["trips"] * (np.arange(REGIONS) % 9 == 0)
    trips, index = Trips(sp.csr_array(matrix.astype(float))), torch.tensor([9, 3, 5, 31])
    scale = len(trips.moving) / matrix.sum()
    for entries, own in ((trips.out(index), matrix), (trips.into(index), matrix.T)):
        row, column, weight = entries
        assert weight.dtype == torch.float32 and len(weight) == (own[index] > 0).sum() > 0
        np.testing.assert_allclose(weight, own[index[row], trips.moving[column]] * scale, rtol=1e-6)


def test_without_trips_or_pois_there_is_nothing_to_lose() -> None:
    source, destination = vectors(2)
    nothing, index = sp.csr_array((REGIONS, REGIONS)), torch.arange(4)
    assert mobility_loss(source, destination, Trips(nothing), index).item() == 0
    assert similarity_loss(source, torch.zeros(REGIONS, 3), index).item() == 0
