from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

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
    assert np.isfinite(uses.departures(uses.from_above({}))).all()


def test_the_captioner_knows_nothing_of_the_simulator() -> None:
    """Neither it nor what it imports is of the simulator, whose rules of trips it may not know."""
    for module in (captioner, uses, levels):
        tree = ast.parse(Path(module.__file__).read_text())
        named = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        assert not [name for name in named if name.startswith("model_code.demo")], module.__name__
