from __future__ import annotations

import numpy as np
import pytest

from model_code.demo.chip_scene import Grounds, render
from model_code.demo.fields import Streams

B = 12


def _grounds(b: int = B, **given: float) -> Grounds:
    levels = {"density": 0.5, "greenery": 0.4, "water": 0.0, "industry": 0.1} | given
    return Grounds(**{name: np.full(b, v, np.float32) for name, v in levels.items()})


def _chips(grounds: Grounds, seed: int = 0, size_px: int = 64) -> np.ndarray:
    return render(grounds, np.random.default_rng(seed), size_px)


def _water(chips: np.ndarray) -> np.ndarray:
    """Share of dark blue pixels a chip."""
    red, _, blue = np.moveaxis(chips.astype(int), -1, 0)
    return ((blue > red + 28) & (red < 90)).mean(axis=(1, 2))


def _green(chips: np.ndarray) -> float:
    red, green, blue = np.moveaxis(chips.astype(int), -1, 0)
    return float(((green > red + 8) & (green > blue + 8)).mean())


@pytest.mark.parametrize("size_px", [16, 64, 125, 224])
def test_any_size(size_px: int) -> None:
    chips = _chips(_grounds(2), size_px=size_px)
    assert chips.shape == (2, size_px, size_px, 3)
    assert chips.dtype == np.uint8
    assert chips.std() > 5


def test_sizes_are_averages_of_the_same_ground() -> None:
    small, large = (_chips(_grounds(3), size_px=s).astype(float) for s in (25, 125))
    means = large.reshape(3, 25, 5, 25, 5, 3).mean(axis=(2, 4))
    assert np.abs(means - small).max() <= 1.01


def test_same_draws_same_chips() -> None:
    assert np.array_equal(_chips(_grounds()), _chips(_grounds()))
    assert not np.array_equal(_chips(_grounds()), _chips(_grounds(), seed=1))


def test_a_chip_with_a_generator_of_its_own_does_not_know_the_others() -> None:
    together = render(_grounds(), Streams([np.random.default_rng(i) for i in range(B)]))
    for i in (0, 5, B - 1):
        alone = render(_grounds(1), Streams([np.random.default_rng(i)]))
        assert np.array_equal(alone[0], together[i])


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.6, 0.9])
def test_water_is_its_share(share: float) -> None:
    """Bridges cover a part of it."""
    found = _water(_chips(_grounds(water=share)))
    assert np.all(found <= share + 0.02)
    assert found.mean() == pytest.approx(0.92 * share, abs=0.025)


def test_greenery_grows_with_its_level() -> None:
    low, middle, high = (_green(_chips(_grounds(greenery=v))) for v in (0.05, 0.5, 0.95))
    assert low < 0.05 and high > 0.6 and low + 0.1 < middle < high - 0.1


def test_roofs_grow_with_density_and_lose_colour_to_sheds() -> None:
    def reddish(**given: float) -> float:
        red, _, blue = np.moveaxis(
            _chips(_grounds(greenery=0, **given), size_px=125).astype(int), -1, 0
        )
        return float((red > blue + 64).mean())

    assert reddish(density=0.9) > 4 * reddish(density=0.05)
    assert reddish(density=0.9, industry=0.9) < 0.5 * reddish(density=0.9)
