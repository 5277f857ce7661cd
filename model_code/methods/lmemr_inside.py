"""What a fitted LMEMR does inside: which neighbours its graph attends to, and the states of its
modalities.

N regions, M modalities, E edges, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_code.methods import LmemrConfig
from model_code.methods.base import Checkpoint, Floats, Mask, RegionData
from model_code.methods.lmemr import METHOD, GraphBlock, HourlyNet, ModalityBranch
from model_code.training import evaluating


@dataclass(frozen=True)
class Inside:
    """Of one checkpoint.

    Shapes:
        modalities [M]; attention: by modality [E] (none without a GAT) over the edges from `source` [E]
        to `target` [E] (positions of regions), those to one region sum to 1; states [N, M, D] after the
        graph blocks; present [N, M] (False: the region lacks the modality).
    """

    modalities: tuple[str, ...]
    source: NDArray[np.int64]
    target: NDArray[np.int64]
    attention: dict[str, Floats]
    states: Floats
    present: Mask


def inside(checkpoint: Checkpoint, data: RegionData, config: LmemrConfig) -> Inside:
    """What a checkpoint of LMEMR does with a city, in evaluation mode."""
    net = METHOD.restored(checkpoint, data, config)
    features = METHOD.features(data, config)
    names = tuple(net.branches)
    with evaluating(net):
        states = net.states()[0].numpy()
        attention = graph_attention(net) if config.spatial == "gat" else {}
    source, target = net.graph.numpy()
    present = np.stack([np.isfinite(features[name]).all(axis=1) for name in names], axis=1)
    found = {name: values.numpy() for name, values in attention.items()}
    return Inside(names, source, target, found, states, present)


def graph_attention(net: HourlyNet) -> dict[str, Tensor]:
    """By modality, the weights [E] of eq 8-9 that regions give to their neighbours: means over the heads
    and blocks, along the net's edges."""
    found = {}
    nothing_hidden = torch.zeros(net.regions, dtype=torch.bool)
    for name, branch in net.branches.items():
        branch = cast(ModalityBranch, branch)
        state, _, semantic, _ = branch.sides(nothing_hidden)
        if semantic is not None:
            state = branch.fused(state, semantic, branch.similarity)
        weights = []
        for block in branch.blocks:
            block = cast(GraphBlock, block)
            _, (_, own) = block.conv(block.norm(state), net.graph, return_attention_weights=True)
            weights.append(own.mean(dim=1))
            state = block(state, net.graph)
        found[name] = torch.stack(weights).mean(dim=0)
    return found
