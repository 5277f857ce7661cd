import json

import pytest

from model_code.text import levels

GOOD = {"land": "Houses and a park.", "activity": 40, "departures": [0.5] * 24}


def test_a_good_answer_is_read():
    found, why = levels.parse(json.dumps(GOOD))
    assert why == ""
    assert found is not None
    assert (found.land, found.activity, len(found.departures)) == ("Houses and a park.", 40.0, 24)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ("", "Invalid JSON"),
        ('{"land": "Houses', "Invalid JSON"),
        (json.dumps(GOOD | {"activity": 101}), "activity"),
        (json.dumps(GOOD | {"land": ""}), "land"),
        (json.dumps(GOOD | {"departures": [0.5] * 23}), "departures"),
        (json.dumps(GOOD | {"departures": [0.5] * 23 + [2]}), "departures.23"),
        (json.dumps(GOOD | {"more": 1}), "more"),
        ('{"land": "a", "activity": NaN, "departures": []}', "activity"),
    ],
)
def test_a_bad_answer_says_what_is_wrong_with_it(answer, named):
    found, why = levels.parse(answer)
    assert found is None
    assert named in why


def test_the_schema_names_every_level_each_after_what_it_rests_on():
    """Guided decoding writes keys in the order of the schema."""
    for schema in (json.loads(levels.schema()), levels.strict_schema()):
        assert list(schema["properties"]) == ["land", "activity", "departures"]


def test_levels_are_told_in_sentences():
    text = levels.as_text(levels.Levels.model_validate(GOOD))
    assert text.startswith("Houses and a park. Activity: 40 of 100. Departures by hour")
    assert text.count("0.50") == 24


def test_strict_mode_gets_no_length_of_a_text():
    strict, whole = levels.strict_schema(), json.loads(levels.schema())
    assert "minLength" not in json.dumps(strict)
    assert whole["properties"]["land"].pop("minLength") == 1
    assert strict == whole
