"""`python -m model_code.demo --regions N --seed S --out FOLDER`: write an embedded city."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from model_code.demo.city_yaml import city_yaml
from model_code.demo.simulate import simulate
from model_code.errors import CityloomError


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m model_code.demo", description=__doc__)
    parser.add_argument("--regions", type=int, required=True, help="10 to 100,000 square cells")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for the raw files")
    parser.add_argument("--cell-m", type=float, default=1000.0, help="side of a cell, metres")
    parser.add_argument("--no-images", action="store_true", help="no orthophoto, no street views")
    parser.add_argument("--north-km", type=float, default=0.0, help="how far from the usual place")
    parser.add_argument(
        "--city-yaml", type=Path,
        help="also write this config; its name is the file's, its sources lie in the folder --out",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    started = time.monotonic()

    def progress(message: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {message}", flush=True)

    try:
        # The config first: a name that cannot be used should not cost a simulation.
        text = args.city_yaml and city_yaml(
            args.city_yaml.stem, regions=args.regions, seed=args.seed, cell_m=args.cell_m,
            images=not args.no_images, path=str(args.out.absolute()), north_km=args.north_km,
        )  # fmt: skip
        simulate(
            args.out, regions=args.regions, seed=args.seed, cell_m=args.cell_m,
            images=not args.no_images, north_km=args.north_km, progress=progress,
        )  # fmt: skip
    except CityloomError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    progress(f"{args.regions:,} regions in {args.out}")
    if args.city_yaml:
        args.city_yaml.parent.mkdir(parents=True, exist_ok=True)
        args.city_yaml.write_text(text, encoding="utf-8")
        progress(f"config in {args.city_yaml}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
