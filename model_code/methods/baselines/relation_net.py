"""What HREP and MVURE share: several graphs on the same regions, a net of random node features that learns
from them, and the losses over pairs of regions.

A region is a source and a destination of trips, has POIs, and lies near others: in each of these relations
it is linked to those that are most alike. Nothing is known of a region but its links, so that its node
feature is drawn at random, as in the authors' code, and kept in the checkpoint.

Training sees the graphs of the visible regions alone. An unseen one is linked to those it is like, and none
to it. N regions, V visible ones, B of a step, F width of a node feature, W of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from model_code.errors import DataError
from model_code.graphs.multiview import ViewGraph
from model_code.graphs.pairs import (
    Trips,
    mobility_loss,
    neighbour_loss,
    similarity_loss,
    unit_rows,
)
from model_code.graphs.views import (
    Graph,
    alike_trips_graph,
    distance_graph,
    function_graph,
    trip_matrix,
    trips_of,
)
from model_code.methods import MethodConfig, RelationConfig
from model_code.methods.base import (
    NOWHERE,
    Checkpoint,
    Floats,
    Mask,
    RegionData,
    Workspace,
    must_be_of_regions,
    of_regions,
)
from model_code.training import Settings, evaluating, fit, load_arrays, seeded, state_arrays


def relations(data: RegionData, k: int, visible: Mask, *, near: bool) -> dict[str, Graph]:
    """The k nearest by each relation that the city has data for; `near`: by place too."""
    found = {}
    if data.flow_count is not None:
        origin, destination, count = trips_of(data)
        found["source"] = alike_trips_graph(origin, destination, count, k, visible)
        found["destination"] = alike_trips_graph(destination, origin, count, k, visible)
    if data.poi_counts is not None:
        places = data.xy_m if near else None
        found["poi"] = function_graph(data.poi_counts, k, visible, places)
    if near:
        found["neighbour"] = distance_graph(data.xy_m, k, visible)
    return found


class RelationNet(nn.Module):
    """Node features on several graphs to vectors; holds no data."""

    @staticmethod
    def prepared(graph: Graph) -> Tensor:
        """The graph as `forward` wants it."""
        raise NotImplementedError

    def forward(
        self, features: Tensor, graphs: Mapping[str, Tensor], seen: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings [N, W] and, by relation, vectors [N, W] of features [N, F]. What is a mean over
        regions is one over those `seen` [N] bool."""
        raise NotImplementedError


class RelationTraining(nn.Module):
    """A net with the data of the V visible regions, and the losses of its relations."""

    features: Tensor
    seen: Tensor
    unit: Tensor

    def __init__(
        self,
        net: RelationNet,
        features: Tensor,
        graphs: Mapping[str, Graph],
        trips: Trips | None,
        unit: Tensor | None,
        weights: Mapping[str, float],
    ) -> None:
        """`graphs` are of the V regions; `weights` of the losses by name: `mobility`, `poi` and
        `neighbour`."""
        super().__init__()
        self.net, self.trips, self.weights = net, trips, weights
        self.register_buffer("features", features, persistent=False)
        everyone = torch.ones(len(features), dtype=torch.bool)
        self.register_buffer("seen", everyone, persistent=False)
        self.register_buffer("unit", unit, persistent=False)
        for name, graph in graphs.items():
            self.register_buffer(f"graph_{name}", net.prepared(graph), persistent=False)
        self.relations = tuple(graphs)
        self.near = ViewGraph(graphs["neighbour"]) if "neighbour" in graphs else None

    def loss(self, index: Tensor) -> Tensor:
        """On the whole graphs, the losses of the regions `index` [B] with all others."""
        graphs = {name: getattr(self, f"graph_{name}") for name in self.relations}
        _, vectors = self.net(self.features, graphs, self.seen)
        losses = []
        if self.trips is not None:
            ends = vectors["source"], vectors["destination"]
            losses.append(self.weights["mobility"] * mobility_loss(*ends, self.trips, index))
        if "poi" in vectors:
            losses.append(self.weights["poi"] * similarity_loss(vectors["poi"], self.unit, index))
        if self.near is not None:
            nearest = neighbour_loss(vectors["neighbour"], self.near, index)
            losses.append(self.weights["neighbour"] * nearest)
        return torch.stack(losses).sum()


class RelationMethod:
    """A method of one such net."""

    name: str

    def net(self, config: MethodConfig, names: Sequence[str]) -> RelationNet:
        """A freshly initialised net of the relations `names`."""
        raise NotImplementedError

    def feature_width(self, config: MethodConfig) -> int:
        raise NotImplementedError

    def weights(self, config: RelationConfig) -> dict[str, float]:
        """What each loss counts; with one of neighbours, regions that lie near are a relation too."""
        return {"mobility": config.mobility_weight, "poi": config.poi_weight}

    def check(self, data: RegionData, visible: Mask) -> None:
        """See that the visible regions [N] can teach something.

        Raises:
            DataError: they are fewer than two, or none of the city's trips is between two of them.
        """
        if visible.sum() < 2:
            raise DataError(
                f"{self.name} needs two visible regions, and there are {int(visible.sum())}",
                fix="check the city's regions, and the shares of its `splits`",
            )
        if data.flow_count is not None:
            origin, destination, count = trips_of(data)
            if not (visible[origin] & visible[destination] & (count > 0)).any():
                raise DataError(
                    f"{self.name}: no trip is between two visible regions",
                    fix=f"check `sources.trips` or `sources.od`, or take `methods.{self.name}` out",
                )

    def training(
        self, data: RegionData, config: MethodConfig, visible: Mask, seed: int
    ) -> tuple[RelationTraining, Tensor]:
        """The training on the visible regions, and node features [N, F] of all."""
        assert isinstance(config, RelationConfig)
        seen = np.flatnonzero(visible)
        with seeded(seed):
            features = torch.randn(len(data), self.feature_width(config))
            graphs = self._relations(data, config, visible)
            net = self.net(config, tuple(graphs))
        counts = data.poi_counts
        training = RelationTraining(
            net,
            features[seen],
            {name: graph.seen() for name, graph in graphs.items()},
            Trips(trip_matrix(*trips_of(data), len(data))[seen][:, seen])
            if data.flow_count is not None
            else None,
            unit_rows(counts[seen]) if counts is not None else None,
            self.weights(config),
        )
        return training, features

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, RelationConfig)
        self.check(data, visible)
        training, features = self.training(data, config, visible, seed)
        history = fit(
            training,
            np.arange(int(visible.sum())),
            Settings.of(config),
            seed=seed,
            resume=workspace.resume,
            progress=workspace.progress,
        )
        fitted = {"features": features.numpy(), "visible": np.array(visible)}
        about = {**of_regions(data), "relations": list(training.relations), "loss": history.train}
        return Checkpoint({**state_arrays(training.net), **fitted}, about)

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        assert isinstance(config, RelationConfig)
        must_be_of_regions(checkpoint, data, self.name, "its graphs are those of one city")
        tensors, record = dict(checkpoint.tensors), checkpoint.record
        features, visible = torch.from_numpy(tensors.pop("features")), tensors.pop("visible")
        graphs = self._relations(data, config, visible)
        if list(graphs) != record["relations"]:
            raise DataError(
                f"{self.name} was fitted on the relations {', '.join(record['relations'])}, and the "
                f"city now has {', '.join(graphs)}",
                fix="fit it on the data that it embeds",
            )
        with seeded(0):  # the weights are about to be replaced
            net = self.net(config, tuple(graphs))
        load_arrays(net, tensors)
        with evaluating(net):
            prepared = {name: net.prepared(graph) for name, graph in graphs.items()}
            return cast(Floats, net(features, prepared, torch.from_numpy(visible))[0].numpy())

    def _relations(
        self, data: RegionData, config: RelationConfig, visible: Mask
    ) -> dict[str, Graph]:
        near = "neighbour" in self.weights(config)
        return relations(data, config.neighbours, visible, near=near)
