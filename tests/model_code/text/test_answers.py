from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from model_code.backends import Ask
from model_code.text import answers

CAPTION = Ask("satellite", np.zeros((4, 4, 3), np.uint8))
LEVELS = Ask("satellite", np.zeros((4, 4, 3), np.uint8), form="levels")
GOOD = json.dumps({"land": "homes", "activity": 40, "departures": [0.5] * 24})


@pytest.mark.parametrize(
    "text",
    [
        "It lies at 40.71234, -74.00601.",
        "Around 40° north.",
        "The coordinates are given.",
        "Its Latitude is high.",
        "It lies at 74.006° W.",
        "At 40° 42' 46\" N there is a park.",
        "About 40 degrees north of it all.",
        "Near N 40.7°, by a river.",
        "Between 40.7128 and 74.0060.",
    ],
)
def test_coordinates_do_not_come_back(text: str) -> None:
    assert answers.problem(CAPTION, text) == "the caption speaks of coordinates"


@pytest.mark.parametrize(
    "text",
    [
        "A wide street, 40.5 percent of it sky.",
        "About 1500 homes; 12 trees.",
        "Houses with 45° roofs stand along it.",
        "It may be 20 °C, and 12.125 m wide.",
        "The street turns by 90 degrees. West of it is a park.",
        "Roofs at 45°, southern walls; one roof's 30° steep.",
    ],
)
def test_a_caption_may_count(text: str) -> None:
    assert answers.problem(CAPTION, text) == ""


def test_levels_must_parse() -> None:
    assert answers.problem(LEVELS, GOOD) == ""
    assert answers.tidy(LEVELS, f"```json\n{GOOD}\n```") == GOOD
    assert "JSON" in answers.problem(LEVELS, GOOD[:-5])
    assert "activity" in answers.problem(LEVELS, GOOD.replace("40", "400"))
    assert answers.problem(LEVELS, "") == answers.problem(CAPTION, "") == "an empty answer"


@pytest.mark.parametrize(
    "said",
    [
        "Here is the JSON:\n```json\n{}\n```\nI hope that it helps {{:-)}}.",
        "{} Anything else?",
        'By the schema {{land: text, activity: number}} and {{"type": "object"}}: {}',
        "```\n{}\n```",
    ],
)
def test_levels_are_found_among_what_models_say_around_them(said: str) -> None:
    text = answers.tidy(LEVELS, said.format(GOOD))
    assert text == GOOD and answers.problem(LEVELS, text) == ""


DRAFT = json.dumps({"land": "a draft", "activity": 10, "departures": [0.1] * 24})


@pytest.mark.parametrize(
    "said",
    [
        "First {draft}, no: {good}",
        "{draft}\n{good}\nThe first was too low {{see above}}.",
        '{{"answer": {good}}}',
        '[{{"draft": {draft}, "final": {good}, "sure": {{"very": true}}}}]',
    ],
)
def test_the_last_levels_count_also_inside_of_another_object(said: str) -> None:
    assert answers.tidy(LEVELS, said.format(draft=DRAFT, good=GOOD)) == GOOD


def test_braces_in_words_of_the_levels_begin_no_object() -> None:
    good = GOOD.replace("homes", 'homes {dense}, {\\"a\\": 1}')
    assert answers.tidy(LEVELS, f"So: {good}.") == good
    assert answers.problem(LEVELS, good) == ""


def test_what_holds_no_levels_stays_malformed() -> None:
    for said in ("I see homes.", "Here: {", "{" * 100_000, '{"a":' * 100_000, "```json\n```"):
        assert answers.tidy(LEVELS, said) == said
        assert "not the JSON that was asked for" in answers.problem(LEVELS, said)
    some = '{"land": "homes", "activity": 400}'
    assert answers.tidy(LEVELS, f"So: {some}, or {{}}") == some


def test_a_caption_that_was_cut_keeps_whole_sentences() -> None:
    assert answers.tidy(CAPTION, "A street. It has\n 3.5 tre", cut=True) == "A street."
    assert answers.tidy(CAPTION, "A street with", cut=True) == ""
    assert answers.tidy(CAPTION, " A\n street ") == "A street"


def test_what_no_table_can_hold_is_left_out() -> None:
    assert answers.tidy(CAPTION, "A\x00 str\ud83deet\u202e,\n wide\x1b[1m") == "A str?eet, wide[1m"
    assert json.loads(answers.tidy(LEVELS, f"\x00{GOOD}\n"))["activity"] == 40


def test_heights_are_shown_on_one_scale() -> None:
    heights = np.array([[0.0, 50.0], [200.0, np.nan]], np.float32)
    shown = answers.picture_of(Ask("heights", heights_m=heights))
    assert shown is not None
    assert shown.tolist() == [[[0] * 3, [128] * 3], [[255] * 3, [0, 0, 160]]]


def test_a_picture_travels_whole() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8)
    kind, _, content = answers.data_url(picture).partition(",")
    assert kind == "data:image/png;base64"
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))) == picture).all()


def test_what_cannot_be_asked_is_told() -> None:
    assert answers.lacking(Ask("pois")) and answers.lacking(Ask("satellite"))
    assert answers.lacking(Ask("heights"))
    assert "shape" in answers.lacking(Ask("satellite", np.zeros((4, 4), np.uint8)))
    assert answers.lacking(CAPTION) == answers.lacking(Ask("pois", pois=(("a", "b"),))) == ""
