"""The benchmark runs, and its ways agree; its figures are taken by hand, never in a test."""

from __future__ import annotations

import subprocess
import sys

from tests.tiny import ROOT


def test_the_ways_agree() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "moe.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for way in ("batched ", "loop over experts", "loop over tasks and experts"):
        assert way in done.stdout
    assert done.stdout.count("times as fast") >= 2
