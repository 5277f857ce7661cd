"""An LSTM over 24 hours of the raw encodings (a baseline of LMEMR, with two layers; Hochreiter and
Schmidhuber 1997)."""

from __future__ import annotations

from torch import nn

from model_code.methods import HourlySequenceConfig
from model_code.methods.baselines.hourly_net import HourlyNet


class HourlyLstm(HourlyNet):
    """See the module."""

    def sequence(self, config: HourlySequenceConfig) -> nn.Module:
        dropout = config.dropout if config.layers > 1 else 0.0  # which lies between layers
        width = config.hidden
        return nn.LSTM(width, width, config.layers, batch_first=True, dropout=dropout)


METHOD = HourlyLstm()
