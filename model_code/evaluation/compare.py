"""Paired bootstrap between methods: by how much does one beat another on the same regions?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_code.errors import DataError
from model_code.evaluation.metrics import class_counts, kinds_of, macro_f1, require_finite
from model_code.tables import contract

Array = NDArray[Any]
Method = tuple[str, str]
Figures = Callable[[Array], Array]

ALL_TASKS = "all tasks"  # no name of an indicator has a space

_CHUNK = 1 << 24  # weights that stand in memory at once


def compare(
    predictions: Mapping[Method, pd.DataFrame],
    indicators: pd.DataFrame,
    *,
    splits: pd.DataFrame | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The table `comparisons`: every pair of methods on every task and split that both predict.

    The test regions of all folds are joined, and one metric is taken over them: R2 on the
    transformed scale, or macro F1. A draw resamples regions with replacement, the same for every
    method; a region brings all its rows (hours, and folds that test it). In each draw the metric
    is taken for each seed of a method, then averaged over its seeds. `low` and `high` are the
    2.5 % and 97.5 % quantiles of the difference over draws. The rows of the task `ALL_TASKS` compare
    the mean R2 over the numbers that no modality contains, drawn in all tasks at once.

    Args:
        predictions: by (method, variant), its rows of the table `predictions`.
        indicators: the table `indicators`.
        splits: the table `splits`; where a split has blocks, whole blocks are resampled instead of
            regions, since neighbours err together. Of several repeats, the first one's blocks.
        draws: number of resamples.
        seed: of the resampling.

    Raises:
        DataError: two methods differ in the test rows, or in the truth, of a task and split.
    """
    by_split: dict[str, dict[str, dict[Method, pd.DataFrame]]] = {}
    for method in sorted(predictions):
        require_finite(predictions[method])
        for (task, split), rows in predictions[method].groupby(["task", "split"]):
            by_split.setdefault(str(split), {}).setdefault(str(task), {})[method] = rows
    blocks = _blocks(splits)
    contained = dict(zip(indicators["indicator"], indicators["contained_in"].map(len), strict=True))
    records: list[dict[str, Any]] = []
    for split, by_task in by_split.items():
        regions = _tested(by_task)
        unit = _units(regions, blocks.get(split))
        joined: dict[tuple[Method, ...], list[Array]] = {}  # of the tasks that go into the mean
        kinds = kinds_of(pd.Series(list(by_task), dtype=str), indicators)
        for (task, methods), kind in zip(by_task.items(), kinds, strict=True):
            _require_same_rows(methods, regions, f"{task} ({split} split)")
            measure = _macro_f1_figures if kind == "classification" else _r2_figures
            figures = _drawn(measure(methods, regions, unit), int(unit.max()) + 1, draws, seed)
            name = "macro_f1" if kind == "classification" else "r2"
            tested = next(iter(methods.values()))["region_id"].nunique()
            about = {"task": task, "split": split, "metric": name, "regions": tested}
            records += [row | about for row in _pairs(tuple(methods), figures, tested)]
            if kind != "classification" and not contained.get(task):
                joined.setdefault(tuple(methods), []).append(figures)
        for names, parts in joined.items():
            if len(parts) > 1:
                about = {"task": ALL_TASKS, "split": split, "metric": "mean_r2",
                         "regions": len(regions)}  # fmt: skip
                mean = np.mean(parts, axis=0)
                records += [row | about for row in _pairs(names, mean, len(regions))]
    table = contract("comparisons")
    result = pd.DataFrame.from_records(records, columns=table.names())
    return result.sort_values(list(table.key), ignore_index=True)


def _tested(by_task: Mapping[str, Mapping[Method, pd.DataFrame]]) -> pd.Index:
    """All regions that are tested on some task, so that one draw serves all tasks."""
    ids = [next(iter(methods.values()))["region_id"] for methods in by_task.values()]
    regions: pd.Index = pd.Index(np.sort(pd.concat(ids).unique()))
    return regions


def _drawn(figures: Figures, units: int, draws: int, seed: int) -> Array:
    """The figures [1 + draws, M]: as observed, and in each draw."""
    parts = [figures(np.ones((1, units))), *map(figures, weights(units, draws, seed))]
    return np.concatenate(parts)


def _pairs(names: tuple[Method, ...], figures: Array, tested: int) -> Iterator[dict[str, Any]]:
    """Each pair of methods, the better one first, with the interval of the difference of `figures`."""
    observed, drawn = figures[0], figures[1:]
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    estimable = tested >= 2 and np.isfinite(observed).all() and len(drawn) > 0
    for i, j in combinations(range(len(names)), 2):
        a, b = (j, i) if observed[j] > observed[i] else (i, j)
        found: Array = np.full(3, np.nan)
        if estimable:
            low, high = np.quantile(drawn[:, a] - drawn[:, b], [0.025, 0.975])
            found = np.array([observed[a] - observed[b], low, high])
        yield (
            dict(zip(("method_a", "variant_a"), names[a], strict=True))
            | dict(zip(("method_b", "variant_b"), names[b], strict=True))
            | dict(zip(("difference", "low", "high"), found, strict=True))
        )


def weights(units: int, draws: int, seed: int) -> Iterator[Array]:
    """How often each draw holds each unit: chunks [draws in the chunk, units], rows sum to units."""
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK // units)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        picked = generator.integers(0, units, size=(rows, units))
        picked += np.arange(rows)[:, None] * units
        counts = np.bincount(picked.ravel(), minlength=rows * units)
        yield counts.reshape(rows, units).astype(np.float64)


def _blocks(splits: pd.DataFrame | None) -> dict[str, pd.Series]:
    """By split, the block of each region in its first fold; splits without blocks are not in it."""
    if splits is None:
        return {}
    first = splits[(splits["fold"] == 0) & (splits["block"] != "")]
    return {str(s): rows.set_index("region_id")["block"] for s, rows in first.groupby("split")}


def _units(regions: pd.Index, block: pd.Series | None) -> Array:
    """The code of the unit that is resampled with each region [R]."""
    if block is None:
        return np.arange(len(regions))
    codes, _ = pd.factorize(block.reindex(regions))
    if (codes < 0).any():
        raise DataError(
            f"{int((codes < 0).sum())} predicted region(s) have no block in `splits`",
            fix="materialise the predictions again: they were made with other splits",
        )
    return codes


def _require_same_rows(
    methods: Mapping[Method, pd.DataFrame], regions: pd.Index, where: str
) -> None:
    """Every seed of every method has the same number of rows and the same truth in each region."""
    reference: Array | None = None
    for method, rows in methods.items():
        region = regions.get_indexer(pd.Index(rows["region_id"]))
        seed, seeds = pd.factorize(rows["seed"])
        size = len(seeds) * len(regions)
        cell = seed * len(regions) + region
        same = bool((region >= 0).all())
        if same:
            counts = np.bincount(cell, minlength=size)
            truth = np.bincount(cell, weights=rows["y_true"].to_numpy(np.float64), minlength=size)
            found = np.stack([counts, truth]).reshape(2, len(seeds), len(regions))
            reference = found[:, :1] if reference is None else reference
            same = np.allclose(found, reference, rtol=1e-9, atol=1e-9)
        if not same:
            first = next(iter(methods))
            raise DataError(
                f"{where}: a seed of {'/'.join(method)} has other test rows, or another truth, "
                f"than the first seed of {'/'.join(first)}",
                fix="materialise the predictions of both methods from the same splits and targets",
            )


def _r2_figures(methods: Mapping[Method, pd.DataFrame], regions: pd.Index, unit: Array) -> Figures:
    """A function from weights [draws, U] to R2 [draws, M], by weighted sums."""
    units = int(unit.max()) + 1
    first = next(iter(methods.values()))
    first = first[first["seed"] == first["seed"].iat[0]]
    y = first["y_true"].to_numpy(np.float64)
    y = y - y[0]  # so that a constant truth is exactly 0, and a large mean costs no digits
    of = unit[regions.get_indexer(pd.Index(first["region_id"]))]
    truth = np.stack([np.bincount(of, weights=y**p, minlength=units) for p in range(3)], axis=1)
    errors = []  # by method [U, seeds]
    for rows in methods.values():
        of = unit[regions.get_indexer(pd.Index(rows["region_id"]))]
        seed, seeds = pd.factorize(rows["seed"])
        squared = ((rows["y_true"] - rows["y_pred"]) ** 2).to_numpy(np.float64)
        cell = of * len(seeds) + seed
        sums = np.bincount(cell, weights=squared, minlength=units * len(seeds))
        errors.append(sums.reshape(units, len(seeds)))

    def figures(w: Array) -> Array:
        count, total, squares = (w @ truth).T
        spread = squares - total**2 / count
        spread = np.where(spread > 1e-12 * squares, spread, np.nan)
        return np.stack([1.0 - (w @ e).mean(axis=1) / spread for e in errors], axis=1)

    return figures


def _macro_f1_figures(
    methods: Mapping[Method, pd.DataFrame], regions: pd.Index, unit: Array
) -> Figures:
    """A function from weights [draws, U] to macro F1 [draws, M], by weighted counts."""
    units = int(unit.max()) + 1
    classes = int(max(rows[["y_true", "y_pred"]].max().max() for rows in methods.values())) + 1
    counts = []  # by method three of [U, seeds, C]
    for rows in methods.values():
        of = unit[regions.get_indexer(pd.Index(rows["region_id"]))]
        seed, seeds = pd.factorize(rows["seed"])
        found = class_counts(
            rows["y_true"].to_numpy(np.float64),
            rows["y_pred"].to_numpy(np.float64),
            of * len(seeds) + seed,
            units * len(seeds),
            classes=classes,
        )
        counts.append([c.reshape(units, -1).astype(np.float64) for c in found])

    def figures(w: Array) -> Array:
        by_method = (
            macro_f1(*((w @ c).reshape(len(w), -1, classes) for c in found)).mean(axis=1)
            for found in counts
        )
        return np.stack(list(by_method), axis=1)

    return figures
