from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from model_code.demo.pairs import (
    ADJECTIVES,
    ELEMENTS,
    TEXTS,
    Mention,
    SeenScenes,
    mention,
    satellite_facts,
    satellite_pairs,
    say,
    street_facts,
    street_pairs,
)
from model_code.demo.street_scene import Scenes

SIZES = {"satellite": (64, 64, 3), "street_view": (96, 128, 3)}
PAIRS = {"satellite": satellite_pairs, "street_view": street_pairs}
FACTS = {"satellite": satellite_facts, "street_view": street_facts}
B = 40


@pytest.fixture(scope="module", params=["satellite", "street_view"])
def made(request):
    view = request.param
    return view, *PAIRS[view](B, 0)


def test_shapes_and_lengths(made):
    view, pictures, texts = made
    assert pictures.shape == (B, *SIZES[view]) and pictures.dtype == np.uint8
    assert len(texts) == B and {len(of) for of in texts} == {TEXTS}
    words = [len(text.split()) for of in texts for text in of]
    assert np.quantile(words, 0.02) >= 4 and max(words) <= 60 and 8 < np.median(words) < 40


def test_sentences_read_like_sentences(made):
    for text in (text for of in made[2] for text in of):
        assert text[0].isupper() and text.endswith(".")
        assert not re.search(r"\{|\}|  | ,|\.\.|\b[Aa] [aeiou]vening|None", text), text


def test_people_differ(made):
    _, _, texts = made
    assert np.mean([len(set(of)) for of in texts]) > 0.9 * TEXTS
    assert len({word for of in texts for text in of for word in text.lower().split()}) > 90


@pytest.mark.parametrize("view", SIZES)
def test_seeds_and_uses(view):
    pictures, facts = FACTS[view](3, 0)
    again, same = FACTS[view](3, 0)
    np.testing.assert_array_equal(pictures, again)
    assert facts == same
    assert not np.array_equal(pictures, FACTS[view](3, 1)[0])
    assert not np.array_equal(pictures, FACTS[view](3, 0, "proof")[0])
    assert FACTS[view](1, 0)[0].shape == (1, *SIZES[view])


def test_sheds_and_upkeep_are_of_the_walls_in_sight_not_of_the_place():
    def facts(industry: float, income: float) -> list:
        level = np.full(8, 0.3, np.float32)
        scenes = Scenes(0 * level, 0 * level, *(np.full(8, v, np.float32) for v in (industry, income)),
                        level, np.full(8, 12, np.float32))  # fmt: skip
        seen = SeenScenes(scenes, np.random.default_rng(0))
        return seen.facts(seen.render())

    mixed = [f["sheds"] / f["buildings"] for f in facts(0.5, 0.5)]
    assert np.ptp(mixed) > 0.2 and 0.2 < np.mean(mixed) < 0.7  # one place, other walls
    houses = facts(0.0, 0.9)
    assert np.ptp([f["upkeep"] for f in houses]) > 0.01 and not any(f["sheds"] for f in houses)
    assert np.mean([f["upkeep"] for f in houses]) > 0.75
    only_sheds = facts(1.0, 0.9)
    assert all(f["sheds"] == f["buildings"] and f["upkeep"] == 0.5 for f in only_sheds)


def test_facts_are_what_the_streets_show():
    pictures, facts = street_facts(B, 3)
    red, green, blue = np.moveaxis(pictures.astype(int), -1, 0)
    greenish = ((green > red + 5) & (green > blue + 12)).mean(axis=(1, 2))
    assert np.corrcoef(greenish, [f["greenery"] for f in facts])[0, 1] > 0.8
    kinds = ("sky", "buildings", "road", "pavement", "greenery", "water", "shops", "people", "cars")
    areas = [f for f in facts if max(f[k] for k in kinds[:6]) <= 1]
    assert len(areas) == B
    assert all(f["trucks"] == int(f["trucks"]) for f in facts)


def test_facts_are_what_the_chips_show():
    pictures, facts = satellite_facts(B, 3)
    red, green, blue = np.moveaxis(pictures.astype(int), -1, 0)
    water = ((blue > red + 30) & (red < 90)).mean(axis=(1, 2))
    assert np.corrcoef(water, [f["water"] for f in facts])[0, 1] > 0.95
    greenish = ((green > red) & (green > blue + 12)).mean(axis=(1, 2))
    assert np.corrcoef(greenish, [f["greenery"] for f in facts])[0, 1] > 0.85


@pytest.mark.parametrize("view", SIZES)
def test_what_is_said_is_true(view):
    _, facts = FACTS[view](B, 1)
    rng = np.random.default_rng(0)
    for fact in facts:
        for said in mention(view, fact, rng):
            assert said.level == ELEMENTS[view][said.element].level(fact[said.element])
            if said.percent is not None:
                assert abs(said.percent / 100 - fact[said.element]) <= 0.05


def test_simple_shares_are_told_as_fractions_too():
    told = {say("satellite", [Mention("water", 3, 33, v)], 0) for v in range(600)}
    assert any("a third of the" in text for text in told)
    assert any("33 percent of the" in text for text in told)
    assert not any(
        "a third" in say("satellite", [Mention("water", 3, 40, v)], 0) for v in range(600)
    )


@pytest.mark.parametrize("view", SIZES)
def test_every_wording_can_be_said(view):
    for name, element in ELEMENTS[view].items():
        assert len(element.levels) == len(element.steps) + 1
        for level, wordings in enumerate(element.levels):
            for variant, wording in enumerate(wordings):
                text = say(view, [Mention(name, level, None, variant)], 0)
                assert wording.lower() in text.lower(), (name, text)
        for variant, noun in enumerate(element.nouns):
            text = say(view, [Mention(name, 2, 41, variant)], 1).lower()
            assert noun in text and "41" in text, text


def test_what_is_not_changed_stays_worded():
    said = [
        Mention("cars", 2, None, 0),
        Mention("greenery", 1, None, 1),
        Mention("sky", 3, None, 2),
    ]
    before = say("street_view", said, 5)
    after = say("street_view", [said[0], replace(said[1], level=3), said[2]], 5)
    assert before.replace("a bit of green", "plenty of greenery") == after


def test_nothing_to_say():
    assert say("street_view", [], 0).endswith(".")
    only = say("satellite", [Mention("water", 0, None, 0)], 3)
    assert "no water" in only
    assert set(ADJECTIVES) < set(ELEMENTS["street_view"])
