"""Shares of rendered scenes move with what the scenes hold; segmenters see pixels alone."""

from __future__ import annotations

import numpy as np
import pytest

from model_code.demo import chip_scene, street_scene
from model_code.demo.chip_scene import Grounds
from model_code.demo.pairs import street_facts
from model_code.demo.street_scene import Scenes
from model_code.vision.segmentation import (
    ELEMENTS,
    MIN_SIDE_PX,
    LandCoverSegmenter,
    StreetSegmenter,
)

B = 24
SEGMENTERS = {"street_view": StreetSegmenter, "satellite": LandCoverSegmenter}


def _streets(seed: int = 0, **given: object) -> list[np.ndarray]:
    levels = {"greenery": 0.4, "water": 0.0, "industry": 0.1, "income": 0.6, "commerce": 0.3,
              "hour": 13.0} | given  # fmt: skip
    full = {name: np.broadcast_to(np.float32(v), B) for name, v in levels.items()}
    return list(street_scene.render(Scenes(**full), np.random.default_rng(seed)))


def _chips(seed: int = 0, **given: object) -> list[np.ndarray]:
    levels = {"density": 0.5, "greenery": 0.3, "water": 0.0, "industry": 0.1} | given
    full = {name: np.broadcast_to(np.float32(v), B) for name, v in levels.items()}
    return list(chip_scene.render(Grounds(**full), np.random.default_rng(seed)))


def _shares(view: str, pictures: list[np.ndarray], *classes: str) -> np.ndarray:
    found = SEGMENTERS[view]().segment(pictures)
    assert not any(found.reasons)
    assert np.allclose(found.shares.sum(axis=1), 1)
    return found.shares[:, [found.classes.index(name) for name in classes]].sum(axis=1)


@pytest.mark.parametrize(
    ("level", "classes", "gain"),
    [
        ("greenery", ("tree", "grass"), 0.15),
        ("commerce", ("signboard",), 0.015),
        ("commerce", ("person",), 0.003),
        ("commerce", ("car",), 0.001),
        ("water", ("water",), 0.02),
    ],
)
@pytest.mark.parametrize("hour", [13.0, 20.0])
def test_streets_without_and_with(level: str, classes: tuple, gain: float, hour: float) -> None:
    without, much = (
        _shares("street_view", _streets(hour=hour, **{level: v}), *classes) for v in (0.0, 1.0)
    )
    assert much.mean() > without.mean() + gain
    assert (much >= without).mean() > 0.55


@pytest.mark.parametrize(
    ("level", "name", "gain"),
    [
        ("greenery", "forest", 0.4),
        ("density", "building", 0.1),
        ("industry", "industrial", 0.2),
        ("water", "water", 0.75),
    ],
)
def test_chips_without_and_with(level: str, name: str, gain: float) -> None:
    without, much = (_shares("satellite", _chips(**{level: v}), name) for v in (0.0, 0.9))
    assert (much > without).all()
    assert much.mean() > without.mean() + gain


def test_the_share_of_water_of_a_chip() -> None:
    share = np.linspace(0, 0.8, B, dtype=np.float32)
    found = _shares("satellite", _chips(water=share), "water")
    assert np.corrcoef(found, share)[0, 1] > 0.99
    assert np.abs(found - share).max() < 0.12  # bridges


@pytest.mark.parametrize(
    ("classes", "kind", "correlation"),
    [
        (("sky",), "sky", 0.95),
        (("building",), "buildings", 0.9),
        (("tree", "grass"), "greenery", 0.95),
        (("water",), "water", 0.8),
        (("signboard",), "shops", 0.8),
    ],
)
def test_shares_follow_what_was_drawn(
    drawn: tuple, classes: tuple, kind: str, correlation: float
) -> None:
    pictures, facts = drawn
    truth = np.array([fact[kind] for fact in facts])
    assert np.corrcoef(_shares("street_view", list(pictures), *classes), truth)[0, 1] > correlation


@pytest.fixture(scope="module")
def drawn() -> tuple:
    return street_facts(64, seed=3)


def test_streets_are_sorted_by_place() -> None:
    labels = StreetSegmenter().label(_streets())
    names = np.array(StreetSegmenter.classes)[labels]
    assert (names[:, 2:6, 40:56] == "sky").mean() > 0.9
    assert (names[:, -10:, 40:56] == "road").mean() > 0.9
    assert not np.isin(names[:, :20], ["road", "sidewalk", "person", "grass"]).any()


@pytest.mark.parametrize("view", SEGMENTERS)
def test_a_row_does_not_depend_on_the_others(view: str) -> None:
    pictures = _streets() if view == "street_view" else _chips()
    together = SEGMENTERS[view]().segment(pictures)
    for i in (0, 7, B - 1):
        assert np.array_equal(
            SEGMENTERS[view]().segment([pictures[i]]).shares[0], together.shares[i]
        )


@pytest.mark.parametrize("view", SEGMENTERS)
def test_any_size(view: str) -> None:
    pictures = _streets() if view == "street_view" else _chips()
    small = SEGMENTERS[view]().segment(pictures).shares
    large = SEGMENTERS[view]().segment([p.repeat(3, axis=0).repeat(3, axis=1) for p in pictures])
    assert np.abs(small - large.shares).sum(axis=1).max() < 0.05


@pytest.mark.parametrize("view", SEGMENTERS)
def test_what_cannot_be_judged_is_not_judged(view: str) -> None:
    colour = _streets()[0]
    grey = colour.mean(axis=2, keepdims=True).astype(np.uint8).repeat(3, axis=2)
    toned = np.clip(grey * np.array([1.06, 1.0, 0.9]), 0, 255).astype(np.uint8)
    tiny, flat = colour[: MIN_SIDE_PX - 1], np.full_like(colour, (200, 80, 20))
    found = SEGMENTERS[view]().segment([grey, colour, toned, tiny, flat])
    assert [bool(reason) for reason in found.reasons] == [True, False, True, True, True]
    assert np.isnan(found.shares).all(axis=1).tolist() == [True, False, True, True, True]
    assert "black and white" in found.reasons[0] and "pixels" in found.reasons[3]


def test_nothing_to_segment() -> None:
    assert StreetSegmenter().segment([]).shares.shape == (0, len(StreetSegmenter.classes))


@pytest.mark.parametrize("view", SEGMENTERS)
def test_elements_name_classes(view: str) -> None:
    assert set(SEGMENTERS[view].classes) - set(ELEMENTS[view]) <= {"other"}
    assert set(ELEMENTS[view]) <= set(SEGMENTERS[view].classes)
