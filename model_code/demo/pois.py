"""Points of interest with names and comments; they see industry, commerce and employment."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from model_code.demo.fields import Doubles, stream
from model_code.demo.files import degrees
from model_code.demo.indicators import (
    COMMENTS_RANGE_M,
    COMMENTS_SHARE,
    POIS_RANGE_M,
    POIS_SHARE,
    Target,
    by_region,
    counted,
    volume,
)
from model_code.demo.place import Ints, Place
from model_code.demo.streets import Streets

# Category: mean count in a cell with latents of one half, and how its logarithm follows commerce,
# employment and industry.
CATEGORIES: dict[str, tuple[float, float, float, float]] = {
    "bank": (2.2, 1.3, 2.0, 0.0),
    "bar": (3.4, 3.4, 0.0, 0.0),
    "cafe": (5.6, 2.4, 0.8, 0.0),
    "car_repair": (2.0, 0.5, 0.2, 2.0),
    "clothes_shop": (4.6, 2.8, 0.2, 0.0),
    "convenience": (4.0, 1.0, -0.6, 0.0),
    "coworking": (1.4, 1.5, 2.4, 0.0),
    "factory": (1.6, 0.2, 0.3, 3.6),
    "fuel": (1.5, 0.6, 0.0, 1.2),
    "hotel": (1.8, 2.0, 1.0, 0.0),
    "kindergarten": (2.0, 0.4, -2.0, -0.5),
    "nightclub": (1.2, 3.8, 0.0, 0.0),
    "office": (5.4, 1.0, 2.8, 0.0),
    "pharmacy": (2.4, 1.0, -0.4, 0.0),
    "place_of_worship": (1.8, 0.5, -0.8, 0.0),
    "playground": (2.4, 0.3, -1.8, -0.6),
    "restaurant": (8.0, 2.5, 0.6, 0.0),
    "school": (1.8, 0.5, -1.6, -0.5),
    "supermarket": (2.8, 1.1, -0.8, 0.0),
    "warehouse": (2.0, 0.2, 0.5, 3.4),
}
_CHUNK_CELLS = 8192

_FIRST_NAMES = (
    "Amber", "Anchor", "Atlas", "Aurora", "Beacon", "Birch", "Blue Door", "Cedar", "Central",
    "Cobalt", "Corner", "Delta", "Elm Street", "Fern", "Garnet", "Golden", "Harbour", "Hilltop",
    "Iris", "Juniper", "Lantern", "Linden", "Luna", "Maple", "Meridian", "Nova", "Old Mill",
    "Orchard", "Parkside", "Pearl", "Quay", "Riverside", "Rosa", "Saffron", "Silver", "Station",
    "Sunrise", "Tilia", "Union", "Willow",
)  # fmt: skip

# What people write: about anything; where it is lively; where people work; where goods move.
_SAID = (
    ("Friendly staff.", "Would come again.", "Not what I expected.", "Fine for what it is.",
     "They fixed my problem at once.", "Slow service on my visit.", "Clean and well kept.",
     "A bit hard to find.", "Opening hours are wrong online.", "My regular place for years."),
    ("Packed on a Friday night.", "Open late, good music.", "The whole street is lively.",
     "Queue out of the door.", "Great for meeting friends in the evening.",
     "Crowded, book ahead.", "Shop windows all lit up around here.", "Loud until two at night."),
    ("Full of office workers at noon.", "Quick lunch between meetings.", "Empty after six.",
     "Closed at weekends.", "Handy when you work around here.", "Suits and laptops everywhere."),
    ("Lorries block the entrance.", "Noisy yard next door.", "Loading all day long.",
     "Smells of the plant when the wind turns.", "Hard hats at every table."),
)  # fmt: skip
_ENDINGS = ("", " Three stars.", " Recommended.", " Parking is easy.", " Parking is a pain.",
            " Came by bus.", " Prices went up.", " Nothing special.")  # fmt: skip


def expected_pois(streets: Streets) -> tuple[Doubles, Target, Target]:
    """Expected POIs by category [N, C] (with the noise), and the targets POIs and comments."""
    latents = streets.latents
    z = by_region(latents)
    base, *slopes = np.array([CATEGORIES[name] for name in sorted(CATEGORIES)]).T
    mixed = np.column_stack([z.commerce, z.employment, z.industry]) - 0.5
    mean = base * np.exp(mixed @ np.array(slopes))
    total = mean.sum(axis=1)
    clean, noisy = volume(latents, "pois", np.log(total), POIS_SHARE, POIS_RANGE_M)
    talk = np.log(total) - 0.9 + 0.9 * (z.commerce - 0.5)
    said, said_noisy = volume(latents, "comments", talk, COMMENTS_SHARE, COMMENTS_RANGE_M)
    pois = counted(clean, noisy, POIS_RANGE_M)
    comments = counted(said, said_noisy, COMMENTS_RANGE_M)
    return mean * (noisy / total)[:, None], pois, comments


def poi_parts(streets: Streets, expected: Doubles, comments: Doubles) -> Iterator[pa.Table]:
    """POIs drawn around the expected counts [N, C], with comments drawn around theirs [N], in
    chunks of cells; then the deliberate bad rows."""
    latents = streets.latents
    place = latents.place
    rng = stream(latents.seed, "pois")
    phrases = [text + end for group in _SAID for text in group for end in _ENDINGS]
    sizes = np.array([len(group) * len(_ENDINGS) for group in _SAID])
    starts = np.cumsum(sizes) - sizes
    z = by_region(latents)
    lean = np.column_stack([np.full(place.regions, 0.9), z.commerce, z.employment, z.industry])
    lean = np.cumsum(lean**1.5, axis=1)
    for start in range(0, place.regions, _CHUNK_CELLS):
        rows = slice(start, start + _CHUNK_CELLS)
        counts = rng.poisson(expected[rows])
        cell, category = np.divmod(
            np.repeat(np.arange(counts.size), counts.ravel()), counts.shape[1]
        )
        per_cell = counts.sum(axis=1)
        said = rng.poisson(comments[rows]) * (per_cell > 0)
        # Each comment goes to any POI of its cell.
        said_cell = np.repeat(np.arange(len(said)), said)
        first = np.cumsum(per_cell) - per_cell
        about = first[said_cell] + (rng.random(len(said_cell)) * per_cell[said_cell]).astype(int)
        order = np.argsort(about, kind="stable")
        about, said_cell = about[order], said_cell[order]
        leaning = lean[rows][said_cell]
        group = (leaning < rng.random((len(leaning), 1)) * leaning[:, -1:]).sum(axis=1)
        phrase = starts[group] + (rng.random(len(group)) * sizes[group]).astype(int)
        offsets = np.searchsorted(about, np.arange(len(cell) + 1))
        x, y = place.scatter(rng, cell + start)
        x, y, _ = streets.onto_street(x, y, rng)
        yield _columns(
            place, x, y, category, rng.integers(0, len(_FIRST_NAMES), len(cell)),
            pa.ListArray.from_arrays(
                pa.array(offsets, pa.int32()), pa.array(phrases).take(pa.array(phrase))
            ),
        )  # fmt: skip
    yield _bad_rows(place)


def _bad_rows(place: Place) -> pa.Table:
    """Three POIs outside the city, two without coordinates."""
    x = np.array([-3000.0, -4000.0, place.width_m + 9000, np.nan, np.nan])
    number = np.arange(5)
    return _columns(place, x, np.where(np.isnan(x), np.nan, 500.0), number, number,
                    pa.array([["Never found it."]] * 5))  # fmt: skip


def _columns(
    place: Place, x: Doubles, y: Doubles, category: Ints, first: Ints, comments: pa.Array
) -> pa.Table:
    names = sorted(CATEGORIES)
    known = ~np.isnan(x)
    lon, lat = np.full((2, len(x)), np.nan)
    lon[known], lat[known] = place.lonlat(x[known], y[known])
    full = [f"{f} {c.replace('_', ' ')}" for c in names for f in _FIRST_NAMES]
    return pa.table(
        {
            "name": pa.array(full).take(pa.array(category * len(_FIRST_NAMES) + first)),
            "category": pa.array(names).take(pa.array(category)),
            "comments": comments,
            "lon": pa.array(degrees(lon), from_pandas=True),
            "lat": pa.array(degrees(lat), from_pandas=True),
        }
    )
