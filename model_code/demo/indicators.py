"""The indicators: written functions of several latents, plus spatially correlated noise.

Formulas and noise shares were set once, from what is known of cities; `docs/embedded-city.md`
repeats them in words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from model_code.demo.counts import log1p_poisson
from model_code.demo.fields import Doubles, gaussian_field, stream
from model_code.demo.latents import Latents
from model_code.demo.place import Place


@dataclass(frozen=True)
class By:
    """The latents by region, [N] each."""

    centrality: Doubles
    density: Doubles
    greenery: Doubles
    water: Doubles
    industry: Doubles
    income: Doubles
    commerce: Doubles
    employment: Doubles


@dataclass(frozen=True)
class Formula:
    """`function` gives the noise-free value on the transformed scale; `share` is the noise's share
    of the variance, `range_m` the range of its exponential covariance."""

    function: Callable[[By], Doubles]
    share: float
    range_m: float
    log1p: bool = True


FORMULAS: dict[str, Formula] = {
    "population": Formula(
        lambda z: 6.0 + 3.0 * z.density * (1 - 0.5 * z.industry) - 1.4 * z.employment
        + 0.6 * z.centrality - 0.8 * z.water,
        0.12, 2500,
    ),
    "carbon": Formula(
        lambda z: 7.0 + 1.4 * z.density + 1.9 * z.industry + 1.2 * z.centrality
        + 0.8 * z.density * z.income - 0.6 * z.greenery,
        0.15, 3000,
    ),
    "gdp": Formula(
        lambda z: 2.5 + 1.8 * z.employment * (0.5 + z.income) + 1.1 * z.commerce
        + 1.5 * z.centrality + 0.9 * z.industry,
        0.15, 3000,
    ),
    "night_light": Formula(
        lambda z: 1.2 + 1.5 * z.commerce + 1.2 * z.density + 1.0 * z.centrality
        + 0.6 * z.industry * (1 - z.greenery),
        0.12, 2000,
    ),
    "house_price": Formula(
        lambda z: 6.8 + 1.6 * z.income + 1.2 * z.centrality + 0.5 * z.greenery + 0.8 * z.water
        - 0.8 * z.industry + 0.5 * z.commerce * z.income,
        0.15, 2500,
    ),
    "pm25": Formula(
        lambda z: 9.0 + 6.5 * z.industry + 4.0 * z.density + 4.0 * z.centrality
        - 4.5 * z.greenery - 3.0 * z.water,
        0.20, 4000, log1p=False,
    ),
    "co": Formula(
        lambda z: 0.30 + 0.45 * z.industry + 0.55 * z.centrality * (0.4 + z.commerce)
        + 0.25 * z.density * (1 - z.greenery),
        0.20, 4000, log1p=False,
    ),
    "crime": Formula(
        lambda z: 2.2 + 1.5 * z.commerce + 1.1 * z.density - 1.3 * z.income
        + 1.2 * z.commerce * (1 - z.income) + 0.7 * z.centrality,
        0.15, 2500,
    ),
}  # fmt: skip

# Land use: the class with the highest score; the noise is added to each score.
LAND_USE: dict[str, Callable[[By], Doubles]] = {
    "commercial": lambda z: 1.9 * z.commerce + 0.6 * z.centrality - 0.2,
    "industrial": lambda z: 2.1 * z.industry + 0.15,
    "offices": lambda z: 1.9 * z.employment + 0.5 * z.centrality + 0.3 * z.density - 0.3,
    "open_land": lambda z: 1.1 * (1 - z.density) + 1.1 * z.greenery + 0.5 * z.water - 0.35,
    "residential": lambda z: 1.0 * z.density + 1.0 * (1 - z.employment) - 0.4 * z.industry + 0.1,
}
LAND_USE_SHARE, LAND_USE_RANGE_M = 0.15, 2500.0

# Counts of the city's own tables.
TRIPS_SHARE, TRIPS_RANGE_M = 0.12, 3000.0
POIS_SHARE, POIS_RANGE_M = 0.12, 2500.0
COMMENTS_SHARE, COMMENTS_RANGE_M = 0.12, 2500.0


@dataclass(frozen=True)
class Target:
    """One indicator by region and slot, [N, S]; S is 24 for an hourly one, else 1.

    `clean` and `noisy` are original values without and with the correlated noise; for counts they
    are expectations, around which the count scatters. The rest is on the transformed scale.
    """

    clean: Doubles
    noisy: Doubles
    clean_transformed: Doubles
    noise_variance: Doubles
    noise_range_m: float
    nugget_variance: Doubles
    labels: np.ndarray | None = field(default=None, repr=False)


def by_region(latents: Latents) -> By:
    """The latents of a city by region."""
    return By(**latents.regions())


def scalar(name: str, latents: Latents) -> Target:
    """An indicator of `FORMULAS`; its noise has exactly its share of the variance in this city."""
    formula = FORMULAS[name]
    truth = formula.function(by_region(latents))
    noise = _noise(latents, name, truth, formula.share, formula.range_m)
    back = np.expm1 if formula.log1p else np.asarray
    clean, noisy = back(truth), back(truth + noise)
    if name == "crime":
        return counted(clean, noisy, formula.range_m)
    n = len(truth)
    return Target(
        clean[:, None], noisy[:, None], truth[:, None],
        np.full((n, 1), noise.var()), formula.range_m, np.zeros((n, 1)),
    )  # fmt: skip


def counted(clean: Doubles, noisy: Doubles, range_m: float) -> Target:
    """A count that scatters around `noisy` as a Poisson variable; transform log1p."""
    clean, noisy = (a.reshape(len(a), -1) for a in (clean, noisy))
    truth, nugget = log1p_poisson(clean)
    with_noise, _ = log1p_poisson(noisy)
    spread = np.broadcast_to(((with_noise - truth) ** 2).mean(axis=0), truth.shape)
    return Target(clean, noisy, truth, spread, range_m, nugget)


def volume(
    latents: Latents, name: str, log_mean: Doubles, share: float, range_m: float
) -> tuple[Doubles, Doubles]:
    """Expected counts without and with correlated noise on their logarithm."""
    noise = _noise(latents, name, log_mean, share, range_m)
    return np.exp(log_mean), np.exp(log_mean + noise)


def land_use(latents: Latents) -> Target:
    """Codes are positions in the sorted names of `LAND_USE`; `labels` are the observed names."""
    z = by_region(latents)
    names = sorted(LAND_USE)
    scores = np.column_stack([LAND_USE[name](z) for name in names])
    noise = np.column_stack(
        [
            _noise(latents, f"land_use/{name}", scores[:, k], LAND_USE_SHARE, LAND_USE_RANGE_M)
            for k, name in enumerate(names)
        ]
    )
    clean = scores.argmax(axis=1).astype(float)[:, None]
    noisy = (scores + noise).argmax(axis=1)
    zero = np.zeros_like(clean)
    labels = np.array(names, object)[noisy]
    return Target(clean, noisy[:, None].astype(float), clean, zero, LAND_USE_RANGE_M, zero, labels)


def _noise(latents: Latents, name: str, truth: Doubles, share: float, range_m: float) -> Doubles:
    """Noise with the given share of the total variance, mean zero over the city, [N]."""
    place: Place = latents.place
    rng = stream(latents.seed, f"noise/{name}")
    shape = (place.rows, place.columns)
    grid = gaussian_field(rng, shape, place.cell_m, range_m, "exponential")
    values = grid.ravel()[: place.regions].astype(np.float64)
    values -= values.mean()
    scale = np.sqrt(share / (1 - share) * truth.var() / values.var())
    return np.asarray(values * scale)
