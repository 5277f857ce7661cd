from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from model_code.bins import Bins
from model_code.evaluation.hourly import hourly_metrics
from model_code.report import figures, hours

N = 36
MORNING, EVENING = (np.exp(-0.5 * ((np.arange(24) - peak) / 2) ** 2) for peak in (8, 18))


@pytest.fixture
def regions() -> gpd.GeoDataFrame:
    row, column = np.divmod(np.arange(N), 6)
    squares = shapely.box(500.0 * column, 500.0 * row, 500.0 * (column + 1), 500.0 * (row + 1))
    return gpd.GeoDataFrame(
        {"region_id": [f"r{i:02}" for i in range(N)]}, geometry=squares, crs="EPSG:32625"
    )


@pytest.fixture
def targets() -> pd.DataFrame:
    """A third of the regions are left in the morning, the others in the evening; one has no label."""
    size = np.random.default_rng(0).uniform(50, 70, N)
    flows = np.where(np.arange(N)[:, None] < 12, MORNING, EVENING) * size[:, None]
    region, slot = np.divmod(np.arange(N * 24), 24)
    rows = pd.DataFrame(
        {"indicator": "outflow", "region_id": [f"r{i:02}" for i in region], "slot": slot,
         "value": flows.ravel()}
    )  # fmt: skip
    return rows[rows["region_id"] != "r35"]


@pytest.fixture
def predictions(targets: pd.DataFrame) -> pd.DataFrame:
    parts = []
    for seed in (0, 1):
        tested = targets[targets["region_id"].str[1:].astype(int) % 2 == 0]
        true = tested["value"].to_numpy()
        pred = true * (1.1 + 0.2 * seed)
        parts.append(
            pd.DataFrame(
                {"variant": "default", "split": "random", "fold": 0, "seed": seed,
                 "task": "outflow", "region_id": tested["region_id"], "slot": tested["slot"],
                 "y_true": np.log1p(true), "y_pred": np.log1p(pred), "y_true_original": true,
                 "y_pred_original": pred}
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_days_of_one_shape_are_one_kind_and_the_larger_comes_first(targets: pd.DataFrame) -> None:
    flows = hours.days(targets, "outflow")
    assert flows.shape == (N - 1, 24)
    kinds = hours.kinds_of_day(flows, 2)
    assert (kinds.to_numpy() == (flows.index < "r12").astype(int)).all()
    assert hours.kinds_of_day(flows.iloc[:1]).tolist() == [0]
    assert hours.kinds_of_day(flows).max() + 1 == 7


def test_words_mark_the_kind_that_they_are_told_of(targets: pd.DataFrame) -> None:
    flows = hours.days(targets, "outflow")
    kinds = hours.kinds_of_day(flows, 2)
    land = np.where(
        flows.index < "r12", "Mostly homes with gardens.", "Mostly towers with offices."
    )
    told = pd.DataFrame({"region_id": flows.index, "land": land})
    none = pd.DataFrame({"region_id": ["r00", "elsewhere"], "land": ["", "factory"]})
    words = hours.marking_words(kinds, pd.concat([told, none]))
    assert set(words[1]) == {"homes", "gardens"} and set(words[0]) == {"towers", "offices"}
    assert hours.marking_words(kinds, none) == {}
    said = hours.peak_sentence(1, flows[kinds == 1], words[1])
    assert "Kind 2: 12 regions" in said and "08:00" in said and "homes" in said


def test_days_are_means_over_folds_and_seeds(predictions: pd.DataFrame) -> None:
    observed, predicted = hours.mean_days(predictions)
    np.testing.assert_allclose(predicted, 1.2 * observed)


def test_bins_are_counted_true_by_predicted(predictions: pd.DataFrame) -> None:
    bins = Bins.fit(predictions["y_true"])
    counts = hours.bin_counts(predictions, bins)
    assert counts.shape == (10, 10) and counts.sum() == len(predictions)
    true, pred = bins.of(predictions["y_true"]), bins.of(predictions["y_pred"])
    assert counts[3, 4] == ((true == 3) & (pred == 4)).sum()
    assert np.tril(counts, -1).sum() == 0  # all are taken for more


def test_pictures_show_what_they_are_given(
    regions: gpd.GeoDataFrame, targets: pd.DataFrame, predictions: pd.DataFrame
) -> None:
    indicators = pd.DataFrame({"indicator": ["outflow"], "kind": "hourly", "transform": "log1p"})
    splits = pd.DataFrame(
        {"split": "random", "fold": 0, "region_id": regions["region_id"],
         "part": np.where(np.arange(N) % 2 == 0, "test", "train")}
    )  # fmt: skip
    tables = {"lmemr": predictions, "poi": predictions.assign(y_pred=0.0, y_pred_original=0.0)}
    metrics = hourly_metrics(tables, targets, indicators, splits)
    observed, predicted = hours.mean_days(predictions)
    flows = hours.days(targets, "outflow")
    kinds = hours.kinds_of_day(flows, 2)
    counts = hours.bin_counts(predictions, Bins.fit(predictions["y_true"]))
    drawn = {
        "figures": hours.hourly_figures(metrics, "lmemr", split="random"),
        "alone": hours.hourly_figures(
            metrics[metrics["method"] == "lmemr"], "lmemr", split="random"
        ),
        "curves": hours.day_curves(observed, predicted, ["r00", "r12"]),
        "other": hours.day_curves(observed, 2 * predicted, ["r00", "r12"]),
        "map": hours.kinds_map(regions, kinds, flows, {0: ["offices"]}),
        "one": hours.kinds_map(regions, 0 * kinds, flows, {}),
        "bins": hours.bin_confusion({"LMEMR": counts}),
        "more": hours.bin_confusion({"LMEMR": counts, "POI": counts}),
    }
    assert all(png.startswith(b"\x89PNG") for png in drawn.values())
    assert max(map(len, drawn.values())) <= figures.MAX_BYTES
    assert len(set(drawn.values())) == len(drawn)
    assert hours.bin_confusion({"LMEMR": counts}) == drawn["bins"]
