"""From the views of a region to one vector, and from a region's modalities to one vector.

M views of B regions in a batch, of different number by region; D width of a view's vector, W width
of the fused vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Aggregation = Literal["mean", "attention", "linear"]
Fusing = Literal["sum", "gate", "concat", "attention"]


class Aggregate(nn.Module):
    """Vectors of views [M, D] to vectors of regions [B, D] (Aggr in UrbanVLP, eq 4).

    `mean`; `attention`: a softmax over the region's views of w . tanh(U x + b), where x is the view's
    vector, standardised so that its length does not matter to how fast this learns; `linear`: a learned
    weight for each of `slots` slots, which the region's views share out among them in their order:
    a view of few fills several slots, a slot of many views holds their mean, and with as many views
    as slots each has its own. No view is padded, so that none leaks; the order matters to `linear`
    alone.
    """

    def __init__(self, kind: Aggregation, width: int, slots: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "attention":
            self.hidden = nn.Linear(width, width)
            self.score = nn.Linear(width, 1, bias=False)  # a bias would cancel in the softmax
        elif kind == "linear":
            self.slot_weight = nn.Parameter(torch.full((slots,), 1 / slots))

    def forward(self, views: Tensor, region: Tensor, regions: int) -> Tensor:
        """Vectors [B, D], zero for a region without views.

        Args:
            views: [M, D], the views of a region in their order.
            region: [M] int64, which of the B = `regions` regions each belongs to, ascending.
            regions: B.
        """
        weight = self._weight(views, region, regions)
        return views.new_zeros(regions, views.shape[1]).index_add(
            0, region, views * weight[:, None]
        )

    def _weight(self, views: Tensor, region: Tensor, regions: int) -> Tensor:
        """Weight [M] of each view in its region."""
        if self.kind == "attention":
            standardised = F.layer_norm(views, views.shape[1:])
            score = self.score(torch.tanh(self.hidden(standardised)))[:, 0]
            return segment_softmax(score, region, regions)
        count = torch.bincount(region, minlength=regions)  # [B]
        if self.kind == "mean":
            return 1 / count[region].to(views.dtype)
        # The k-th of n views reaches from k / n to (k + 1) / n of the slots.
        first = count.cumsum(0) - count
        rank = torch.arange(len(region), device=region.device) - first[region]
        slots = len(self.slot_weight)
        length = slots / count[region].to(views.dtype)  # slots that a view fills
        start, end = rank * length, (rank + 1) * length
        slot = torch.arange(slots, device=region.device)
        overlap = torch.minimum(end[:, None], slot + 1) - torch.maximum(start[:, None], slot)
        return overlap.clamp(min=0) @ self.slot_weight


def segment_softmax(score: Tensor, segment: Tensor, segments: int) -> Tensor:
    """Softmax of `score` [M] within each of the `segments` that `segment` [M] names."""
    top = score.detach().new_full((segments,), -torch.inf)
    top = top.scatter_reduce(0, segment, score.detach(), "amax")
    raised = (score - top[segment]).exp()
    return raised / raised.new_zeros(segments).index_add(0, segment, raised)[segment]


class Projection(nn.Module):
    """A modality's vectors [B, D] to [B, W]; a learned token stands for one that is absent.

    Of equal or smaller width it starts as the identity, so that towers that share a space still do;
    a wider one starts orthogonal.
    """

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width_in, width)
        start = nn.init.eye_ if width_in <= width else nn.init.orthogonal_
        start(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.absent = nn.Parameter(torch.randn(width) * width**-0.5)

    def forward(self, values: Tensor, present: Tensor) -> Tensor:
        """[B, W] of `values` [B, D], which are not read where `present` [B] is False."""
        values = values.masked_fill(~present[:, None], 0)  # NaN would reach the gradients
        return torch.where(present[:, None], self.linear(values), self.absent)


class Fusion(nn.Module):
    """The modalities of a region, each [B, W], as one vector [B, W] (f in UrbanVLP, eq 4).

    `sum`; `gate`: by channel a softmax over the modalities, of a linear map of all of them; `concat`:
    a linear map of all of them; `attention`: a softmax over the modalities of c . ReLU(M x + b), the
    same c, M and b for each modality x (MuseCL, eq 8-10).
    """

    def __init__(self, kind: Fusing, modalities: int, width: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "gate":
            self.gate = nn.Linear(modalities * width, modalities * width)
        elif kind == "concat":
            self.mix = nn.Linear(modalities * width, width)
        elif kind == "attention":
            self.hidden = nn.Linear(width, width)
            self.score = nn.Linear(width, 1, bias=False)  # a bias would cancel in the softmax

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack(tuple(parts), dim=1)  # [B, modalities, W]
        if self.kind == "sum":
            return stacked.sum(dim=1)
        if self.kind == "concat":
            return cast(Tensor, self.mix(stacked.flatten(1)))
        if self.kind == "attention":
            weights = self.score(self.hidden(stacked).relu()).softmax(dim=1)  # [B, modalities, 1]
            return cast(Tensor, (weights * stacked).sum(dim=1))
        gates = self.gate(stacked.flatten(1)).view_as(stacked).softmax(dim=1)
        return cast(Tensor, (gates * stacked).sum(dim=1))
