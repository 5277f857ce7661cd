"""StructuralUrban: a region as a graph of its street views, each fused with the satellite chip.

Li, Xin, Xi, Tarkoma, Hui and Li 2022, "Predicting Multi-level Socioeconomic Indicators from Structural
Urban Imagery" (CIKM, doi:10.1145/3511808.3557153), a baseline of UrbanVLP. The paper's four steps:

1. A city graph from the street network: street segments are nodes, a neighbourhood is a subgraph.
2. A contrast of pictures: those that are close on the map have features that are alike (NT-Xent).
3. A street segment fuses its street views with its satellite picture, weighed by what they show.
4. A graph network over the city graph; an indicator of a neighbourhood is predicted from its subgraph.

Here, with x_v the vector of street view v in region r, s_r the chip's, and N(v) the nearest street views:

    z_v = a_v x_v + (1 - a_v) s_r,   a_v a softmax of c . ReLU(A . + b) over the two   (step 3)
    z_v <- z_v + ReLU(norm(P z_v + Q mean_{u in N(v)} z_u)), some layers               (step 4)
    z_r = sum_v w_v z_v,   w_v a softmax over the region's nodes                       (readout)

What departs:

- No street network is among a city's sources. The place of a street view stands for its street segment, and
  it is linked to the nearest street views of its own region, found by a k-d tree.
- No link leaves a region, so that its embedding depends on its own pictures alone and nothing of a test
  region reaches a training region. The paper's graph is of the whole city.
- Indicators are of regions alone, none of streets.
- A region has one chip, and all its nodes share it.
- The contrast runs first, on the training and validation regions, and then labels train all of it. It
  draws one of the nearest pictures as the positive of a picture.
- Backbones as in `vision_lstm`: small ones from chance, or the city's towers, which rest.
- A region without street views is one node with a learned token in their place; so is a chip that a region
  has not. In training a region shows a few of its street views, and each is linked to the nearest of these.

M street views, B regions in a batch, V nodes, K neighbours, W width, T pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from model_code.fusion import Aggregate, Fusion
from model_code.losses import nt_xent
from model_code.methods import MethodConfig, StructuralUrbanConfig
from model_code.methods.base import Floats, Mask, RegionData, Workspace
from model_code.methods.baselines.street_net import StreetMethod, StreetRegions
from model_code.methods.nearness import NearSampler, on_sphere
from model_code.methods.urbanvlp import View
from model_code.training import Settings, fit, seeded


def nearest_within(points: Floats, group: Any, neighbours: int) -> Tensor:
    """The nearest others [M, K] of points [M, d] in the same `group` [M] int64, nearest first; -1 where
    a group has fewer."""
    points = np.asarray(points, np.float64)
    k = min(neighbours, len(points) - 1)
    if k < 1:
        return torch.full((len(points), 0), -1)
    # Groups lie farther apart than any two points: whoever is nearest is of the same group.
    apart = 2 * np.linalg.norm(np.ptp(points, axis=0)) + 1
    lifted = np.column_stack([points, apart * group])
    _, found = cKDTree(lifted, balanced_tree=False).query(lifted, k + 1)
    each = np.arange(len(points))[:, None]
    oneself = found == each
    oneself[~oneself.any(axis=1), -1] = True  # among equal points one may be missing
    others = found[~oneself].reshape(len(points), k)
    return torch.from_numpy(np.where(group[others] == group[:, None], others, -1))


class GraphLayer(nn.Module):
    """z + ReLU(norm(P z + Q mean of the neighbours' z)); zero stands for the mean of none."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.Linear(width, width)
        self.near = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, nodes: Tensor, neighbours: Tensor) -> Tensor:
        """Nodes [V, W] of nodes [V, W] with their `neighbours` [V, K], -1 where there is none."""
        there = (neighbours >= 0)[:, :, None]
        near = nodes[neighbours.clamp(min=0)] * there  # [V, K, W]
        mean = near.sum(dim=1) / there.sum(dim=1).clamp(min=1)
        found: Tensor = nodes + self.norm(self.own(nodes) + self.near(mean)).relu()
        return found


class GraphRegions(StreetRegions):
    """A `RegionEncoder`: what is read out of each region's graph."""

    def __init__(self, data: RegionData, config: StructuralUrbanConfig, seen: Mask) -> None:
        super().__init__(data, config, seen)
        self.width, self.neighbours = config.width, config.neighbours
        if "street_view" in self.kinds:
            assert data.view_lonlat is not None and data.view_region is not None
            self.places = on_sphere(data.view_lonlat[self.view_order])
            owner = data.view_region[self.view_order]
            self.nearest = nearest_within(self.places, owner, config.neighbours)
            self.layers = nn.ModuleList([GraphLayer(config.width) for _ in range(config.layers)])
            self.readout = Aggregate(config.readout, config.width, 0)
        self.fusion = Fusion("attention", 2, config.width) if len(self.kinds) == 2 else None

    def forward(self, index: Tensor) -> Tensor:
        """Embeddings [B, W] of the regions `index` [B]."""
        if "street_view" not in self.kinds:
            return self.chips(index)
        seen, owner = self.streets(index)
        silent = (torch.bincount(owner, minlength=len(index)) == 0).nonzero()[:, 0]
        owner = torch.cat([owner, silent])
        order = torch.argsort(owner, stable=True)
        owner = owner[order]
        view = torch.cat([seen, torch.full_like(silent, -1)])[order]  # [V], -1 for a token
        real = (view >= 0).nonzero()[:, 0]
        token = self.tokens["street_view"]
        nodes = token.expand(len(view), -1).index_copy(
            0, real.to(token.device), self.pictured("street_view", view[real])
        )
        where = owner.to(nodes.device)
        if self.fusion is not None:
            nodes = self.fusion([nodes, self.chips(index)[where]])
        links = self.links(view, owner).to(nodes.device)
        for layer in self.layers:
            nodes = layer(nodes, links)
        return cast(Tensor, self.readout(nodes, where, len(index)))

    def links(self, view: Tensor, owner: Tensor) -> Tensor:
        """Of nodes that show the street views `view` [V] (-1: none) of the regions `owner` [V], the nodes
        [V, K] that show the nearest ones of the same region; -1 where there are fewer.

        In training these are the nearest of those that are shown: of many street views few are shown,
        and hardly ever the nearest of all. Else all are shown, and equally near ones must be the same
        in any batch.
        """
        real = (view >= 0).nonzero()[:, 0]
        view = view[real]
        if self.training:
            nearest = nearest_within(
                self.places[view.numpy()], owner[real].numpy(), self.neighbours
            )
            place = real
        else:
            nearest = self.nearest[view]
            place = torch.full((len(self.nearest),), -1).index_copy(0, view, real)
        links = torch.full((len(owner), nearest.shape[1]), -1)
        links[real] = torch.where(nearest >= 0, place[nearest], -1)
        return links


class NearPictures(nn.Module):
    """NT-Xent of pictures with near ones, by kind."""

    def __init__(
        self,
        regions: GraphRegions,
        samplers: Mapping[View, NearSampler],
        config: StructuralUrbanConfig,
    ) -> None:
        super().__init__()
        self.encoders, self.heads = regions.encoders, regions.heads
        self.samplers, self.scale = samplers, 1 / config.temperature
        self.pictured, self.first, self.count = (
            regions.pictured, regions.view_first, regions.view_count,
        )  # fmt: skip
        self.projections = nn.ModuleDict(
            {
                kind: nn.Sequential(nn.ReLU(), nn.Linear(config.width, config.projection))
                for kind in samplers
            }
        )

    def loss(self, index: Tensor) -> Tensor:
        losses = [next(self.projections.parameters()).sum() * 0]  # where no pair is left
        for kind, sampler in self.samplers.items():
            pairs = sampler.pairs(self.drawn(kind, index)).T  # [2, T]
            if pairs.shape[1]:
                vectors = self.projections[kind](self.pictured(kind, pairs.flatten()))
                left, right = vectors.view(2, -1, vectors.shape[1])
                losses.append(nt_xent(left, right, self.scale, pairs))
        return torch.stack(losses).sum()

    def drawn(self, kind: View, index: Tensor) -> Tensor:
        """A picture of each of the regions `index` [B] that has one: the chip, or a street view drawn at
        random."""
        if kind == "satellite":
            return index
        index = index[self.count[index] > 0]
        chance = torch.rand(len(index), dtype=torch.float64)
        return self.first[index] + (chance * self.count[index]).long()


class StructuralUrban(StreetMethod):
    """StructuralUrban on regions."""

    def encoder(self, data: RegionData, config: MethodConfig, seen: Mask) -> nn.Module:
        assert isinstance(config, StructuralUrbanConfig)
        return GraphRegions(data, config, seen)

    def prepare(
        self,
        encoder: nn.Module,
        data: RegionData,
        config: MethodConfig,
        seen: Mask,
        *,
        seed: int,
        workspace: Workspace,
    ) -> dict[str, Any]:
        assert isinstance(config, StructuralUrbanConfig) and isinstance(encoder, GraphRegions)
        samplers: dict[View, NearSampler] = {}
        for kind in encoder.kinds:
            if kind == "satellite":
                points, usable = data.xy_m, seen & encoder.chip_present.numpy()
            else:
                assert data.view_lonlat is not None and data.view_region is not None
                points = on_sphere(data.view_lonlat[encoder.view_order])
                usable = seen[data.view_region[encoder.view_order]]
            if usable.sum() >= 2:
                samplers[kind] = NearSampler(points, usable, neighbours=config.near)
        if not samplers or not config.contrast_epochs:
            return {"contrast_loss": []}
        with seeded(seed, 1):
            contrast = NearPictures(encoder, samplers, config)
        history = fit(
            contrast,
            np.flatnonzero(seen),
            Settings(
                epochs=config.contrast_epochs,
                batch=config.batch,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
            ),
            seed=seed,
            resume=workspace.resume,
            keep=True,
            progress=workspace.progress,
        )
        return {"contrast_loss": history.train}


METHOD = StructuralUrban()
