"""The benchmark runs, and its ways agree; its figures are taken by hand, never in a test."""

from __future__ import annotations

import subprocess
import sys

from tests.tiny import ROOT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "urbanvlp.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_both_sections_run_and_their_ways_agree() -> None:
    done = run("--quick")
    assert done.returncode == 0, done.stderr
    for line in ("to the same head", "plain torch, unchunked", "blocks of 1 MiB"):
        assert line in done.stdout


def test_an_unknown_section_lists_the_known_ones() -> None:
    done = run("latte")
    assert done.returncode != 0 and "probe, late" in done.stderr
