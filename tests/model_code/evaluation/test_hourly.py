from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from model_code.bins import Bins
from model_code.contracts import conform, problems
from model_code.evaluation.hourly import flow_bins, hourly_metrics
from model_code.evaluation.metrics import score
from model_code.tables import contract

REGIONS = [f"r{i:02}" for i in range(20)]


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    """Twenty regions: the first ten train, the others are tested; of the flow, one in five is zero."""
    rng = np.random.default_rng(0)
    flow = rng.poisson(rng.uniform(1, 60, (20, 24))) * (rng.random((20, 24)) > 0.2)
    region, slot = np.divmod(np.arange(20 * 24), 24)
    targets = pd.DataFrame(
        {"indicator": "outflow", "region_id": np.array(REGIONS)[region], "slot": slot,
         "value": flow.ravel().astype(float)}
    )  # fmt: skip
    indicators = pd.DataFrame(
        {"indicator": ["outflow", "price"], "kind": ["hourly", "regression"],
         "transform": ["log1p", "none"]}
    )  # fmt: skip
    splits = pd.DataFrame(
        {"split": "random", "fold": 0, "region_id": REGIONS, "part": ["train"] * 10 + ["test"] * 10}
    )
    tested = targets[targets["region_id"].isin(REGIONS[10:])]
    true = np.log1p(tested["value"].to_numpy())
    wrong = np.maximum(true + 0.4 * rng.standard_normal(len(true)), 0)
    predictions = pd.DataFrame(
        {"variant": "default", "split": "random", "fold": 0, "seed": 0, "task": "outflow",
         "region_id": tested["region_id"], "slot": tested["slot"], "y_true": true, "y_pred": wrong,
         "y_true_original": np.expm1(true), "y_pred_original": np.expm1(wrong)}
    )  # fmt: skip
    return {
        "targets": targets, "indicators": indicators, "splits": splits, "predictions": predictions,
    }  # fmt: skip


def test_bins_are_of_the_training_regions_on_the_transformed_scale(tables: dict) -> None:
    found = flow_bins(tables["targets"], tables["indicators"], tables["splits"])
    assert set(found) == {("outflow", "random", 0)}
    train = tables["targets"]["region_id"].isin(REGIONS[:10])
    seen = np.log1p(tables["targets"].loc[train, "value"])
    np.testing.assert_allclose(
        found["outflow", "random", 0].edges, np.linspace(seen.min(), seen.max(), 11)[1:-1]
    )


def test_accuracy_is_the_share_in_the_right_bin(tables: dict) -> None:
    bins = flow_bins(tables["targets"], tables["indicators"], tables["splits"])
    rows, edges = tables["predictions"], bins["outflow", "random", 0].edges
    expected = np.mean(
        [
            sum(edge <= t for edge in edges) == sum(edge <= p for edge in edges)
            for t, p in zip(rows["y_true"], rows["y_pred"], strict=True)
        ]
    )
    figures = score(rows, tables["indicators"], bins).set_index(["scale", "metric"])["value"]
    assert figures["transformed", "accuracy"] == pytest.approx(expected) and 0 < expected < 1
    without = score(rows, tables["indicators"])
    assert "accuracy" not in set(without["metric"])


def test_accuracy_of_several_folds_is_by_the_bins_of_each(tables: dict) -> None:
    first = tables["predictions"]
    both = pd.concat([first, first.assign(fold=1)], ignore_index=True)
    apart = Bins(np.array([-5.0]), np.array([-6.0, 0.0]))  # everything lies above
    bins = {("outflow", "random", 0): Bins.fit(first["y_true"]), ("outflow", "random", 1): apart}
    found = score(both, tables["indicators"], bins).query("metric == 'accuracy'")
    values = found.set_index("fold")["value"]
    assert values[1] == 1 > values[0]


def test_every_hour_has_the_figures_of_its_rows(tables: dict) -> None:
    found = hourly_metrics(
        {"lmemr": tables["predictions"]},
        tables["targets"],
        tables["indicators"],
        tables["splits"],
    )
    table = contract("hourly_metrics")
    assert problems(table, conform(table, pa.Table.from_pandas(found, preserve_index=False))) == []
    assert sorted(found["hour"].unique()) == list(range(24))
    assert set(zip(found["scale"], found["metric"], strict=True)) == {
        ("transformed", "accuracy"),
        *(
            (scale, m)
            for scale in ("transformed", "original")
            for m in ("r2", "rmse", "mae", "mape")
        ),
    }
    at_eight = tables["predictions"].query("slot == 8")
    gap = (at_eight["y_true_original"] - at_eight["y_pred_original"]).abs()
    rows = found.query("hour == 8 and scale == 'original'").set_index("metric")
    assert rows.loc["mae", "value"] == pytest.approx(gap.mean())
    kept = at_eight["y_true_original"] > 0
    share = (gap / at_eight["y_true_original"])[kept].mean()
    assert rows.loc["mape", "value"] == pytest.approx(share)
    assert rows.loc["mape", "left_out"] == (~kept).sum()


def test_a_method_without_hours_has_no_rows(tables: dict) -> None:
    other = tables["predictions"].assign(task="price").query("slot == 0")
    found = hourly_metrics(
        {"poi": other}, tables["targets"], tables["indicators"], tables["splits"]
    )
    assert found.empty and list(found.columns) == contract("hourly_metrics").names()
