"""What real models are told: Jinja files with a version, beside this module in `prompts/`.

What comes from outside (a city's title, names of POIs) is data: cleaned of whatever could end a
message, a template or a JSON text, and put in as quoted JSON. A template cannot call anything, and a
value that it lacks is an error.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jinja2.sandbox import SandboxedEnvironment

from model_code.backends import Ask
from model_code.fingerprint import digest, file_digest
from model_code.text import levels

FOLDER = Path(__file__).with_suffix("")
LEAST_SHARE = 0.01  # of the pixels; less is noise of the segmenter
HEIGHT_WHITE_M = 100.0  # as bright as the map of heights gets
_NAMES, _CATEGORIES = 40, 30  # POIs and categories that a prompt lists
_NAME_LENGTH = 80
# Characters by which templates, chat formats and JSON tell their own marks from text.
_MARKS = str.maketrans({"{": "(", "}": ")", "[": "(", "]": ")", "<": "‹", ">": "›", "|": "¦",
                        "`": "'", "\\": "/"})  # fmt: skip


def clean(text: str, length: int = _NAME_LENGTH) -> str:
    """A text from outside on one line, without control characters, marks of templates and of chat
    formats, at most `length` characters long."""
    printable = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    line = " ".join(printable.translate(_MARKS).split())
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


@cache
def names() -> dict[str, str]:
    """The newest version of each prompt: `satellite` -> `satellite.v1`."""
    found: dict[str, tuple[int, str]] = {}
    for path in FOLDER.glob("*.j2"):
        if match := re.fullmatch(r"([a-z_]+)\.v([0-9]+)\.j2", path.name):
            entry = (int(match[2]), path.name.removesuffix(".j2"))
            found[match[1]] = max(found.get(match[1], entry), entry)
    return {name: latest for name, (_, latest) in sorted(found.items())}


@cache
def prompt_id(name: str) -> str:
    """Name, version and digest of a prompt: of its file, of what all prompts share, and of the schema where it
    tells one."""
    version = names()[name]
    rests_on = [file_digest(FOLDER / f"{part}.j2") for part in (version, "_terms")]
    if "data_schema" in (FOLDER / f"{version}.j2").read_text(encoding="utf-8"):
        rests_on.append(levels.schema())
    return f"{version} {digest(rests_on)[:12]}"


@cache
def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # plain text, no HTML
        trim_blocks=True,
    )
    environment.filters = {
        "json": lambda value: json.dumps(value, ensure_ascii=False),
        "percent": _percent,
        "format": environment.filters["format"],
    }
    environment.globals.clear()
    return environment


def _percent(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{clean(name)} {100 * share:.0f} %" for name, share in shares.items())


def completed(ask: Ask, *, city: str = "", lonlat_deg: tuple[float, float] | None = None) -> Ask:
    """The ask with its prompt, unless it has one. The city and where a picture was taken may be
    told; `answers.problem` sees to it that coordinates do not come back."""
    if ask.prompt:
        return ask
    name = ask.kind if ask.form == "caption" else ask.form
    shares = {k: v for k, v in ask.shares.items() if v >= LEAST_SHARE}
    told: dict[str, Any] = {
        "kind": ask.kind,
        "city": clean(city),
        "lonlat_deg": lonlat_deg,
        "shares": dict(sorted(shares.items(), key=lambda pair: -pair[1])),
        "heights": _heights(ask),
        "pois": _pois(ask.pois),
        "data_schema": _schema(),
    }
    text = _environment().get_template(f"{names()[name]}.j2").render(told)
    return replace(ask, prompt=text.strip(), prompt_id=prompt_id(name))


def _schema() -> str:
    return f"Answer with one JSON object of this schema, and nothing else:\n{levels.schema()}"


def _heights(ask: Ask) -> dict[str, Any]:
    about: dict[str, Any] = {"white_m": f"{HEIGHT_WHITE_M:g}", "said": ""}
    if ask.heights_m is not None and np.isfinite(ask.heights_m).any():
        known = ask.heights_m[np.isfinite(ask.heights_m)]
        built = known[known > 0]
        about["said"] = (
            f"Buildings stand on {100 * len(built) / len(known):.0f} % of the known ground"
            + (f", {built.mean():.0f} m high in the mean, {built.max():.0f} m at most."
               if len(built) else ".")
        )  # fmt: skip
    return about


def _pois(pois: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Counts of the commonest categories, and names spread evenly over the list."""
    counts = Counter(clean(category) for _, category in pois)
    top = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_CATEGORIES]
    named = [(clean(name), clean(category)) for name, category in pois if name.strip()]
    every = max(1, -(-len(named) // _NAMES))
    listed = [{"name": name, "category": category} for name, category in named[::every]]
    return {"categories": dict(top), "names": listed}
