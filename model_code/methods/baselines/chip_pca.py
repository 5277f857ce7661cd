"""PCA of the satellite chips' pixels: colour and coarse layout, without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_code.errors import DataError
from model_code.methods import ChipPcaConfig, MethodConfig
from model_code.methods.base import NOWHERE, Checkpoint, Floats, Mask, RegionData, Workspace
from model_code.pca import principal_axes

_BATCH = 4096


class ChipPca:
    """Chips averaged down to `size_px` (never up), then projected on the axes of the visible ones.

    The last column is 1 where a region has no chip: its other columns are those of the mean visible
    chip, and a head can tell the two apart.
    """

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, ChipPcaConfig)
        assert data.chips is not None and data.chip_present is not None
        fitted = visible & data.chip_present
        if not fitted.any():
            raise DataError(
                "chip_pca: no visible region has a chip",
                fix="check `sources.imagery` and `chips.min_valid_share`",
            )
        mean, axes = principal_axes(_pixels(data.chips[fitted], config.size_px), config.components)
        return Checkpoint({"mean": mean, "axes": axes})

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        assert isinstance(config, ChipPcaConfig)
        assert data.chips is not None and data.chip_present is not None
        mean, axes = checkpoint.tensors["mean"], checkpoint.tensors["axes"]
        present = np.flatnonzero(data.chip_present)
        embedding = np.zeros((len(data), len(axes) + 1), np.float32)
        embedding[:, -1] = ~data.chip_present
        for start in range(0, len(present), _BATCH):
            rows = present[start : start + _BATCH]
            pixels = _pixels(data.chips[rows], config.size_px)
            embedding[rows, :-1] = (pixels - mean) @ axes.T
        return embedding


def _pixels(chips: NDArray[np.uint8], size_px: int) -> NDArray[Any]:
    """Chips [N, H, W, C] averaged by area to [N, size size C], 0 to 1."""
    down = _averaging(chips.shape[1], size_px)
    across = _averaging(chips.shape[2], size_px)
    small = np.einsum(
        "ih,nhwc,jw->nijc", down, chips.astype(np.float32) / 255, across, optimize=True
    )
    return np.asarray(small.reshape(len(chips), -1))


def _averaging(length: int, size: int) -> NDArray[np.float32]:
    """Weights [size, length] with which `length` pixels make `size` equal ones."""
    size = min(size, length)
    edges = np.linspace(0, length, size + 1)
    pixel = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.asarray(np.clip(overlap, 0, None) * size / length, np.float32)


METHOD = ChipPca()
