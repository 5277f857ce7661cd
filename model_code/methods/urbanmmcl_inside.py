"""What UrbanMMCL's embedding is the fusion of: a region's pictures and places, and what each graph sees.

N regions, D width of a part.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from model_code.finetuning import embed_all
from model_code.methods import UrbanMmclConfig
from model_code.methods.base import Checkpoint, Floats, RegionData
from model_code.methods.urbanmmcl import METHOD, MmclRegions

WHOLE, MODALITIES = "whole", "modalities"


class _Parts(nn.Module):
    """All parts side by side, [B, sum of D]."""

    def __init__(self, regions: MmclRegions) -> None:
        super().__init__()
        self.regions = regions
        self.widths: dict[str, int] = {}

    def forward(self, index: Tensor) -> Tensor:
        features, vectors = self.regions.features(index), self.regions.subgraph_vectors(index)
        parts = {WHOLE: self.regions.fuse(features, vectors), MODALITIES: features, **vectors}
        self.widths = {name: values.shape[1] for name, values in parts.items()}
        return torch.cat(list(parts.values()), dim=1)


def parts(checkpoint: Checkpoint, data: RegionData, config: UrbanMmclConfig) -> dict[str, Floats]:
    """By name, parts [N, D] of a checkpoint's embeddings: `whole` (Z*, as `embed` gives it), `modalities`
    (the node feature X, eq 16) and, by graph, the subgraph vector (eq 24) as it is before it is brought
    to length one.

    Raises:
        DataError: the checkpoint is of other regions.
    """
    side_by_side = _Parts(METHOD.restored(checkpoint, data, config))
    joined = embed_all(side_by_side, len(data))
    ends = np.cumsum(list(side_by_side.widths.values()))[:-1]
    return dict(zip(side_by_side.widths, np.split(joined, ends, axis=1), strict=True))
