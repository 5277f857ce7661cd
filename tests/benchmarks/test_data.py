"""The benchmark runs; its figures are taken by hand, never in a test."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.data import SECTIONS, table
from tests.tiny import ROOT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "data.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_every_way_runs_at_a_tenth_and_in_full_and_is_compared() -> None:
    said = run("counts", "--quick").stdout
    for way in SECTIONS["counts"].ways:
        rows = [line for line in said.splitlines() if line.strip().startswith(f"{way}  ")]
        assert len(rows) == 2, said
    assert "times as fast as bare DuckDB (goal 0.80)" in said


@pytest.mark.parametrize(
    ("ours_s", "tenth_s", "met"),
    [(1.0, 0.1, True), (1.0, 0.0911, True), (1.0, 0.09, False), (2.5, 0.25, True), (4, 0.4, False)],
)
def test_a_goal_is_missed_by_speed_or_by_growth(
    ours_s: float, tenth_s: float, met: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(n: int, ours: float, others: float) -> dict[str, dict[str, float]]:
        seconds = dict.fromkeys(SECTIONS["flows"].ways, others) | {
            "cityloom, points": ours,
            "cityloom, region ids": n / 2000,
            "bare DuckDB, region ids": 0.5,
        }
        return {
            way: {"n": n, "seconds": one, "cpu": 1, "peak_mib": 1} for way, one in seconds.items()
        }

    # What is only compared with may grow as it likes.
    found = table("flows", 1000, rows(100, tenth_s, 0.01), rows(1000, ours_s, 1.0))
    assert found is met
    said = capsys.readouterr().out
    assert f"take {ours_s / tenth_s:.1f} times the time (at most 11)" in said
    assert f"cityloom, points is {2 / ours_s:.2f} times as fast as" in said
    assert f"strictly, {1.5 / ours_s:.2f} times as fast as bare DuckDB, region ids + the " in said
    assert ("(goal 0.67 missed, for information)" in said) is (ours_s > 1.5 * 1.5)


def test_every_goal_names_ways_of_its_section() -> None:
    for section in SECTIONS.values():
        for goal in section.goals:
            assert {goal.way, *goal.others, *goal.strict} <= set(section.ways)


def test_an_unknown_section_lists_the_known_ones() -> None:
    done = run("count")
    assert done.returncode != 0 and "counts" in done.stderr
