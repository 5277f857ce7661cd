from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from model_code.backends import Ask, Captioner
from model_code.demo import chip_scene, street_scene
from model_code.demo.chip_scene import Grounds
from model_code.demo.street_scene import Scenes
from model_code.text import levels
from model_code.text.captioner import MAX_WORDS, TemplateCaptioner
from model_code.text.levels import Levels
from model_code.text.parsing import parse
from model_code.vision.segmentation import LandCoverSegmenter, StreetSegmenter

B = 40


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return TemplateCaptioner()


@pytest.fixture(scope="module")
def asks() -> dict[str, list[Ask]]:
    rng = np.random.default_rng(1)
    draw = lambda: rng.beta(0.7, 0.9, B).astype(np.float32)  # noqa: E731
    hour = rng.uniform(8, 20.5, B).astype(np.float32)
    streets = street_scene.render(Scenes(draw(), draw(), draw(), draw(), draw(), hour), rng)
    chips = chip_scene.render(Grounds(draw(), draw(), 0.4 * draw(), draw()), rng)
    found = {}
    for kind, pictures, segmenter in (
        ("street_view", streets, StreetSegmenter()),
        ("satellite", chips, LandCoverSegmenter()),
    ):
        seen = segmenter.segment(list(pictures))
        found[kind] = [
            Ask(kind, picture, dict(zip(seen.classes, row.tolist(), strict=True)))
            for picture, row in zip(pictures, seen.shares, strict=True)
        ]
    return found


@pytest.mark.parametrize("kind", ["street_view", "satellite"])
def test_captions_are_short_varied_and_repeatable(
    captioner: Captioner, asks: dict, kind: str
) -> None:
    texts = [answer.text for answer in captioner.caption(asks[kind])]
    assert texts == [answer.text for answer in captioner.caption(asks[kind])]
    assert texts[3:5] == [answer.text for answer in captioner.caption(asks[kind][3:5])]
    assert len(set(texts)) == B
    assert len({text.split(".")[0] for text in texts}) > B / 3
    assert 20 < np.mean([len(text.split()) for text in texts]) <= MAX_WORDS
    assert max(len(text.split()) for text in texts) <= MAX_WORDS
    assert all(text.endswith(".") and "  " not in text and text[0].isupper() for text in texts)
    again = captioner.caption([replace(ask, seed=1) for ask in asks[kind]])
    warm = captioner.caption([replace(ask, temperature=0.8) for ask in asks[kind]])
    assert sum(a.text == t for a, t in zip(again, texts, strict=True)) == 0
    assert sum(a.text == t for a, t in zip(warm, texts, strict=True)) == 0


@pytest.mark.parametrize(
    ("kind", "classes"),
    [("street_view", ("sky", "building", "road")), ("satellite", ("forest", "water", "building"))],
)
def test_captions_say_what_was_measured(
    captioner: Captioner, asks: dict, kind: str, classes: tuple
) -> None:
    for name in classes:
        pairs = []
        for ask, answer in zip(asks[kind], captioner.caption(asks[kind]), strict=True):
            said = parse(answer.text, kind).get(name)
            if said is not None and said.share is not None:
                pairs.append((said.share, ask.shares[name]))
        said_share, share = np.array(pairs).T
        assert len(pairs) >= 5
        assert (np.abs(said_share - share) < 0.04).mean() > 0.85


def test_warm_captioners_err_more(captioner: Captioner, asks: dict) -> None:
    """Errors are drawn anew at each try, whatever became of the last one."""

    def errors(temperature: float) -> float:
        wrong = []
        for seed in range(2):
            tries = [replace(a, seed=seed, temperature=temperature) for a in asks["street_view"]]
            for ask, answer in zip(tries, captioner.caption(tries), strict=True):
                said = parse(answer.text, "street_view").get("road")
                wrong.append(
                    said is None
                    or said.share is None
                    or abs(said.share - ask.shares["road"]) > 0.06
                )
        return float(np.mean(wrong))

    assert errors(0.0) < 0.04 < errors(6.0)


def test_captions_can_be_made_wrong_on_purpose(captioner: Captioner, asks: dict) -> None:
    """The others are as they were, and each try is drawn anew."""
    asked = [replace(ask, seed=seed) for seed in range(20) for ask in asks["street_view"][:8]]
    honest = captioner.caption(asked)
    wrong = {}
    for share in (0.0, 0.3, 1.0):
        told = TemplateCaptioner(share).caption(asked)
        wrong[share] = np.array([a != b for a, b in zip(honest, told, strict=True)])
    assert not wrong[0.0].any() and wrong[1.0].mean() > 0.95
    assert 0.2 < wrong[0.3].mean() < 0.4
    assert wrong[0.3].reshape(20, 8).mean(axis=0).min() > 0
    assert TemplateCaptioner(0.3).identity != captioner.identity


@pytest.mark.parametrize("kind", ["street_view", "satellite"])
def test_verbs_agree_with_what_comes_first(captioner: Captioner, asks: dict, kind: str) -> None:
    several = [replace(ask, seed=seed) for ask in asks[kind] for seed in range(5)]
    texts = " ".join(answer.text for answer in captioner.caption(several))
    said = re.findall(r"There (is|are) no ([a-z ]+?)(?:,|\.| and)", texts)
    are = {noun for verb, noun in said if verb == "are"}
    is_ = {noun for verb, noun in said if verb == "is"}
    assert are and all(noun.endswith(("s", "people")) for noun in are)
    assert is_ and not any(noun.endswith(("s", "people")) for noun in is_ - {"grass"})


def test_a_caption_sees_its_own_modality_alone(captioner: Captioner, asks: dict) -> None:
    ask = asks["satellite"][0]
    more = replace(ask, pois=[("Bar Nine", "bar")], heights_m=None, prompt="Lisbon, 38.7, -9.1")
    assert "Bar Nine" not in captioner.caption([more])[0].text
    assert "Lisbon" not in captioner.caption([more])[0].text


def test_light_and_upkeep_are_seen_in_the_pixels(captioner: Captioner) -> None:
    def said(name: str, **given: float) -> float:
        levels = {"greenery": 0.2, "water": 0, "industry": 0, "income": 0.5, "commerce": 0.2,
                  "hour": 13} | given  # fmt: skip
        scenes = Scenes(**{k: np.full(12, v, np.float32) for k, v in levels.items()})
        pictures = list(street_scene.render(scenes, np.random.default_rng(0)))
        seen = StreetSegmenter().segment(pictures)
        asked = [
            Ask("street_view", p, dict(zip(seen.classes, row.tolist(), strict=True)))
            for p, row in zip(pictures, seen.shares, strict=True)
        ]
        found = [parse(a.text, "street_view").get(name) for a in captioner.caption(asked)]
        return float(np.mean([f.level for f in found if f is not None] or [0.0]))

    assert said("dark", hour=20.4) > 0.6 > 0.1 > said("dark", hour=12)
    assert said("upkeep", income=0.95) > said("upkeep", income=0.05) + 0.4


def test_heights(captioner: Captioner) -> None:
    low = np.full((20, 20), np.nan, np.float32)
    low[:8] = 6.0
    tall = low.copy()
    tall[0, 0] = 80
    (a, b, none, open_) = captioner.caption(
        [Ask("heights", heights_m=h) for h in (low, tall, np.full_like(low, np.nan), 0 * low[:4])]
    )
    assert "2 storeys" in a.text and "6 metres" in a.text
    assert "80 metres" in b.text and "tower" in b.text.lower()
    assert none.text == "" and "height" in none.error
    assert "no building" in open_.text


def test_pois(captioner: Captioner) -> None:
    pois = [("Bar A", "bar"), ("Cafe B", "cafe"), ("Cafe C", "cafe"), ("", "post_office")]
    full, none = captioner.caption([Ask("pois", pois=pois), Ask("pois")])
    assert "cafe (" in full.text and full.text.index("cafe") < full.text.index("bar (")
    assert "post office" in full.text
    assert "No " in none.text and not none.error


def test_pictures_that_were_not_judged(captioner: Captioner, asks: dict) -> None:
    grey = np.full((64, 96, 3), 90, np.uint8)
    grey[:20] = 220
    colour = replace(asks["street_view"][0], shares={})
    lacking, plain, nan, none = captioner.caption(
        [
            Ask("street_view", grey),
            colour,
            Ask("street_view", grey, {"sky": np.nan}),
            Ask("satellite"),
        ]
    )
    assert "street" in lacking.text and "brighter above" in lacking.text
    assert plain.text and "grey" not in plain.text and "black" not in plain.text
    assert nan.text and not nan.error
    assert not none.text and "no picture" in none.error


def described(captioner: Captioner, ask: Ask, form: str = "levels") -> Levels:
    (answer,) = captioner.caption([replace(ask, form=form)])
    found, problem = levels.parse(answer.text)
    assert found is not None, problem or answer.error
    return found


@pytest.mark.parametrize("form", ["levels", "levels_lite"])
def test_every_modality_is_described_in_three_levels(
    captioner: Captioner, asks: dict, form: str
) -> None:
    heights = np.full((8, 8), 30.0, np.float32)
    other = [Ask("heights", heights_m=heights), Ask("pois", pois=[("", "office")] * 9)]
    for ask in [*asks["satellite"][:5], *asks["street_view"][:5], *other]:
        found = described(captioner, ask, form)
        assert found == described(captioner, ask, form)
        assert found.land.endswith(".") and len(found.land.split()) <= MAX_WORDS + 20
        assert found != described(captioner, replace(ask, seed=1), form)


def test_descriptions_tell_places_apart_and_lite_ones_less(captioner: Captioner) -> None:
    homes = Ask("pois", pois=[("", "school")] * 5)
    bars = Ask("pois", pois=[("", "nightclub")] * 60)
    quiet, busy = described(captioner, homes), described(captioner, bars)
    assert np.argmax(quiet.departures) < 12 < np.argmax(busy.departures)
    assert quiet.activity < busy.activity
    lite = [described(captioner, ask, "levels_lite") for ask in (homes, bars)]
    assert lite[0].activity == pytest.approx(lite[1].activity, abs=15)
    assert np.corrcoef(lite[0].departures, lite[1].departures)[0, 1] > 0.95
    assert "school" in lite[0].land and "nightclub" in lite[1].land


def test_what_cannot_be_described_says_why(captioner: Captioner) -> None:
    unknown = Ask("heights", heights_m=np.full((4, 4), np.nan, np.float32), form="levels")
    for ask, why in ((Ask("satellite", form="levels"), "measured"), (unknown, "height")):
        (answer,) = captioner.caption([ask])
        assert why in answer.error and not answer.text
