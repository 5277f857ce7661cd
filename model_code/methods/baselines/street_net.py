"""What the baselines share that learn from labels on a region's chip and all of its street views.

Pictures go through a backbone that trains with the rest, or through the city's towers, which rest: what
they see is computed once and standardised on the training regions.

N regions, M street views, B regions and V pictures in a batch, W width.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from model_code.errors import DataError
from model_code.finetuning import embed_all, predict_all, restore, tune
from model_code.methods import MethodConfig, StreetNetConfig
from model_code.methods.base import (
    NOWHERE,
    Checkpoint,
    Floats,
    Mask,
    Parts,
    RegionData,
    Targets,
    Workspace,
)
from model_code.methods.urbanmoe import Frozen
from model_code.methods.urbanvlp import ImageTower, View, given_towers
from model_code.training import Settings, evaluating, seeded, state_arrays
from model_code.vision.backbones import ImageEncoder
from model_code.vision.clip import open_towers
from model_code.vision.pictures import RegionViews, encoded, resized


class StreetRegions(RegionViews):
    """Base of a `RegionEncoder` on chips and street views; its data is not in its state.

    Attributes:
        kinds: the views that are on and that the city has.
        chip_present: bool [N].
    """

    def __init__(self, data: RegionData, config: StreetNetConfig, seen: Mask) -> None:
        """What rests is standardised on the regions `seen` [N].

        Raises:
            DataError: no view is left.
        """
        viewed = config.street_views and data.views is not None and len(data.views) > 0
        super().__init__(
            data.view_region if viewed else None, len(data), config.views_per_step or 2**62
        )
        self.absent_rate = config.absent_rate
        self.chip_present = torch.zeros(len(data), dtype=torch.bool)
        self.kinds: list[View] = []
        if config.satellite and data.chips is not None:
            self.kinds.append("satellite")
            self.chip_present = torch.from_numpy(np.array(data.chip_present))
        if viewed:
            self.kinds.append("street_view")
        if not self.kinds:
            raise DataError(
                "neither satellite chips nor street views are left to look at",
                fix="set one of the method's `satellite` and `street_views` to true, and see that the "
                "city has it",
            )
        self.encoders = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        self.tokens = nn.ParameterDict()
        self.pixels: dict[View, Tensor] = {}
        for kind in self.kinds:
            if config.backbone == "towers":
                encoder: nn.Module = self._resting(data, kind, seen)
            else:
                satellite = kind == "satellite"
                encoder = ImageEncoder(config.backbone, augment=config.augment, turned=satellite)
                size = (config.chip_px, config.chip_px) if satellite else config.view_px
                pictures = data.chips if satellite else data.views
                assert pictures is not None
                self.pixels[kind] = resized(pictures, size, None if satellite else self.view_order)
            self.encoders[kind] = encoder
            self.heads[kind] = nn.Linear(cast(int, encoder.width), config.width)
            self.tokens[kind] = nn.Parameter(torch.randn(config.width) * config.width**-0.5)

    def _resting(self, data: RegionData, kind: View, seen: Mask) -> Frozen:
        key = ("street net", kind)
        if key not in data.memo:
            pictures = data.chips if kind == "satellite" else data.views
            towers = open_towers(given_towers(data.towers or {}, kind))
            assert pictures is not None
            with evaluating(towers):
                sized = resized(pictures, towers.size_px)
                vectors = ImageTower(towers).vectors(sized, torch.arange(len(sized)))
            data.memo[key] = vectors.numpy()
        if kind == "satellite":
            there = self.chip_present.numpy()[:, None]
            return Frozen(np.where(there, data.memo[key], np.nan), seen)
        assert data.view_region is not None
        return Frozen(data.memo[key][self.view_order], seen[data.view_region[self.view_order]])

    def pictured(self, kind: View, rows: Tensor) -> Tensor:
        """Vectors [V, W] of the pictures that `rows` [V] names: chips by region, street views in the
        order by region."""
        encoder, head = self.encoders[kind], cast(nn.Linear, self.heads[kind])
        if isinstance(encoder, Frozen):
            return cast(Tensor, head(encoder(rows)[0]))
        if not len(rows):
            return head.weight.new_zeros(0, head.out_features)
        return cast(Tensor, head(encoded(cast(ImageEncoder, encoder), self.pixels[kind], rows)))

    def chips(self, index: Tensor) -> Tensor:
        """Vectors [B, W] of the chips of the regions `index` [B]; the token where there is none."""
        own = (self.chip_present[index] & ~self.hidden(len(index))).nonzero()[:, 0]
        vectors = self.pictured("satellite", index[own])
        token: Tensor = self.tokens["satellite"]
        return token.expand(len(index), -1).index_copy(0, own.to(token.device), vectors)

    def streets(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The street views [V] to read of the regions `index` [B], in the order by region, and whose
        they are [V], by the place in the batch, ascending."""
        view, owner, _ = self.views_of(index)
        kept = ~self.hidden(len(index))[owner]
        return view[kept], owner[kept]

    def hidden(self, count: int) -> Tensor:
        """Which of `count` regions have a kind of picture hidden: in training a few, so that the tokens
        learn."""
        if not self.training:
            return torch.zeros(count, dtype=torch.bool)
        return torch.rand(count) < self.absent_rate


class StreetMethod:
    """A network on `StreetRegions` with a head a task, all trained on the labels."""

    def encoder(self, data: RegionData, config: MethodConfig, seen: Mask) -> nn.Module:
        """The network, freshly initialised; scales are of the regions `seen` [N]."""
        raise NotImplementedError

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
        """Train the encoder, in place and without labels, on the regions `seen` [N] before labels do;
        what is to be recorded of it."""
        return {}

    def fit(
        self,
        data: RegionData,
        targets: Targets,
        parts: Parts,
        config: MethodConfig,
        *,
        seed: int,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, StreetNetConfig)
        with seeded(seed, 2):  # other numbers than those that the heads start from
            encoder = self.encoder(data, config, parts.train)
        files = {"satellite": config.satellite_weights, "street_view": config.street_view_weights}
        for kind, file in files.items():
            if file is not None and kind in cast(StreetRegions, encoder).kinds:
                backbone = cast(StreetRegions, encoder).encoders[kind]
                cast(ImageEncoder, backbone).load_file(file.path, file.sha256)
        seen = parts.train | parts.val
        record = self.prepare(encoder, data, config, seen, seed=seed, workspace=workspace)
        net = tune(
            lambda: encoder,  # which holds the pictures, so that there is one
            targets,
            parts,
            Settings.of(config, schedule="cosine", patience=config.patience),
            mode="end_to_end",
            seed=seed,
            pretrained=state_arrays(encoder),
            hidden=config.hidden,
            workspace=workspace,
        )
        return Checkpoint(net.tensors, {**net.record, **record})

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        return embed_all(restore(checkpoint, self._fresh(data, config)).encoder, len(data))

    def predict(
        self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig
    ) -> dict[str, Floats]:
        return predict_all(checkpoint, self._fresh(data, config), len(data))

    def _fresh(self, data: RegionData, config: MethodConfig) -> nn.Module:
        with seeded(0):  # weights and scales are about to be replaced
            return self.encoder(data, config, np.ones(len(data), bool))
