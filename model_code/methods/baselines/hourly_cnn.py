"""Convolutions over the map of the raw encodings, to 24 hours (a baseline of LMEMR, which the paper calls
a 2D convolutional model of local spatial correlations without temporal reasoning).

Regions are no pixels, so a kernel has a weight for the region itself and one for each of eight compass
directions; a neighbour (a shared border) counts in the direction in which its centre lies, and several in
one direction are averaged. On squares, whose corners share no border, this is a plus of five taps.

N regions, E pairs of neighbours, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.finetuning import TaskHeads, TaskOutputs
from model_code.methods import HourlySequenceConfig
from model_code.methods.base import Floats, RegionData, Task
from model_code.methods.baselines.hourly_net import HourlyNet

DIRECTIONS = 8


def directions(xy_m: Floats, neighbours: NDArray[np.int64]) -> NDArray[np.int64]:
    """Direction [E], 0 (east) to 7 counter-clockwise, of the second of each pair [E, 2] from the
    first."""
    dx, dy = (xy_m[neighbours[:, 1]] - xy_m[neighbours[:, 0]]).T
    eighths = np.round(np.arctan2(dy, dx) / (2 * np.pi) * DIRECTIONS)
    return np.asarray(eighths % DIRECTIONS, np.int64)


class MapConvolution(nn.Module):
    """[N, D] to [N, D'], by direction."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.own = nn.Linear(width_in, width)
        self.around = nn.Linear(width_in, DIRECTIONS * width, bias=False)

    def forward(self, state: Tensor, pairs: Tensor, slot: Tensor, weight: Tensor) -> Tensor:
        """`pairs` [2, E] (to, from), `slot` [E] their direction, `weight` [E] its share there."""
        found: Tensor = self.own(state)
        seen = self.around(state).view(len(state), DIRECTIONS, -1)
        return found.index_add(0, pairs[0], weight[:, None] * seen[pairs[1], slot])


class MapEncoder(nn.Module):
    """A `RegionEncoder`; its data is not in its state."""

    def __init__(self, rows: Floats, data: RegionData, config: HourlySequenceConfig) -> None:
        super().__init__()
        self.width, self.dropout = config.hidden, config.dropout
        pairs = np.empty((0, 2), np.int64) if data.neighbours is None else data.neighbours
        slot = directions(data.xy_m, pairs)
        place = pairs[:, 0] * DIRECTIONS + slot
        weight = 1 / np.bincount(place, minlength=1)[place] if len(place) else np.empty(0)
        for name, array in (
            ("rows", np.array(rows)),
            ("pairs", pairs.T.copy()),
            ("slot", slot),
            ("weight", weight.astype(np.float32)),
        ):
            self.register_buffer(name, torch.from_numpy(array), persistent=False)
        widths = [rows.shape[1], *[config.hidden] * config.layers]
        self.layers = nn.ModuleList(MapConvolution(a, b) for a, b in pairwise(widths))

    def forward(self, index: Tensor) -> Tensor:
        state = cast(Tensor, self.rows)
        for layer in self.layers:
            state = F.relu(layer(state, self.pairs, self.slot, self.weight))
            state = F.dropout(state, self.dropout, self.training)
        return state[index]


class HourlyCnn(HourlyNet):
    """See the module."""

    def encoder(self, rows: Floats, data: RegionData, config: HourlySequenceConfig) -> nn.Module:
        return MapEncoder(rows, data, config)

    def heads(self, config: HourlySequenceConfig, tasks: Sequence[Task], width: int) -> TaskOutputs:
        return TaskHeads(tasks, width, config.hidden)


METHOD = HourlyCnn()
