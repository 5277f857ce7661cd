"""Scales of a target: original (as the city's files have it), transformed (as its config says), and
standardised (mean 0, deviation 1 on the training regions). N regions, S slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_code.errors import DataError
from model_code.methods.base import Floats, Mask, Task

# exp of more is beyond any count, and its square no longer fits in a double.
_LARGEST_LOG = 300.0


def transform(values: Floats, task: Task) -> Floats:
    """Original to transformed scale; NaN (no label) stays NaN.

    Raises:
        DataError: a negative value under `log1p`.
    """
    if task.transform == "none":
        return values
    if np.nanmin(values, initial=0.0) < 0:
        raise DataError(
            f"indicator {task.name!r} has negative values, which log1p cannot take",
            fix=f"set indicators.{task.name}.transform: none",
        )
    return np.asarray(np.log1p(values))


def inverse(values: Floats, task: Task) -> Floats:
    """Transformed to original scale. What had a log1p was not negative, so a prediction below zero
    becomes zero."""
    if task.transform == "none":
        return values
    return np.asarray(np.expm1(np.clip(values, 0.0, _LARGEST_LOG)))


@dataclass(frozen=True)
class Scaler:
    """Column-wise mean and deviation of the training rows; a constant column keeps deviation 1."""

    mean: NDArray[np.floating[Any]]
    scale: NDArray[np.floating[Any]]

    @classmethod
    def fit(cls, values: Floats, train: Mask) -> Scaler:
        """`values` [N, S] with NaN for missing, `train` [N]; other rows are not looked at. A column
        without any training value gets mean 0."""
        rows = np.asarray(values, np.float64)[train]
        known = np.isfinite(rows)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, rows, 0.0).sum(axis=0) / count
        variance = np.where(known, (rows - mean) ** 2, 0.0).sum(axis=0) / count
        scale = np.sqrt(variance)
        # Rounding leaves a constant column a deviation of about 1e-16 times its value, not 0.
        return cls(mean, np.where(scale > 1e-10 * np.maximum(np.abs(mean), 1e-30), scale, 1.0))

    def apply(self, values: Floats) -> Floats:
        """To mean 0 and deviation 1."""
        return np.asarray((values - self.mean) / self.scale)

    def undo(self, values: Floats) -> Floats:
        """Back from mean 0 and deviation 1."""
        return np.asarray(values * self.scale + self.mean)
