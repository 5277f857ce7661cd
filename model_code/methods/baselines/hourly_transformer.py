"""A Transformer over 24 hours of the raw encodings (a baseline of LMEMR; Vaswani et al. 2017)."""

from __future__ import annotations

from torch import nn

from model_code.methods import HourlySequenceConfig
from model_code.methods.baselines.hourly_net import HourlyNet
from model_code.transformers import transformer


class HourlyTransformer(HourlyNet):
    """See the module."""

    def sequence(self, config: HourlySequenceConfig) -> nn.Module:
        return transformer(config.hidden, 4, config.layers, config.dropout)


METHOD = HourlyTransformer()
