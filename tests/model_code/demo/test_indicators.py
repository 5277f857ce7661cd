"""Indicators: their noise, and that the files give the values that the simulator says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from model_code.demo.indicators import FORMULAS, LAND_USE, land_use, scalar
from model_code.demo.latents import Latents, draw_latents
from model_code.demo.place import Place


@pytest.fixture(scope="module")
def wide() -> Latents:
    return draw_latents(Place(900), 4)


@pytest.mark.parametrize("name", [n for n in FORMULAS if n != "crime"])
def test_noise_has_its_share_of_the_variance(name: str, wide: Latents) -> None:
    target, formula = scalar(name, wide), FORMULAS[name]
    back = np.log1p if formula.log1p else np.asarray
    truth, noisy = target.clean_transformed[:, 0], back(target.noisy[:, 0])
    noise = noisy - truth
    assert np.allclose(back(target.clean[:, 0]), truth)
    assert 0.10 <= formula.share <= 0.25
    assert noise.var() / (noise.var() + truth.var()) == pytest.approx(formula.share, rel=1e-6)
    assert target.noise_variance[0, 0] == pytest.approx(noise.var())
    assert (target.noisy > 0).all()


def test_noise_falls_off_exponentially(wide: Latents) -> None:
    """Correlation of neighbours, averaged over the indicators' independent noises."""
    found, wanted = [], []
    for name in ("population", "carbon", "gdp", "house_price"):
        target = scalar(name, wide)
        noise = (np.log1p(target.noisy) - target.clean_transformed).reshape(30, 30) / np.sqrt(
            target.noise_variance[0, 0]
        )
        for lag in (1, 3):
            found.append((noise[lag:] * noise[:-lag]).mean() / 2)
            found[-1] += (noise[:, lag:] * noise[:, :-lag]).mean() / 2
            wanted.append(np.exp(-lag * 1000 / target.noise_range_m))
    assert np.mean(found) == pytest.approx(np.mean(wanted), abs=0.08)


def test_land_use_is_mixed_and_noisy(wide: Latents) -> None:
    target = land_use(wide)
    share = pd.Series(target.labels).value_counts(normalize=True)
    assert set(share.index) == set(LAND_USE)
    assert share.min() > 0.05
    agree = (target.clean == target.noisy).mean()
    assert 0.75 < agree < 0.92
