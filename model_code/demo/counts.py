"""What counting does to a transformed target: mean and variance of log(1 + Poisson)."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import stats

from model_code.demo.fields import Doubles

_LARGEST_TABLED = 200.0


def log1p_poisson(mean: Doubles) -> tuple[Doubles, Doubles]:
    """Expectation and variance of log(1 + n) for n ~ Poisson(mean).

    By the sum over n below a mean of 200 (tabled, interpolated), by the delta method above.
    """
    node, tabled_mean, tabled_variance = _table()
    low = np.minimum(mean, _LARGEST_TABLED)
    expected, variance = np.interp(low, node, tabled_mean), np.interp(low, node, tabled_variance)
    delta = mean / (1 + mean) ** 2
    large = mean > _LARGEST_TABLED
    return np.where(large, np.log1p(mean) - delta / 2, expected), np.where(large, delta, variance)


@cache
def _table() -> tuple[Doubles, Doubles, Doubles]:
    node = np.concatenate([[0.0], np.geomspace(1e-3, _LARGEST_TABLED, 300)])
    n = np.arange(400)
    weight = stats.poisson.pmf(n, node[:, None])
    first, second = weight @ np.log1p(n), weight @ np.log1p(n) ** 2
    return node, first, second - first**2
