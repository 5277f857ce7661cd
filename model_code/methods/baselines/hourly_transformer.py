"""A Transformer over 24 hours of the raw encodings (a baseline of LMEMR; Vaswani et al. 2017)."""

from __future__ import annotations

from torch import nn

from model_code.methods import HourlySequenceConfig
from model_code.methods.baselines.hourly_net import HourlyNet


class HourlyTransformer(HourlyNet):
    """See the module."""

    def sequence(self, config: HourlySequenceConfig) -> nn.Module:
        layer = nn.TransformerEncoderLayer(
            config.hidden,
            4,
            4 * config.hidden,
            dropout=config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        return nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)


METHOD = HourlyTransformer()
