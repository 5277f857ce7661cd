"""Which regions train, validate and test; made once for a city, read by every method."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_code.city import RandomSplit, SpatialSplit, Splits
from model_code.errors import DataError

_PARTS = np.array(["train", "val", "test"], dtype=object)
_TRAIN, _VAL, _TEST = range(3)
# Streams of the seed, so that the two kinds of split never share random numbers.
_RANDOM_STREAM, _SPATIAL_STREAM = range(2)


def make_splits(regions: pd.DataFrame, config: Splits) -> pd.DataFrame:
    """The table `splits`: the part of every region in every fold.

    A random split draws train, val and test by share, anew at each repeat. A spatial split cuts the
    plane into squares of `block_m`, with another origin at each repeat, and deals them to folds of
    about equal numbers of regions; fold k tests on its own blocks, validates on those of the next
    fold and trains on the rest, so within a repeat every region is tested once. Folds are numbered
    `repeat * folds + k`. The result depends on the regions and the seed, not on the order of rows.

    Args:
        regions: columns region_id, x_m, y_m.
        config: the config section `splits`.

    Raises:
        DataError: a part would be empty, there are fewer blocks than folds, ids are not unique, or
            a region has no place.
    """
    ordered = regions.sort_values("region_id")
    ids = ordered["region_id"].to_numpy(dtype=object)
    xy_m = ordered[["x_m", "y_m"]].to_numpy(np.float64)
    if ordered["region_id"].duplicated().any():
        raise DataError("region ids are not unique", fix="give every region an id of its own")
    if not np.isfinite(xy_m).all():
        raise DataError("a region has no x_m, y_m", fix="mend the geometry of the regions")
    parts = _random(len(ids), config.random, config.seed)  # [F, N]
    tables = [_table("random", ids, parts, np.full(parts.shape, "", dtype=object))]
    if config.spatial is not None:
        tables.append(_table("spatial", ids, *_spatial(xy_m, config.spatial, config.seed)))
    return pd.concat(tables, ignore_index=True)


def _random(count: int, config: RandomSplit, seed: int) -> NDArray[np.int8]:
    """Parts [repeats, N] with the sizes of the shares, rounded."""
    train = int(count * config.train + 0.5)
    val = min(int(count * config.val + 0.5), count - train)
    sizes = {"train": train, "val": val, "test": count - train - val}
    empty = [part for part, size in sizes.items() if size < 1]
    if empty:
        raise DataError(
            f"splits.random leaves no {' and no '.join(empty)} region of {count}",
            fix="change splits.random.train and splits.random.val, or make smaller regions",
        )
    by_rank = np.repeat(np.arange(3, dtype=np.int8), list(sizes.values()))
    parts = np.empty((config.repeats, count), np.int8)
    for repeat in range(config.repeats):
        generator = np.random.default_rng([seed, _RANDOM_STREAM, repeat])
        parts[repeat, generator.permutation(count)] = by_rank
    return parts


def _spatial(
    xy_m: NDArray[np.float64], config: SpatialSplit, seed: int
) -> tuple[NDArray[np.int8], NDArray[Any]]:
    """Parts and block names, both [repeats * folds, N]."""
    parts, names = [], []
    for repeat in range(config.repeats):
        generator = np.random.default_rng([seed, _SPATIAL_STREAM, repeat])
        offset_m = generator.uniform(0, config.block_m, size=2)
        cells = np.floor((xy_m - offset_m) / config.block_m).astype(np.int64)
        blocks, block, sizes = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
        if len(blocks) < config.folds:
            raise DataError(
                f"splits.spatial.block_m: {config.block_m:g} gives {len(blocks)} block(s) for "
                f"{config.folds} folds",
                fix="make splits.spatial.block_m smaller, or splits.spatial.folds fewer (3 or more)",
            )
        fold_of_region = _deal(sizes, config.folds, generator)[block.ravel()]
        label = np.array([f"{repeat}:{x}:{y}" for x, y in blocks], dtype=object)[block.ravel()]
        for fold in range(config.folds):
            part = np.full(len(xy_m), _TRAIN, np.int8)
            part[fold_of_region == (fold + 1) % config.folds] = _VAL
            part[fold_of_region == fold] = _TEST
            parts.append(part)
            names.append(label)
    return np.stack(parts), np.stack(names)


def _deal(
    sizes: NDArray[np.int64], folds: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """The fold of each block: the largest block first, always to the smallest fold; ties by lot."""
    order = np.lexsort((generator.permutation(len(sizes)), -sizes))
    heap = [(0, fold) for fold in range(folds)]
    dealt = np.empty(len(sizes), np.int64)
    for block in order:
        held, fold = heapq.heappop(heap)
        dealt[block] = fold
        heapq.heappush(heap, (held + int(sizes[block]), fold))
    return dealt


def _table(
    split: str, ids: NDArray[Any], parts: NDArray[np.int8], blocks: NDArray[Any]
) -> pd.DataFrame:
    """Rows in key order; `ids` [N] is sorted, `parts` and `blocks` are [F, N]."""
    folds = len(parts)
    return pd.DataFrame(
        {
            "split": split,
            "fold": np.repeat(np.arange(folds, dtype=np.int32), len(ids)),
            "region_id": np.tile(ids, folds),
            "part": _PARTS[parts.ravel()],
            "block": blocks.ravel(),
        }
    )
