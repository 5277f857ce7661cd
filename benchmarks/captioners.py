"""How fast captioners are: `python -m benchmarks.captioners CAPTIONER.yaml ... [--images 64] [--px 256]`.

A file holds what stands under `captions.captioner` of a city's YAML. Each captioner is asked about the same
pictures of noise; its start, and a first ask of another picture, which loads what is loaded late, are timed
apart. Prints, by captioner, the seconds of the start, images and tokens a second, errors, and how many answers are
the first captioner's.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from model_code.backends import Answer, Ask, Captioner
from model_code.city import Captions
from resources import backends

PROMPT = "Describe what this satellite image shows."


def asks(images: int, px: int) -> list[Ask]:
    """Of pictures [px, px, 3] of noise; the seed is the number."""
    pictures = np.random.default_rng(0).integers(0, 256, (images, px, px, 3)).astype(np.uint8)
    return [Ask("satellite", one, prompt=PROMPT, seed=i) for i, one in enumerate(pictures)]


def timed(captioner: Captioner, asked: Sequence[Ask]) -> tuple[dict[str, Any], list[Answer]]:
    """The figures of a captioner, and its answers."""
    began = time.monotonic()
    getattr(captioner, "ready", lambda: None)()
    captioner.caption([replace(asked[0], picture=255 - np.asarray(asked[0].picture))])
    started = time.monotonic()
    answers = captioner.caption(asked)
    seconds = time.monotonic() - started
    tokens_in, tokens_out = (
        sum(getattr(one, name) for one in answers) for name in ("tokens_in", "tokens_out")
    )
    about = {
        "start, s": round(started - began, 1),
        "images": len(answers),
        "images/s": round(len(answers) / seconds, 2),
        "tokens in/s": round(tokens_in / seconds, 1),
        "tokens out/s": round(tokens_out / seconds, 1),
        "errors": sum(bool(one.error) for one in answers),
    }
    return about, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captioners", nargs="+", type=Path, metavar="CAPTIONER.yaml")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--px", type=int, default=256, help="width and height of a picture")
    asked = parser.parse_args()
    rows, first = [], list[Answer]()
    for path in asked.captioners:
        choice = yaml.safe_load(path.read_text(encoding="utf-8"))
        with backends.memory() as memory:
            captioner = backends.captioner(Captions.model_validate({"captioner": choice}), memory)
            about, answers = timed(captioner, asks(asked.images, asked.px))
        first = first or answers
        same = sum(
            bool(own.text) and one.text == own.text for one, own in zip(first, answers, strict=True)
        )
        rows.append({"captioner": path.stem, "kind": choice["kind"], **about, "as the first": same})
        print(pd.DataFrame(rows).to_string(index=False), flush=True)
        for why, times in Counter(one.error for one in answers if one.error).most_common(3):
            print(f"{path.stem}: {times} times: {why}", flush=True)


if __name__ == "__main__":  # vLLM's engine is a process that imports this file anew
    main()
