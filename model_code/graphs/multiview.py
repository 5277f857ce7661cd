"""Views of a city that learn from one another: the graph half of UrbanMMCL (3.4).

For each view a variational autoencoder reconstructs the weights of its edges, a random walk on these
takes a subgraph around each region, a graph convolution with the same weights reads it, and the mean
of its regions is the region's vector in this view. Vectors of one region in two views are drawn
together (eq 25). Only what a step's regions touch is computed, so that an epoch grows as N does.

N regions, B regions of a step, U regions that are looked at, K edges, M regions that stand for those without
a link, S places of a walk, L width of a draw, G width of a view's vector, R walks of a region at inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.graphs.autoencoder import (
    Decoder,
    GraphAutoencoder,
    NonNeighbours,
    kl_divergence,
    reconstruction,
)
from model_code.graphs.layers import DenseGCNConv, GCNConv
from model_code.graphs.views import Graph
from model_code.graphs.walks import Links, first_visits, random_walks
from model_code.losses import one_way_info_nce

Features = Callable[[Tensor, str | None], Tensor]
"""Features [U, W] of the regions [U]: as they are, or propagated through the view of that name."""

_EDGES = 2**14  # whose weights are computed at once outside training: their ends stay in the cache
_REGIONS = 2**12


@dataclass(frozen=True)
class GraphSettings:
    """The graph half's part of a method's config; see `methods.UrbanMmclConfig`."""

    latent: int = 64
    hidden: int = 128
    width: int = 64
    decoder: Decoder = "scaled"
    vgae: bool = True
    random_walk: bool = True
    contrast: bool = True
    walk_length: int = 20
    tau: float = 0.5
    kl_weight: float = 0.01
    shared_negatives: int = 256


class Pairs(NamedTuple):
    """Pairs of B regions that their reconstruction looks at: the edges [K] with whose each is, and the regions
    [M] that stand for all others, with how many [B, M]."""

    edge: Tensor
    owner: Tensor
    others: Tensor
    stands_for: Tensor


class ViewGraph:
    """A `Graph` as tensors."""

    def __init__(self, graph: Graph) -> None:
        self.links = Links(torch.from_numpy(graph.start), torch.from_numpy(graph.column))
        self.weight = torch.from_numpy(graph.weight)
        self.row = torch.from_numpy(graph.row)
        self.visible = torch.from_numpy(np.array(graph.visible))
        self.others = NonNeighbours(self.links, self.visible)

    def pairs_of(self, index: Tensor, number: int) -> Pairs:
        """Of the regions `index` [B]; at most `number` others stand for those without a link."""
        return Pairs(*self.links.of(index), *self.others.shared(index, number))


class ViewNet(nn.Module):
    """Autoencoder and subgraph encoder of one view."""

    def __init__(self, width: int, config: GraphSettings, mean_weight: float) -> None:
        """`width` of features, `mean_weight` of the view over all pairs."""
        super().__init__()
        self.autoencoder: GraphAutoencoder | None = None
        if config.vgae:
            self.autoencoder = GraphAutoencoder(width, config.latent, mean_weight, config.decoder)
        layer = DenseGCNConv if config.random_walk else GCNConv
        self.first = layer(width, config.hidden)
        self.second = layer(config.hidden, config.width)

    @torch.no_grad()
    def edge_weights(self, name: str, graph: ViewGraph, features: Features) -> Tensor:
        """Weights [E] of all edges by the means of the regions' distributions, without gradients."""
        if self.autoencoder is None:
            return graph.weight
        regions = torch.split(torch.arange(graph.links.regions), _REGIONS)
        mean = torch.cat([self.autoencoder(features(u, name))[0] for u in regions])
        parts = []
        for some in torch.split(torch.arange(len(graph.weight)), _EDGES):
            row, column = graph.row[some], graph.links.column[some]
            product = torch.linalg.vecdot(_rows(mean, row), _rows(mean, column))
            parts.append(self.autoencoder.weight(product).cpu())
        return torch.cat([graph.weight[:0], *parts])

    def step(
        self,
        name: str,
        graph: ViewGraph,
        features: Features,
        index: Tensor,
        walks: Tensor | None,
        config: GraphSettings,
        *,
        autoencode: bool,
    ) -> tuple[Tensor, Tensor]:
        """Vectors [B, G] of the regions `index` [B] from their `walks` [B, S] (None: the whole graph is
        one subgraph), and the autoencoder's loss, zero unless asked for."""
        if walks is None:
            visited = torch.arange(graph.links.regions)
        else:
            visited = torch.unique(torch.cat([index, walks.flatten()]))
        values = features(visited, None)
        looked_at = visited  # by the autoencoder
        pairs = graph.pairs_of(index, config.shared_negatives) if autoencode else None
        if walks is not None and pairs is not None:
            linked = graph.links.column[pairs.edge]
            looked_at = torch.unique(torch.cat([visited, linked, pairs.others]))

        def at(regions: Tensor) -> Tensor:
            return torch.searchsorted(looked_at, regions)

        loss, draws = values.new_zeros(()), None
        if self.autoencoder is not None:
            mean, log_variance = self.autoencoder(features(looked_at, name))
            draws = self.autoencoder.draw(mean, log_variance)
            if pairs is not None:
                own = at(index)
                loss = self._autoencode(graph, pairs, own, at, draws)
                divergence = kl_divergence(mean[own], log_variance[own]).mean()
                loss = loss + config.kl_weight * divergence
        if walks is None:
            return self._whole(graph, values, draws)[index], loss
        of_walk = None if draws is None else _rows(draws, at(walks))
        of_place = _rows(values, torch.searchsorted(visited, walks))
        return self._subgraphs(graph, walks, of_place, of_walk), loss

    def _autoencode(
        self,
        graph: ViewGraph,
        pairs: Pairs,
        place: Tensor,
        at: Callable[[Tensor], Tensor],
        draws: Tensor,
    ) -> Tensor:
        assert self.autoencoder is not None
        own = _rows(draws, place)  # [B, L]
        linked = (_rows(own, pairs.owner) * _rows(draws, at(graph.links.column[pairs.edge]))).sum(
            dim=1
        )
        return reconstruction(
            graph.weight[pairs.edge].to(draws.device) - self.autoencoder.weight(linked),
            pairs.owner.to(draws.device),
            self.autoencoder.weight(own @ _rows(draws, at(pairs.others)).T),
            pairs.stands_for.to(draws.device),
        )

    def _subgraphs(
        self, graph: ViewGraph, walks: Tensor, values: Tensor, draws: Tensor | None
    ) -> Tensor:
        """Mean [B, G] over the regions of each subgraph after two convolutions (eq 23, 24), from the features
        [B, S, W] and draws [B, S, L] of the places of walks [B, S]."""
        there = first_visits(walks)  # [B, S]
        edge, linked = graph.links.within(walks)  # [B, S, S]
        linked = linked & there[:, :, None] & there[:, None, :]
        if draws is None:
            weight = (
                graph.weight[edge].to(values.device)
                if len(graph.weight)
                else values.new_zeros(edge.shape)
            )
        else:
            assert self.autoencoder is not None
            weight = self.autoencoder.weight(draws @ draws.transpose(1, 2))
        adjacency = weight * linked.to(values)
        mask = there.to(values.device)
        hidden = F.leaky_relu(self.first(values, adjacency, mask))
        found = F.leaky_relu(self.second(hidden, adjacency, mask)) * mask[:, :, None]
        return found.sum(dim=1) / mask.sum(dim=1, keepdim=True)

    def _whole(self, graph: ViewGraph, values: Tensor, draws: Tensor | None) -> Tensor:
        """Vectors [N, G] of all regions after two convolutions on the whole graph."""
        ends = torch.stack([graph.links.column, graph.row]).to(values.device)
        weight = graph.weight.to(values.device)
        if draws is not None:
            assert self.autoencoder is not None
            weight = self.autoencoder.weight(
                (_rows(draws, ends[1]) * _rows(draws, ends[0])).sum(dim=1)
            )
        hidden = F.leaky_relu(self.first(values, ends, weight))
        return F.leaky_relu(self.second(hidden, ends, weight))


class GraphViews(nn.Module):
    """All views of a city."""

    def __init__(
        self, width: int, config: GraphSettings, mean_weights: Mapping[str, float]
    ) -> None:
        """`width` of features; `mean_weights` of the views that are on, by name."""
        super().__init__()
        self.config = config
        self.views = nn.ModuleDict(
            {name: ViewNet(width, config, mean) for name, mean in mean_weights.items()}
        )

    def walks(
        self,
        graphs: Mapping[str, ViewGraph],
        features: Features,
        origin: Tensor,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor] | None:
        """By view, a walk [B, S] from each of the regions `origin` [B] on the weights as they are; None
        where walks are switched off."""
        if not self.config.random_walk:
            return None
        found = {}
        for name, net in self.views.items():
            graph = graphs[name]
            weight = cast(ViewNet, net).edge_weights(name, graph, features)
            chance = torch.rand(
                len(origin), self.config.walk_length, generator=generator, dtype=torch.float64
            )
            found[name] = random_walks(graph.links, weight, origin, chance)
        return found

    def forward(
        self,
        graphs: Mapping[str, ViewGraph],
        features: Features,
        index: Tensor,
        walks: Mapping[str, Tensor] | None,
        *,
        autoencode: bool = False,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """By view, vectors [B, G] of the regions `index` [B] from their walks, and the sum of the
        autoencoders' losses (zero unless asked for)."""
        vectors: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        for name, net in self.views.items():
            own = None if walks is None else walks[name]
            vectors[name], loss = cast(ViewNet, net).step(
                name, graphs[name], features, index, own, self.config, autoencode=autoencode
            )
            losses.append(loss)
        return vectors, torch.stack(losses).sum() if losses else torch.zeros(())

    def loss(
        self,
        graphs: Mapping[str, ViewGraph],
        features: Features,
        index: Tensor,
        walks: Mapping[str, Tensor] | None,
    ) -> Tensor:
        """The objective of the graph half (eq 26) on the regions `index` [B]."""
        vectors, loss = self(graphs, features, index, walks, autoencode=self.config.vgae)
        if self.config.contrast:
            loss = loss + inter_view_loss(vectors, self.config.tau)
        return cast(Tensor, loss)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """`values[index]` of any shape of index, whose gradient is far quicker to sum."""
    found = values.index_select(0, index.flatten().to(values.device))
    return found.view(*index.shape, *values.shape[1:])


def inter_view_loss(vectors: Mapping[str, Tensor], tau: float) -> Tensor:
    """InfoNCE between the vectors [B, G] of each pair of views, in their order (eq 25); zero for one
    view."""
    unit = [F.normalize(values, dim=1) for values in vectors.values()]
    losses = [one_way_info_nce(left, right, 1 / tau) for left, right in combinations(unit, 2)]
    return torch.stack(losses).sum() if losses else unit[0].sum() * 0
