"""What the benchmark counts and writes, on made-up tables; its figures are taken by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks import calibration
from model_code.city import load_city
from model_code.tables import contract
from resources.lake import Lake, plain_table_writer

REGIONS = [f"r{i:02}" for i in range(24)]
SHARES = {"forest": 0.7, "building": 0.2, "road": 0.1}
TRUE = "Trees take up roughly two thirds of the picture, buildings about a fifth and streets about a tenth."
FALSE = "Streets take up roughly two thirds of the picture, buildings about a fifth and trees about a tenth."


def put(city: str, asset: str, rows: pd.DataFrame, table: str = "") -> None:
    lake, writer = Lake(), plain_table_writer(contract(table or asset), rows)
    lake.commit(lake.stage(city, asset, {f"{asset}.parquet": writer}), fingerprint="")


@pytest.fixture
def cities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two cities: of honest captions, and of captions whose first tries are of another picture every
    third time, which calibration mends but once, when it keeps the caption out."""
    monkeypatch.setenv("CITYLOOM_LAKE", str(tmp_path))
    true = np.full(len(REGIONS), TRUE, object)
    third = np.where(np.arange(len(REGIONS)) % 3 == 0, FALSE, true)
    pictures = {"view": "satellite", "image_id": REGIONS, "region_id": REGIONS}
    for city, first in (("honest", true), ("bad", third)):
        text = np.where(np.arange(len(REGIONS)) == 0, first, true)
        kept = np.array(text == TRUE)
        put(city, "calibrated_captions", pd.DataFrame(
            {**pictures, "attempt": 0, "tries": np.where(text == first, 1, 2), "text": text,
             "first_text": first, "perception_score": 0.5, "kept": kept,
             "reason": np.where(kept, "", "too low"), "captioner": "template"}
        ))  # fmt: skip
        put(city, "image_shares", pd.DataFrame(
            {**pictures, "sha256": "", "segmenter": "s", "classes": [[*SHARES]] * len(REGIONS),
             "shares": [np.array([*SHARES.values()], np.float32)] * len(REGIONS), "note": ""}
        ))  # fmt: skip
    put("honest", "indicators", pd.DataFrame(
        {"indicator": ["income", "price"], "kind": "regression", "transform": "none", "unit": "",
         "description": "", "contained_in": [[], []], "classes": [[], []], "regions": 24,
         "region_share": 1.0}
    ))  # fmt: skip
    put("honest", "splits", pd.DataFrame(
        {"split": "random", "fold": 0, "region_id": REGIONS, "part": "test", "block": ""}
    ))  # fmt: skip
    return "honest", "bad"


def put_predictions(city: str, noise: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    true = np.linspace(0, 1, len(REGIONS))
    put(city, "urbanvlp_predictions", pd.concat(
        pd.DataFrame(
            {"variant": variant, "split": "random", "fold": 0, "seed": 0, "task": task,
             "region_id": REGIONS, "slot": 0, "y_true": true, "y_pred": predicted,
             "y_true_original": true, "y_pred_original": predicted}
        )
        for variant, off in noise.items()
        for task in ("income", "price")
        for predicted in [true + off * rng.standard_normal(len(REGIONS))]
    ), "predictions")  # fmt: skip


def test_captions_that_misstate_a_share_are_counted(cities: tuple[str, str]) -> None:
    honest, bad = (
        calibration.misstated(city).set_index("view").loc["satellite"] for city in cities
    )
    assert honest["pictures"] == bad["pictures"] == 24
    assert (honest["wrong at the first try"], bad["wrong at the first try"]) == ("0.0%", "33.3%")
    assert honest["wrong and kept"] == bad["wrong and kept"] == "0.0%"
    assert (honest["kept"], bad["kept"]) == ("100.0%", "95.8%")
    assert (honest["tries a picture"], bad["tries a picture"]) == ("1.00", "1.29")


def test_the_page_tells_captions_and_what_they_are_worth(cities: tuple[str, str]) -> None:
    put_predictions("honest", {"default": 0.1, "without_calibration": 0.1, "without_text": 0.4})
    put_predictions("bad", {"default": 0.1, "without_calibration": 0.2})
    page = calibration.page(*cities, "the command")
    assert page.index("### honest") < page.index("### a third wrong") < page.index("## Mean over")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.split("## Mean over indicators, random split")[1].splitlines()
        if line.startswith("| ")
    ][2:]
    assert len(rows) == 10  # every pair of five
    gain = {frozenset(row[:2]): (row[0], row[3]) for row in rows}
    pair = frozenset({"no captions", "a third wrong, calibrated"})
    assert gain[pair][0] == "a third wrong, calibrated" and "tie" not in gain[pair][1]
    same = frozenset({"honest captions, calibrated", "a third wrong, calibrated"})
    assert "(a tie)" in gain[same][1]


def test_the_city_of_bad_captions_differs_in_them_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "worse.yaml"
    path.write_text(yaml.safe_dump(calibration.config("demo_large", "worse")))
    worse, city = load_city(path), load_city(calibration.ROOT / "cities" / "demo_large.yaml")
    assert worse.captions is not None and city.captions is not None
    assert worse.captions.wrong_share == pytest.approx(1 / 3, abs=1e-4)
    assert worse.captions.model_copy(update={"wrong_share": 0.0}) == city.captions
    assert [*worse.methods] == ["urbanvlp"]
    assert [*worse.methods["urbanvlp"].variants] == ["without_calibration"]
    assert worse.indicators == city.indicators and worse.splits == city.splits
