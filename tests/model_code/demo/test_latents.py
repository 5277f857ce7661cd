from __future__ import annotations

import numpy as np
import pytest

from model_code.demo.latents import NAMES, Latents


def test_all_latents_lie_between_0_and_1(latents: Latents) -> None:
    z = latents.regions()
    assert tuple(z) == NAMES
    for name, values in z.items():
        assert values.shape == (23,)
        assert (values >= 0).all() and (values <= 1).all(), name
        assert values.std() > 0.01, name


@pytest.mark.parametrize("name", ["density", "centrality"])
def test_points_and_grids_agree(latents: Latents, name: str) -> None:
    x, y = np.linspace(-40, 2600, 23), np.linspace(-30, 2400, 17)
    grid = latents.grid(name, x, y)
    points = latents.at(name, *(a.ravel() for a in np.meshgrid(x, y)))
    assert np.allclose(grid.ravel(), points, atol=1e-4)
    shore = latents.shore_at(*(a.ravel() for a in np.meshgrid(x, y)))
    assert np.allclose(latents.shore_grid(x, y).ravel(), shore, atol=0.1)


def test_a_region_is_the_mean_of_its_points(latents: Latents) -> None:
    """Detail has mean zero, and a region's latent is the smooth field's mean."""
    place = latents.place
    cell = np.repeat(np.arange(place.regions), 800)
    x, y = place.scatter(np.random.default_rng(0), cell)
    smooth = latents.sample(latents.smooth["commerce"], x, y)
    means = np.bincount(cell, weights=smooth) / 800
    assert np.allclose(means, latents.region("commerce"), atol=0.03)
    local = np.bincount(cell, weights=latents.at("commerce", x, y)) / 800
    assert np.corrcoef(local, means)[0, 1] > 0.8


def test_water_is_near_its_shore(latents: Latents) -> None:
    x, y = latents.place.scatter(np.random.default_rng(0), np.repeat(np.arange(23), 100))
    shore, water = latents.shore_at(x, y), latents.at("water", x, y)
    assert (water[shore <= 0] == 1).all()
    assert (shore <= 0).any()
    assert (np.diff(water[np.argsort(shore)]) <= 1e-6).all()


def test_changing_one_latent_keeps_the_others(latents: Latents) -> None:
    changed = latents.with_field("income", lambda f: f * 2).regions()
    before = latents.regions()
    assert {n for n in NAMES if not np.array_equal(changed[n], before[n])} == {"income"}
    assert changed["income"].max() <= 1
