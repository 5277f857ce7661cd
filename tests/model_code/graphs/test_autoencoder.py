from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as divergence
from torch.nn import functional as F

from model_code.graphs.autoencoder import (
    GraphAutoencoder,
    NonNeighbours,
    active_dimensions,
    kl_divergence,
    reconstruction,
)
from model_code.graphs.layers import GCNConv
from model_code.graphs.multiview import ViewGraph
from model_code.training import seeded
from tests.model_code.graphs.places import graphs, places


def graph_of(
    name: str, k: int, visible: np.ndarray | None = None
) -> tuple[ViewGraph, torch.Tensor]:
    graph = graphs(places(), k, visible)[name]
    return ViewGraph(graph), torch.from_numpy(graph.matrix().toarray())


def sampled(
    graph: ViewGraph, net: GraphAutoencoder, draws: torch.Tensor, index: torch.Tensor, number: int
) -> torch.Tensor:
    """The reconstruction of the regions `index`, as a step does it."""
    pairs = graph.pairs_of(index, number)
    own = draws[index]
    linked = (own[pairs.owner] * draws[graph.links.column[pairs.edge]]).sum(dim=1)
    return reconstruction(
        graph.weight[pairs.edge] - net.weight(linked),
        pairs.owner,
        net.weight(own @ draws[pairs.others].T),
        pairs.stands_for,
    )


def whole(matrix: torch.Tensor, net: GraphAutoencoder, draws: torch.Tensor) -> torch.Tensor:
    """Eq 20 without the diagonal, times N - 1."""
    off = ~torch.eye(len(matrix), dtype=torch.bool)
    return ((matrix - net.weight(draws @ draws.T)) ** 2)[off].sum() / len(matrix)


@pytest.mark.parametrize("name", ["function", "mobility", "distance"])
def test_the_sampled_reconstruction_is_unbiased_in_value_and_gradient(name: str) -> None:
    graph, matrix = graph_of(name, k=4)
    everyone = torch.arange(len(matrix))
    with seeded(0):
        net = GraphAutoencoder(3, 5, 0.2, "scaled")
        draws = torch.randn(len(matrix), 5, requires_grad=True)
    expected = whole(matrix, net, draws)
    slope = torch.autograd.grad(expected, draws)[0].flatten()
    values, slopes = [], []
    with seeded(1):
        for _ in range(40):  # each the mean of 10 estimates
            value = torch.stack([sampled(graph, net, draws, everyone, 5) for _ in range(10)]).mean()
            values.append(value.detach())
            slopes.append(torch.autograd.grad(value, draws)[0].flatten())
    assert off_by(torch.stack(values)[:, None], expected.detach()[None]) < 4
    # 200 slopes are compared: the largest of so many standard normals is about 3.
    assert off_by(torch.stack(slopes), slope) < 5
    assert torch.stack(values).std() > 0  # it is sampled indeed


def off_by(found: torch.Tensor, true: torch.Tensor) -> float:
    """How many standard errors the mean of `found` [R, K] is from `true` [K], at most."""
    error = found.std(dim=0) / math.sqrt(len(found))
    return float(((found.mean(dim=0) - true).abs() / error.clamp(min=1e-6)).max())


def test_batches_of_regions_are_unbiased_too() -> None:
    graph, matrix = graph_of("distance", k=4)
    with seeded(0):
        net = GraphAutoencoder(3, 5, 0.2, "scaled")
        draws = torch.randn(len(matrix), 5)
        batches = [torch.randperm(len(matrix))[:8] for _ in range(150)]
        values = [sampled(graph, net, draws, batch, 3).detach() for batch in batches]
    assert off_by(torch.stack(values)[:, None], whole(matrix, net, draws)[None].detach()) < 4


def test_on_the_dense_graph_nothing_is_sampled() -> None:
    graph, matrix = graph_of("distance", k=len(places()["xy"]))
    with seeded(0):
        net = GraphAutoencoder(3, 5, 0.2, "scaled")
        draws = torch.randn(len(matrix), 5)
        found = sampled(graph, net, draws, torch.arange(len(matrix)), 2)
    assert (graph.others.count == 0).all()
    torch.testing.assert_close(found, whole(matrix, net, draws))


@pytest.mark.parametrize("name", ["function", "mobility", "distance"])
def test_where_all_may_be_drawn_all_are_looked_at(name: str) -> None:
    graph, matrix = graph_of(name, k=4)
    with seeded(0):
        net = GraphAutoencoder(3, 5, 0.2, "scaled")
        draws = torch.randn(len(matrix), 5)
    found = sampled(graph, net, draws, torch.arange(len(matrix)), len(matrix))
    torch.testing.assert_close(found, whole(matrix, net, draws))


def test_non_neighbours_are_uniform_and_never_linked() -> None:
    visible = np.arange(40) % 5 > 0
    graph, matrix = graph_of("mobility", 4, visible)
    index = torch.tensor([11, 6, 7])  # 7 has no trips
    with seeded(0):
        found = graph.others.draw(index, 30_000)
    for region, draws in zip(index.tolist(), found, strict=True):
        free = (matrix[region] == 0) & torch.from_numpy(visible)
        free[region] = False
        assert graph.others.count[region] == free.sum()
        seen = torch.bincount(draws, minlength=40) / len(draws)
        assert (seen[~free] == 0).all()
        expected = 1 / int(free.sum())
        assert (seen[free] - expected).abs().max() < 5 * math.sqrt(expected / len(draws))


@pytest.mark.parametrize("number", [1, 7, 40])
def test_shared_regions_stand_for_each_that_is_not_linked_alike(number: int) -> None:
    visible = np.arange(40) % 5 > 0
    graph, matrix = graph_of("mobility", 4, visible)
    index = torch.tensor([11, 6, 7])  # 7 has no trips
    free = (matrix[index] == 0) & torch.from_numpy(visible)
    free[torch.arange(3), index] = False
    sums = torch.zeros(3000, 3, 40)
    with seeded(0):
        for one in sums:
            found, stands_for = graph.others.shared(index, number)
            assert len(found) == len(set(found.tolist())) and stands_for.shape == (3, len(found))
            one[:, found] = stands_for
    assert (sums[:, ~free] == 0).all()
    if number < 32:
        assert off_by(sums[:, free], torch.ones(int(free.sum()))) < 5
    else:
        assert (sums[:, free] == 1).all()


def test_a_region_that_is_linked_to_all_has_no_other() -> None:
    graph, _ = graph_of("distance", k=40)
    assert torch.equal(graph.others.draw(torch.tensor([4, 2]), 3), torch.tensor([[4] * 3, [2] * 3]))
    two = NonNeighbours(graph.links, torch.ones(40, dtype=torch.bool))
    assert (two.count == 0).all()


def test_the_divergence_is_that_of_the_library() -> None:
    with seeded(0):
        mean, log_variance = torch.randn(6, 4), torch.randn(6, 4)
    twin = divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(kl_divergence(mean, log_variance), twin)


def test_its_convolution_is_that_of_pyg_on_features_that_were_propagated() -> None:
    graph = graphs(places(), 4)["mobility"]
    with seeded(0):
        net, layer = GraphAutoencoder(6, 5, 0.2, "scaled"), GCNConv(6, 5)
        features = torch.randn(40, 6)
    layer.lin.weight.data.copy_(net.convolution.weight.data)
    layer.bias.data.copy_(net.convolution.bias.data)
    ends = torch.stack([torch.from_numpy(graph.column), torch.from_numpy(graph.row)])
    hidden = F.leaky_relu(layer(features, ends, torch.from_numpy(graph.weight)))
    propagated = torch.from_numpy(graph.normalised() @ features.numpy())
    ours, twin = net(propagated)[0], net.mean(hidden)
    torch.testing.assert_close(ours, twin)
    ours.square().sum().backward()
    twin.square().sum().backward()
    torch.testing.assert_close(net.convolution.weight.grad, layer.lin.weight.grad)


def test_as_printed_no_view_is_weaker_than_ln_2_on_average() -> None:
    with seeded(0):
        printed, ours = (GraphAutoencoder(3, 4, 0.01, kind) for kind in ("as_printed", "scaled"))
        for size in (0.01, 1.0, 10.0):
            draws = size * torch.randn(50, 4)
            assert printed.weight(draws @ draws.T).mean() >= math.log(2) - 1e-6
    assert ours.weight(torch.zeros(1)).item() == pytest.approx(0.01)  # the view's mean
    assert {name for name, _ in printed.named_parameters()}.isdisjoint({"scale", "bias"})


def test_draws_vary_in_training_alone() -> None:
    with seeded(0):
        net = GraphAutoencoder(3, 4, 0.1, "scaled")
        mean, log_variance = net(torch.randn(2000, 3))
        draws = net.draw(mean, log_variance)
    spread = ((draws - mean) / (log_variance / 2).exp()).flatten()
    assert abs(spread.mean()) < 0.05 and abs(spread.std() - 1) < 0.05
    net.eval()
    assert net.draw(mean, log_variance) is mean


def test_dimensions_that_do_not_vary_are_not_active() -> None:
    mean = torch.zeros(30, 3)
    mean[:, 1] = torch.linspace(-1, 1, 30)
    assert active_dimensions(mean) == 1
