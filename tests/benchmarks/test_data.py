"""The benchmark runs; its figures are taken by hand, never in a test."""

from __future__ import annotations

import subprocess
import sys

from tests.tiny import ROOT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "data.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_every_way_runs_at_a_tenth_and_in_full_and_is_compared() -> None:
    said = run("counts", "--quick").stdout
    for way in ("cityloom", "bare DuckDB", "naive: pandas groupby"):
        rows = [line for line in said.splitlines() if line.strip().startswith(f"{way}  ")]
        assert len(rows) == 2, said
    assert "times as fast as bare DuckDB (goal 0.80)" in said


def test_an_unknown_section_lists_the_known_ones() -> None:
    done = run("count")
    assert done.returncode != 0 and "counts" in done.stderr
