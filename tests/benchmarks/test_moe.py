"""The benchmark runs, and its ways agree; its figures are taken by hand, never in a test."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from benchmarks import moe
from tests.tiny import ROOT


def test_the_ways_agree() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "moe.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for way in ("batched ", "loop over experts", "loop over tasks and experts"):
        assert way in done.stdout
    assert done.stdout.count("times as fast") >= 2


def test_the_peak_counts_what_is_alive_at_once() -> None:
    def run() -> None:
        first = torch.ones(2**18)  # 1 MiB
        del first
        second = torch.ones(2**19)
        assert (second + 1).sum() > 0

    assert moe.peak_mib(run, "cpu") == pytest.approx(4, abs=0.01)
