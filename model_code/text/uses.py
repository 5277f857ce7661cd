"""What a place is used for, guessed from one modality, and what that means for a day: the common
sense that a person, or a large model, brings to a picture or a list of POIs.

The figures are round and of no city: homes empty in the morning, offices in the late afternoon, bars
at night. K uses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

USES = ("homes", "offices", "shops", "going_out", "industry", "leisure", "open_land")

_SAID = {
    "homes": ("homes", "housing", "a residential neighbourhood"),
    "offices": ("offices", "workplaces", "a business district"),
    "shops": ("shops", "retail and services", "a shopping street"),
    "going_out": ("bars and restaurants", "places to go out", "night life"),
    "industry": ("industry", "workshops and storage", "an industrial estate"),
    "leisure": ("parks and leisure", "recreation", "places to be outdoors"),
    "open_land": ("open land", "little but open ground", "land that is hardly used"),
}

# How strongly people leave in each hour from midnight, the busiest hour of each use being 1.
_LEAVE = {
    "homes": (1, 0, 0, 0, 0, 1, 4, 9, 10, 6, 4, 3, 3, 3, 3, 3, 3, 3, 4, 4, 3, 2, 1, 1),
    "offices": (0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 5, 4, 3, 4, 6, 10, 9, 5, 3, 2, 1, 0),
    "shops": (0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 4, 5, 6, 6, 6, 7, 8, 9, 10, 8, 5, 3, 1, 0),
    "going_out": (9, 8, 7, 5, 2, 1, 0, 0, 0, 0, 1, 1, 2, 4, 4, 2, 1, 1, 2, 3, 5, 7, 9, 10),
    "industry": (1, 0, 0, 0, 0, 0, 3, 1, 1, 1, 1, 2, 3, 3, 6, 7, 10, 8, 4, 2, 1, 1, 4, 1),
    "leisure": (0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 8, 5, 3, 1, 1, 0),
    "open_land": (1, 1, 1, 1, 1, 2, 4, 6, 6, 6, 7, 8, 9, 9, 9, 10, 10, 10, 8, 6, 4, 3, 2, 1),
}
CURVES: NDArray[np.float64] = np.array([_LEAVE[use] for use in USES]) / 10  # [K, 24]

# Words in the names of POI categories, and the use that they speak of: up to four letters as they are or
# with an s, longer ones as a beginning. Two words of a name may stand here as one.
_OF_WORD: Mapping[str, tuple[str, ...]] = {
    "going_out": ("bar", "club", "pub", "restaurant", "cinema", "theat", "music", "nightlife",
                  "nightclub", "beergarden", "biergarten", "barbecue", "bbq", "joint", "diner"),
    "industry": ("factor", "warehouse", "industr", "repair", "fuel", "storage", "works", "depot"),
    "homes": ("kindergarten", "school", "preschool", "playground", "worship", "church", "mosque",
              "residen", "home", "housing", "apartment", "childcare", "dentist", "doctor", "laundry",
              "library"),
    "offices": ("office", "bank", "coworking", "company", "government", "embassy", "univers",
                "college", "conference", "courthouse", "townhall", "atm"),
    "leisure": ("park", "garden", "museum", "sport", "tennis", "gym", "pitch", "beach", "attraction",
                "viewpoint", "hotel", "stadium", "fountain", "monument", "art", "artwork"),
    "shops": ("shop", "store", "market", "marketplace", "supermarket", "mall", "cafe", "coffee",
              "bakery", "pharmac", "convenience", "hair", "barber", "beauty", "salon", "food", "deli"),
}  # fmt: skip


@dataclass(frozen=True)
class Guess:
    """How much each use counts [K], and how busy it is, 0 to 100."""

    weights: NDArray[np.float64]
    activity: float


def _guess(activity: float, **weights: float) -> Guess:
    values = np.array([max(weights.get(use, 0.0), 0.0) for use in USES])
    return Guess(values / max(values.sum(), 1e-9), float(np.clip(activity, 0, 100)))


def from_above(shares: Mapping[str, float]) -> Guess:
    """From shares of land cover: closely built land without greenery is a centre, leafy one is
    housing."""
    share = {name: shares.get(name, 0.0) for name in
             ("building", "industrial", "road", "forest", "grass", "water", "barren", "background")}  # fmt: skip
    built, green = share["building"], share["forest"] + share["grass"]
    dense = built / (built + green + 0.05)
    return _guess(
        100 * (1.2 * built + 0.7 * share["industrial"] + 0.8 * share["road"]
               + 0.3 * share["background"]),
        homes=built * (1 - 0.5 * dense),
        offices=0.4 * built * dense,
        shops=0.2 * built * dense + 0.2 * share["background"],
        industry=1.5 * share["industrial"],
        leisure=0.25 * green + 0.2 * share["water"],
        open_land=0.3 * share["barren"] + 0.1 * share["grass"],
    )  # fmt: skip


def from_heights(heights_m: NDArray[Any]) -> Guess:
    """From a height map [H, W] (NaN: unknown) with a known height: towers are offices, low houses
    homes, and floors are filled with people."""
    known = np.asarray(heights_m, np.float64)
    known = known[np.isfinite(known)]
    built = known[known > 0]
    covered = built.size / max(known.size, 1)
    typical = float(np.median(built)) if built.size else 0.0
    tall = float(np.clip((typical - 5) / 25, 0, 1))
    floors = covered * typical / 3.2
    return _guess(
        100 * (1 - np.exp(-floors / 2)),
        homes=covered * (1 - 0.7 * tall),
        offices=covered * tall,
        shops=0.3 * covered * tall,
        open_land=0.2 * (1 - covered),
    )


def from_street(shares: Mapping[str, float]) -> Guess:
    """From shares of what stands in a street: signs are shops, people and cars are life."""
    share = {name: shares.get(name, 0.0) for name in
             ("building", "signboard", "person", "car", "tree", "grass", "water")}  # fmt: skip
    signs, people = 20 * share["signboard"], 100 * share["person"]
    green = share["tree"] + share["grass"]
    return _guess(
        100 * (0.6 * share["building"] + 0.5 * min(signs, 1) + 0.4 * min(people, 1)
               + 8 * share["car"] - 0.3 * green),
        homes=share["building"] + 0.5 * green,
        offices=0.3 * share["building"],
        shops=signs,
        going_out=0.5 * signs * (1 + min(people, 1)),
        leisure=0.4 * green + share["water"],
    )  # fmt: skip


def from_pois(pois: Sequence[tuple[str, str]]) -> Guess:
    """From the categories of POIs (name, category); one that no word tells of counts for no use."""
    counts = Counter(use for _, category in pois if (use := use_of(category)))
    # Few places stand for a home or a workplace, many for a shop.
    rarity = {"homes": 2.0, "offices": 2.0, "industry": 2.0, "going_out": 0.8, "shops": 0.8}
    return _guess(
        100 * (1 - np.exp(-len(pois) / 60)),
        **{use: rarity.get(use, 1.0) * count for use, count in counts.items()},
    )


@lru_cache(maxsize=4096)
def use_of(category: str) -> str | None:
    """The use that the name of a category speaks of, None if of none. The last word that speaks of one
    counts: a music store is a store."""
    words = re.findall(r"[a-z]+", category.lower())
    before = ["", *words]
    for word, last in zip(reversed(words), reversed(before[: len(words)]), strict=True):
        for use, known in _OF_WORD.items():
            if last + word in known or any(_speaks_of(word, part) for part in known):
                return use
    return None


def _speaks_of(word: str, part: str) -> bool:
    return word in (part, f"{part}s") if len(part) <= 4 else word.startswith(part)


def departures(guess: Guess) -> NDArray[np.float64]:
    """How strongly people leave in each hour [24], the busiest being 1; as anywhere, where no use is
    known."""
    curve = guess.weights @ CURVES if guess.weights.any() else CURVES.mean(axis=0)
    return np.asarray(curve / curve.max())


def sentence(guess: Guess, pick: Callable[[Sequence[str]], str]) -> str:
    """What the place is for, in words."""
    if not guess.weights.any():
        return "It is not plain what the place is for."
    order = np.argsort(-guess.weights, kind="stable")
    first, *others = (USES[i] for i in order if guess.weights[i] > 0.15)
    words = f"{pick(('Mainly', 'Mostly', 'Above all'))} {pick(_SAID[first])}"
    if others:
        words += f", with {' and '.join(pick(_SAID[use]) for use in others[:2])}"
    return f"{words}."
