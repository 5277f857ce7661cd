"""Regions by their satellite chips, for methods whose encoders read chips alone.

N regions, B of them in a batch, V chips, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from model_code.errors import DataError
from model_code.methods.base import Floats, Mask, RegionData
from model_code.vision.pictures import encoded, resized

_FAINT = 1e-2  # of the strongest unit's deviation


def usable_chips(data: RegionData, visible: Mask, method: str, least: int) -> Mask:
    """The visible regions [N] that have a chip.

    Raises:
        DataError: there are fewer than `least`.
    """
    there = np.zeros(len(data), bool)
    if data.chip_present is not None:
        there = visible & data.chip_present
    if there.sum() < least:
        raise DataError(
            f"{method}: fewer than {least} visible regions have a chip",
            fix="check `sources.imagery` and `chips.min_valid_share`",
        )
    return there


class ChipRegions(nn.Module):
    """A `RegionEncoder`: what one or several encoders make of a region's chip, side by side. A token
    stands for a chip that is absent; in training a few chips are hidden, so that it learns. The chips
    are not in its state.

    Attributes:
        heard: bool [D], which units count; the others are zero.
    """

    heard: Tensor

    def __init__(
        self,
        data: RegionData,
        encoders: Mapping[str, nn.Module],
        *,
        chip_px: int,
        absent_rate: float,
    ) -> None:
        """Each of `encoders` has a `width`, and maps chips uint8 [V, h, w, 3] to [V, width]."""
        super().__init__()
        assert data.chips is not None and data.chip_present is not None
        self.encoders = nn.ModuleDict(encoders)
        self.width = sum(cast(int, encoder.width) for encoder in encoders.values())
        self.absent = nn.Parameter(0.02 * torch.randn(self.width))
        self.register_buffer("heard", torch.ones(self.width, dtype=torch.bool))
        self.absent_rate = absent_rate
        self.pixels = resized(data.chips, (chip_px, chip_px))
        self.present = torch.from_numpy(np.array(data.chip_present))

    def forward(self, index: Tensor) -> Tensor:
        """Embeddings [B, D] of the regions `index` [B]."""
        present = self.present[index]
        if self.training:
            present = present & (torch.rand(len(index)) >= self.absent_rate)
        own = present.nonzero()[:, 0]
        rows = self.absent.expand(len(index), -1)
        if not len(own):
            return rows
        found = [encoded(encoder, self.pixels, index[own]) for encoder in self.encoders.values()]
        vectors = torch.cat(found, dim=1) * self.heard
        return rows.index_copy(0, own.to(rows.device), vectors)

    def silence(self, rows: Floats) -> None:
        """Leave out units that hardly differ among the embeddings `rows` [S, D] of regions that are seen
        and have a chip, beside the unit of the same encoder that differs most. A rectified unit may be
        all but dead there and alive in another region, where a head that standardises its inputs would
        take it for thousands of deviations. An encoder none of whose units differ is left as it is."""
        ends = np.cumsum([cast(int, encoder.width) for encoder in self.encoders.values()])
        heard = []
        for deviation in np.split(rows.std(axis=0, dtype=np.float64), ends[:-1]):
            most = deviation.max()
            heard.append((deviation > _FAINT * most) | (most == 0))
        self.heard.copy_(torch.from_numpy(np.concatenate(heard)))

    def start_token(self, rows: Floats) -> None:
        """Put the token where the embeddings `rows` [S, D] of regions that are seen and have a chip are
        on average."""
        with torch.no_grad():
            self.absent.copy_(torch.from_numpy(rows.mean(axis=0)) * self.heard)
