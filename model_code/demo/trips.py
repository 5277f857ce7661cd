"""Trips between cells: a gravity model with a profile of the day.

Trips see centrality, employment against housing, and commerce.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from model_code.demo.fields import Doubles, stream
from model_code.demo.files import degrees
from model_code.demo.indicators import (
    TRIPS_RANGE_M,
    TRIPS_SHARE,
    Target,
    by_region,
    counted,
    volume,
)
from model_code.demo.latents import Latents
from model_code.demo.place import Ints, Place
from model_code.hours import HOURS

FIRST_DAY = np.datetime64("2023-10-02")  # Monday; five working days without a clock change
DAYS = 5
_CHUNK = 400_000
_CANDIDATES = 6
_MEAN_DISTANCE_M = 3000.0


def _bell(peak: float, width: float) -> Doubles:
    """A smooth peak on the circle of 24 hours, sum 1."""
    away = (np.arange(HOURS) - peak + 12) % 24 - 12
    curve = np.exp(-0.5 * (away / width) ** 2)
    return np.asarray(curve / curve.sum())


# Homes are left in the morning, workplaces in the late afternoon, places to go out at night.
FROM_HOMES = 0.8 * _bell(7.7, 1.4) + 0.2 * _bell(13, 4)
FROM_WORK = 0.75 * _bell(17.3, 1.6) + 0.25 * _bell(13, 2)
FROM_NIGHT_LIFE = 0.55 * _bell(22.3, 2.0) + 0.45 * _bell(15, 4)
_ANY_TIME = 0.5 * _bell(13, 5) + 0.5 / HOURS


def outflow(latents: Latents) -> tuple[Target, Target]:
    """Trips that start in each cell over the five days: by hour [N, 24] and in all [N, 1]."""
    z = by_region(latents)
    log_volume = 5.25 + 1.5 * z.centrality + 0.9 * z.commerce + 0.7 * z.employment
    clean, noisy = volume(latents, "trips", log_volume, TRIPS_SHARE, TRIPS_RANGE_M)
    profile = (
        np.outer(1 - z.employment, FROM_HOMES) + np.outer(z.employment, FROM_WORK)
        + np.outer(0.8 * z.commerce, FROM_NIGHT_LIFE) + 0.45 * _ANY_TIME
    )  # fmt: skip
    profile /= profile.sum(axis=1, keepdims=True)
    hourly = counted(clean[:, None] * profile, noisy[:, None] * profile, TRIPS_RANGE_M)
    return hourly, counted(clean, noisy, TRIPS_RANGE_M)


def trip_parts(latents: Latents, expected: Doubles) -> Iterator[pa.Table]:
    """Trips drawn around the expected outflow [N, 24], in chunks, then the deliberate bad rows."""
    place = latents.place
    rng = stream(latents.seed, "trips")
    pull = _attraction(latents)
    per_cell = rng.poisson(expected)  # [N, 24]
    until = np.cumsum(per_cell.sum(axis=1))
    start = 0
    while start < place.regions:
        begun = until[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(until, begun + _CHUNK)))
        counts = per_cell[start:stop]
        cell, hour = np.divmod(np.repeat(np.arange(counts.size), counts.ravel()), HOURS)
        cell += start
        target = _destinations(rng, place, pull, cell, hour)
        yield _table(rng, place, cell, target, hour)
        start = stop
    yield _bad_rows(place)


def _attraction(latents: Latents) -> Doubles:
    """How much each hour's travellers want to go to each cell, [24, N]."""
    z = by_region(latents)
    central = np.exp(1.2 * z.centrality)
    to_work, home, out = FROM_HOMES, FROM_WORK, _bell(19.5, 2.2)
    return np.asarray(
        central * (
            np.outer(to_work, np.exp(3.0 * z.employment))
            + np.outer(home, np.exp(3.0 * (1 - z.employment)))
            + 0.5 * np.outer(out, np.exp(3.0 * z.commerce))
            + 0.02
        )
    )  # fmt: skip


def _destinations(
    rng: np.random.Generator, place: Place, pull: Doubles, cell: Ints, hour: Ints
) -> Ints:
    """The gravity model by importance resampling: a few candidates from the deterrence (exponential
    in distance), of which one is taken in proportion to its attraction."""
    shape = (len(cell), _CANDIDATES)
    distance = rng.gamma(2.0, _MEAN_DISTANCE_M / 2, shape)
    angle = rng.uniform(0, 2 * np.pi, shape)
    corner = place.centre[cell]
    candidate = place.cell(
        corner[:, :1] + distance * np.cos(angle), corner[:, 1:] + distance * np.sin(angle)
    )
    weight = np.where(candidate >= 0, pull[hour[:, None], candidate], 0.0)
    total = np.cumsum(weight, axis=1)
    pick = (total < rng.random((len(cell), 1)) * total[:, -1:]).sum(axis=1)
    chosen = candidate[np.arange(len(cell)), np.minimum(pick, _CANDIDATES - 1)]
    return np.where(total[:, -1] > 0, chosen, cell)  # all candidates outside: a short trip


def _table(
    rng: np.random.Generator, place: Place, origin: Ints, destination: Ints, hour: Ints
) -> pa.Table:
    n = len(origin)
    second = rng.integers(0, DAYS, n) * 86_400 + hour * 3600 + rng.integers(0, 3600, n)
    started = FIRST_DAY.astype("datetime64[s]") + second.astype("timedelta64[s]")
    from_lon, from_lat = place.lonlat(*place.scatter(rng, origin))
    to_lon, to_lat = place.lonlat(*place.scatter(rng, destination))
    return _columns(started, from_lon, from_lat, to_lon, to_lat)


def _bad_rows(place: Place) -> pa.Table:
    """Five trips that end outside the city, two that start there, three without a destination."""
    centre = place.centre[[0]].repeat(10, axis=0)
    from_x, from_y = centre.T.copy()
    to_x, to_y = centre.T.copy()
    to_x[:5] += place.width_m + 5000
    from_x[5:7] -= 5000 + place.cell_m
    started = FIRST_DAY.astype("datetime64[s]") + np.arange(10).astype("timedelta64[h]")
    to_lon, to_lat = place.lonlat(to_x, to_y)
    to_lon[7:], to_lat[7:] = np.nan, np.nan
    return _columns(started, *place.lonlat(from_x, from_y), to_lon, to_lat)


def _columns(
    started: np.ndarray, from_lon: Doubles, from_lat: Doubles, to_lon: Doubles, to_lat: Doubles
) -> pa.Table:
    return pa.table(
        {
            "started_at": pa.array(started, pa.timestamp("s")).cast(pa.timestamp("ms")),
            "origin_lon": degrees(from_lon),
            "origin_lat": degrees(from_lat),
            "destination_lon": pa.array(degrees(to_lon), from_pandas=True),
            "destination_lat": pa.array(degrees(to_lat), from_pandas=True),
        }
    )
