"""What a fitted LMEMR does inside: which neighbours its graph attends to, and where the states of its
modalities lie.

N regions, M modalities, E edges, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_code.evaluation.embedding_map import TSNE_MOST_REGIONS, embedding_map
from model_code.methods import LmemrConfig
from model_code.methods.base import Checkpoint, Floats, Mask, RegionData
from model_code.methods.lmemr import METHOD, GraphBlock, HourlyNet, ModalityBranch
from model_code.training import evaluating

TSNE_FEWEST = 30  # regions; with fewer, principal components are drawn


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
    net = METHOD._restored(checkpoint, data, config)
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


def modality_map(states: Floats, present: Mask, modalities: Sequence[str]) -> pd.DataFrame:
    """States of the modalities in two dimensions, of regions spread over the city where there are many.
    Vectors are compared by direction, as the contrast does.

    Returns:
        region (position), modality; axis_1, axis_2; projection: `tsne`, or `pca` for few regions;
        own_match: in what share of the other modalities the nearest state is the region's own (NaN:
        it has no other).
    """
    count, modes, _ = states.shape
    most = min(count, TSNE_MOST_REGIONS // modes)
    chosen = np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))
    vectors, there = states[chosen].astype(np.float64), present[chosen]
    vectors /= np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-12)
    region, modality = np.nonzero(there)
    drawn = embedding_map(vectors[region, modality])
    projection = "tsne" if count >= TSNE_FEWEST and drawn["tsne_1"].notna().all() else "pca"
    return pd.DataFrame(
        {
            "region": chosen[region],
            "modality": np.array(modalities, dtype=object)[modality],
            "axis_1": drawn[f"{projection}_1"].to_numpy(np.float64),
            "axis_2": drawn[f"{projection}_2"].to_numpy(np.float64),
            "projection": projection,
            "own_match": own_match(vectors, there)[region, modality],
        }
    )


def own_match(vectors: NDArray[np.float64], present: Mask) -> NDArray[Any]:
    """For unit vectors [N, M, D], in what share [N, M] of the region's other modalities the nearest
    vector is its own; NaN without a pair. Memory is N x N for one pair of modalities."""
    count, modes, _ = vectors.shape
    hits, pairs = np.zeros((count, modes)), np.zeros((count, modes))
    for one in range(modes):
        for other in range(modes):
            rows = np.flatnonzero(present[:, one] & present[:, other])
            if one == other or not len(rows):
                continue
            able = np.flatnonzero(present[:, other])
            alike = vectors[rows, one] @ vectors[able, other].T
            hits[rows, one] += able[alike.argmax(axis=1)] == rows
            pairs[rows, one] += 1
    return np.where(pairs > 0, hits / np.maximum(pairs, 1), np.nan)
