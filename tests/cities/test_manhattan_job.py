"""The real job on real files: Manhattan with two quick methods, from raw files to the report."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from resources.lake import read
from tests.tiny import ROOT, Place

DATA = os.environ.get("CITYLOOM_DATA", "")
pytestmark = pytest.mark.skipif(
    not (Path(DATA) / "nyc").is_dir(),
    reason="the files of Manhattan are not here: set CITYLOOM_DATA",
)
NAME, METHODS = "manhattan_short", ("location", "poi")


def test_raw_files_to_report(tmp_path: Path) -> None:
    place = Place(tmp_path, NAME)
    for folder in ("cities", "home"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "dagster.yaml", tmp_path / "home")
    config = yaml.safe_load((ROOT / "cities" / "manhattan.yaml").read_text())
    del config["captions"], config["schedule"]
    place.write(config | {"name": NAME, "methods": {m: {} for m in METHODS}, "seeds": [0]})

    done = place.run(*place.job(), env={**place.env, "CITYLOOM_DATA": DATA})
    assert done.returncode == 0, done.stderr[-4000:]
    lake = str(tmp_path / "lake")
    figures = read("leaderboard", NAME, lake=lake)
    assert set(figures["method"]) == set(METHODS)
    assert set(figures["task"]) == set(config["indicators"])
    assert np.isfinite(figures["value"]).all()
    shops = figures.query("method == 'poi' and task == 'crime' and split == 'random'")
    assert shops.query("metric == 'r2' and scale == 'transformed'")["value"].item() > 0.2
    report = (tmp_path / "lake" / NAME / "report.html").read_text()
    assert config["title"] in report
    assert all(pois["origin"].split(" @")[0] in report for pois in config["sources"]["pois"])
