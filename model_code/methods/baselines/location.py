"""Where a region lies: its coordinates, and sines and cosines of them by octaves."""

from __future__ import annotations

import numpy as np

from model_code.methods import LocationConfig, MethodConfig
from model_code.methods.base import NOWHERE, Checkpoint, Floats, Mask, RegionData, Workspace
from model_code.scaling import Scaler


class Location:
    """x and y in metres, standardised on the visible regions, and for each octave k of
    `frequencies` sin and cos of 2^k pi/2 times both. The longest wave spans four standard
    deviations, about the width of the city. Nothing is random."""

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        scaler = Scaler.fit(data.xy_m, visible)
        return Checkpoint({"mean_m": scaler.mean, "scale_m": scaler.scale})

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        assert isinstance(config, LocationConfig)
        scaler = Scaler(checkpoint.tensors["mean_m"], checkpoint.tensors["scale_m"])
        xy = scaler.apply(data.xy_m)  # [N, 2]
        octaves = 2.0 ** np.arange(config.frequencies)
        waves = (xy[:, :, None] * octaves * np.pi / 2).reshape(len(xy), -1)  # [N, 2 frequencies]
        return np.hstack([xy, np.sin(waves), np.cos(waves)]).astype(np.float32)


METHOD = Location()
