"""Sentences that nobody's grammar wrote, and those of the pairs that the embedded CLIP learns from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.demo import pairs
from model_code.text.parsing import parse

STREET = [
    ("A street with no trees, a wide road and some cars.", {"tree": 0.0, "road": 0.78, "car": 0.3}),
    ("There are no trees, cars or people.", {"tree": 0.0, "car": 0.0, "person": 0.0}),
    ("Neither shops nor pedestrians.", {"shop": 0.0, "person": 0.0}),
    ("Without any greenery but with plenty of traffic.", {"tree": 0.0, "car": 0.78}),
    ("Nobody walks here.", {"person": 0.0}),
    ("A treeless, car-free lane.", {"tree": 0.0, "car": 0.0}),
    ("Trees are nowhere to be seen.", {"tree": 0.0}),
    ("Trees everywhere, hardly any traffic.", {"tree": 0.95, "car": 0.08}),
    ("A few tall houses under a huge open sky.", {"building": 0.3, "sky": 0.95}),
    ("One car, two or three people.", {"car": 0.2, "person": 0.3}),
    ("Storefront after storefront, and crowds.", {"shop": 0.95, "person": 0.95}),
    ("Rows of houses, a lorry, a river.", {"building": 0.78, "truck": 0.2, "water": 0.5}),
    ("A run-down street after dark.", {"upkeep": 0.05, "dark": 1.0}),
    ("A well-kept street at dusk.", {"upkeep": 0.95, "dark": 0.55}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "levels"), STREET)
def test_levels(text: str, levels: dict[str, float]) -> None:
    said = parse(text, "street_view")
    assert {name: said[name].level for name in levels if name in said} == pytest.approx(levels)


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("About a third of the view is sky, and trees cover roughly 20 percent.",
         {"sky": 1 / 3, "tree": 0.2}),
        ("Sky: 30 %, road: 25%, buildings: 10 per cent", {"sky": 0.3, "road": 0.25, "building": 0.1}),
        ("Two thirds sky, a tenth road.", {"sky": 2 / 3, "road": 0.1}),
        ("Foliage on thirty percent of the frame; one in five pixels is asphalt.",
         {"tree": 0.3, "road": 0.2}),
        ("Sky fills a quarter of it, asphalt roughly 35 percent and facades a fifth.",
         {"sky": 0.25, "road": 0.35, "building": 0.2}),
        ("The road takes up nearly half while buildings fill a quarter.",
         {"road": 0.485, "building": 0.25}),
    ],
)  # fmt: skip
def test_fractions_and_percentages(text: str, shares: dict[str, float]) -> None:
    said = parse(text, "street_view")
    assert {name: said[name].share for name in shares} == pytest.approx(shares)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Forest covers about half of the land, a river runs through it; some bare soil.",
         {"forest": 0.5, "water": 0.5, "barren": 0.3}),
        ("A dense residential area with little green and no water.", {"building": 0.95, "water": 0.0}),
        ("Warehouses with metal roofs, many containers, 10 % grass", {"industrial": 0.78, "grass": 0.1}),
        ("Nothing built, only sandy fields.", {"building": 0.0, "barren": 0.5}),
        ("Meadows and a few farm houses, crossed by one road", {"grass": 0.5, "building": 0.3}),
    ],
)  # fmt: skip
def test_from_above(text: str, expected: dict[str, float]) -> None:
    said = parse(text, "satellite")
    assert {name: said[name].level for name in expected if name in said} == pytest.approx(expected)


def test_what_is_not_mentioned_is_absent() -> None:
    assert parse("", "satellite") == {}
    assert parse("A lovely place, I think!", "street_view") == {}
    assert set(parse("Some trees.", "street_view")) == {"tree"}


def test_a_share_wins_over_words_and_words_over_a_bare_mention() -> None:
    said = parse("Trees line it. Many trees, in fact 12 percent trees.", "street_view")
    assert said["tree"].share == pytest.approx(0.12)
    assert parse("Trees by the road. There are lots of trees.", "street_view")["tree"].level == 0.78


NAMES = {
    "street_view": {"greenery": "tree", "buildings": "building", "people": "person", "cars": "car",
                    "trucks": "truck", "shops": "shop", "sheds": "warehouse",
                    "pavement": "sidewalk"},
    "satellite": {"greenery": "forest", "buildings": "building", "industry": "industrial",
                  "soil": "barren", "paved": "background", "roads": "road"},
}  # fmt: skip
LEVELS = (0.0, 0.15, 0.35, 0.78, 0.95)


@pytest.mark.parametrize("view", sorted(NAMES))
def test_sentences_of_another_grammar(view: str) -> None:
    """Of what the sentences of `model_code.demo.pairs` say, 95 in 100 statements are understood."""
    rng = np.random.default_rng(0)
    elements = pairs.ELEMENTS[view]
    hits = []
    for _ in range(150):
        names = [n for n in elements if n not in ("weather", "dark", "upkeep")]
        said = []
        for name in rng.permutation(names)[:5]:
            level = int(rng.integers(len(elements[name].levels)))
            if not elements[name].levels[level]:
                continue
            percent = None
            if elements[name].nouns and level and rng.random() < 0.25:
                percent = int(5 * rng.integers(1, 10))
            said.append(pairs.Mention(name, level, percent, int(rng.integers(2**31))))
        understood = parse(pairs.say(view, said, int(rng.integers(2**31))), view)
        for one in said:
            found = understood.get(NAMES[view].get(one.element, one.element))
            if one.percent is None:
                hits.append(found is not None and abs(found.level - LEVELS[one.level]) < 0.26)
            else:
                share = np.nan if found is None or found.share is None else found.share
                hits.append(abs(share - one.percent / 100) < 0.03)  # "a third" may stand for 35 %
    assert np.mean(hits) > 0.95


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.sampled_from(["street_view", "satellite"]))
def test_any_text_can_be_read(text: str, view: str) -> None:
    assert all(0 <= amount.level <= 1 for amount in parse(text, view).values())
