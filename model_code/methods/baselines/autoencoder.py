"""A convolutional autoencoder of satellite chips: its bottleneck is the embedding.

Kramer 1991, "Nonlinear principal component analysis using autoassociative neural networks" (AIChE
Journal, doi:10.1002/aic.690370209), a baseline of the UrbanMoE paper, which says no more than that the
error of reconstruction is minimised. Kramer's network is of full layers, with one hidden layer on either
side of the bottleneck; here convolutions stand on both sides, as chips are pictures.

A token stands for a chip that a region has not; it is put at the mean of the others.
"""

from __future__ import annotations

import itertools
from typing import cast

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.finetuning import embed_all, embed_some
from model_code.methods import AutoencoderConfig, MethodConfig
from model_code.methods.base import NOWHERE, Checkpoint, Floats, Mask, RegionData, Workspace
from model_code.methods.chips import ChipRegions, usable_chips
from model_code.training import Settings, fit, load_arrays, seeded, state_arrays

_LAYERS = 4  # each halves the sides


def _channels(config: AutoencoderConfig) -> list[int]:
    return [3, *(config.channels * 2**layer for layer in range(_LAYERS))]


class ChipCoder(nn.Module):
    """Chips uint8 [V, P, P, 3] to the bottleneck [V, width]: four convolutions of stride 2, and a
    linear map of all that is left, so that it knows where things are."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.width = config.width
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(_channels(config)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GELU()]
        self.layers = nn.Sequential(*layers)
        side = config.chip_px // 2**_LAYERS
        self.bottleneck = nn.Linear(_channels(config)[-1] * side**2, config.width)

    def forward(self, chips: Tensor) -> Tensor:
        x = scaled(chips.to(self.bottleneck.weight.device))
        return cast(Tensor, self.bottleneck(self.layers(x).flatten(1)))


class ChipDecoder(nn.Module):
    """Bottlenecks [V, width] to pictures [V, 3, P, P]: the way of `ChipCoder` back."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        channels = _channels(config)[::-1]
        self.side = config.chip_px // 2**_LAYERS
        self.spread = nn.Linear(config.width, channels[0] * self.side**2)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            layers += [nn.GELU(), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, codes: Tensor) -> Tensor:
        return cast(
            Tensor, self.layers(self.spread(codes).unflatten(1, (-1, self.side, self.side)))
        )


def scaled(chips: Tensor) -> Tensor:
    """Chips uint8 [V, P, P, 3] as [V, 3, P, P] from -1 to 1."""
    return chips.permute(0, 3, 1, 2).float() / 127.5 - 1


class Reconstruction(nn.Module):
    """Coder and decoder on the mean squared error of the chips, scaled from -1 to 1."""

    def __init__(self, regions: ChipRegions, config: AutoencoderConfig) -> None:
        super().__init__()
        self.coder, self.pixels = regions.encoders["chips"], regions.pixels
        self.decoder = ChipDecoder(config)

    def loss(self, index: Tensor) -> Tensor:
        chips = self.pixels[index].to(self.decoder.spread.weight.device)
        return F.mse_loss(self.decoder(self.coder(chips)), scaled(chips))


class Autoencoder:
    """The autoencoder on regions."""

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, AutoencoderConfig)
        usable = usable_chips(data, visible, "autoencoder", 1)
        with seeded(seed):
            regions = self.encoder(data, config)
            training = Reconstruction(regions, config)
        history = fit(
            training,
            np.flatnonzero(usable),
            Settings.of(config),
            seed=seed,
            resume=workspace.resume,
            progress=workspace.progress,
        )
        regions.start_token(embed_some(regions, np.flatnonzero(usable)))
        return Checkpoint(state_arrays(regions), {"loss": history.train})

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        with seeded(0):  # the weights are about to be replaced
            regions = self.encoder(data, config)
        load_arrays(regions, checkpoint.tensors)
        return embed_all(regions, len(data))

    def encoder(
        self, data: RegionData, config: MethodConfig, visible: Mask | None = None
    ) -> ChipRegions:
        """Fresh, it has taken nothing from any region, `visible` or not."""
        assert isinstance(config, AutoencoderConfig)
        return ChipRegions(
            data,
            {"chips": ChipCoder(config)},
            chip_px=config.chip_px,
            absent_rate=config.absent_rate,
        )


METHOD = Autoencoder()
