"""What a method gains over variants of itself, and over a control: rows of paired comparisons.

Where the interval of the paired bootstrap encloses 0, two methods cannot be told apart: a tie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from model_code.evaluation.compare import ALL_TASKS
from model_code.report.labels import is_default

CONTROL = "shares"  # the method that reads what a segmenter measures, without words
WITHOUT_TEXT = "without_text"

_COLUMNS = ["method", "over", "split", "task", "metric", "gain", "low", "high", "tie"]


def gains(comparisons: pd.DataFrame, method: str) -> pd.DataFrame:
    """What the default of a method gains over every other method and variant.

    Returns:
        method and over (whom it is compared with: its method and variant), split, task (`ALL_TASKS`:
        the mean R2), metric, gain, low, high, tie.
    """
    return _gains(comparisons, method, lambda names, _: names.notna())


def ablation_gains(comparisons: pd.DataFrame, method: str) -> pd.DataFrame:
    """What the default of a method gains over each of its variants: rows of `gains`."""
    return _gains(comparisons, method, lambda names, _: names == method)


def text_gains(comparisons: pd.DataFrame, method: str) -> pd.DataFrame:
    """As `ablation_gains`: what a method gains over itself without text (`over` is `without_text`)
    and, as the control, over the bare shares (`shares`). Empty for a method without such a variant.
    """
    own = ablation_gains(comparisons, method)
    own = own[_named(own["over"], WITHOUT_TEXT)].assign(over=WITHOUT_TEXT)
    if own.empty:
        return own
    control = _gains(
        comparisons,
        method,
        lambda names, variants: (names == CONTROL) & variants.map(is_default),
    )
    return pd.concat([own, control.assign(over=CONTROL)], ignore_index=True)


def ablated_methods(comparisons: pd.DataFrame) -> list[str]:
    """Methods that were compared with variants of themselves."""
    names = comparisons.loc[comparisons["method_a"] == comparisons["method_b"], "method_a"]
    return [name for name in sorted(names.unique()) if len(ablation_gains(comparisons, name))]


def sentences(gains: pd.DataFrame) -> list[str]:
    """One sentence a split and opponent: on how many indicators clearly better, worse, or a tie."""
    found = []
    for (split, over), rows in gains.groupby(["split", "over"], sort=False):
        mean, own = (rows[(rows["task"] == ALL_TASKS) == at] for at in (True, False))
        clear = own[~own["tie"]]
        better, worse = (
            clear.loc[at, "task"].str.replace("_", " ").to_list()
            for at in (clear["gain"] > 0, clear["gain"] < 0)
        )
        parts = [
            f"clearly better on {_listed(better)}",
            f"clearly worse on {_listed(worse)}",
            f"a tie on {int(own['tie'].sum())}",
        ]
        found.append(
            f"{str(split).capitalize()} split, against {opponent(str(over))}: of {len(own)} "
            f"indicators {', '.join(parts)}{''.join(map(_mean, mean.to_dict('records')))}."
        )
    return found


def _mean(row: Mapping[Any, Any]) -> str:
    low, high = row["low"], row["high"]
    tie = ", a tie" if row["tie"] else ""
    said = f"; mean R²\u00a0{row['gain']:+.3f} [{low:+.3f}, {high:+.3f}]{tie}"
    return said.replace("-", "\u2212")


def opponent(over: str) -> str:
    """What a gain is measured against, in words."""
    return "the bare shares" if over == CONTROL else f"itself {over.replace('_', ' ')}"


def _listed(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names)})" if names else "0"


def _named(variants: pd.Series, name: str) -> pd.Series:
    """Variants of that name, with whatever their city could not give them left out."""
    return variants.str.fullmatch(rf"{name}(_without_\w+)?")


def _gains(
    comparisons: pd.DataFrame,
    method: str,
    against: Callable[[pd.Series, pd.Series], pd.Series],
) -> pd.DataFrame:
    """Rows of the default of `method` on either side and, on the other, of what is `against` it."""
    parts = []
    for own, other, sign in (("a", "b", 1), ("b", "a", -1)):
        names, variants = comparisons[f"method_{other}"], comparisons[f"variant_{other}"]
        mine = (comparisons[f"method_{own}"] == method) & comparisons[f"variant_{own}"].map(
            is_default
        )
        itself = (names == method) & variants.map(is_default)
        rows = comparisons[mine & ~itself & against(names, variants)].dropna(subset="difference")
        bounds = sign * rows[["low", "high"]].to_numpy(float)
        parts.append(
            rows[["split", "task", "metric"]].assign(
                method=rows[f"method_{other}"],
                over=rows[f"variant_{other}"],
                gain=sign * rows["difference"],
                low=bounds.min(axis=1, initial=np.inf),
                high=bounds.max(axis=1, initial=-np.inf),
            )
        )
    table = pd.concat(parts, ignore_index=True)
    table["tie"] = (table["low"] <= 0) & (table["high"] >= 0)
    return table.sort_values(["method", "over", "split", "task"], ignore_index=True)[_COLUMNS]
