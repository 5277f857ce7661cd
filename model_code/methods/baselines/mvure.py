"""MVURE: a graph attention a view, and views that share what they learn.

Zhang et al. 2020 (IJCAI), "Multi-View Joint Graph Representation Learning for Urban Region Embedding". A
region is a source of trips, a destination of trips, and a place of POIs: in each of these views a graph
attention hears the regions that are most alike. Views then take from one another, by a self-attention
between whole views (alpha), and are summed to the embedding. With a part of it (beta) each view has its
own loss: trips by cross-entropy, likeness in POIs.

What differs from the paper or from public code:

- The view of check-ins is left out: they are a target here, and no city has them as an input.
- Attention ends in ELU, as where it comes from (Velickovic et al. 2018); with the ReLU of public code some
  numbers are zero but for a region or two.
- The embedding is the mean of the views. The paper's learned gate a view (`fusion: gate`) has no loss that
  wants the embedding to say something: it shuts, or leaves one view alone.
- The query and key of a view, and what its gate sees, are means over the regions instead of one long row of
  all regions, so that a net fits cities of any size.
- Losses are means over regions; with weights of one they stand to one another as the sums do.

N regions, R views, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.graphs.layers import GATConv, edges
from model_code.graphs.views import Graph
from model_code.methods import MethodConfig, MvureConfig
from model_code.methods.baselines.relation_net import RelationMethod, RelationNet


class MvureNet(RelationNet):
    """All views to one embedding."""

    def __init__(self, names: Sequence[str], config: MvureConfig) -> None:
        super().__init__()
        self.share, self.join = config.share, config.join
        width, head = config.width, config.width // config.heads
        self.views = nn.ModuleDict(
            {
                name: GATConv(config.feature_width, head, config.heads, dropout=config.dropout)
                for name in names
            }
        )
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, 1) if config.fusion == "gate" else None

    @staticmethod
    def prepared(graph: Graph) -> Tensor:
        return edges(graph)

    def forward(
        self, features: Tensor, graphs: Mapping[str, Tensor], seen: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        own = torch.stack(
            [F.elu(view(features, graphs[name])) for name, view in self.views.items()]
        )
        query, key = self.query(own)[:, seen], self.key(own)[:, seen]  # [R, N, W]
        alike = torch.einsum("rnw,snw->rs", query, key) / (query.shape[1] * query.shape[2] ** 0.5)
        heard = torch.einsum("rs,snw->rnw", alike.softmax(dim=1), own)
        views = self.share * heard + (1 - self.share) * own
        if self.gate is None:
            embedding = views.mean(dim=0)
        else:
            gates = self.gate(views[:, seen].mean(dim=1)).sigmoid()  # [R, 1]
            embedding = (gates[:, :, None] * views).sum(dim=0)
        joined = self.join * views + (1 - self.join) * embedding
        return embedding, dict(zip(self.views, joined, strict=True))


class Mvure(RelationMethod):
    name = "mvure"

    def net(self, config: MethodConfig, names: Sequence[str]) -> RelationNet:
        assert isinstance(config, MvureConfig)
        return MvureNet(names, config)

    def feature_width(self, config: MethodConfig) -> int:
        assert isinstance(config, MvureConfig)
        return config.feature_width


METHOD = Mvure()
