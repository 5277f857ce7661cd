from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from benchmarks.transfer import NOWHERE, SIMULATED, by_indicator, configs, gap_table, gaps, matrix
from model_code.city import load_city


def rows(values: dict[tuple[str, str], list[float]]) -> pd.DataFrame:
    """Figures of two indicators by (city, pretrained on) and seed; a modality holds the second."""
    about = {"method": "urbanclip", "split": "random", "metric": "r2", "inputs": "imagery"}
    return pd.DataFrame(
        about
        | {"city": city, "pretrained_on": source, "task": task, "seed": seed, "value": value}
        | {"in_mean": task == "income"}
        for (city, source), own in values.items()
        for seed, figure in enumerate(own)
        for task, value in (("income", figure), ("known", 1.0))
    )


A, B, _ = SIMULATED
ROWS = rows(
    {
        (A, A): [0.5, 0.7],
        (A, B): [0.4, 0.7],
        (A, NOWHERE): [0.3, 0.3],
        (B, B): [0.2, 0.4],
        (B, A): [0.3, 0.7],
        (B, NOWHERE): [0.1, 0.1],
        ("manhattan", "manhattan"): [0.1, 0.1],
        ("manhattan", A): [0.0, 0.3],
    }
)


def test_the_matrix_is_the_mean_over_indicators_that_no_modality_holds() -> None:
    found = matrix(by_indicator(ROWS), "urbanclip", "random")
    assert list(found.columns) == [A, B, "manhattan"]
    assert list(found.index) == [A, B, "manhattan", NOWHERE]
    assert found.loc[A, B] == pytest.approx(0.5)
    assert found.loc[B, A] == pytest.approx(0.55)
    assert found.loc[NOWHERE, A] == pytest.approx(0.3)
    assert pd.isna(found.loc["manhattan", A])
    adapted = matrix(by_indicator(ROWS.assign(method="urbanmmcl")), "urbanmmcl", "random")
    assert list(adapted.index) == [A, B, "manhattan"]  # it learns from a city wherever it is


def test_gaps_are_to_the_own_encoder_of_the_same_seed() -> None:
    found = gap_table(gaps(ROWS)).set_index(["where", "encoder"])
    carried = found.loc[("simulated cities", "of another city")]
    assert carried["better"] == "2 of 4"  # -0.1, 0, 0.1, 0.3
    assert carried["less the city's own"].startswith("+0.075")
    assert found.loc[("simulated cities", "of no city"), "better"] == "0 of 4"
    assert found.loc[("manhattan", "of another city"), "better"] == "1 of 2"


def test_every_city_can_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boundary = tmp_path / "nyc" / "regions" / "mh180.geojson"
    boundary.parent.mkdir(parents=True)
    boundary.touch()
    monkeypatch.setenv("CITYLOOM_DATA", str(tmp_path))
    found = configs(20, [0], "probe")
    assert [*found] == [*SIMULATED, "transfer_manhattan"]
    for name, config in found.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        city = load_city(path)
        assert name not in city.transfer["urbanvlp"]
        assert set(city.transfer) == {"urbanclip", "urbanvlp", "urbanmmcl"} <= set(city.methods)
    boundary.unlink()
    assert [*configs(20, [0], "probe")] == [*SIMULATED]
