"""The real job on real files: Manhattan with its quick methods, from raw files to the report."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from model_code.vision.model_choices import VIEWS
from resources.lake import read
from tests.assets.test_captions import SMALL_CLIP
from tests.tiny import ROOT, Place

DATA = os.environ.get("CITYLOOM_DATA", "")
pytestmark = pytest.mark.skipif(
    not (Path(DATA) / "nyc").is_dir(),
    reason="the files of Manhattan are not here: set CITYLOOM_DATA",
)
NAME = "manhattan_short"
METHODS = {
    "location": {}, "poi": {}, "chip_pca": {}, "od_pca": {}, "shares": {},
    "urbanclip": {"config": {"epochs": 1, "width": 8, "batch": 32}},
}  # fmt: skip
# Of the street views, black and white and in three regions, nothing is measured.
CAPTIONS = {
    "clip": SMALL_CLIP,
    "segmenter": {"satellite": "embedded"},
    "calibration": {view: {"retries": 0} for view in VIEWS},
}


def test_raw_files_to_report(tmp_path: Path) -> None:
    place = Place(tmp_path, NAME)
    for folder in ("cities", "home"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "dagster.yaml", tmp_path / "home")
    config = yaml.safe_load((ROOT / "cities" / "manhattan.yaml").read_text())
    del config["schedule"]
    place.write(config | {"name": NAME, "captions": CAPTIONS, "methods": METHODS, "seeds": [0]})

    done = place.run(*place.job(), env={**place.env, "CITYLOOM_DATA": DATA})
    assert done.returncode == 0, done.stderr[-4000:]
    lake = str(tmp_path / "lake")
    figures = read("leaderboard", NAME, lake=lake)
    assert set(figures["method"]) == set(METHODS)
    assert set(figures["task"]) == set(config["indicators"])
    assert np.isfinite(figures["value"]).all()
    shops = figures.query("method == 'poi' and task == 'crime' and split == 'random'")
    assert shops.query("metric == 'r2' and scale == 'transformed'")["value"].item() > 0.2
    shares = read("image_shares", NAME, lake=lake)
    judged = (shares["note"] == "").groupby(shares["view"]).mean()
    assert 0 < judged["satellite"] < 1 and judged["street_view"] == 0  # some chips have no colour
    best = read("calibrated_captions", NAME, lake=lake)
    assert len(best) == len(shares)
    alone = best[best["view"] == "street_view"]  # judged by CLIPScore, which has a floor of its own
    assert (alone["kept"] == (alone["perception_score"] >= 0.35)).all()
    report = (tmp_path / "lake" / NAME / "report.html").read_text()
    assert config["title"] in report
    assert all(pois["origin"].split(" @")[0] in report for pois in config["sources"]["pois"])
