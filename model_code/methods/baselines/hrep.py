"""HREP: a graph convolution that knows of relations.

Zhou et al. 2023 (AAAI), "Heterogeneous Region Embedding with Prompt Learning", its first half. Regions are
linked by what their trips have in common as sources and as destinations, by their POIs and by place. One
graph convolution serves all four relations: before each layer a region's vector is multiplied by a vector
of the relation, which a linear map updates from layer to layer. Relations of a region attend to one
another, and a weight a relation, the same for all regions, sums them. The embedding, multiplied by each
relation's last vector, has the losses of that relation: trips by cross-entropy, likeness in POIs, triplets
of near and other regions.

The second half, prompt learning, is left out: it adds a learned prefix a region and task to the head, fitted
on labels.

What differs from the paper or the authors' code:

- Near are the k nearest by their centroids, not those that share a border: every city has centroids.
- Vectors of relations are learned; the code leaves them as they were drawn.
- Trips that come in are compared with where they come from; the code takes the same direction twice.
- Batch normalisation is a relation's own: with one for all four, what it keeps is of none.
- Losses are means over regions, so that the size of a city moves none of them. In the code the sum over all
  pairs of trips stands beside means and all but drowns them; here a hundredth of these is kept.

N regions, R relations, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.graphs.layers import propagation
from model_code.graphs.views import Graph
from model_code.methods import HrepConfig, MethodConfig, RelationConfig
from model_code.methods.baselines.relation_net import RelationMethod, RelationNet

_ATTENDED = 0.95  # start of the share of what a relation takes from all, as in the authors' code


class RelationConvolution(nn.Module):
    """Graph convolutions that relations share: X' = X + LeakyReLU(BN(A (X * r) W)), r' = r T, and the last
    without residual, normalisation and activation."""

    def __init__(self, names: Sequence[str], width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.relation = nn.ParameterDict({name: torch.randn(width) for name in names})
        last = [False] * (layers - 1) + [True]  # a bias before a normalisation would cancel
        self.linear = nn.ModuleList([nn.Linear(width, width, bias=end) for end in last])
        self.transform = nn.ModuleList([nn.Linear(width, width) for _ in last])
        self.norms = nn.ModuleDict(
            {name: nn.ModuleList([nn.BatchNorm1d(width) for _ in last[1:]]) for name in names}
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, name: str, graph: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [N, W] in the relation `name`, and its own vector [W] after the last layer."""
        values, relation = features, self.relation[name]
        norms = cast(nn.ModuleList, self.norms[name])
        for layer, (linear, transform) in enumerate(zip(self.linear, self.transform, strict=True)):
            heard = linear(torch.sparse.mm(graph, values * relation))
            if layer < len(norms):
                values = self.dropout(values + F.leaky_relu(norms[layer](heard)))
            else:
                values = heard
            relation = transform(relation)
        return values, relation


class HrepNet(RelationNet):
    """All relations to one embedding."""

    def __init__(self, names: Sequence[str], config: HrepConfig) -> None:
        super().__init__()
        width = config.width
        self.names = tuple(names)
        self.convolution = RelationConvolution(names, width, config.layers, config.dropout)
        self.attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.attended = nn.Parameter(torch.full((len(names), 1), _ATTENDED))
        self.score = nn.Linear(width, width)
        self.query = nn.Parameter(torch.randn(width))

    @staticmethod
    def prepared(graph: Graph) -> Tensor:
        return propagation(graph)

    def forward(
        self, features: Tensor, graphs: Mapping[str, Tensor], seen: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        found = {name: self.convolution(features, name, graphs[name]) for name in self.names}
        own = torch.stack([values for values, _ in found.values()], dim=1)  # [N, R, W]
        heard, _ = self.attention(own, own, own, need_weights=False)
        mixed = self.attended * heard + (1 - self.attended) * own
        scores = (F.leaky_relu(self.score(mixed)) @ self.query)[seen].mean(dim=0)  # [R]
        embedding = torch.einsum("r,nrw->nw", scores.softmax(dim=0), mixed)
        return embedding, {name: embedding * last for name, (_, last) in found.items()}


class Hrep(RelationMethod):
    name = "hrep"

    def net(self, config: MethodConfig, names: Sequence[str]) -> RelationNet:
        assert isinstance(config, HrepConfig)
        return HrepNet(names, config)

    def feature_width(self, config: MethodConfig) -> int:
        assert isinstance(config, HrepConfig)
        return config.width

    def weights(self, config: RelationConfig) -> dict[str, float]:
        assert isinstance(config, HrepConfig)
        return {**super().weights(config), "neighbour": config.neighbour_weight}


METHOD = Hrep()
