from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from model_code.report import cases, figures
from tests.model_code.report.sample import city

REGIONS = ["r000c000", "r001c003"]


@pytest.fixture
def predictions() -> pd.DataFrame:
    """Of two seeds; the variants are off by one each."""
    parts = [
        pd.DataFrame(
            {"variant": variant, "split": split, "seed": seed, "task": task, "region_id": regions,
             "y_true": [3.0, 6.0][: len(regions)], "y_pred": np.array([3.0, 6.0])[: len(regions)] + off + seed}
        )
        for off, variant in enumerate(("default", "concat", "without_mobility"))
        for seed in (0, 1)
        for split, regions in (("random", REGIONS[:1]), ("spatial", REGIONS))
        for task in ("population", "night_light", "poi_count", "land_use")
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_the_split_that_tests_most_regions_is_shown(predictions: pd.DataFrame) -> None:
    assert set(cases.most_tested(predictions)["split"]) == {"spatial"}
    even = predictions[predictions["region_id"] == REGIONS[0]]
    assert set(cases.most_tested(even)["split"]) == {"random"}


def test_numbers_that_no_input_contains_come_first(predictions: pd.DataFrame) -> None:
    indicators = city(3, 4).indicators.iloc[::-1]  # what POI counts contain stands before others
    shown = cases.shown_tasks(predictions, indicators)
    assert list(shown["indicator"]) == ["night_light", "population", "poi_count"]
    assert cases.shown_tasks(predictions[predictions["task"] == "land_use"], indicators).empty


def test_means_are_of_the_default_and_of_what_lacks_a_part(predictions: pd.DataFrame) -> None:
    own = predictions[predictions["split"] == "spatial"]
    named = own.assign(variant=own["variant"].replace("default", "default_without_satellite"))
    other = own[own["variant"] == "concat"].assign(variant="default_wide", y_pred=99.0)
    for rows in (own, named, pd.concat([own, other])):
        found = cases.case_means(rows).loc["population"].loc[REGIONS[1]]
        assert found["y_pred"].to_dict() == {"default": 6.5, "without_mobility": 8.5}
        assert (found["y_true"] == 6).all()


def test_the_figure_shows_predictions_and_pictures(predictions: pd.DataFrame) -> None:
    own = predictions[predictions["split"] == "spatial"]
    tasks = cases.shown_tasks(own, city(3, 4).indicators)
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    drawn = [
        cases.case_figure(own, tasks, REGIONS, {"satellite": {REGIONS[0]: noise}}),
        cases.case_figure(own, tasks, REGIONS, {}),
        cases.case_figure(own[own["variant"] == "default"], tasks.iloc[:1], REGIONS[:1], {}),
        cases.case_figure(own.assign(y_pred=own["y_pred"] + 0.5), tasks, REGIONS, {}),
        cases.case_figure(own[own["region_id"] != REGIONS[1]], tasks, REGIONS, {}),  # lacks a label
    ]
    assert all(png.startswith(b"\x89PNG") and len(png) <= figures.SHEET_BYTES for png in drawn)
    assert len(set(drawn)) == len(drawn)
    assert cases.case_figure(own, tasks, REGIONS, {}) == drawn[1]
