"""MGFN: hours of trips as a few mobility patterns, and attention within and between them.

Wu et al. 2022 (IJCAI), "Multi-Graph Fusion Networks for Urban Region Embedding". Hours whose graphs of trips
are alike are clustered, and the trips of a cluster added up: a mobility pattern (`graphs.patterns`). In each
pattern a region starts from its trips to all others and, apart, from those from all others; by multi-head
attention it hears the regions that they go to or come from, and both directions are joined (equations 8 to
11). Then the patterns of a region attend to one another (12 to 14), and all are joined to the embedding (15),
which is to tell where the trips of a region go and whence they come (16 to 18).

What differs from the paper or the authors' code:

- The table of trips has 24 hours, all days added up; the paper has each hour of a month. So there is no
  pattern of weekends. Hours are near around the clock.
- A region hears those that it has trips with, and itself. The paper takes all regions as linked, so that a
  message without trips counts too, and makes a matrix of all pairs.
- Trips are read as log(1 + trips): counts as they are shut the softmax of attention.
- The embedding is read through one linear map as a source and through another as a destination, and a trip
  counts the same wherever it starts, both as in the code. In the paper an inner product of the same vectors
  is to tell both directions, and each region counts the same.
- The paper's equations are followed where the code's layers are not theirs: these have feed-forward parts, and
  attend to patterns where they are said to attend to regions, and the other way round, and all patterns of a
  region stand side by side before the last (`fusion: concat`), where the paper has their mean. A residual and a
  layer normalisation around messages are the code's.
- A region without trips has the mean vector of the visible ones that have some.

N regions, V visible ones, K patterns, W width.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_code.errors import DataError
from model_code.graphs.attention import Links
from model_code.graphs.layers import sparse_tensor
from model_code.graphs.pairs import Trips, mobility_loss
from model_code.graphs.patterns import flows_between, hour_patterns
from model_code.graphs.views import Ints, strongest, trip_matrix
from model_code.methods import MethodConfig, MgfnConfig
from model_code.methods.base import (
    NOWHERE,
    Checkpoint,
    Floats,
    HourlyFlows,
    Mask,
    RegionData,
    Workspace,
    must_be_of_regions,
    of_regions,
)
from model_code.training import Settings, evaluating, fit, load_arrays, seeded, state_arrays


class PatternGraphs(nn.Module):
    """The patterns of N regions in both directions, as a net reads them.

    Attributes:
        links: who hears whom; the nodes are direction, pattern and region, the last changing first.
        has: who has trips from or to a visible region, [N].
    """

    out: Tensor
    into: Tensor
    has: Tensor

    def __init__(
        self,
        flows: HourlyFlows,
        pattern: NDArray[np.int64],
        visible: Mask,
        neighbours: int | None,
    ) -> None:
        """`pattern` [24] of each hour, -1 for one whose trips are not read; of trips only those from or
        to the `visible` [N] regions are."""
        super().__init__()
        n, self.patterns = len(visible), int(pattern.max()) + 1
        seen, nodes = np.flatnonzero(visible), self.patterns * n
        ends: list[tuple[Ints, Ints]] = []
        has = np.zeros(n, bool)
        for name, own, other in (
            ("out", flows.origin, flows.destination),
            ("into", flows.destination, flows.origin),
        ):
            kept = visible[other] & (pattern[flows.hour] >= 0) & (flows.count > 0)
            node = pattern[flows.hour[kept]] * n + own[kept]
            trips = sp.csr_array(
                (flows.count[kept].astype(np.float64), (node, other[kept])), shape=(nodes, n)
            )
            has[own[kept]] = True
            self.register_buffer(
                name, sparse_tensor(trips[:, seen].log1p().astype(np.float32)), persistent=False
            )
            found = trips.tocoo()
            row, column = (part.astype(np.int64) for part in found.coords)
            if neighbours is not None:
                row, column, _ = strongest(row, column, found.data, neighbours)
            first = len(ends) * nodes
            ends.append((first + row, first + row // n * n + column))
        own = np.arange(2 * nodes)
        row, column = (np.concatenate([*parts, own]) for parts in zip(*ends, strict=True))
        shape = (2 * nodes, 2 * nodes)
        self.links = Links(sp.csr_array((np.ones(len(row)), (row, column)), shape=shape))
        self.register_buffer("has", torch.from_numpy(has), persistent=False)

    def __len__(self) -> int:
        return len(self.has)


class PatternLayer(nn.Module):
    """Messages within each pattern and direction, which are then joined (equations 8 to 11)."""

    def __init__(self, config: MgfnConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.ask = nn.ModuleList([nn.Linear(width, 3 * width, bias=False) for _ in range(2)])
        self.join = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, values: Tensor, links: Links) -> Tensor:
        """Vectors [2, K, N, W] of both directions to one, [K, N, W]."""
        asked = torch.stack([ask(own) for ask, own in zip(self.ask, values, strict=True)])
        parts = asked.view(len(links), 3, self.heads, -1).permute(1, 2, 0, 3).contiguous()
        heard = links(*parts).transpose(0, 1).reshape(values.shape)
        both = values + self.dropout(heard)
        joined: Tensor = self.norm(self.join(torch.cat([both[0], both[1]], dim=-1)))
        return joined


class MgfnNet(nn.Module):
    """Patterns to one embedding."""

    def __init__(self, visible: int, patterns: int, config: MgfnConfig) -> None:
        """`visible` regions, by whose trips each region starts."""
        super().__init__()
        width, self.fusion = config.width, config.fusion
        bound = visible**-0.5  # as of a linear layer
        self.start = nn.Parameter(torch.empty(2, visible, width).uniform_(-bound, bound))
        self.layers = nn.ModuleList([PatternLayer(config) for _ in range(config.layers)])
        # One pattern has nobody to attend to.
        self.attention = (
            nn.MultiheadAttention(width, config.heads, batch_first=True) if patterns > 1 else None
        )
        self.dropout = nn.Dropout(config.dropout)
        self.end = nn.Linear(width * (patterns if self.fusion == "concat" else 1), width)
        self.source = nn.Linear(width, width)
        self.destination = nn.Linear(width, width)

    def forward(self, graphs: PatternGraphs) -> Tensor:
        """Embeddings [N, W]."""
        starts = (
            torch.sparse.mm(rows, start)
            for rows, start in zip((graphs.out, graphs.into), self.start, strict=True)
        )
        shape = (graphs.patterns, len(graphs), -1)
        values = torch.stack([own.view(shape) for own in starts])
        for layer in self.layers:
            values = layer(values, graphs.links).expand(2, *shape)
        own = values[0].transpose(0, 1)  # [N, K, W]
        if self.attention is not None:
            heard, _ = self.attention(own, own, own, need_weights=False)
            own = own + self.dropout(heard)
        joined = own.flatten(1) if self.fusion == "concat" else own.mean(dim=1)
        embedding: Tensor = self.end(joined)
        return embedding


class MgfnTraining(nn.Module):
    """A net with the trips of the V visible regions."""

    def __init__(self, net: MgfnNet, graphs: PatternGraphs, trips: Trips) -> None:
        super().__init__()
        self.net, self.graphs, self.trips = net, graphs, trips

    def loss(self, index: Tensor) -> Tensor:
        """On the whole patterns, the cross-entropy of the trips of the regions `index` [B]."""
        embedding = self.net(self.graphs)
        ends = self.net.source(embedding), self.net.destination(embedding)
        return mobility_loss(*ends, self.trips, index)


class Mgfn:
    def training(
        self, data: RegionData, config: MgfnConfig, visible: Mask, seed: int
    ) -> tuple[MgfnTraining, NDArray[np.int64]]:
        """The training on the visible regions [N], and the pattern of each hour [24].

        Raises:
            DataError: they are fewer than two, or none of the city's trips is between two of them.
        """
        flows, seen = _flows(data), int(visible.sum())
        if seen < 2:
            raise DataError(
                f"mgfn needs two visible regions, and there are {seen}",
                fix="check the city's regions, and the shares of its `splits`",
            )
        own = flows_between(flows, visible)
        if not len(own.count):
            raise DataError(
                "mgfn: no trip with a time is between two visible regions",
                fix="check `sources.trips`, or take `methods.mgfn` out",
            )
        pattern = hour_patterns(own, seen, config.patterns)
        graphs = PatternGraphs(own, pattern, np.ones(seen, bool), config.neighbours)
        trips = Trips(trip_matrix(own.origin, own.destination, own.count, seen))
        with seeded(seed):
            net = MgfnNet(seen, graphs.patterns, config)
        return MgfnTraining(net, graphs, trips), pattern

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, MgfnConfig)
        training, pattern = self.training(data, config, visible, seed)
        history = fit(
            training,
            np.arange(int(visible.sum())),
            Settings.of(config),
            seed=seed,
            resume=workspace.resume,
            progress=workspace.progress,
        )
        fitted = {"pattern": pattern, "visible": np.array(visible)}
        hours = [np.flatnonzero(pattern == k).tolist() for k in range(training.graphs.patterns)]
        about = {**of_regions(data), "patterns": hours, "loss": history.train}
        return Checkpoint({**state_arrays(training.net), **fitted}, about)

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        assert isinstance(config, MgfnConfig)
        why = "it knows trips by the regions where they start and end"
        must_be_of_regions(checkpoint, data, "mgfn", why)
        tensors = dict(checkpoint.tensors)
        pattern, visible = tensors.pop("pattern"), tensors.pop("visible")
        graphs = PatternGraphs(_flows(data), pattern, visible, config.neighbours)
        with seeded(0):  # the weights are about to be replaced
            net = MgfnNet(int(visible.sum()), graphs.patterns, config)
        load_arrays(net, tensors)
        with evaluating(net):
            rows = net(graphs)
        known = graphs.has & torch.from_numpy(visible)
        rows = torch.where(graphs.has[:, None], rows, rows[known].mean(dim=0))
        return cast(Floats, rows.numpy())


def _flows(data: RegionData) -> HourlyFlows:
    assert data.hourly_flows is not None
    return data.hourly_flows


METHOD = Mgfn()
