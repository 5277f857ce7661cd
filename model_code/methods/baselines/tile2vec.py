"""Tile2Vec: a satellite chip is known by the company it keeps on the map.

Jean, Wang, Samar, Azzari, Lobell and Ermon 2019, "Tile2Vec: Unsupervised Representation Learning for
Spatially Distributed Data" (AAAI, arXiv:1805.02855). The paper's: triplets of an anchor, a neighbour
and a distant tile; a hinge of Euclidean distances with a margin; a penalty on the lengths of the
embeddings, so that the margin cannot be had by blowing them up; chips mirrored and turned in training.

What departs:

- A tile is a region's chip. The paper cuts tiles anywhere, its neighbours overlap, and a distant tile
  may come from another image.
- Near is one of the nearest regions (or who is within a radius), and distant is who is not near; the
  published code draws the neighbour from a square around the anchor.
- Triplets are drawn anew in each step, not once; the three chips go through the backbone together.
- The penalty is the mean length of an embedding. The published code takes the length of the whole batch
  as one vector, whose weight depends on the size of the batch.
- The backbone has a linear head, and is small by default; `resnet18` is the paper's size.
- A token stands for a chip that a region has not; it is put at the mean of the others.

Places say who is near, and are not in the embedding.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from torch import Tensor, nn

from model_code.finetuning import embed_all
from model_code.fusion import Projection
from model_code.losses import triplet_loss
from model_code.methods import MethodConfig, MuseClConfig, Tile2VecConfig
from model_code.methods.base import NOWHERE, Checkpoint, Floats, Mask, RegionData, Workspace
from model_code.methods.chips import usable_chips
from model_code.methods.musecl import MuseRegions, View, start_tokens, started
from model_code.methods.nearness import NearSampler
from model_code.training import Settings, fit, load_arrays, seeded, state_arrays


class NearTriplets(nn.Module):
    """Backbone and head of one kind of picture on triplets of pictures that are near and distant."""

    def __init__(
        self,
        regions: MuseRegions,
        view: View,
        sampler: NearSampler,
        *,
        margin: float,
        norm_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = None if view in regions.known else regions.encoders[view]
        self.head = cast(Projection, regions.joint.heads[view]).linear
        self.view, self.sampler, self.features = view, sampler, regions.features
        self.margin, self.norm_weight = margin, norm_weight

    def loss(self, index: Tensor) -> Tensor:
        triplets = self.sampler.triplets(index)  # [T, 3]
        if not len(triplets):
            return next(self.parameters()).sum() * 0
        vectors = self.head(self.features(self.view, triplets.flatten()))  # [3 T, W]
        anchor, near, distant = vectors.view(len(triplets), 3, -1).unbind(1)
        hinge = triplet_loss(anchor, near, distant, self.margin, "euclidean")
        length: Tensor = vectors.norm(dim=1).mean()
        return hinge + self.norm_weight * length


class Tile2Vec:
    """Tile2Vec on regions."""

    def settings(self, config: MethodConfig) -> MuseClConfig:
        """The network as one of MuseCL's: chips alone, no words."""
        assert isinstance(config, Tile2VecConfig)
        return MuseClConfig(
            street_views=False,
            pois=False,
            satellite_backbone=config.backbone,
            satellite_weights=config.weights,
            rest=config.rest,
            chip_px=config.chip_px,
            width=config.width,
            augment=config.augment,
            absent_rate=config.absent_rate,
        )

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, Tile2VecConfig)
        usable = usable_chips(data, visible, "tile2vec", 3)
        regions = started(data, self.settings(config), visible, seed)
        sampler = NearSampler(
            data.xy_m, usable, neighbours=config.neighbours, radius=config.radius_m
        )
        sampler.check_triplets("tile2vec")
        history = fit(
            NearTriplets(
                regions,
                "satellite",
                sampler,
                margin=config.margin,
                norm_weight=config.norm_weight,
            ),
            np.flatnonzero(usable),
            Settings.of(config),
            seed=seed,
            resume=workspace.resume,
            progress=workspace.progress,
        )
        start_tokens(regions, visible)
        return Checkpoint(state_arrays(regions), {"loss": history.train})

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        with seeded(0):  # the weights are about to be replaced
            regions = self.encoder(data, config)
        load_arrays(regions, checkpoint.tensors)
        return embed_all(regions, len(data))

    def encoder(
        self, data: RegionData, config: MethodConfig, visible: Mask | None = None
    ) -> nn.Module:
        """Fresh, it has taken nothing from any region, `visible` or not."""
        return MuseRegions(data, self.settings(config))


METHOD = Tile2Vec()
