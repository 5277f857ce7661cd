"""UrbanMMCL: pictures, captions and places against one another, on three graphs of the city.

Cao et al. 2025, "UrbanMMCL: Urban Region Representations via Multi-Modal and Multi-Graph
Self-Supervised Contrastive Learning". Two contrasts, trained together (eq 27):

1. Modalities (eq 14). A satellite chip with its caption and with the place of its centre, the mean of a
   region's street views with that of their captions and of their places: four symmetric InfoNCE terms.
2. Graphs (eq 26; `model_code.graphs`). Three views of the city, of function, mobility and distance; in
   each an autoencoder, random walks on what it reconstructs, and a vector of the subgraph around each
   region. Vectors of one region in two views are drawn together.

The node feature of a region is the fusion of its four features. Its embedding Z*, which the paper
leaves undefined, is the fusion of that and its three subgraph vectors. At inference, walks follow the
means of the autoencoders' distributions, are drawn from one seed and averaged over several: the same
city gives the same embedding.

What the paper leaves open, or has otherwise:

- The towers rest, so that each picture and caption is encoded once; the projections behind them train.
  A checkpoint has no copy of a city's towers.
- Location features are standardised on the regions that pretraining sees and kept on their principal
  axes: within one city GeoCLIP's features are nearly one vector.
- Each term of the first contrast has a temperature of its own, learned, as CLIP's.
- A few features are hidden at random in training, so that absent-tokens learn. The graphs teach them;
  a contrast takes only regions that show both sides, since a token is no picture of a caption. Tokens
  start at the mean of those who have the modality.
- Subgraph vectors enter the fusion with length one: the contrast shapes their direction alone.
- Walks are drawn anew at the start of each epoch, for all regions at once.
- A region that pretraining does not see is linked to those it saw, and none to it (`inductive`).

N regions, B regions in a batch, M street views, E width of a modality's frozen features, W width of a
projected one, S places of a walk.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.errors import DataError
from model_code.finetuning import embed_all
from model_code.fusion import Projection
from model_code.graphs.multiview import GraphSettings, GraphViews, ViewGraph
from model_code.graphs.views import Graph, distance_graph, function_graph, mobility_graph
from model_code.losses import Temperature, info_nce
from model_code.methods import MethodConfig, UrbanMmclConfig, UrbanVlpConfig
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
from model_code.methods.resting import CityTower, weights_digest
from model_code.methods.urbanvlp import (
    ImageTower,
    View,
    captions,
    given_towers,
    make_towers,
    start_towers,
)
from model_code.pca import principal_axes
from model_code.scaling import Scaler
from model_code.training import Settings, evaluating, fit, load_arrays, seeded, state_arrays
from model_code.vision.clip import Towers
from model_code.vision.location import location_features
from model_code.vision.pictures import encoded, resized

GRAPHS = ("function", "mobility", "distance")

_PLACE_OF: dict[str, str] = {"satellite": "centre", "street_view": "view_places"}
_WALK_SEED = 0


# --- what is computed once -----------------------------------------------------------------------


@dataclass(frozen=True)
class Values:
    """Numbers [N, E] of regions, and who has any [N]; others' are zero."""

    numbers: Tensor
    present: Tensor

    @classmethod
    def means(cls, rows: Tensor, region: Tensor, usable: Tensor, regions: int) -> Values:
        """Means over the `usable` [M] ones of `rows` [M, E], which are of the regions [M]."""
        rows, region = rows[usable], region[usable]
        count = torch.bincount(region, minlength=regions)
        sums = rows.new_zeros(regions, rows.shape[1]).index_add(0, region, rows)
        return cls(sums / count.clamp(min=1)[:, None], count > 0)


def city_graphs(data: RegionData, config: UrbanMmclConfig, visible: Mask) -> dict[str, Graph]:
    """The graphs that are on and that the city has, by name."""
    k, found = config.neighbours, {}
    if config.function and data.poi_counts is not None:
        found["function"] = function_graph(data.poi_counts, k, visible, data.xy_m)
    if config.mobility and data.flow_count is not None:
        assert data.flow_origin is not None and data.flow_destination is not None
        found["mobility"] = mobility_graph(
            data.flow_origin, data.flow_destination, data.flow_count, k, visible
        )
    if config.distance:
        found["distance"] = distance_graph(data.xy_m, k, visible)
    return found


def _once(data: RegionData, key: tuple[Any, ...], make: Callable[[], Tensor]) -> Tensor:
    """What was computed from these data under `key`, or is now."""
    if key not in data.memo:
        data.memo[key] = make()
    return cast(Tensor, data.memo[key])


def _digest(module: nn.Module) -> str:
    return weights_digest(state_arrays(module)).hex()


def _picture_vectors(data: RegionData, view: View, tower: ImageTower) -> Tensor:
    """Unit vectors [V, E] of all chips, or of all street views in the order of the data."""

    def encode() -> Tensor:
        pictures = data.chips if view == "satellite" else data.views
        assert pictures is not None
        sized = resized(pictures, tower.size_px)
        with evaluating(tower):
            return tower.vectors(sized, torch.arange(len(sized))).cpu()

    return _once(data, ("pictures", view, _digest(tower)), encode)


def _text_vectors(data: RegionData, view: View, towers: Towers, texts: NDArray[np.str_]) -> Tensor:
    """Unit vectors [V, E] of a view's captions."""

    def encode() -> Tensor:
        ids = towers.tokenize(texts.tolist())
        with evaluating(towers):
            read = encoded(lambda part: towers.text(part)[0], ids, torch.arange(len(ids)))
        return F.normalize(read, dim=1).cpu()

    written = hashlib.sha256("\0".join(texts.tolist()).encode()).hexdigest()
    return _once(data, ("texts", view, _digest(towers), written), encode)


def _region_texts(
    data: RegionData, config: UrbanMmclConfig, towers: Mapping[View, Towers]
) -> dict[str, Values]:
    """By view, the mean vectors of the captions that pretraining may read."""
    found = {}
    kept, texts = captions(data, _pictured(config), _in_order(data))
    for view, mask in kept.items():
        if view in towers:
            region = np.arange(len(data)) if view == "satellite" else data.view_region
            assert region is not None
            vectors = _text_vectors(data, view, towers[view], texts[view])
            usable = torch.from_numpy(mask)
            found[str(view)] = Values.means(
                vectors, torch.from_numpy(np.array(region)), usable, len(data)
            )
    return found


def _in_order(data: RegionData) -> NDArray[np.int64]:
    return np.arange(0 if data.view_region is None else len(data.view_region))


def _pictured(config: UrbanMmclConfig) -> UrbanVlpConfig:
    """The part of the config that towers and captions are chosen by."""
    return UrbanVlpConfig(
        satellite=config.satellite,
        street_views=config.street_views,
        location=config.location,
        calibrated=config.calibrated,
        chip_px=config.chip_px,
        view_px=config.view_px,
        tower=config.tower,
    )


# --- networks ------------------------------------------------------------------------------------


class Places(nn.Module):
    """Location features [N, 512] on the principal axes [N, K] of those that pretraining sees."""

    mean: Tensor
    scale: Tensor
    axes: Tensor

    def __init__(self, features: Floats, seen: Mask, axes: int) -> None:
        """Fitted on the regions `seen` [N]."""
        super().__init__()
        scaler = Scaler.fit(features, seen)
        kept = np.zeros((axes, features.shape[1]))
        if seen.any():
            _, found = principal_axes(scaler.apply(features[seen]), axes)
            kept[: len(found)] = found
        self.register_buffer("mean", torch.from_numpy(scaler.mean).float())
        self.register_buffer("scale", torch.from_numpy(scaler.scale).float())
        self.register_buffer("axes", torch.from_numpy(kept).float())

    def forward(self, features: Tensor) -> Tensor:
        """On the CPU, wherever the rest is."""
        standard = (features - self.mean.cpu()) / self.scale.cpu()
        found: Tensor = standard @ self.axes.cpu().T
        return found / math.sqrt(features.shape[1])  # of about length one


class MmclRegions(nn.Module):
    """A `RegionEncoder` of Z*; the data is not in its state, but who was visible is [N]."""

    visible: Tensor

    def __init__(
        self,
        data: RegionData,
        config: UrbanMmclConfig,
        towers: Mapping[View, Towers],
        visible: Mask,
    ) -> None:
        super().__init__()
        self.data, self.config, self.absent_rate = data, config, config.absent_rate
        self.register_buffer("visible", torch.from_numpy(np.array(visible)))
        given = {v: given_towers(data.towers, v) for v in towers} if data.towers is not None else {}
        self.towers = nn.ModuleDict(
            {view: CityTower(pair, given.get(view)) for view, pair in towers.items()}
        )
        self.towers.requires_grad_(False)
        widths: dict[str, int] = {view: pair.embed_dim for view, pair in towers.items()}
        self.places = nn.ModuleDict()
        for name, located in self._located().items():
            own = located.numbers.numpy(), visible & located.present.numpy()
            self.places[name] = Places(*own, config.location_axes)
            widths[name] = config.location_axes
        self.projections = nn.ModuleDict()
        for name, width in widths.items():
            self.projections[name] = Projection(width, config.width)
            # Each in a direction of its own: the identity would lay all over one another.
            nn.init.orthogonal_(cast(Projection, self.projections[name]).linear.weight)
        summed = config.fusion == "add"
        self.node_width = config.width * (1 if summed else len(widths))
        graphs = city_graphs(data, config, visible)
        self.views = GraphViews(
            self.node_width,
            GraphSettings(
                latent=config.latent,
                hidden=config.graph_hidden,
                width=config.graph_width,
                decoder=config.decoder,
                vgae=config.vgae,
                random_walk=config.random_walk,
                contrast=config.graph_contrast,
                walk_length=config.walk_length,
                tau=config.tau,
                kl_weight=config.kl_weight,
                shared_negatives=config.shared_negatives,
            ),
            {name: graph.mean_weight for name, graph in graphs.items()},
        )
        self.width = self.node_width + config.graph_width * len(graphs)
        if summed:
            self.to_sum = nn.ModuleDict(
                {name: nn.Linear(config.graph_width, config.width, bias=False) for name in graphs}
            )
            for linear in self.to_sum.values():
                nn.init.orthogonal_(cast(nn.Linear, linear).weight)
            self.width = config.width
        elif config.fusion == "mlp":
            self.mix = nn.Sequential(
                nn.Linear(self.width, config.width),
                nn.GELU(),
                nn.Linear(config.width, config.width),
            )
            self.width = config.width
        self._kept: dict[Any, Any] = {}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._kept.clear()  # it was of other weights, and of those who were visible then

    def train(self, mode: bool = True) -> MmclRegions:
        for name in ("walks", "whole"):  # weights have changed, or are about to
            self._kept.pop(name, None)
        return super().train(mode)

    def forward(self, index: Tensor) -> Tensor:
        vectors = self.subgraph_vectors(index)
        return self.fuse(self.features(index), vectors)  # [B, self.width]

    def subgraph_vectors(self, index: Tensor) -> dict[str, Tensor]:
        """By view, the vectors [B, G] of the regions `index` [B]: of one new walk each in training, else
        means over the walks that one seed gives. Without walks, they are of the whole graph."""
        graphs, everyone = self.graphs(), torch.arange(len(self.data))
        if self.training:
            walks = self.new_walks(index)
            return cast(dict[str, Tensor], self.views(graphs, self.features, index, walks)[0])
        if not self.config.random_walk:
            if "whole" not in self._kept:  # one pass gives all regions
                with torch.no_grad():
                    self._kept["whole"] = self.views(graphs, self.features, everyone, None)[0]
            return {name: vectors[index] for name, vectors in self._kept["whole"].items()}
        if "walks" not in self._kept:
            generator = torch.Generator().manual_seed(_WALK_SEED)
            self._kept["walks"] = [
                self.views.walks(graphs, self.features, everyone, generator)
                for _ in range(self.config.walks)
            ]
        found = [
            self.views(graphs, self.features, index, {n: w[index] for n, w in walks.items()})[0]
            for walks in self._kept["walks"]
        ]
        return {name: torch.stack([v[name] for v in found]).mean(dim=0) for name in graphs}

    def new_walks(self, index: Tensor) -> dict[str, Tensor] | None:
        """By view, a walk [B, S] of each of the regions `index` [B] (None where walks are switched off),
        drawn for all regions at once, and anew when a region comes again: once an epoch."""
        if "drawn" not in self._kept or self._kept["drawn"][1][index].any():
            everyone = torch.arange(len(self.data))
            walks = self.views.walks(self.graphs(), self.features, everyone)
            self._kept["drawn"] = walks, torch.zeros(len(self.data), dtype=torch.bool)
        walks, used = self._kept["drawn"]
        used[index] = True
        return walks and {name: walk[index] for name, walk in walks.items()}

    def fuse(self, features: Tensor, vectors: Mapping[str, Tensor]) -> Tensor:
        """Z* [B, self.width] of node features [B, X] and subgraph vectors [B, G]."""
        unit = {name: F.normalize(values, dim=1) for name, values in vectors.items()}
        if self.config.fusion == "add":
            parts = [features, *(self.to_sum[name](values) for name, values in unit.items())]
            return torch.stack(parts).sum(dim=0)
        joined = torch.cat([features, *unit.values()], dim=1)
        return cast(Tensor, self.mix(joined)) if self.config.fusion == "mlp" else joined

    def features(self, index: Tensor, through: str | None = None) -> Tensor:
        """Node features [B, X] of the regions `index` [B] (eq 16); with `through` those that a graph
        convolution in that view mixes: the projections are linear, so what is propagated once are the
        frozen features."""
        found = self._passed(index, through) if through else self.modalities(index)[0]
        parts = list(found.values())
        if self.config.fusion == "add":
            return torch.stack(parts).sum(dim=0)
        return torch.cat(parts, dim=1)

    def modalities(self, index: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """By modality, its feature [B, W] of the regions `index` [B], and which of them show it [B]: those
        that have it and, in training, are not drawn to hide it."""
        found, shown = {}, {}
        device = self.visible.device
        for name, projection in self.projections.items():
            values = self.values()[name]
            shown[name] = values.present[index]
            if self.training:
                shown[name] = shown[name] & (torch.rand(len(index)) >= self.absent_rate)
            numbers = values.numbers.index_select(0, index).to(device)
            found[name] = projection(numbers, shown[name].to(device))
        return found, shown

    def _passed(self, index: Tensor, view: str) -> dict[str, Tensor]:
        """By modality, its feature [B, W] of the regions `index` [B] after one propagation in `view`;
        nothing is hidden."""
        found = {}
        for name, projection in self.projections.items():
            numbers, has, lacks = (
                v.index_select(0, index).to(self.visible.device)
                for v in self.propagated(view)[name]
            )
            linear, absent = (
                cast(Projection, projection).linear,
                cast(Projection, projection).absent,
            )
            found[name] = numbers @ linear.weight.T + has * linear.bias + lacks * absent
        return found

    @torch.no_grad()
    def start_tokens(self) -> None:
        """Put each modality's absent-token where the visible regions that have it are on average."""
        for name, values in self.values().items():
            seen = values.present & self.visible
            if seen.any():
                projection = cast(Projection, self.projections[name])
                projection.absent.copy_(projection.linear(values.numbers[seen].mean(dim=0)))

    def values(self) -> dict[str, Values]:
        """By modality, the frozen features of all regions."""
        if "values" not in self._kept:
            data, found = self.data, {}
            for view, tower in self.towers.items():
                vectors = _picture_vectors(data, cast(View, view), cast(ImageTower, tower))
                region, usable = data.view_region, np.ones(len(vectors), bool)
                if view == "satellite":
                    assert data.chip_present is not None
                    region, usable = np.arange(len(data)), data.chip_present
                assert region is not None
                found[view] = Values.means(
                    vectors, torch.from_numpy(region), torch.from_numpy(usable), len(data)
                )
            for name, located in self._located().items():
                with torch.no_grad():
                    rows = self.places[name](located.numbers)
                found[name] = Values(rows * located.present[:, None], located.present)
            self._kept["values"] = {name: found[name] for name in self.projections}
        return cast(dict[str, Values], self._kept["values"])

    def graphs(self) -> dict[str, ViewGraph]:
        """The graphs by name, of the regions that were visible."""
        if "graphs" not in self._kept:
            found = city_graphs(self.data, self.config, self.visible.cpu().numpy())
            self._kept["graphs"] = {name: ViewGraph(graph) for name, graph in found.items()}
            for name, graph in found.items():
                matrix = graph.normalised()
                self._kept["propagated", name] = {
                    modality: tuple(
                        torch.from_numpy(np.asarray(matrix @ part.numpy(), np.float32))
                        for part in (
                            values.numbers * values.present[:, None],
                            values.present[:, None].float(),
                            (~values.present)[:, None].float(),
                        )
                    )
                    for modality, values in self.values().items()
                }
        return cast(dict[str, ViewGraph], self._kept["graphs"])

    def propagated(self, name: str) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """By modality, the features [N, E], the weight of those that have it [N, 1] and of those that
        lack it [N, 1], after one propagation in the view `name`."""
        self.graphs()
        return cast(dict[str, tuple[Tensor, Tensor, Tensor]], self._kept["propagated", name])

    def _located(self) -> dict[str, Values]:
        """By name, location features: of the centres, and the means of those of street views."""
        data, found = self.data, {}
        if self.config.location:
            centres = _once(
                data, ("centres",), lambda: torch.from_numpy(location_features(data.lonlat_deg))
            )
            found["centre"] = Values(centres, torch.ones(len(data), dtype=torch.bool))
            if data.view_location_features is not None and data.view_region is not None:
                features = torch.from_numpy(np.array(data.view_location_features))
                region = torch.from_numpy(np.array(data.view_region))
                found["view_places"] = Values.means(
                    features, region, features.isfinite().all(dim=1), len(data)
                )
        return found


class Pretraining(nn.Module):
    """Both contrasts on one encoder (eq 27).

    Attributes:
        terms: (modality, what it is contrasted with), a row for each term of eq 14.
    """

    def __init__(
        self, regions: MmclRegions, texts: Mapping[str, Values], config: UrbanMmclConfig
    ) -> None:
        super().__init__()
        self.regions, self.texts = regions, texts
        self.alpha, self.beta = config.alpha, config.beta
        self.terms: list[tuple[str, str]] = []
        self.readers = nn.ModuleDict()
        if config.alpha > 0:
            for view in regions.towers:
                if view in texts:
                    reader = Projection(texts[view].numbers.shape[1], config.width).linear
                    own = cast(Projection, regions.projections[view]).linear
                    reader.weight.data.copy_(own.weight.data)  # the towers' space stays one
                    self.readers[view] = reader
                    self.terms.append((view, "text"))
                if _PLACE_OF[view] in regions.projections:
                    self.terms.append((view, _PLACE_OF[view]))
        self.temperatures = nn.ModuleList([Temperature() for _ in self.terms])
        views = len(regions.views.views)
        learned = (config.vgae and views > 0) or (config.graph_contrast and views > 1)
        self.graphs = config.beta > 0 and learned

    def loss(self, index: Tensor) -> Tensor:
        losses = [next(self.parameters()).sum() * 0]
        if self.terms:
            losses.append(self.alpha * self.modality_loss(index))
        if self.graphs:
            losses.append(self.beta * self.graph_loss(index))
        return torch.stack(losses).sum()

    def modality_loss(self, index: Tensor) -> Tensor:
        """The sum of the terms (eq 14) over the regions of `index` [B] that show both sides."""
        features, shown = self.regions.modalities(index)
        losses = []
        for (view, other), temperature in zip(self.terms, self.temperatures, strict=True):
            has_other = self.texts[view].present[index] if other == "text" else shown[other]
            rows = (shown[view] & has_other).nonzero()[:, 0]
            left = features[view][rows]
            if other == "text":
                right = self.readers[view](self.texts[view].numbers[index[rows]].to(left.device))
            else:
                right = features[other][rows]
            unit = F.normalize(left, dim=1), F.normalize(right, dim=1)
            losses.append(info_nce(*unit, temperature()))
        return torch.stack(losses).sum()

    def graph_loss(self, index: Tensor) -> Tensor:
        """Eq 26 on the regions `index` [B]."""
        regions = self.regions
        walks = regions.new_walks(index)
        return regions.views.loss(regions.graphs(), regions.features, index, walks)


class UrbanMmcl:
    """UrbanMMCL and its variants."""

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, UrbanMmclConfig)
        with seeded(seed):
            towers = _towers(data, config, visible)
            regions = MmclRegions(data, config, towers, visible)
            texts = _region_texts(data, config, towers) if config.text and config.alpha else {}
            training = Pretraining(regions, texts, config)
        regions.start_tokens()
        return self._train(training, data, config, seed, workspace)

    def _train(
        self,
        training: Pretraining,
        data: RegionData,
        config: UrbanMmclConfig,
        seed: int,
        workspace: Workspace,
    ) -> Checkpoint:
        regions = training.regions
        record: dict[str, Any] = {
            **of_regions(data),
            "features": list(regions.projections),
            "graphs": list(regions.views.views),
            "loss": [],
        }
        if training.terms or training.graphs:
            settings = Settings.of(config, schedule="cosine")
            record["loss"] = fit(
                training,
                np.flatnonzero(regions.visible.numpy()),
                settings,
                seed=seed,
                resume=workspace.resume,
                progress=workspace.progress,
            ).train
            if training.terms and not training.graphs:  # projections went on without their tokens
                regions.start_tokens()
        return Checkpoint(state_arrays(regions), record)

    def adapt(
        self,
        checkpoint: Checkpoint,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        """Towers, projections and the axes of places are carried over and rest; the graph half starts
        anew and learns from this city's graphs (4.3.3). Places keep this city's mean and scale: seen
        from another city's they would all lie in one far spot."""
        assert isinstance(config, UrbanMmclConfig)
        with seeded(seed):
            regions = self.encoder(data, config)
        own = state_arrays(regions)
        carried = {
            name
            for name in own
            if name.startswith(("towers.", "projections."))
            or (name.startswith("places.") and name.endswith(".axes"))
        }
        given = checkpoint.tensors
        for name in sorted(carried):
            if name not in given or given[name].shape != own[name].shape:
                raise DataError(
                    f"the other city's encoder has no {name} of this one's shape",
                    fix="give both cities the same sources of pictures and the same `captions.clip`",
                )
        load_arrays(regions, own | {name: given[name] for name in carried})
        for part in (regions.towers, regions.projections):
            part.requires_grad_(False)
        with seeded(seed):
            training = Pretraining(regions, {}, config.model_copy(update={"alpha": 0.0}))
        return self._train(training, data, config, seed, workspace)

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        return embed_all(self.restored(checkpoint, data, config), len(data))

    def restored(
        self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig
    ) -> MmclRegions:
        """The encoder of a checkpoint.

        Raises:
            DataError: it is of other regions.
        """
        why = "its graphs are those of one city (those named in `transfer` start them anew)"
        must_be_of_regions(checkpoint, data, "urbanmmcl", why)
        with seeded(0):  # the weights are about to be replaced
            regions = self.encoder(data, config)
        load_arrays(regions, checkpoint.tensors)
        return regions

    def encoder(
        self, data: RegionData, config: MethodConfig, visible: Mask | None = None
    ) -> MmclRegions:
        assert isinstance(config, UrbanMmclConfig)
        seen = np.ones(len(data), bool) if visible is None else visible
        return MmclRegions(data, config, _towers(data, config, seen), seen)


def _towers(data: RegionData, config: UrbanMmclConfig, visible: Mask) -> dict[View, Towers]:
    """The towers of the views that are on: pretrained, where the data hold such."""
    if not (config.satellite and data.chips is not None) and not (
        config.street_views and data.views is not None and len(data.views)
    ):
        return {}
    towers = make_towers(data, _pictured(config), visible)
    start_towers(towers, data)
    return towers


METHOD = UrbanMmcl()
