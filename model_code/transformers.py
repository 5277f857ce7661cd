"""The Transformer of all methods that read 24 hours or several modalities, and its hour vectors.

It is pre-normalised, so it ends with a normalisation, and hour vectors are of the size of what it
reads: without either, a fit learns the volume of a region long before its hours.
"""

from __future__ import annotations

import torch
from torch import nn


def hour_vectors(hours: int, width: int) -> nn.Parameter:
    """A learned vector of each hour, [hours, width]."""
    return nn.Parameter(torch.randn(hours, width))


def transformer(width: int, heads: int, layers: int, dropout: float) -> nn.TransformerEncoder:
    """From steps [B, S, width] to steps [B, S, width]."""
    layer = nn.TransformerEncoderLayer(
        width,
        heads,
        4 * width,
        dropout=dropout,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    norm = nn.LayerNorm(width)
    return nn.TransformerEncoder(layer, layers, norm=norm, enable_nested_tensor=False)
