"""Pictures of regions as encoders read them: sizes, parts that fit into memory, whose they are.

V pictures, M street views, N regions, B regions in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

PICTURES = 256  # that are resized, or encoded outside training, at once


def resized(
    pictures: NDArray[np.uint8], size_px: tuple[int, int], order: NDArray[np.int64] | None = None
) -> Tensor:
    """Pictures [V, H, W, C], or those of them that `order` names, as uint8 [V, h, w, 3]: the first
    three bands, or the only one thrice."""
    order = np.arange(len(pictures)) if order is None else order
    bands = [0, 1, 2] if pictures.shape[3] >= 3 else [0, 0, 0]
    out = torch.empty(len(order), *size_px, 3, dtype=torch.uint8)
    for start in range(0, len(order), PICTURES):
        part = torch.from_numpy(pictures[order[start : start + PICTURES]][..., bands])
        if part.shape[1:3] != tuple(size_px):
            part = part.permute(0, 3, 1, 2).float()
            part = F.interpolate(part, tuple(size_px), mode="bilinear", antialias=True)
            part = part.round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        out[start : start + PICTURES] = part
    return out


def encoded(encoder: Callable[[Tensor], Tensor], pictures: Tensor, index: Tensor) -> Tensor:
    """What `encoder` makes of `pictures[index]`, in parts where no gradient has to be kept; at least
    one picture."""
    size = len(index) if torch.is_grad_enabled() else PICTURES
    return torch.cat([encoder(pictures[part]) for part in torch.split(index, size)])


def cropped(pictures: Tensor, least: float) -> Tensor:
    """A part of each of the pictures uint8 [V, h, w, 3], drawn at random and brought back to their size:
    `least` to 1 of the area, between 3/4 and 4/3 as wide as high; at least one picture."""
    count = len(pictures)
    area = least + (1 - least) * torch.rand(count)
    ratio = torch.exp((2 * torch.rand(count) - 1) * math.log(4 / 3))
    size = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1)  # [V, 2]
    middle = (2 * torch.rand(count, 2) - 1) * (1 - size)
    affine = torch.cat([torch.diag_embed(size), middle[:, :, None]], dim=2)  # [V, 2, 3]
    channels = pictures.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(affine, list(channels.shape), align_corners=False)
    parts = F.grid_sample(channels, grid, padding_mode="border", align_corners=False)
    return parts.round().clamp(0, 255).byte().permute(0, 2, 3, 1)


class RegionViews(nn.Module):
    """A module that knows which street views each region has, in an order by region.

    Attributes:
        view_order: [M], where each view stands in the data.
        view_first, view_count: [N], the first of a region's views in that order, and how many.
        limit: views of a region that a training step reads.
    """

    def __init__(self, view_region: NDArray[np.int64] | None, regions: int, limit: int) -> None:
        """`view_region` [M] is the region of each view; None without any."""
        super().__init__()
        self.limit = limit
        owner = np.empty(0, np.int64) if view_region is None else view_region
        self.view_order = np.argsort(owner, kind="stable")
        self.view_count = torch.from_numpy(np.bincount(owner, minlength=regions))
        self.view_first = self.view_count.cumsum(0) - self.view_count

    def views_of(self, index: Tensor, captioned: Tensor | None = None) -> tuple[Tensor, ...]:
        """The street views to read of the regions `index` [B]: all, or a few at random in training.

        Returns the views [V], each with the position of its region in the batch [V], ascending; and
        which of them [V] were drawn as the one of its region among `captioned` [M].
        """
        count = self.view_count[index]
        owner = torch.repeat_interleave(torch.arange(len(index)), count)
        start = torch.repeat_interleave(count.cumsum(0) - count, count)
        rank = torch.arange(len(owner)) - start
        view = self.view_first[index][owner] + rank
        drawn = torch.zeros(len(view), dtype=torch.bool)
        if not self.training:
            return view, owner, drawn
        key = torch.rand(len(view), dtype=torch.float64)
        if captioned is not None:
            able = key.masked_fill(~captioned[view], 2)
            least = torch.full((len(index),), 2.0, dtype=torch.float64)
            drawn = able == least.scatter_reduce(0, owner, able, "amin")[owner]
            drawn &= captioned[view]
            key[drawn] = -1  # the drawn view is among those that are read
        kept = torch.zeros_like(drawn)
        kept[torch.argsort(owner + key / 2)[rank < self.limit]] = True
        return view[kept], owner[kept], drawn[kept]
