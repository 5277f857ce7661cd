from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from model_code.demo.counts import log1p_poisson


@pytest.mark.parametrize("mean", [0.0, 0.02, 0.7, 5.3, 60.0, 190.0, 250.0, 4000.0])
def test_against_the_plain_sum(mean: float) -> None:
    n = np.arange(8000)
    weight = stats.poisson.pmf(n, mean)
    expected = (weight * np.log1p(n)).sum()
    variance = (weight * np.log1p(n) ** 2).sum() - expected**2
    got_mean, got_variance = log1p_poisson(np.array([mean]))
    assert got_mean[0] == pytest.approx(expected, rel=2e-3, abs=1e-4)
    assert got_variance[0] == pytest.approx(variance, rel=2e-2, abs=1e-4)
