from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F

from model_code.graphs.autoencoder import active_dimensions, kl_divergence
from model_code.graphs.multiview import GraphSettings, GraphViews, ViewGraph, inter_view_loss
from model_code.graphs.views import Graph
from model_code.training import Settings, fit, seeded
from tests.model_code.graphs.places import graphs, places

WIDTH = 6
SETTINGS = GraphSettings(latent=5, hidden=7, width=4, walk_length=6, shared_negatives=3)


class City:
    """Views of the small city with random features."""

    def __init__(
        self,
        k: int = 4,
        settings: GraphSettings = SETTINGS,
        seed: int = 0,
        visible: np.ndarray | None = None,
    ) -> None:
        self.own = graphs(places(seed=seed), k, visible)
        self.graphs = {name: ViewGraph(graph) for name, graph in self.own.items()}
        with seeded(seed):
            self.table = torch.randn(40, WIDTH)
            means = {name: graph.mean_weight for name, graph in self.own.items()}
            self.views = GraphViews(WIDTH, settings, means)
        self.propagated = {
            name: torch.from_numpy(graph.normalised() @ self.table.numpy())
            for name, graph in self.own.items()
        }

    def features(self, index: torch.Tensor, through: str | None) -> torch.Tensor:
        return self.table[index] if through is None else self.propagated[through][index]

    def walks(self, index: torch.Tensor | None = None, seed: int = 0) -> dict | None:
        index = torch.arange(40) if index is None else index
        generator = torch.Generator().manual_seed(seed)
        return self.views.walks(self.graphs, self.features, index, generator)


def convolved(layer: nn.Module, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
    """A graph convolution written out: D^-1/2 (A + I) D^-1/2 X W + b."""
    own = adjacency + torch.eye(len(adjacency))
    root = own.sum(dim=1) ** -0.5
    weight = layer.lin.weight
    return (root[:, None] * own * root) @ x @ weight.T + layer.bias


@pytest.mark.parametrize("vgae", [True, False])
def test_subgraph_vectors_are_those_of_the_paper_region_by_region(vgae: bool) -> None:
    city = City(settings=replace(SETTINGS, vgae=vgae))
    walks, views = city.walks(), city.views.eval()
    vectors, _ = views(city.graphs, city.features, torch.arange(40), walks)
    for name, net in views.views.items():
        matrix = torch.from_numpy(city.own[name].matrix().toarray())
        weight = matrix
        if vgae:
            mean, _ = net.autoencoder(city.propagated[name])
            weight = net.autoencoder.weight(mean @ mean.T) * (matrix > 0)
        twin = []
        for walk in walks[name].tolist():
            nodes = list(dict.fromkeys(walk))
            part = weight[nodes][:, nodes]
            x = F.leaky_relu(convolved(net.first, city.table[nodes], part))
            twin.append(F.leaky_relu(convolved(net.second, x, part)).mean(dim=0))
        twin = torch.stack(twin)
        torch.testing.assert_close(vectors[name], twin)
        parameters = [p for p in net.parameters() if p.requires_grad]
        ours = torch.autograd.grad(vectors[name].square().sum(), parameters, allow_unused=True)
        theirs = torch.autograd.grad(twin.square().sum(), parameters, allow_unused=True)
        for a, b in zip(ours, theirs, strict=True):
            if a is None:  # the log variance has no part in a mean
                assert b is None
            else:
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_without_walks_the_whole_graph_is_one_subgraph() -> None:
    city = City(settings=replace(SETTINGS, random_walk=False))
    assert city.walks() is None
    views, index = city.views.eval(), torch.tensor([4, 31, 7])
    vectors, _ = views(city.graphs, city.features, index, None)
    for name, net in views.views.items():
        mean, _ = net.autoencoder(city.propagated[name])
        linked = torch.from_numpy(city.own[name].matrix().toarray() > 0)
        weight = net.autoencoder.weight(mean @ mean.T) * linked
        x = F.leaky_relu(convolved(net.first, city.table, weight))
        twin = F.leaky_relu(convolved(net.second, x, weight))
        torch.testing.assert_close(vectors[name], twin[index])


def test_on_the_dense_graph_the_loss_of_an_autoencoder_is_the_dense_one() -> None:
    city, everyone = City(k=40), torch.arange(40)
    graph, net = city.graphs["distance"], city.views.views["distance"]
    with seeded(5):
        _, loss = net.step(
            "distance", graph, city.features, everyone, everyone[:, None], SETTINGS, autoencode=True
        )
    with seeded(5):
        graph.others.shared(everyone, SETTINGS.shared_negatives)  # the same random numbers
        mean, log_variance = net.autoencoder(city.propagated["distance"])
        draws = net.autoencoder.draw(mean, log_variance)
    matrix = torch.from_numpy(city.own["distance"].matrix().toarray())
    error = (matrix - net.autoencoder.weight(draws @ draws.T)) ** 2
    error = (error * ~torch.eye(40, dtype=torch.bool)).sum(dim=1).mean()
    divergence = kl_divergence(mean, log_variance).mean()
    torch.testing.assert_close(loss, error + SETTINGS.kl_weight * divergence)


@pytest.mark.parametrize("visible", [None, np.arange(40) % 4 > 0], ids=["all", "some"])
def test_a_step_of_a_few_regions_has_their_rows_of_the_dense_loss(
    visible: np.ndarray | None,
) -> None:
    """Where all regions may stand for themselves; who else is looked at changes no vector."""
    city, index = City(settings=replace(SETTINGS, shared_negatives=40), visible=visible), [9, 2, 33]
    seen = torch.ones(40, dtype=torch.bool) if visible is None else torch.from_numpy(visible)
    rows, views = torch.tensor(index), city.views.eval()
    walks = {name: walk[rows] for name, walk in (city.walks() or {}).items()}
    vectors, loss = views(city.graphs, city.features, rows, walks, autoencode=True)
    alone, nothing = views(city.graphs, city.features, rows, walks)
    assert nothing == 0
    twin = torch.zeros(())
    for name, net in views.views.items():
        torch.testing.assert_close(vectors[name], alone[name])
        mean, log_variance = net.autoencoder(city.propagated[name])
        matrix = torch.from_numpy(city.own[name].matrix().toarray())
        error = (matrix - net.autoencoder.weight(mean @ mean.T)) ** 2
        error = (error * ~torch.eye(40, dtype=torch.bool) * seen)[rows].sum(dim=1).mean()
        divergence = kl_divergence(mean[rows], log_variance[rows]).mean()
        twin = twin + error + SETTINGS.kl_weight * divergence
    torch.testing.assert_close(loss, twin)
    for net in views.views.values():
        own = list(net.autoencoder.parameters())
        for a, b in zip(
            torch.autograd.grad(loss, own, retain_graph=True),
            torch.autograd.grad(twin, own, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_the_contrast_of_views_is_that_of_the_paper() -> None:
    with seeded(0):
        vectors = {name: torch.randn(7, 4, requires_grad=True) for name in "pmd"}
    tau, terms = 0.5, []
    for a, b in (("p", "m"), ("p", "d"), ("m", "d")):
        for i in range(7):
            likeness = torch.stack(
                [F.cosine_similarity(vectors[a][i], vectors[b][j], dim=0) for j in range(7)]
            )
            terms.append(-torch.log((likeness[i] / tau).exp() / (likeness / tau).exp().sum()) / 7)
    ours, twin = inter_view_loss(vectors, tau), torch.stack(terms).sum()
    torch.testing.assert_close(ours, twin)
    for a, b in zip(
        torch.autograd.grad(ours, list(vectors.values())),
        torch.autograd.grad(twin, list(vectors.values())),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    assert inter_view_loss({"p": vectors["p"]}, tau).item() == 0


def test_a_region_does_not_depend_on_who_is_in_its_batch() -> None:
    city = City()
    walks, views = city.walks(), city.views.eval()
    whole, _ = views(city.graphs, city.features, torch.arange(40), walks)
    index = torch.tensor([9, 2, 33])
    part, _ = views(city.graphs, city.features, index, {n: w[index] for n, w in walks.items()})
    for name, values in part.items():
        torch.testing.assert_close(values, whole[name][index])


def test_the_contrast_reaches_the_autoencoder_and_everything_learns() -> None:
    city = City()
    vectors, _ = city.views(city.graphs, city.features, torch.arange(40), city.walks())
    inter_view_loss(vectors, 0.5).backward()
    for net in city.views.views.values():
        for name, parameter in net.autoencoder.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    city.views.zero_grad()
    city.views.loss(city.graphs, city.features, torch.arange(40), city.walks()).backward()
    for name, parameter in city.views.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


def test_an_isolated_region_is_a_subgraph_of_its_own() -> None:
    city = City()
    walks = city.walks()
    assert (walks["mobility"][7] == 7).all()
    net = city.views.eval().views["mobility"]
    vectors, _ = city.views(
        city.graphs, city.features, torch.tensor([7]), {n: w[[7]] for n, w in walks.items()}
    )
    alone = torch.zeros(1, 1)
    x = F.leaky_relu(convolved(net.first, city.table[[7]], alone))
    torch.testing.assert_close(vectors["mobility"], F.leaky_relu(convolved(net.second, x, alone)))


class Training(nn.Module):
    def __init__(self, city: City) -> None:
        super().__init__()
        self.city, self.views = city, city.views

    def loss(self, index: torch.Tensor) -> torch.Tensor:
        walks = dict.fromkeys(self.views.views, index[:, None])
        return self.views.loss(self.city.graphs, self.city.features, index, walks)


@pytest.mark.parametrize("kl_weight", [SETTINGS.kl_weight, 10.0])
def test_autoencoders_stay_awake_and_find_edges_that_were_held_out(kl_weight: float) -> None:
    """Links between regions with like features, a tenth of them held out; too heavy a divergence puts
    them to sleep."""
    rng = np.random.default_rng(0)
    n = 120
    place = rng.random((n, 2))
    near = np.linalg.norm(place[:, None] - place[None], axis=2)
    upper = np.triu(near < 0.2, 1)
    pairs = np.argwhere(upper)
    hidden = rng.random(len(pairs)) < 0.1
    matrix = np.zeros((n, n), np.float32)
    for i, j in pairs[~hidden]:
        matrix[i, j] = matrix[j, i] = 1 - near[i, j]
    start = np.append(0, (matrix > 0).sum(axis=1).cumsum())
    graph = Graph(start, np.nonzero(matrix)[1], matrix[matrix > 0], np.ones(n, bool))
    city = City()
    settings = replace(SETTINGS, latent=16, kl_weight=kl_weight)
    city.graphs = {"near": ViewGraph(graph)}
    noise = rng.standard_normal((n, WIDTH)) * 0.3
    noise[:, :2] += 4 * place
    city.table = torch.from_numpy(noise.astype(np.float32))
    city.propagated = {"near": torch.from_numpy(graph.normalised() @ city.table.numpy())}
    with seeded(0):
        city.views = GraphViews(WIDTH, settings, {"near": graph.mean_weight})
    net = city.views.views["near"].autoencoder

    def links() -> tuple[torch.Tensor, np.ndarray]:
        with torch.no_grad():
            mean, _ = net(city.propagated["near"])
            return mean, net.weight(mean @ mean.T).numpy()

    _, before = links()
    fit(Training(city), np.arange(n), Settings(epochs=100, learning_rate=1e-2), seed=0)
    mean, found = links()
    if kl_weight == 10.0:
        assert active_dimensions(mean) == 0
        return
    assert active_dimensions(mean) >= 2
    out = pairs[hidden]
    apart = np.argwhere(np.triu(near >= 0.2, 1))
    apart = apart[rng.choice(len(apart), 10 * len(out), replace=False)]
    both = np.concatenate([out, apart])
    truth = np.arange(len(both)) < len(out)
    was, now = (roc_auc_score(truth, all_[both[:, 0], both[:, 1]]) for all_ in (before, found))
    assert now > max(0.75, was + 0.1)
