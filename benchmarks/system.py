"""One system's part of the experiments: `python -m benchmarks.system SYSTEM [CITY]`.

Builds a simulated city with one system, its variants, the baselines of its paper and the controls, and
writes its page of docs/results; for UrbanVLP also what calibration is worth when captions are bad. The
lake has it as a city of its own, `CITY_SYSTEM`.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import calibration, part
from pipelines.derived_cities import given

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
    """The city's YAML with what concerns one system: its variants, and the defaults of the others."""
    methods = given(city)["methods"]
    beside = {*COMPARED[system], *CONTROLS}
    if missing := sorted({system, *beside} - {*methods}):
        sys.stderr.write(f"{city} runs no {', '.join(missing)}, which are left out\n")
    kept = [method for method in methods if method in beside or method == system]
    return part.config(city, name, [f"{m}:{part.ALL}" if m == system else m for m in kept])


def main(system: str = "", city: str = "demo_large") -> None:
    """Build the city, and write its pages."""
    if system not in COMPARED:
        sys.exit(f"SYSTEM: no system {system!r}; give one of {', '.join(COMPARED)}")
    if system not in given(city)["methods"]:
        sys.exit(f"{city} does not run {system}: give a city whose YAML names it")
    name, command = f"{city}_{system}", f"python -m benchmarks.system {system} {city}"
    part.build(config(city, name, system), command)
    if system == "urbanvlp":
        calibration.main(name, command, f"{name}_calibration")


if __name__ == "__main__":
    main(*sys.argv[1:])
