"""The benchmark runs on a made-up grid; its figures are taken by hand, never in a test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.china_grids import verdict
from tests.tiny import ROOT


def run(data: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "china_grids.py"), "--quick"]
    env = {**os.environ, "CITYLOOM_DATA": str(data)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=env
    )


def write_grid(folder: Path, cells: int = 24) -> None:
    """A city whose targets follow its columns; some labels are missing."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    x, y = (axis.ravel() for axis in np.mgrid[:cells, :cells])
    rows = {"area_id": np.arange(cells**2), "x": x, "y": y}
    rows |= {f"landcover_{k}": rng.random(cells**2) for k in (1, 3, 4, 5, 6, 8, 9)}
    rows |= {f"poi_{k:02}": rng.random(cells**2) for k in range(14)}
    rows["poi_14"] = rng.poisson(30, cells**2).astype(float)
    for k, name in enumerate(("carbon", "population", "night_light", "gdp", "pm25")):
        rows[name] = 100 * rows["landcover_1"] + 50 * rows[f"poi_{k:02}"]
    rows["population"][::9] = np.nan
    pd.DataFrame(rows).to_parquet(folder / "beijing_grid_indicators.parquet")


def test_every_method_is_scored_on_both_splits(tmp_path: Path) -> None:
    write_grid(tmp_path / "china_grids" / "indicators")
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    for line in ("## Beijing, random split", "## Beijing, spatial split", "| boosting |"):
        assert line in done.stdout
    assert done.stdout.count(": mean R²") == 2 * 5
    assert "of mean R² over UrbanMoE" in done.stdout
    assert "nan" not in done.stdout.replace("± nan", "")  # one seed has no deviation


def test_without_the_tables_it_says_why_it_does_nothing(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("skipped: no ")


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        ((0.03, 0.02), "take boosting"),
        ((-0.03, -0.02), "take UrbanMoE"),
        ((0.03, -0.03), "Neither"),
    ],
)
def test_the_verdict_follows_the_figures(gaps: tuple[float, float], words: str) -> None:
    rows = pd.DataFrame(
        {"city": city, "split": "random", "seed": seed, "method": method, "R²": value}
        for city, gap in zip(("a", "b"), gaps, strict=True)
        for seed in range(3)
        for method, value in (("UrbanMoE", 0.5), ("boosting", 0.5 + gap + 0.001 * seed))
    )
    assert words in verdict(rows)
