from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import experiments
from benchmarks.experiments import ablations, hourly, means, verdict, versus
from model_code.evaluation.compare import ALL_TASKS
from resources.lake import read
from tests.tiny import Place


@pytest.mark.parametrize(
    ("gain", "low", "high", "told"),
    [
        (0.1, 0.05, 0.15, "+0.100 [+0.050, +0.150] better"),
        (-0.1, -0.15, -0.05, "-0.100 [-0.150, -0.050] worse"),
        (0.1, -0.01, 0.2, "+0.100 [-0.010, +0.200] tie"),
        (0.1, float("nan"), float("nan"), "not estimable"),
    ],
)
def test_a_gain_whose_interval_holds_zero_is_a_tie(
    gain: float, low: float, high: float, told: str
) -> None:
    assert verdict(gain, low, high) == told


def test_the_mean_is_over_what_no_modality_contains_and_its_deviation_over_runs() -> None:
    about = {"method": "poi", "variant": "default", "split": "random", "metric": "r2"}
    figures = {("income", 0): 0.4, ("price", 0): 0.6, ("income", 1): 0.8, ("price", 1): 0.6,
               ("poi_count", 0): 1.0, ("poi_count", 1): 1.0}  # fmt: skip
    board = pd.DataFrame(
        about | {"task": task, "fold": 0, "seed": seed, "scale": scale, "value": sign * value}
        for (task, seed), value in figures.items()
        for scale, sign in (("transformed", 1), ("original", -1))
    )
    catalogue = pd.DataFrame(
        {"indicator": ["income", "price", "poi_count"], "contained_in": [[], [], ["pois"]]}
    )
    (found,) = means(board, catalogue).to_dict("records")
    assert found["mean"] == pytest.approx(0.6) and found["std"] == pytest.approx(0.1 * 2**0.5)


def compared(*rows: tuple[str, str, str, str, float]) -> pd.DataFrame:
    columns = ["method_a", "variant_a", "method_b", "variant_b", "difference"]
    found = pd.DataFrame(rows, columns=columns)
    return found.assign(split="random", task=ALL_TASKS, metric="r2",
                        low=found["difference"] - 0.1, high=found["difference"] + 0.1)  # fmt: skip


def test_systems_are_compared_with_the_defaults_of_others_whichever_side_they_stand_on() -> None:
    board = pd.DataFrame(
        [("poi", "default"), ("urbanvlp", "default_without_street_views"), ("musecl", "default"),
         ("musecl", "add")],
        columns=["method", "variant"],
    )  # fmt: skip
    comparisons = compared(
        ("poi", "default", "urbanvlp", "default_without_street_views", -0.3),
        ("musecl", "default", "poi", "default", 0.05),
        ("musecl", "add", "poi", "default", 0.4),
        ("musecl", "default", "urbanvlp", "default_without_street_views", -0.2),
    )
    found = versus(board, comparisons, ["urbanvlp", "musecl"], "random", ALL_TASKS).set_index(
        "over"
    )
    told = {
        "POI counts": "+0.300 [+0.200, +0.400] better",
        "MuseCL": "+0.200 [+0.100, +0.300] better",
    }
    assert found["UrbanVLP gains"].to_dict() == told | {"UrbanVLP": ""}
    told = {
        "POI counts": "+0.050 [-0.050, +0.150] tie",
        "UrbanVLP": "-0.200 [-0.300, -0.100] worse",
    }
    assert found["MuseCL gains"].to_dict() == told | {"MuseCL": ""}


def test_hours_stand_by_r2_with_what_lmemr_gains_and_a_star_where_the_target_is_read() -> None:
    about = {"task": "out", "split": "random", "fold": 0, "seed": 0}
    figures = {("lmemr", "default"): (0.7, 9.0), ("od_pca", "default"): (0.8, 8.0),
               ("lmemr", "gcn"): (0.6, 9.5)}  # fmt: skip
    board = pd.DataFrame(
        about | {"method": method, "variant": variant, "scale": scale, "metric": metric,
                 "value": value, "target_in_inputs": method == "od_pca"}
        for (method, variant), values in figures.items()
        for (metric, scale), value in zip(
            (("r2", "transformed"), ("mae", "original")), values, strict=True
        )
    )  # fmt: skip
    comparisons = compared(
        ("od_pca", "default", "lmemr", "default", 0.15), ("lmemr", "default", "lmemr", "gcn", 0.05)
    ).assign(task="out")
    by_hour = pd.DataFrame(
        about | {"method": method, "variant": "default", "hour": hour, "metric": "r2", "value": value,
                 "scale": "transformed"}
        for method, values in {"lmemr": (0.1, 0.4), "od_pca": (0.5, 0.6)}.items()
        for hour, value in enumerate(values)
    )  # fmt: skip
    found = hourly(board, comparisons, by_hour, "out", "lmemr")
    assert found["random: R² by hour"].to_list() == ["0.550", "0.250", ""]
    assert found["random: R²"].to_list() == ["0.800", "0.700", "0.600"]
    assert found["random: MAE"].to_list() == ["8.000", "9.000", "9.500"]
    assert found["method"].str.endswith(" *").to_list() == [True, False, False]
    told = ["-0.150 [-0.250, -0.050] worse", "", "+0.050 [-0.050, +0.150] tie"]
    assert found["random: LMEMR gains"].to_list() == told


def test_the_mean_leads_a_table_of_ablations_where_there_is_one() -> None:
    mean = compared(("lmemr", "default", "lmemr", "gcn", 0.2))
    hourly = compared(("lmemr", "gcn", "lmemr", "default", 0.05)).assign(task="a_day")
    both = ablations(pd.concat([hourly, mean]), "lmemr", "random")
    assert both["task"].to_list() == [ALL_TASKS, "a_day"]
    (only,) = ablations(hourly, "lmemr", "random").to_dict("records")
    assert only == {"task": "a_day", "gcn": "-0.050 [-0.150, +0.050] tie"}


def test_results_of_a_built_city(
    built: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CITYLOOM_CITIES", "CITYLOOM_LAKE"):
        monkeypatch.setenv(name, built.env[name])
    monkeypatch.setattr(experiments, "RESULTS", tmp_path / "results")
    experiments.main(built.city)
    folder = tmp_path / "results"
    assert sorted(p.name for p in folder.iterdir()) == ["tiny.csv", "tiny.md", "tiny.png"]
    config = built.config()
    assert set(pd.read_csv(folder / "tiny.csv")["task"]) == set(config["indicators"])
    text = (folder / "tiny.md").read_text()
    for split in config["splits"]:
        part = text.split(f"## By indicator, {split} split")[1].split("##")[0]
        lines = [line for line in part.splitlines() if line.startswith("| ")]
        assert {line.split(" | ")[0].strip("| ") for line in lines[2:]} == set(config["indicators"])
        columns = [cell.strip() for cell in lines[0].strip("|").split("|")]
        assert set(config["methods"]) | {"true function", "with kriging"} <= set(columns)
    slow = read("timings", built.city).query("seconds >= 1")["asset"]
    assert all(f"| {asset} | " in text.split("## Seconds by asset")[1] for asset in slow)
