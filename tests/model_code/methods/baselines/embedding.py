"""What the tests of plain baselines share."""

from __future__ import annotations

import numpy as np

from model_code.methods import MethodConfig
from model_code.methods.base import Pretrained, RegionData


def fit_embed(
    method: Pretrained, config: MethodConfig, data: RegionData, other: RegionData | None = None
) -> np.ndarray:
    """Embeddings of a city, or of another one, by a method that saw all regions of the first."""
    checkpoint = method.pretrain(data, config, seed=0, visible=np.ones(len(data), bool))
    return method.embed(checkpoint, other or data, config)
