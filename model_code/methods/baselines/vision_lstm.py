"""Vision-LSTM: the street views of a region, however many, as one sequence, beside its satellite chip.

Huang et al. 2023, "Comprehensive Urban Space Representation with Varying Numbers of Street-Level Images"
(Computers, Environment and Urban Systems 106, doi:10.1016/j.compenvurbsys.2023.102043), a baseline of
UrbanVLP. The paper's: a backbone for each kind of picture; an LSTM of one layer over the vectors x_t of a
space's street views,

    h_t, c_t = LSTM(x_t, h_{t-1}, c_{t-1}),   t = 1 .. m,

whose last state h_m stands for them; that and the chip's vector, side by side, are read by the head, and
labels train all of it.

What departs:

- The social-sensing branch (an LSTM-FCN on taxi trips by the hour) is left out, as in UrbanVLP's
  comparison, which gives it imagery.
- The paper's street-view backbone is a ResNet-18 from Places365, whose features are computed beforehand.
  Here the backbone is `small`, from chance, and trains; `towers` are the city's pretrained ones, which
  rest; `resnet18` with a local file is the paper's.
- A linear map stands between a backbone and the LSTM, so that its width is free.
- In training a region shows a few of its street views, in random order: the order in which a city's files
  come says nothing of a street. Outside training it shows all, in the order of their ids: the last state
  is of all, but leans on the last of them, so that an embedding depends on how street views are named.
- The published code reads a space at a time and takes pictures that are all zeros for padding. Here all
  sequences of a batch are packed, without any padding.
- A chip, or street views, that a region has not are a learned token each.

`aggregate: mean` is the paper's comparison without an LSTM.

B regions in a batch, S of them with street views, V street views, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from model_code.fusion import Aggregate
from model_code.methods import MethodConfig, VisionLstmConfig
from model_code.methods.base import Mask, RegionData
from model_code.methods.baselines.street_net import StreetMethod, StreetRegions


class LastState(nn.Module):
    """Sequences of any length to the last state of an LSTM."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, batch_first=True)

    def forward(self, vectors: Tensor, owner: Tensor, regions: int) -> Tensor:
        """States [B, W], zero for a region without vectors.

        Args:
            vectors: [V, W], those of a region in their order.
            owner: [V] int64 on the CPU, which of the B = `regions` regions each belongs to, ascending.
            regions: B.
        """
        count = torch.bincount(owner, minlength=regions)
        some = count.nonzero()[:, 0]  # [S], whose sequences are not empty
        out = vectors.new_zeros(regions, vectors.shape[1])
        if not len(some):
            return out
        # First all first vectors, then all second ones; the longest sequences come first in each.
        some = some[torch.argsort(count[some], descending=True, stable=True)]
        place = torch.empty_like(count).index_copy(0, some, torch.arange(len(some)))
        rank = torch.arange(len(owner)) - (count.cumsum(0) - count)[owner]
        order = torch.argsort(rank * len(some) + place[owner])
        packed = PackedSequence(vectors[order.to(vectors.device)], torch.bincount(rank))
        _, (last, _) = self.lstm(packed)  # [1, S, W], in the order of `some`
        return out.index_copy(0, some.to(vectors.device), last[0])


class SequenceRegions(StreetRegions):
    """A `RegionEncoder`: the chip's vector and that of the street views, side by side."""

    def __init__(self, data: RegionData, config: VisionLstmConfig, seen: Mask) -> None:
        super().__init__(data, config, seen)
        self.shuffle = config.shuffle
        self.width = config.width * len(self.kinds)
        self.sequence: nn.Module | None = None
        if "street_view" in self.kinds:
            lstm = config.aggregate == "lstm"
            self.sequence = LastState(config.width) if lstm else Aggregate("mean", config.width, 0)

    def forward(self, index: Tensor) -> Tensor:
        """Embeddings [B, self.width] of the regions `index` [B]."""
        parts = [self.chips(index)] if "satellite" in self.kinds else []
        if self.sequence is not None:
            view, owner = self.streets(index)
            if self.training and self.shuffle:
                chance = torch.rand(len(view), dtype=torch.float64)
                view = view[torch.argsort(owner + chance / 2)]  # which is still by owner
            vectors = self.pictured("street_view", view)
            where = owner if isinstance(self.sequence, LastState) else owner.to(vectors.device)
            states = self.sequence(vectors, where, len(index))
            there = torch.zeros(len(index), dtype=torch.bool).index_fill(0, owner, True)
            token = self.tokens["street_view"]
            parts.append(torch.where(there.to(states.device)[:, None], states, token))
        return torch.cat(parts, dim=1)


class VisionLstm(StreetMethod):
    """Vision-LSTM, and the mean in its place."""

    def encoder(self, data: RegionData, config: MethodConfig, seen: Mask) -> nn.Module:
        assert isinstance(config, VisionLstmConfig)
        return SequenceRegions(data, config, seen)


METHOD = VisionLstm()
