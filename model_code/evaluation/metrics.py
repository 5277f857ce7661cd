"""Metrics of many groups at once, and the scores of a table of predictions.

Every metric takes flat arrays and a group code for each row, and returns one figure a group, NaN
where it cannot be estimated. L rows, G groups, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_code.bins import Bins
from model_code.errors import DataError

Array = NDArray[Any]
BinsOf = Mapping[tuple[str, str, int], Bins]  # by task, split and fold

FIT = ["variant", "task", "split", "fold", "seed"]
_VALUES = ("y_true", "y_pred", "y_true_original", "y_pred_original")


def _sum(values: Array, group: Array | None, groups: int) -> Array:
    group = np.zeros(len(values), np.int64) if group is None else group
    total: Array = np.bincount(group, weights=values, minlength=groups)
    return total


def _mean(values: Array, group: Array | None, groups: int) -> Array:
    return _ratio(_sum(values, group, groups), _sum(np.ones(len(values)), group, groups))


def _ratio(over: Array, under: Array) -> Array:
    """over / under, NaN where under is 0."""
    ratio: Array = np.divide(over, under, out=np.full(np.shape(over), np.nan), where=under != 0)
    return ratio


def r2(y_true: Array, y_pred: Array, group: Array | None = None, groups: int = 1) -> Array:
    """Coefficient of determination [G]; NaN where the truth is constant.

    The truth's mean is the group's own, so 0 is what a constant prediction at that mean reaches.
    """
    group = np.zeros(len(y_true), np.int64) if group is None else group
    # Counted from one of the group's own values, a constant truth is exactly 0.
    origin = np.zeros(groups)
    origin[group] = y_true
    shifted = y_true - origin[group]
    total = _sum((shifted - _mean(shifted, group, groups)[group]) ** 2, group, groups)
    return 1.0 - _ratio(_sum((y_true - y_pred) ** 2, group, groups), total)


def rmse(y_true: Array, y_pred: Array, group: Array | None = None, groups: int = 1) -> Array:
    """Root of the mean squared error [G]."""
    return np.sqrt(_mean((y_true - y_pred) ** 2, group, groups))


def mae(y_true: Array, y_pred: Array, group: Array | None = None, groups: int = 1) -> Array:
    """Mean absolute error [G]."""
    return _mean(np.abs(y_true - y_pred), group, groups)


def mape(y_true: Array, y_pred: Array, group: Array | None = None, groups: int = 1) -> Array:
    """Mean absolute error as a share of the truth [G] (0.1 is 10 %); true zeros are left out."""
    kept = y_true != 0
    share = np.abs(y_true - y_pred)[kept] / np.abs(y_true[kept])
    return _mean(share, None if group is None else group[kept], groups)


def zero_truths(y_true: Array, group: Array | None = None, groups: int = 1) -> Array:
    """How many rows `mape` leaves out [G]."""
    return _sum(y_true == 0, group, groups).astype(np.int64)


def class_counts(
    y_true: Array, y_pred: Array, group: Array | None = None, groups: int = 1, *, classes: int
) -> tuple[Array, Array, Array]:
    """By group and class, how often it was hit, true and predicted: three arrays [G, C]."""
    group = np.zeros(len(y_true), np.int64) if group is None else group
    true, predicted = (group * classes + y.astype(np.int64) for y in (y_true, y_pred))
    size = groups * classes
    hit = np.bincount(true[true == predicted], minlength=size)
    counts = (hit, np.bincount(true, minlength=size), np.bincount(predicted, minlength=size))
    return tuple(c.reshape(groups, classes) for c in counts)  # type: ignore[return-value]


def accuracy(hit: Array, true: Array) -> Array:
    """Share of rows with the right class, from counts [..., C]."""
    return _ratio(hit.sum(axis=-1), true.sum(axis=-1))


def macro_f1(hit: Array, true: Array, predicted: Array) -> Array:
    """Mean F1 over the classes that are true or predicted, from counts [..., C].

    A class that is predicted but never true counts as 0, as in scikit-learn's `f1_score`.
    """
    seen = true + predicted
    f1 = np.divide(2.0 * hit, seen, out=np.zeros(np.shape(seen)), where=seen > 0)
    return _ratio(f1.sum(axis=-1), (seen > 0).sum(axis=-1))


def macro_recall(hit: Array, true: Array) -> Array:
    """Mean recall over the classes that are true, from counts [..., C] (balanced accuracy)."""
    recall = np.divide(hit, true, out=np.zeros(np.shape(true)), where=true > 0)
    return _ratio(recall.sum(axis=-1), (true > 0).sum(axis=-1))


_REGRESSION = {"r2": r2, "rmse": rmse, "mae": mae, "mape": mape}


def score(
    predictions: pd.DataFrame,
    indicators: pd.DataFrame,
    bins: BinsOf | None = None,
    *,
    by_hour: bool = False,
) -> pd.DataFrame:
    """Every metric of every fit in a table of predictions.

    An hourly target is scored over all its hours at once, and where `bins` has its fold, by overall
    accuracy too: how often truth and prediction (transformed scale) lie in one bin. With fewer than two test regions no
    metric is estimable, and `value` is null.

    Args:
        predictions: the table `predictions` of one method.
        indicators: the table `indicators`.
        bins: of hourly targets; see `hourly.flow_bins`.
        by_hour: score each hour by itself.

    Returns:
        variant, task, split, fold, seed (and slot, the hour, if it is asked for), scale, metric, value,
        left_out (rows that the metric does not use: true zeros for mape), n_test (test regions),
        ordered by all before value.

    Raises:
        DataError: a task is no indicator, or a value is not finite.
    """
    key = [*FIT, "slot"] if by_hour else FIT
    grouped = predictions.groupby(key, sort=True, observed=True)
    group = grouped.ngroup().to_numpy(np.int64)
    fits = grouped.size().index.to_frame(index=False)
    groups = len(fits)
    kinds = kinds_of(fits["task"], indicators)
    require_finite(predictions)

    region = pd.factorize(predictions["region_id"])[0].astype(np.int64)
    width = int(region.max(initial=0)) + 1
    n_test = np.bincount(np.unique(group * width + region) // width, minlength=groups)

    is_class = (kinds == "classification").to_numpy()
    y = {column: predictions[column].to_numpy(np.float64) for column in _VALUES}
    parts: list[tuple[str, Array, dict[str, Array], Array]] = []
    rows = ~is_class[group]
    for scale, suffix in (("transformed", ""), ("original", "_original")):
        true, pred = y[f"y_true{suffix}"][rows], y[f"y_pred{suffix}"][rows]
        values = {name: f(true, pred, group[rows], groups) for name, f in _REGRESSION.items()}
        parts.append((scale, ~is_class, values, zero_truths(true, group[rows], groups)))
    rows = is_class[group]
    true, pred = y["y_true"][rows], y["y_pred"][rows]
    classes = int(max(true.max(initial=0), pred.max(initial=0))) + 1
    hit, seen, named = class_counts(true, pred, group[rows], groups, classes=classes)
    values = {
        "accuracy": accuracy(hit, seen),
        "macro_f1": macro_f1(hit, seen, named),
        "macro_recall": macro_recall(hit, seen),
    }
    parts.append(("class", is_class, values, np.zeros(groups, np.int64)))

    binned, hit, seen = _binned(fits, group, y["y_true"], y["y_pred"], bins or {})
    parts.append(("transformed", binned, {"accuracy": _ratio(hit, seen)}, np.zeros_like(n_test)))

    tables = [
        fits[chosen].assign(
            scale=scale,
            metric=metric,
            value=np.where(n_test >= 2, value, np.nan)[chosen],
            left_out=(left_out if metric == "mape" else np.zeros_like(left_out))[chosen],
            n_test=n_test[chosen],
        )
        for scale, chosen, values, left_out in parts
        for metric, value in values.items()
    ]
    scores = pd.concat(tables, ignore_index=True)
    return scores.sort_values([*key, "scale", "metric"], ignore_index=True)


def _binned(
    fits: pd.DataFrame, group: Array, y_true: Array, y_pred: Array, bins: BinsOf
) -> tuple[Array, Array, Array]:
    """Which fits have bins [G], how many of their rows are in the right one [G], and how many rows they
    have [G]."""
    which = list(zip(fits["task"], fits["split"], fits["fold"], strict=True))
    binned = np.array([key in bins for key in which], bool)
    right = np.zeros(len(group), bool)
    codes = pd.factorize(pd.MultiIndex.from_tuples(which))[0] if which else np.empty(0, np.int64)
    for code in np.unique(codes[binned]):
        own = bins[which[int(np.flatnonzero(codes == code)[0])]]
        rows = codes[group] == code
        right[rows] = own.of(y_true[rows]) == own.of(y_pred[rows])
    return binned, _sum(right, group, len(fits)), _sum(np.ones(len(group)), group, len(fits))


def kinds_of(tasks: pd.Series, indicators: pd.DataFrame) -> pd.Series:
    """The kind of each task; a task that is no indicator is an error."""
    kinds = tasks.map(indicators.set_index("indicator")["kind"])
    if kinds.isna().any():
        unknown = sorted(set(tasks[kinds.isna()]))
        raise DataError(
            f"predictions for {', '.join(unknown)}, which the table `indicators` does not hold",
            fix="materialise `indicators` and the predictions from the same config",
        )
    return kinds


def require_finite(predictions: pd.DataFrame) -> None:
    """A prediction or truth that is NaN or infinite is an error that names the first such fit."""
    for column in _VALUES:
        bad = ~np.isfinite(predictions[column].to_numpy(np.float64))
        if bad.any():
            first = predictions.loc[bad, FIT].iloc[0].to_dict()
            raise DataError(
                f"{int(bad.sum())} value(s) of {column} are not finite, the first in {first}",
                fix="lower the learning rate of that method, or look for missing inputs",
            )
