"""All methods side by side, on a city that the real job has built."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pandas as pd
import pytest

from assets import evaluation
from model_code.city import load_city
from model_code.evaluation.leaderboard import summary
from resources.lake import Lake
from tests.tiny import Place


@pytest.fixture
def lake(built: Place) -> Lake:
    return Lake(str(built.root / "lake"))


def table(lake: Lake, asset: str) -> pd.DataFrame:
    return lake.handle("tiny", asset).frame()


def test_the_leaderboard_is_all_metrics_of_all_methods(lake: Lake, built: Place) -> None:
    rows = table(lake, "leaderboard")
    methods = set(load_city(built.yaml).methods)
    assert set(rows["method"]) == methods
    for name in methods:
        own = rows[rows["method"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, table(lake, f"{name}_metrics"))


def test_the_published_csv_is_its_summary(lake: Lake, built: Place) -> None:
    text = (built.root / "lake" / built.city / "leaderboard.csv").read_text()
    assert "\r" not in text
    wanted = summary(table(lake, "leaderboard"))
    found = pd.read_csv(io.StringIO(text))
    assert list(found.columns) == list(wanted.columns) and len(found) == len(wanted)
    for column in wanted.select_dtypes("number"):
        np.testing.assert_allclose(found[column], wanted[column].astype(float), rtol=1e-12)


def test_every_variant_is_compared_with_every_other(lake: Lake, built: Place) -> None:
    choices = load_city(built.yaml).methods
    variants = [
        (name, variant)
        for name, choice in choices.items()
        for variant in ("default", *choice.variants)
    ]
    rows = table(lake, "comparisons")
    sides = (rows[["method_a", "variant_a"]], rows[["method_b", "variant_b"]])
    pairs = {
        frozenset(map(tuple, pair)) for pair in zip(*(s.to_numpy() for s in sides), strict=True)
    }
    assert pairs == {frozenset(pair) for pair in itertools.combinations(variants, 2)}


def test_only_a_simulated_city_knows_what_can_be_reached(lake: Lake, built: Place) -> None:
    city = load_city(built.yaml)
    assert evaluation._no_truth(city) == ""
    real = city.model_copy(update={"sources": city.sources.model_copy(update={"truth": None})})
    assert "only a simulated city" in evaluation._no_truth(real)
    assert set(table(lake, "reachable")["task"]) == set(city.indicators)


def test_a_city_reads_the_methods_that_it_names(built: Place) -> None:
    city = load_city(built.yaml)
    assert set(evaluation._chosen("metrics")(city)) == {f"{name}_metrics" for name in city.methods}
    every = evaluation._all("metrics")
    assert set(every) > set(evaluation._chosen("metrics")(city))
