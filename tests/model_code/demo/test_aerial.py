"""How ground is painted: each latent by its own marks, on pixels that are made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from model_code.demo.aerial import (
    LOT_M,
    MAIN_EVERY,
    SHOWN,
    Ground,
    Roofs,
    building_height_m,
    draw_textures,
    footprints,
    paint,
)

N = 64
# The middle of a block: no street, and no building where there are no roofs.
U, V = np.meshgrid(np.linspace(20, 150, N), np.linspace(20, 150, N))
NO_ROOFS = Roofs(0, 0, *(np.zeros((2, 3), np.float32) for _ in range(3)),
                 *(np.zeros((2, 3), np.uint8) for _ in range(2)))  # fmt: skip


def ground(**latents: float) -> Ground:
    """A plain of these latents, far from water, with the textures of a city."""
    textures = draw_textures(0)
    values = {"greenery": 0.0, "density": 0.0, "industry": 0.0, "shore_m": 1000.0} | latents
    plain = {name: np.full((N, N), value, np.float32) for name, value in values.items()}
    crowns, mottle = (t[:N, :N].copy() for t in (textures.crowns, textures.mottle))
    return Ground(**plain, crowns=crowns, mottle=mottle, u=U.astype("f4"), v=V.astype("f4"))


def shares(of: Ground, roofs: Roofs = NO_ROOFS) -> dict[str, float]:
    """Share of the pixels that each thing is said to cover."""
    shown = np.full((N, N), 255, np.uint8)
    image = paint(of, roofs, draw_textures(0).stacks, shown)
    assert image.shape == (N, N, 3) and image.dtype == np.float32
    np.testing.assert_array_equal(image, paint(of, roofs, draw_textures(0).stacks))
    return {name: float((shown == code).mean()) for code, name in enumerate(SHOWN)}


@pytest.mark.parametrize(
    ("latents", "most"),
    [
        ({}, "soil"),
        ({"greenery": 0.5}, "grass"),
        ({"greenery": 1.0}, "greenery"),
        ({"density": 1.0}, "paved"),
        ({"industry": 1.0}, "industry"),
        ({"shore_m": -500.0}, "water"),
    ],
)
def test_a_plain_shows_what_its_latents_say(latents: dict[str, float], most: str) -> None:
    found = shares(ground(**latents))
    assert sum(found.values()) == pytest.approx(1)
    assert max(found, key=found.__getitem__) == most and found[most] > 0.5


def test_a_roof_covers_its_lot_and_throws_a_shadow() -> None:
    half = np.zeros((3, 4), np.float32)
    half[1, 1] = 15.0
    height = np.full((3, 4), 45.0, np.float32)
    tint = np.zeros((3, 4), np.uint8)
    roofs = Roofs(0, 0, half, half, height, tint, tint + 255)
    of = ground()
    assert shares(of, roofs)["buildings"] == pytest.approx(
        ((np.abs(U - 1.5 * LOT_M[0]) < 15) & (np.abs(V - 1.5 * LOT_M[1]) < 15)).mean(), abs=1e-6
    )
    stacks = draw_textures(0).stacks
    open_ground, built = paint(of, NO_ROOFS, stacks), paint(of, roofs, stacks)
    darker = built.sum(axis=-1) < 0.7 * open_ground.sum(axis=-1)
    under, *_ = roofs.find(of.u, of.v)
    shadow = darker & ~under
    assert shadow.any()
    # The sun stands in the south-east: shadows fall to the west and north.
    assert U[shadow].mean() < 1.5 * LOT_M[0] and V[shadow].mean() > 1.5 * LOT_M[1]


def test_main_roads_cross_water_and_side_streets_do_not() -> None:
    for line, shown in ((MAIN_EVERY * 500 / 3, True), (500 / 3, False)):
        river = ground(shore_m=-500.0, density=1.0)
        crossing = Ground(**{**vars(river), "u": np.full((N, N), line, np.float32)})
        assert (shares(crossing)["roads"] > 0.9) == shown


def test_buildings_stand_where_density_says_and_never_in_water() -> None:
    rng = np.random.default_rng(0)
    draws = rng.random((4, 20_000))
    dry = rng.random(20_000) < 0.8
    for density in (0.0, 0.5, 1.0):
        stands, half_u, half_v = footprints(np.full(20_000, density), dry, *draws)
        assert stands[dry].mean() == pytest.approx(min(0.06 + 0.92 * density**0.8, 1), abs=0.02)
        assert not stands[~dry].any()
        np.testing.assert_array_equal(half_u > 0, stands)
        # Within its lot, so that no two overlap.
        assert half_u.max() < LOT_M[0] / 2 and half_v.max() < LOT_M[1] / 2


def test_heights_are_tall_in_dense_centres_alone() -> None:
    tall = np.random.default_rng(0).standard_normal(5000)

    def median(density: float, centrality: float) -> float:
        ones = np.ones(5000)
        return float(np.median(building_height_m(density * ones, centrality * ones, tall)))

    assert median(0, 1) < 6 and median(1, 0) < 25 < 70 < median(1, 1)
    everywhere = building_height_m(*np.random.default_rng(1).random((2, 5000)), 3 * tall)
    assert everywhere.min() >= 3.2 and everywhere.max() <= 3.2 * 90
