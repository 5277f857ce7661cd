from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from model_code.demo import trips
from model_code.demo.pois import CATEGORIES
from model_code.text import captioner, levels, uses


def leading(guess: uses.Guess) -> str:
    return uses.USES[int(guess.weights.argmax())]


def peak(guess: uses.Guess) -> int:
    return int(uses.departures(guess).argmax())


@pytest.mark.parametrize(
    ("guess", "use"),
    [
        (uses.from_above({"building": 0.3, "forest": 0.3, "grass": 0.1}), "homes"),
        (uses.from_above({"industrial": 0.4, "road": 0.2, "building": 0.1}), "industry"),
        (uses.from_above({"forest": 0.7, "water": 0.2}), "leisure"),
        (uses.from_heights(np.full((8, 8), 60.0)), "offices"),
        (uses.from_heights(np.where(np.eye(8) > 0, 6.0, 0.0)), "open_land"),
        (uses.from_street({"building": 0.3, "signboard": 0.05}), "shops"),
        (uses.from_street({"building": 0.4, "tree": 0.2}), "homes"),
        (uses.from_pois([("", "office")] * 5 + [("", "cafe")] * 2), "offices"),
        (uses.from_pois([("", "Night Club")] * 5), "going_out"),
        (uses.from_pois([("", "kindergarten")] * 5), "homes"),
    ],
)
def test_a_modality_tells_what_a_place_is_for(guess: uses.Guess, use: str) -> None:
    assert leading(guess) == use
    assert guess.weights.sum() == pytest.approx(1) and 0 <= guess.activity <= 100


def test_uses_empty_at_their_own_hours() -> None:
    assert uses.CURVES.shape == (len(uses.USES), levels.HOURS)
    assert (uses.CURVES.max(axis=1) == 1).all() and uses.CURVES.min() >= 0
    assert 6 <= peak(uses.from_pois([("", "school")] * 5)) <= 9
    assert 16 <= peak(uses.from_heights(np.full((8, 8), 90.0))) <= 19
    assert peak(uses.from_pois([("", "nightclub")] * 9)) >= 21


def test_more_of_it_is_busier() -> None:
    def activity(floors: float) -> float:
        return uses.from_heights(np.full((4, 4), floors)).activity

    assert activity(0) == 0 < activity(3) < activity(12) < activity(60)
    assert uses.from_pois([("", "cafe")]).activity < uses.from_pois([("", "cafe")] * 50).activity


def test_an_empty_place_has_a_guess() -> None:
    nothing = uses.from_above({})
    assert uses.departures(nothing).max() == 1
    assert (
        uses.sentence(nothing, lambda words: words[0]) == "It is not plain what the place is for."
    )


@pytest.mark.parametrize(
    ("category", "use"),
    [
        ("Department Store", "shops"),
        ("Music Store", "shops"),
        ("Barbershop", "shops"),
        ("Food Court", "shops"),
        ("fast_food", "shops"),
        ("supermarket", "shops"),
        ("Barbecue Joint", "going_out"),
        ("Bars", "going_out"),
        ("Night Club", "going_out"),
        ("Beer Garden", "going_out"),
        ("Tennis Court", "leisure"),
        ("park", "leisure"),
        ("Art Gallery", "leisure"),
        ("town_hall", "offices"),
        ("Courthouse", "offices"),
        ("atm", "offices"),
        ("place_of_worship", "homes"),
        ("car_repair", "industry"),
        ("parking", None),
        ("Treatment Center", None),
        ("Medical Center", None),
        ("Subway", None),
        ("Bus Station", None),
        ("Neighborhood", None),
        ("4bf58dd8d48988d103941735", None),
        ("", None),
    ],
)
def test_words_of_a_category_tell_its_use(category: str, use: str | None) -> None:
    assert uses.use_of(category) == use


def test_every_category_of_the_embedded_city_has_a_use() -> None:
    assert not [category for category in CATEGORIES if uses.use_of(category) is None]


def test_what_has_no_use_counts_for_none() -> None:
    some = [("", "cafe")] * 3 + [("", "school")]
    more = uses.from_pois([*some, *[("", "bench")] * 50])
    np.testing.assert_array_equal(more.weights, uses.from_pois(some).weights)
    assert more.activity > uses.from_pois(some).activity
    assert not uses.from_pois([("", "bench")]).weights.any()


def test_the_captioner_knows_nothing_of_the_simulator() -> None:
    """Neither it nor what it imports is of the simulator, whose rules of trips it may not know."""
    for module in (captioner, uses, levels):
        named = []
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.ImportFrom):
                named += [node.module or "", *(f"{node.module}.{n.name}" for n in node.names)]
            elif isinstance(node, ast.Import):
                named += [name.name for name in node.names]
        assert "numpy" in named or "pydantic" in named
        assert not [name for name in named if name.startswith("model_code.demo")], module.__name__


@pytest.mark.parametrize(
    ("use", "simulated"),
    [
        ("homes", trips.FROM_HOMES),
        ("offices", trips.FROM_WORK),
        ("shops", trips.FROM_NIGHT_LIFE),
        ("going_out", trips.FROM_NIGHT_LIFE),
    ],
)
def test_days_are_no_copy_of_the_simulator_s(use: str, simulated: np.ndarray) -> None:
    """As shares of a day, at least a tenth of it falls into other hours."""
    own = uses.CURVES[uses.USES.index(use)]
    assert np.abs(own / own.sum() - simulated / simulated.sum()).sum() / 2 > 0.1
