"""The page of settings tells every key of every method, once, with what it is."""

from __future__ import annotations

import re

from model_code.methods import METHODS, Probed, Tuned, Tuning
from model_code.methods.reference import MEANINGS, page
from tests.tiny import ROOT


def sections() -> dict[str, dict[str, list[str]]]:
    """By heading, the cells of each key."""
    found = {}
    for part in re.split(r"^## ", page(), flags=re.M)[1:]:
        title, *lines = part.splitlines()
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("| `")]
        found[title] = {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in rows}
    return found


def test_the_page_is_what_the_configs_say() -> None:
    there = (ROOT / "docs" / "methods" / "settings.md").read_text()
    assert there == page(), "run `make tables`"


def test_every_key_of_every_method_has_a_row_that_says_what_it_is() -> None:
    told = sections()
    for name, spec in METHODS.items():
        shared = {key for base in (Probed, Tuned) if issubclass(spec.config, base)
                  for key in base.model_fields}  # fmt: skip
        assert set(told[f"`{name}`"]) == set(spec.config.model_fields) - shared, name
    assert set(told["All `pretrained` methods"]) == set(Probed.model_fields)
    assert set(told["Their `tuning`"]) == set(Tuning.model_fields)
    assert all(about for rows in told.values() for *_, about in rows.values())


def test_defaults_and_limits_are_those_of_the_config() -> None:
    told = sections()
    assert told["`urbanvlp`"]["fusion"] == [
        '`"sum"`', "`sum`, `gate`, `concat`", "how modalities become one vector"
    ]  # fmt: skip
    assert told["`urbanvlp`"]["absent_rate"][:2] == ["`0.05`", "number above 0, below 1"]
    assert told["`vit`"]["image_px"][:2] == ["`64`", "whole number from 8"]
    assert told["`mgfn`"]["neighbours"][:2] == ["`64`", "whole number from 1 or `null`"]
    assert told["`tile2vec`"]["weights"][:2] == ["`null`", "a file: `path`, `sha256` or `null`"]


def test_no_meaning_is_left_over() -> None:
    keys = {key for spec in METHODS.values() for key in spec.config.model_fields}
    nested = {key for rows in sections().values() for key in rows}
    assert set(MEANINGS) <= keys | nested
