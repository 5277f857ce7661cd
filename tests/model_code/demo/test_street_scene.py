from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_code.demo.street_scene import HEIGHT_PX, WIDTH_PX, Scenes, render

B = 24


def _scenes(**given: float) -> Scenes:
    levels = {"greenery": 0.4, "water": 0.0, "industry": 0.1, "income": 0.5, "commerce": 0.3,
              "hour": 13.0} | given  # fmt: skip
    return Scenes(**{name: np.full(B, v, np.float32) for name, v in levels.items()})


def _pictures(scenes: Scenes, seed: int = 0) -> np.ndarray:
    return render(scenes, np.random.default_rng(seed)).astype(int)


def _green(pictures: np.ndarray) -> float:
    red, green, blue = np.moveaxis(pictures, -1, 0)
    return float(((green > red + 10) & (green > blue + 20)).mean())


def _vivid(pictures: np.ndarray) -> float:
    return float((np.ptp(pictures, axis=-1) > 110).mean())


def _water(pictures: np.ndarray) -> float:
    """Blue below the horizon, beside the road."""
    side = pictures[:, 52:62][:, :, np.r_[:30, 98:128]]
    return float((side[..., 2] > side[..., 0] + 12).mean())


def test_shape_and_determinism() -> None:
    pictures = render(_scenes(), np.random.default_rng(0))
    assert pictures.shape == (B, HEIGHT_PX, WIDTH_PX, 3)
    assert pictures.dtype == np.uint8
    assert np.array_equal(pictures, render(_scenes(), np.random.default_rng(0)))
    assert not np.array_equal(pictures, render(_scenes(), np.random.default_rng(1)))


def test_one_picture_is_a_batch() -> None:
    one = Scenes(*(np.array([v], np.float32) for v in (0.5, 1, 0.5, 0.5, 0.5, 19)))
    assert render(one, np.random.default_rng(0)).shape == (1, HEIGHT_PX, WIDTH_PX, 3)


@pytest.mark.parametrize(
    ("latent", "measure"), [("greenery", _green), ("commerce", _vivid), ("water", _water)]
)
def test_what_a_latent_shows(latent: str, measure) -> None:
    low, high = (measure(_pictures(_scenes(**{latent: level}))) for level in (0.05, 0.95))
    assert high > 1.5 * low + 0.005


def test_upkeep_shows_income() -> None:
    """Well-kept walls are lighter: compare the same scenes, above the shop fronts."""
    poor, rich = (_pictures(_scenes(greenery=0, income=level)) for level in (0.05, 0.95))
    walls = np.s_[:, 30:44, np.r_[0:24, 104:128]]
    assert rich[walls].mean() > poor[walls].mean() + 12


def test_sheds_and_lorries_show_industry() -> None:
    """Metal walls have less colour than masonry."""
    little, much = (_pictures(_scenes(greenery=0, income=1, industry=v)) for v in (0.0, 1.0))
    windows = np.s_[:, 30:44, np.r_[0:24, 104:128]]
    assert (little[windows] < 130).mean() != pytest.approx((much[windows] < 130).mean(), abs=0.01)


def test_evenings_are_dark_and_shops_are_lit() -> None:
    day, night = (_pictures(_scenes(hour=h, commerce=0.9)) for h in (12.0, 22.0))
    assert night.mean() < 0.6 * day.mean()
    assert (night.max(axis=-1) > 150).mean() > 0.01


def test_only_what_changes_is_drawn_anew() -> None:
    """The same draws: income leaves the sky of each picture as it is."""
    scenes = _scenes(greenery=0)
    richer = replace(scenes, income=scenes.income + 0.4)
    a, b = _pictures(scenes), _pictures(richer)
    assert np.array_equal(a[:, :3, 62:66], b[:, :3, 62:66])
    assert not np.array_equal(a, b)
