"""Some methods and variants of a city: `python -m benchmarks.part CITY NAME METHOD[:VARIANT,...] ...`.

Builds the city with these methods alone, each by its default and the variants that are named (`:all`: all of
them), and writes its page of docs/results. The lake has it as a city of its own, `CITY_NAME`: regions, splits,
seeds and settings are those of the city, so that its rows stand beside the city's own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

from benchmarks import experiments
from model_code.city import NAME_PATTERN
from pipelines.cli import advice, execute
from pipelines.derived_cities import given, put

ALL = "all"


def config(city: str, name: str, asked: Iterable[str]) -> dict[str, Any]:
    """The city's YAML under another name, less the methods and variants that are not asked for.

    Raises:
        CityloomError: there is no such city.
        ValueError: the city names no such method or variant, or no city can have this name.
    """
    known = given(city)
    if not re.fullmatch(NAME_PATTERN, name):
        raise ValueError(f"{name} is no name of a city: small letters, digits and _")
    methods, chosen = known.get("methods", {}), dict[str, Any]()
    for one in asked:
        method, _, variants = one.partition(":")
        if method not in methods:
            raise ValueError(f"methods has no {method}: {', '.join(methods)}")
        if method in chosen:
            raise ValueError(f"{method} stands twice: name all its variants at once")
        own = dict(methods[method])
        of_city = own.pop("variants", {})
        names = list(of_city) if variants == ALL else [one for one in variants.split(",") if one]
        if missing := [one for one in names if one not in of_city]:
            there = f": {', '.join(of_city)}" if of_city else ""
            raise ValueError(f"methods.{method}.variants has no {', '.join(missing)}{there}")
        chosen[method] = own | ({"variants": {one: of_city[one] for one in names}} if names else {})
    known.pop("schedule", None)
    title = f"{known['title']}: {name.removeprefix(f'{city}_').replace('_', ' ')}"
    return known | {"name": name, "title": title, "methods": chosen}


def build(part: dict[str, Any], command: str) -> None:
    """Build the city of a YAML, and write its page; `command` is what makes both."""
    with advice():
        put({part["name"]: part})
        execute("whole_city", part["name"])
        experiments.main(part["name"], command)


def main(*args: str) -> None:
    """Build the city, and write its page."""
    if len(args) < 3:
        sys.exit(__doc__)
    city, name, *asked = args
    try:
        with advice():
            chosen = config(city, f"{city}_{name}", asked)
    except ValueError as error:
        sys.exit(f"{city}: {error}")
    build(chosen, f"python -m benchmarks.part {' '.join(args)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
