"""What the nets among LMEMR's baselines share: raw encodings, a net over 24 hours, squared error.

N regions, B regions in a batch, D width of a layer, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_code.finetuning import MakeHeads, TaskOutputs, embed_all, predict_all, restore, tune
from model_code.hours import HOURS
from model_code.methods import HourlySequenceConfig, MethodConfig
from model_code.methods.base import (
    NOWHERE,
    Checkpoint,
    Floats,
    Parts,
    RegionData,
    Targets,
    Task,
    Workspace,
)
from model_code.methods.modalities import ReadsModalities, encode, fit_encoding
from model_code.training import Settings, seeded
from model_code.transformers import hour_vectors

_ENCODING = "encoding."  # what the names of its arrays start with


class Encodings(nn.Module):
    """A `RegionEncoder`: raw encodings of the regions, which are not in its state, to [B, D]."""

    rows: Tensor

    def __init__(self, rows: Floats, config: HourlySequenceConfig) -> None:
        super().__init__()
        self.width = config.hidden
        self.register_buffer("rows", torch.from_numpy(np.array(rows)), persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(rows.shape[1], config.hidden), nn.ReLU(), nn.Dropout(config.dropout)
        )

    def forward(self, index: Tensor) -> Tensor:
        found: Tensor = self.layers(self.rows[index])
        return found


class SequenceHeads(TaskOutputs):
    """Outputs [B, T * 24] from [B, D]: a learned vector of each hour is added, a net reads the 24 steps
    [B, 24, D], and one linear map reads each step."""

    def __init__(self, tasks: Sequence[Task], width: int, sequence: nn.Module) -> None:
        super().__init__(tasks)
        self.hour = hour_vectors(HOURS, width)
        self.sequence = sequence
        self.output = nn.Linear(width, len(self.tasks))

    def forward(self, embedding: Tensor) -> Tensor:
        found = self.sequence(embedding[:, None] + self.hour)
        steps = (
            found[0] if isinstance(found, tuple) else found
        )  # recurrent nets give their state too
        outputs: Tensor = self.output(steps)
        return outputs.transpose(1, 2).flatten(1)


class HourlyNet(ReadsModalities):
    """A net on raw encodings, trained on the labels by the squared error of each hour."""

    def sequence(self, config: HourlySequenceConfig) -> nn.Module:
        """A fresh net over the 24 steps [B, 24, D]."""
        raise NotImplementedError

    def encoder(self, rows: Floats, data: RegionData, config: HourlySequenceConfig) -> nn.Module:
        """A `RegionEncoder` of raw encodings [N, W], fresh."""
        return Encodings(rows, config)

    def heads(self, config: HourlySequenceConfig, tasks: Sequence[Task], width: int) -> TaskOutputs:
        """What predicts, fresh."""
        return SequenceHeads(tasks, width, self.sequence(config))

    def _make_heads(self, config: HourlySequenceConfig) -> MakeHeads:
        return lambda tasks, width, _: self.heads(config, tasks, width)

    def fit(
        self,
        data: RegionData,
        targets: Targets,
        parts: Parts,
        config: MethodConfig,
        *,
        seed: int,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, HourlySequenceConfig)
        features = self.features(data, config)
        tensors = fit_encoding(features, parts.train, config.components)
        rows = encode(features, tensors)
        settings = Settings.of(config, schedule="cosine", patience=config.patience)
        net = tune(
            lambda: self.encoder(rows, data, config),
            targets,
            parts,
            settings,
            mode="scratch",
            seed=seed,
            make_heads=self._make_heads(config),
            workspace=workspace,
        )
        encoding = {f"{_ENCODING}{name}": array for name, array in tensors.items()}
        return Checkpoint({**net.tensors, **encoding}, net.record)

    def _opened(
        self, checkpoint: Checkpoint, data: RegionData, config: HourlySequenceConfig
    ) -> tuple[Checkpoint, nn.Module]:
        """The net's own checkpoint, and a fresh encoder of the data."""
        net: dict[str, NDArray[Any]] = {}
        encoding: dict[str, NDArray[Any]] = {}
        for name, array in checkpoint.tensors.items():
            own = name.startswith(_ENCODING)
            (encoding if own else net)[name.removeprefix(_ENCODING)] = array
        rows = encode(self.features(data, config), encoding)
        with seeded(0):  # the weights are about to be replaced
            return Checkpoint(net, checkpoint.record), self.encoder(rows, data, config)

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        assert isinstance(config, HourlySequenceConfig)
        net, encoder = self._opened(checkpoint, data, config)
        model = restore(net, encoder, self._make_heads(config))
        return embed_all(model.encoder, len(data))

    def predict(
        self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig
    ) -> dict[str, Floats]:
        assert isinstance(config, HourlySequenceConfig)
        net, encoder = self._opened(checkpoint, data, config)
        return predict_all(net, encoder, len(data), self._make_heads(config))
