"""What could be reached on a simulated city, whose functions and noise are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from model_code.errors import DataError
from model_code.evaluation.metrics import class_counts, macro_f1, r2
from model_code.methods.base import Task
from model_code.scaling import transform
from model_code.tables import contract

Array = NDArray[Any]

NEIGHBOURS = 64
_CHUNK = 1 << 20  # covariances between neighbours that stand in memory at once


def reachable(
    truth: pd.DataFrame,
    targets: pd.DataFrame,
    indicators: pd.DataFrame,
    splits: pd.DataFrame,
    regions: pd.DataFrame,
) -> pd.DataFrame:
    """The table `reachable`: what the noise-free function alone, and with kriging, scores.

    `true_function` predicts each test region by its noise-free value. `with_kriging` adds the
    simple kriging, with the simulator's own covariance, of what is left of the labels of the
    training and validation regions: the part of the noise that neighbours tell. A target of
    several slots is kriged slot by slot and scored over all slots at once, as the methods are.
    For a classification it is macro F1 of the noise-free class, and kriging does not apply.

    Args:
        truth: indicator, region_id, slot; for a classification label, the noise-free class; for
            other targets, on the transformed scale, value_transformed (noise-free), noise_variance
            and noise_range_m (of the noise whose covariance is noise_variance * exp(-distance /
            noise_range_m); one range an indicator, one variance a slot) and nugget_variance (of
            the noise that is independent from region to region).
        targets: the table `targets`; a region without a label takes no part.
        indicators: the table `indicators`; those without truth have no rows.
        splits: the table `splits`.
        regions: region_id, x_m, y_m.

    Raises:
        DataError: the truth does not fit the regions or the targets, or its noise is not of that
            form.
    """
    place = regions.set_index("region_id")[["x_m", "y_m"]]
    ids = pd.Index(place.index)
    xy_m = place.to_numpy(np.float64)
    parts = {
        (split, fold): rows.set_index("region_id")["part"].reindex(ids).to_numpy()
        for (split, fold), rows in splits.groupby(["split", "fold"])
    }
    records: list[dict[str, Any]] = []
    catalogue: Any = indicators.itertuples()
    for indicator in catalogue:
        known = truth[truth["indicator"] == indicator.indicator]
        if known.empty:
            continue
        labels = targets[targets["indicator"] == indicator.indicator]
        task = Task(indicator.indicator, indicator.kind, indicator.transform)
        label = transform(_by_slot(labels, "value", ids), task)
        is_class = indicator.kind == "classification"
        if is_class:
            known = known.assign(value_transformed=_codes(known["label"], indicator.classes))
        free = _by_slot(known, "value_transformed", ids)
        if free.shape != label.shape:
            raise DataError(
                f"{indicator.indicator}: the truth has {free.shape[1]} slot(s), the targets "
                f"{label.shape[1]}",
                fix="simulate the city again (`simulator`), then materialise `targets`",
            )
        noise = None if is_class else _noise(known, ids)
        present = np.isfinite(label).all(axis=1) & np.isfinite(free).all(axis=1)  # [N]
        for (split, fold), part in parts.items():
            test = np.flatnonzero(present & (part == "test"))
            given = np.flatnonzero(present & np.isin(part, ["train", "val"]))
            record = {"task": indicator.indicator, "split": split, "fold": fold}
            record |= {"n_test": len(test), "true_function": np.nan, "with_kriging": np.nan}
            if noise is None:
                record |= {"scale": "class", "metric": "macro_f1"}
                if len(test) >= 2:
                    classes = int(max(label[test].max(), free[test].max())) + 1
                    counts = class_counts(label[test, 0], free[test, 0], classes=classes)
                    record["true_function"] = float(macro_f1(*counts)[0])
            else:
                record |= {"scale": "transformed", "metric": "r2"}
                if len(test) >= 2:
                    residual = (label - free)[given]
                    kriged = free[test] + krige(xy_m[given], residual, xy_m[test], noise.at(given))
                    actual = label[test].ravel()
                    record["true_function"] = float(r2(actual, free[test].ravel())[0])
                    record["with_kriging"] = float(r2(actual, kriged.ravel())[0])
            records.append(record)
    table = contract("reachable")
    result = pd.DataFrame.from_records(records, columns=table.names())
    result["fold"] = result["fold"].astype("int32")
    return result.sort_values(list(table.key), ignore_index=True)


class Noise(NamedTuple):
    """Noise of G regions and S slots: covariance variance * exp(-distance / range_m) between
    regions, and independent noise of its own in each.

    Shapes:
        range_m scalar, variance [S], nugget [G, S].
    """

    range_m: float
    variance: Array
    nugget: Array

    def at(self, regions: Array) -> Noise:
        """The noise of some regions alone."""
        return self._replace(nugget=self.nugget[regions])


def krige(
    given_xy_m: Array,
    residual: Array,
    at_xy_m: Array,
    noise: Noise,
    *,
    neighbours: int = NEIGHBOURS,
) -> Array:
    """Simple kriging (known mean 0) of residuals with a known covariance, slot by slot.

    Each place is kriged from its nearest given places alone, which screen the farther ones; with
    `neighbours` at or above their number the result is the exact one.

    Shapes:
        given_xy_m [G, 2] metres, residual [G, S], at_xy_m [A, 2], noise of the G -> [A, S].
    """
    nearest = min(neighbours, len(given_xy_m))
    kriged = np.zeros((len(at_xy_m), residual.shape[1]))
    if nearest == 0:
        return kriged
    slots = np.flatnonzero(noise.variance)
    tree = cKDTree(given_xy_m)
    diagonal = np.arange(nearest)
    step = max(1, _CHUNK // nearest**2)
    for start in range(0, len(at_xy_m), step):
        at = at_xy_m[start : start + step]
        distance, index = tree.query(at, k=range(1, nearest + 1))  # both [a, K]
        x, y = given_xy_m[index].transpose(2, 0, 1)  # [a, K] each
        between = np.hypot(x[:, :, None] - x[:, None], y[:, :, None] - y[:, None])
        system = np.exp(-between / noise.range_m)  # correlations [a, K, K]
        toward = np.exp(-distance / noise.range_m)[..., None]
        for slot in slots:
            own = noise.nugget[index, slot] / noise.variance[slot]
            system[:, diagonal, diagonal] = 1.0 + own
            weight = np.linalg.solve(system, toward)[..., 0]  # [a, K]
            kriged[start : start + step, slot] = (weight * residual[index, slot]).sum(axis=1)
    return kriged


def _by_slot(rows: pd.DataFrame, column: str, ids: pd.Index) -> Array:
    """Values [N, slots] in the order of `ids`, NaN where there is none."""
    if rows.duplicated(["region_id", "slot"]).any():
        raise DataError(
            f"{rows['indicator'].iat[0]}: several values for one region and slot",
            fix="the truth is by cell of the simulator: keep the city's `partition` as simulated",
        )
    wide = rows.pivot(index="region_id", columns="slot", values=column)
    return wide.sort_index(axis=1).reindex(ids).to_numpy(np.float64)


def _codes(labels: pd.Series, classes: Sequence[str]) -> pd.Series:
    """Codes of the targets; a class that no target has gets the code after theirs."""
    return labels.map({name: code for code, name in enumerate(classes)}).fillna(len(classes))


def _noise(known: pd.DataFrame, ids: pd.Index) -> Noise:
    """The noise of all regions, from one indicator's truth."""
    ranges = known["noise_range_m"].unique()
    by_slot = known.groupby("slot")["noise_variance"].agg(["min", "max"])
    if len(ranges) != 1 or not (ranges > 0).all() or (by_slot["min"] != by_slot["max"]).any():
        raise DataError(
            f"{known['indicator'].iat[0]}: the correlated noise must have one positive range, and "
            "one variance for each slot",
            fix="simulate the city again (`simulator`)",
        )
    nugget = _by_slot(known, "nugget_variance", ids)
    return Noise(float(ranges[0]), by_slot["min"].to_numpy(np.float64), nugget)
