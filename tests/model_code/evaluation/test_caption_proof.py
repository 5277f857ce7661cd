from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from model_code.backends import Identity, Segmentation
from model_code.calibration import CalibrationConfig
from model_code.demo.pairs import ELEMENTS, Mention
from model_code.evaluation.caption_proof import (
    KINDS,
    OWN,
    RANKED,
    SMALL,
    _added,
    _dropped,
    _exaggerated,
    held_out,
    judged,
    misstatement,
    own_words,
    proof,
    ranked,
    swapped,
    twins_of,
)

CONFIG = CalibrationConfig()
B = 24


class Hues:
    """Segments by hue and brightness: coarse, and the same for every picture."""

    identity = Identity("hues", "0")
    classes = ("green", "blue", "light", "dark")

    def segment(self, pictures):
        shares = []
        for picture in pictures:
            red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
            kind = np.where((green > red) & (green > blue), 0, np.where(blue > red + 12, 1, 2))
            kind = np.where((kind == 2) & (red < 120), 3, kind)
            shares.append(np.bincount(kind.ravel(), minlength=4) / kind.size)
        return Segmentation(self.classes, np.array(shares), ("",) * len(pictures))


class Greens:
    """Paints green as much as a text speaks of plants, the rest by seed."""

    identity = Identity("greens", "0")
    much = (
        ("everywhere", 0.4),
        ("lush", 0.4),
        ("lots of trees", 0.3),
        ("trees", 0.15),
        ("foliage", 0.15),
    )

    def paint(self, texts, seeds):
        return [self.one(text.lower(), seed) for text, seed in zip(texts, seeds, strict=True)]

    def one(self, text, seed):
        share = next((s for word, s in self.much if word in text), 0.0)
        picture = np.full((20, 20, 3), 100 + seed % 20, np.uint8)
        picture[: round(20 * share)] = (40, 140, 40)
        return picture


class Lengths:
    """A scorer that likes long texts: every added word is worth something to it."""

    identity = Identity("lengths", "0")
    weight, context = 1.0, 200

    def encode_images(self, pictures):
        return np.tile(np.array([[1.0, 0.0]], np.float32), (len(pictures), 1))

    def encode_texts(self, texts):
        angle = np.array([1.5 / (1 + len(text)) for text in texts])
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def tokens(self, texts):
        return np.array([len(text.split()) for text in texts], np.int64)


@pytest.fixture(scope="module", params=["satellite", "street_view"])
def made(request):
    pictures, facts = held_out(request.param, B, 0)
    return request.param, pictures, twins_of(request.param, facts, 0)


def test_twins_differ(made):
    view, pictures, twins = made
    assert len(pictures) == B
    small = SMALL if view == "street_view" else ()
    assert {twin.kind for twin in twins} == {*KINDS, *small}
    assert all(twin.true != twin.wrong for twin in twins)
    of_one = {(twin.position, twin.kind) for twin in twins}
    assert len(of_one) == len(twins)
    assert len({(t.position, t.true) for t in twins}) == len({t.position for t in twins})


def test_drops_are_shorter_and_additions_longer(made):
    _, _, twins = made
    length = {
        kind: [len(t.wrong.split()) - len(t.true.split()) for t in twins if t.kind == kind]
        for kind in KINDS
    }
    assert max(length["drop"]) < 0
    assert np.median(length["add"]) >= 2


def test_swaps_give_every_caption_to_another(made):
    _, _, twins = made
    trues = {t.position: t.true for t in twins}
    swaps = [t for t in twins if t.kind == "swap"]
    assert len(swaps) >= B - 2
    assert {t.wrong for t in swaps} <= set(trues.values())
    assert all(t.wrong != trues[t.position] for t in swaps)


SAID = [
    Mention("greenery", 1, None, 3),
    Mention("sky", 3, None, 0),
    Mention("upkeep", 2, None, 0),
    Mention("people", 0, None, 0),
]
FACTS = dict.fromkeys(ELEMENTS["street_view"], 0.0) | {"greenery": 0.02, "sky": 0.32, "upkeep": 0.9}
LARGE = ("greenery", "sky", "water", "buildings")


@pytest.mark.parametrize("seed", range(12))
def test_a_drop_takes_one_thing_that_is_plainly_there(seed):
    rng = np.random.default_rng(seed)
    assert _dropped("street_view", FACTS, SAID, LARGE, rng) == [SAID[0], *SAID[2:]]
    assert _dropped("street_view", FACTS, SAID, ("greenery",), rng) is None  # a bit of green
    assert _dropped("street_view", FACTS, SAID[1:], LARGE, rng) is None  # one thing stays


@pytest.mark.parametrize("seed", range(12))
def test_an_addition_is_not_there(seed):
    rng = np.random.default_rng(seed)
    wrong = _added("street_view", FACTS, SAID, LARGE, rng)
    (extra,) = [m for m in wrong if m not in SAID]
    assert extra.element in ("water", "buildings") and extra.level >= 2
    assert [m for m in wrong if m != extra] == SAID
    denied = _added("street_view", FACTS, SAID, ("people",), rng)
    assert [m.level > 0 for m in denied if m.element == "people"] == [True]
    assert _added("street_view", dict.fromkeys(FACTS, 5.0), SAID, LARGE, rng) is None


@pytest.mark.parametrize("seed", range(3))
def test_an_exaggeration_is_large(seed):
    rng = np.random.default_rng(seed)
    wrong = _exaggerated("street_view", FACTS, SAID, LARGE, rng)
    assert wrong[0] == Mention("greenery", 3, None, 3) and wrong[1:] == SAID[1:]
    percent = [Mention("water", 1, 20, 0)]
    assert _exaggerated("street_view", FACTS, percent, LARGE, rng) == [Mention("water", 3, 55, 0)]
    assert _exaggerated("street_view", FACTS, SAID[1:], LARGE, rng) is None


def test_every_wording_is_scored_once_and_ranked(made):
    view, pictures, twins = made
    pairs = judged(pictures, twins, Greens(), Hues(), Lengths(), CONFIG, 0)
    assert len(pairs) == len(twins)
    for name in RANKED:
        assert pairs[[f"{name}_true", f"{name}_wrong"]].notna().all().all()
    found = ranked(view, pairs).set_index("kind")
    assert found.loc["all", "pairs"] == found.loc[list(KINDS), "pairs"].sum()
    assert found.pairs.drop("all").sum() == len(twins)
    for kind in found.index.drop("all"):
        for name in RANKED:
            right = n = 0
            for row in pairs.itertuples():
                if row.kind == kind:
                    n += 1
                    right += getattr(row, f"{name}_true") > getattr(row, f"{name}_wrong")
            assert found.loc[kind, name] == pytest.approx(right / n)
    # It prefers length, so it sees drops and hardly an addition (which may replace a denial).
    assert found.loc["drop", "clip_score"] > 0.9 and found.loc["add", "clip_score"] < 0.2


def test_pairs_without_a_score_are_in_no_share(made):
    view, pictures, twins = made
    pairs = judged(pictures, twins, Greens(), Hues(), Lengths(), CONFIG, 0)
    known = np.arange(len(pairs)) % 3 > 0
    declined = pairs.assign(cycle_score_wrong=pairs["cycle_score_wrong"].where(known))
    found, expected = (ranked(view, part).set_index("kind") for part in (declined, pairs[known]))
    pd.testing.assert_series_equal(found["cycle_score"], expected["cycle_score"][found.index])
    assert (found["pairs"] == ranked(view, pairs).set_index("kind")["pairs"]).all()


def test_without_a_segmenter_cycles_have_no_share():
    found = proof(
        "satellite", None, None, Lengths(), CONFIG, shown=held_out("satellite", 6, 1), seed=1
    )
    assert found.cycle_score.isna().all()
    np.testing.assert_allclose(found.perception_score, found.clip_score)


@pytest.mark.parametrize("view", ["satellite", "street_view"])
def test_own_words_are_the_captioners_true_and_misstated(view):
    pictures, _ = held_out(view, 12, 2)
    twins = own_words(view, pictures, 5)
    assert {twin.kind for twin in twins} == set(OWN)
    misstated = [twin for twin in twins if twin.kind == "own_misstated"]
    assert len(misstated) > 8 and all(twin.true != twin.wrong for twin in twins)
    texts = {twin.position: twin.true for twin in misstated}
    for twin in twins:
        assert texts.get(twin.position, twin.true) == twin.true
    assert own_words(view, pictures, 5) == twins
    found = ranked(view, judged(pictures, twins, None, None, Lengths(), CONFIG, 0)).set_index(
        "kind"
    )
    assert found.loc["own", "pairs"] == len(twins) and "all" not in found.index


def test_a_misstatement_is_the_largest_gap_of_a_share_that_is_told():
    text = "A street by day. Trees fill about 40 percent of the picture and sky about a fifth."
    classes = ["tree", "sky", "road"]
    assert misstatement(text, "street_view", classes, [0.1, 0.25, 0.3]) == pytest.approx(0.3)
    assert misstatement(text, "street_view", classes, [0.4, 0.2, 0.4]) == 0
    assert misstatement("A street by day.", "street_view", classes, [0.1, 0.25, 0.3]) == 0


def test_seeds():
    same = [held_out("satellite", 5, 3) for _ in range(2)]
    assert same[0][1] == same[1][1] and np.array_equal(same[0][0], same[1][0])
    assert held_out("satellite", 5, 4)[1] != same[0][1]


def test_swaps_take_the_text_of_another_picture():
    texts = ["a", "b", "b", "c", "d", "e"]
    twins = swapped(texts, np.random.default_rng(0))
    assert len({twin.position for twin in twins}) == len(twins) >= 4
    for twin in twins:
        assert twin.kind == "swap" and twin.true == texts[twin.position] != twin.wrong in texts
    assert swapped(["a", "a"], np.random.default_rng(0)) == []
