"""A small regression to train, and a power cut: for the tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model_code.training import (
    History,
    Settings,
    fit,
    seeded,
    state_arrays,
)

TRAIN, JUDGE = np.arange(40), torch.arange(40, 50)


SETTINGS = Settings(
    epochs=6, batch=8, learning_rate=1e-2, weight_decay=0.1, schedule="cosine", clip_norm=0.5
)


class Regression(nn.Module):
    """Two layers with dropout on data of its own: small, and random in every step."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, 16), nn.Dropout(dropout), nn.ReLU(), nn.Linear(16, 1)
        )
        numbers = torch.Generator().manual_seed(0)
        self.x = torch.randn(50, 5, generator=numbers)
        self.y = (self.x**2).sum(dim=1)

    def loss(self, index: Tensor) -> Tensor:
        return ((self.layers(self.x[index])[:, 0] - self.y[index]) ** 2).mean()


def make(dropout: float = 0.3) -> Regression:
    with seeded(7):
        return Regression(dropout)


def train(
    settings: Settings = SETTINGS,
    *,
    seed: int = 0,
    resume: Path | None = None,
    validated: int | None = None,
) -> tuple[dict[str, np.ndarray], History]:
    """A trained state and its history; the power fails in validation number `validated`."""
    model, count = make(), 0

    def validate() -> float:
        nonlocal count
        count += 1
        if count == validated:
            cut_power()
        return float(model.loss(JUDGE))

    history = fit(model, TRAIN, settings, seed=seed, validate=validate, resume=resume)
    return state_arrays(model), history


class PowerCut(BaseException):
    pass


def cut_power() -> None:
    raise PowerCut


def assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
