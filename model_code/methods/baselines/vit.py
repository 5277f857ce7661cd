"""A small vision transformer on satellite chips, trained from scratch on the labels alone: the
control for every method that pretrains.

Architecture: Dosovitskiy et al. 2021 (arXiv:2010.11929), with the mean of the patch tokens in place
of a class token (Zhai et al. 2022, arXiv:2106.04560).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.finetuning import embed_all, predict_all, restore, tune
from model_code.methods import MethodConfig, VitConfig
from model_code.methods.base import (
    NOWHERE,
    Checkpoint,
    Floats,
    Parts,
    RegionData,
    Targets,
    Workspace,
)
from model_code.training import Settings, seeded


class ChipEncoder(nn.Module):
    """Chips [B, C, P, P] to embeddings [B, D]; a learned token stands for a chip that is absent.

    In training, chips are flipped and turned (north means nothing in a satellite image), and a few
    are hidden at random, so that the absent-token is trained where every region has a chip.
    """

    chips: Tensor
    present: Tensor

    def __init__(self, data: RegionData, config: VitConfig) -> None:
        super().__init__()
        assert data.chips is not None and data.chip_present is not None
        self.width = config.width
        self.absent_rate = config.absent_rate
        self.register_buffer("chips", _resized(data.chips, config.image_px), persistent=False)
        present = torch.from_numpy(np.array(data.chip_present))
        self.register_buffer("present", present, persistent=False)
        side, patch = config.image_px // config.patch_px, config.patch_px
        self.patches = nn.Conv2d(data.chips.shape[3], config.width, patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn(side * side, config.width))
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            4 * config.width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.width)
        self.absent = nn.Parameter(0.02 * torch.randn(config.width))

    def forward(self, index: Tensor) -> Tensor:
        chips, present = self.chips[index], self.present[index]  # [B, C, P, P], [B]
        if self.training:
            chips = _turned(chips)
            present = present & (torch.rand(len(index)) >= self.absent_rate).to(present.device)
        scaled = chips.float() / 127.5 - 1
        tokens = self.patches(scaled).flatten(2).mT + self.position  # [B, T, D]
        pooled = self.norm(self.blocks(tokens).mean(dim=1))  # [B, D]
        return torch.where(present[:, None], pooled, self.absent)


def _turned(chips: Tensor) -> Tensor:
    """Each chip of [B, C, P, P] in one of its eight symmetries."""
    swaps: tuple[Callable[[Tensor], Tensor], ...]
    swaps = (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.mT)
    for swap in swaps:
        chosen = (torch.rand(len(chips)) < 0.5).to(chips.device)
        chips = torch.where(chosen[:, None, None, None], swap(chips), chips)
    return chips


def _resized(chips: NDArray[Any], size_px: int) -> Tensor:
    """Chips [N, H, W, C] as uint8 [N, C, P, P]."""
    images = torch.from_numpy(np.ascontiguousarray(chips)).permute(0, 3, 1, 2)
    if images.shape[2:] == (size_px, size_px):
        return images.contiguous()
    parts = [
        F.interpolate(part.float(), (size_px, size_px), mode="bilinear", antialias=True)
        for part in torch.split(images, 1024)
    ]
    return torch.cat([part.round().clamp(0, 255).byte() for part in parts])


class Vit:
    """All tasks at once: one linear head a task over the shared encoder."""

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
        assert isinstance(config, VitConfig)
        settings = Settings.of(config, schedule="cosine", patience=config.patience)
        return tune(
            lambda: ChipEncoder(data, config),
            targets,
            parts,
            settings,
            mode="scratch",
            seed=seed,
            workspace=workspace,
        )

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        return embed_all(restore(checkpoint, _encoder(data, config)).encoder, len(data))

    def predict(
        self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig
    ) -> dict[str, Floats]:
        return predict_all(checkpoint, _encoder(data, config), len(data))


def _encoder(data: RegionData, config: MethodConfig) -> ChipEncoder:
    assert isinstance(config, VitConfig)
    with seeded(0):  # its weights are about to be replaced
        return ChipEncoder(data, config)


METHOD = Vit()
