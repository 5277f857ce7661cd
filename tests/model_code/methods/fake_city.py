"""A small city with known latents, so that every modality says something of every target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from model_code.methods import UrbanVlpConfig
from model_code.methods.base import Checkpoint, HourlyFlows, Parts, RegionData, Targets, Task
from model_code.methods.urbanvlp import make_towers
from model_code.training import seeded, state_arrays
from model_code.vision.clip import model_arguments
from model_code.vision.clip_config import ClipConfig

TASKS = (
    Task("income", "regression"),
    Task("population", "regression", transform="log1p"),
    Task("use", "classification", classes=("home", "work", "park")),
    Task("outflow", "hourly", transform="log1p", slots=24),
)


def fake_city(
    regions: int = 60, seed: int = 0, chip_px: int = 16
) -> tuple[RegionData, Targets, Parts]:
    """Regions on a square, three latents; every modality shows all of them, with noise. Labels are
    missing at random, one region in ten has no chip."""
    rng = np.random.default_rng(seed)
    latents = rng.random((regions, 3))
    xy = rng.random((regions, 2)) * 10_000 + [500_000, 4_500_000]
    pixels = latents[:, None, None, :] + 0.1 * rng.standard_normal((regions, chip_px, chip_px, 3))
    present = rng.random(regions) > 0.1
    chips = (255 * pixels.clip(0, 1)).astype(np.uint8)
    chips[~present] = 0
    trips = rng.poisson(20 * latents[:, :1] * latents[:, 1])
    origin, destination = np.nonzero(trips)
    order = np.random.default_rng((seed, 3)).permutation(regions) / regions
    parts = Parts(order < 0.6, (order >= 0.6) & (order < 0.8), order >= 0.8)
    data = RegionData(
        region_ids=np.array([f"r{i:04}" for i in range(regions)]),
        lonlat_deg=xy / 1e5,
        xy_m=xy,
        area_km2=np.ones(regions),
        chips=chips,
        chip_present=present,
        poi_counts=rng.poisson(30 * latents).astype(np.float32),
        poi_categories=("bar", "office", "shop"),
        flow_origin=origin,
        flow_destination=destination,
        flow_count=trips[origin, destination].astype(float),
        hourly_flows=_hourly(trips, seed),
        **_pictured(latents, seed),
        **_told(latents, seed),
        **_described(latents, seed),
        neighbours=_neighbours(parts, seed),
    )
    hours = np.linspace(0, 1, 24)
    values = {
        "income": latents[:, :1] - latents[:, 1:2],
        "population": np.log1p(1000 * latents[:, 2:]),
        "use": latents.argmax(axis=1)[:, None].astype(float),
        "outflow": latents[:, :1] * hours + latents[:, 1:2] * (1 - hours),
    }
    for name, some in values.items():
        some[rng.random(regions) < 0.1] = np.nan
        assert name in {task.name for task in TASKS}
    return data, Targets(TASKS, values), parts


WORDS = (("grey", "brown", "red"), ("quiet", "lively", "busy"), ("bare", "leafy", "green"))


def _hourly(trips: np.ndarray, seed: int) -> HourlyFlows:
    """Trips about as many as `trips` [N, N], half of them in four hours each in the morning and in the
    evening, which go from the first regions to the last and back."""
    rng = np.random.default_rng((seed, 6))
    hours = np.array([6, 7, 8, 9, 16, 17, 18, 19])
    forth = np.triu(np.ones_like(trips)) * 0.15 + 0.05
    count = rng.poisson(np.where((hours < 12)[:, None, None], forth, 0.25 - forth) * trips)
    hour, origin, destination = np.nonzero(count)
    return HourlyFlows(
        origin, destination, hours[hour], count[hour, origin, destination].astype(float)
    )


def _pictured(latents: np.ndarray, seed: int) -> dict[str, Any]:
    """Street views (none to three a region, shuffled) with their places, captions that name each
    latent in three steps, and shares. One caption in ten is empty, one in five is not kept."""
    rng = np.random.default_rng((seed, 1))
    region = rng.permutation(np.repeat(np.arange(len(latents)), rng.integers(0, 4, len(latents))))
    seen = latents[region]
    pixels = seen[:, None, None, :] + 0.1 * rng.standard_normal((len(region), 16, 24, 3))
    places = np.sin(seen @ rng.standard_normal((3, 512)))
    places += 0.1 * rng.standard_normal(places.shape)

    def texts(of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = np.minimum((3 * of).astype(int), 2)
        words = [" ".join(WORDS[k][step] for k, step in enumerate(row)) for row in steps]
        empty = rng.random(len(of)) < 0.1
        return np.where(empty, "", np.array(words)), rng.random(len(of)) >= 0.2

    chip_texts, chip_kept = texts(latents)
    view_texts, view_kept = texts(seen)
    places_of_views = rng.random((len(region), 2))
    mixed = rng.standard_normal((3, 12))
    return {
        "views": (255 * pixels.clip(0, 1)).astype(np.uint8),
        "view_region": region,
        "view_lonlat": places_of_views,
        "chip_texts": chip_texts,
        "chip_text_kept": chip_kept,
        "chip_first_texts": np.where(chip_kept, chip_texts, "a first try"),
        "view_texts": view_texts,
        "view_text_kept": view_kept,
        "view_first_texts": np.where(view_kept, view_texts, "a first try"),
        "chip_shares": (latents / latents.sum(axis=1, keepdims=True)).astype(np.float32),
        "chip_classes": ("house", "park", "lake"),
        "view_shares": (seen / seen.sum(axis=1, keepdims=True)).astype(np.float32),
        "chip_features": np.sin(latents @ mixed).astype(np.float32),
        "view_features": np.sin(seen @ mixed).astype(np.float32),
        "view_location_features": places.astype(np.float32),
    }


def _told(latents: np.ndarray, seed: int) -> dict[str, Any]:
    """POIs that are called, and spoken of, by the latents' words; one region in ten has none of them,
    one in five no comment."""
    rng = np.random.default_rng((seed, 2))

    def texts(silent: np.ndarray) -> tuple[np.ndarray, ...]:
        region = np.repeat(np.arange(len(latents)), np.where(silent, 0, rng.integers(5, 20)))
        about = rng.integers(0, 3, len(region))
        step = (3 * rng.beta(1 + 9 * (z := latents[region, about]), 10 - 9 * z)).astype(int)
        return np.array(WORDS)[about, step], region, np.array(["bar", "office", "shop"])[about]

    silent = rng.random(len(latents)) < 0.1
    names, name_region, name_category = texts(silent)
    comments, comment_region, comment_category = texts(silent | (rng.random(len(latents)) < 0.1))
    return {
        "poi_names": np.strings.add("The ", names),
        "poi_name_region": name_region,
        "poi_name_category": name_category,
        "poi_comments": comments,
        "poi_comment_region": comment_region,
        "poi_comment_category": comment_category,
    }


def _described(latents: np.ndarray, seed: int) -> dict[str, Any]:
    """Height maps of the third latent (one region in ten has none), and vectors of descriptions that
    show all latents (one in ten is missing)."""
    rng = np.random.default_rng((seed, 4))
    heights = 40 * latents[:, 2, None, None] * rng.random((len(latents), 8, 8))
    vectors = {}
    for form in ("levels", "levels_lite"):
        for modality in ("satellite", "heights", "street_view", "pois"):
            rows = np.tanh(latents @ rng.standard_normal((3, 12)))
            rows[rng.random(len(latents)) < 0.1] = np.nan
            vectors[form, modality] = rows.astype(np.float32)
    return {
        "heights": heights.astype(np.float32),
        "height_present": rng.random(len(latents)) > 0.1,
        "descriptions": vectors,
    }


def _neighbours(parts: Parts, seed: int) -> np.ndarray:
    """Borders between regions of one part, so that no part sees another; the first test region, and
    others, have none."""
    rng = np.random.default_rng((seed, 5))
    rows = np.arange(len(parts.train))
    rows = rows[(rng.random(len(rows)) < 0.8) & (rows != np.flatnonzero(parts.test)[0])]
    part = parts.train + 2 * parts.val
    one, other = np.triu_indices(len(rows), 1)
    one, other = rows[one], rows[other]
    kept = (part[one] == part[other]) & (rng.random(len(one)) < 0.15)
    pairs = np.stack([one[kept], other[kept]], axis=1)
    return np.concatenate([pairs, pairs[:, ::-1]])


def with_towers(data: RegionData, tower: dict[str, Any], seed: int = 5) -> RegionData:
    """The same city with towers of random weights, as if they were pretrained."""
    size = UrbanVlpConfig.model_validate({"chip_px": 16, "view_px": (16, 24), "tower": tower})
    with seeded(seed):
        pairs = make_towers(data, size, np.ones(len(data), bool))
    towers = {
        str(view): Checkpoint(
            state_arrays(pair),
            {"model": model_arguments(ClipConfig.model_validate(tower), pair.size_px)},
        )
        for view, pair in pairs.items()
    }
    return replace(data, towers=towers)


def r2(predicted: np.ndarray, true: np.ndarray, rows: np.ndarray) -> float:
    """R2 over the labelled ones of `rows`, all slots joined."""
    known = rows & np.isfinite(true).all(axis=1)
    left = ((predicted - true)[known] ** 2).sum()
    return float(1 - left / ((true[known] - true[known].mean(axis=0)) ** 2).sum())


def equal(first: Checkpoint, second: Checkpoint) -> bool:
    """Whether two checkpoints hold the same numbers."""
    return first.tensors.keys() == second.tensors.keys() and all(
        np.array_equal(value, second.tensors[name]) for name, value in first.tensors.items()
    )
