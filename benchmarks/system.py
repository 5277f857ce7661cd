"""One system's part of the experiments: `python -m benchmarks.system SYSTEM [CITY]`.

Builds a simulated city with one system, its variants, the baselines of its paper and the controls, and
writes its page of docs/results; for UrbanVLP also what calibration is worth when captions are bad. The
lake has it as a city of its own, `CITY_SYSTEM`.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import calibration, experiments
from pipelines.cli import execute
from pipelines.derived_cities import given, put

CONTROLS = ("poi", "location", "chip_pca", "od_pca", "vit", "shares", "clip_probe")
# What each paper compares its system with, as far as the registry has it.
COMPARED = {
    "urbanvlp": ("pg_simclr", "urbanclip", "urbanclip_sv", "vision_lstm", "structural_urban"),
    "musecl": ("tile2vec", "urban2vec", "pg_simclr"),
    "urbanmmcl": ("pg_simclr", "urbanvlp", "mvure", "hrep", "remvc"),
    "lmemr": (
        *("hourly_linear", "hourly_forest", "hourly_cnn", "hourly_lstm", "hourly_transformer"),
        "lmemr_clip",
    ),
    "urbanmoe": ("autoencoder", "tile2vec", "read", "pg_simclr", "urbanclip"),
}


def config(city: str, name: str, system: str) -> dict[str, Any]:
    """The city's YAML with what concerns one system."""
    known = given(city)
    methods = known["methods"]
    chosen = {system, *COMPARED[system], *CONTROLS}
    kept = {method: methods[method] for method in methods if method in chosen}
    for method in COMPARED[system]:  # a baseline's variants are of other tables
        if method in kept:
            kept[method] = {k: v for k, v in kept[method].items() if k != "variants"}
    if missing := sorted(chosen - {*kept}):
        sys.stderr.write(f"{city} runs no {', '.join(missing)}, which are left out\n")
    known.pop("schedule", None)
    return known | {"name": name, "title": f"{known['title']}, {system} alone", "methods": kept}


def main(system: str = "", city: str = "demo_large") -> None:
    """Build the city, and write its pages."""
    if system not in COMPARED:
        sys.exit(f"SYSTEM: no system {system!r}; give one of {', '.join(COMPARED)}")
    if system not in given(city)["methods"]:
        sys.exit(f"{city} does not run {system}: give a city whose YAML names it")
    name, command = f"{city}_{system}", f"python -m benchmarks.system {system} {city}"
    put({name: config(city, name, system)})
    execute("whole_city", name)
    experiments.main(name, command)
    if system == "urbanvlp":
        calibration.main(name, command, f"{name}_calibration")


if __name__ == "__main__":
    main(*sys.argv[1:])
