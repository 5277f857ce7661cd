"""Some methods and variants of a city: `python -m benchmarks.part CITY NAME METHOD[:VARIANT,...] ...`.

Builds the city with these methods alone, each with its default and the variants that are named, and writes
its page of docs/results. The lake has it as a city of its own, `CITY_NAME`: regions, splits, seeds and
settings are those of the city, so that its rows stand beside the city's own.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import experiments
from pipelines.cli import execute
from pipelines.derived_cities import given, put


def methods_of(known: dict[str, Any], asked: list[str]) -> dict[str, Any]:
    """The `methods` of a city's YAML, less what is not asked for as `METHOD[:VARIANT,...]`.

    Raises:
        ValueError: the city names no such method or variant.
    """
    chosen = {}
    for one in asked:
        method, _, variants = one.partition(":")
        if method not in known["methods"]:
            raise ValueError(f"{method} is not among methods: {', '.join(known['methods'])}")
        own = dict(known["methods"][method])
        of_city = own.pop("variants", {})
        names = [name for name in variants.split(",") if name]
        if missing := [name for name in names if name not in of_city]:
            raise ValueError(
                f"methods.{method}.variants has no {', '.join(missing)}: {', '.join(of_city)}"
            )
        chosen[method] = own | (
            {"variants": {name: of_city[name] for name in names}} if names else {}
        )
    return chosen


def main(*args: str) -> None:
    """Build the city, and write its page."""
    if len(args) < 3:
        sys.exit(__doc__)
    of, name, *asked = args
    known = given(of)
    try:
        methods = methods_of(known, asked)
    except ValueError as error:
        sys.exit(f"{of}: {error}")
    known.pop("schedule", None)
    city = f"{of}_{name}"
    title = f"{known['title']}: {name.replace('_', ' ')}"
    put({city: known | {"name": city, "title": title, "methods": methods}})
    execute("whole_city", city)
    experiments.main(city, f"python -m benchmarks.part {' '.join(args)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
