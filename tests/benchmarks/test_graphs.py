"""The benchmark runs at a small size; its figures are taken by hand, never in a test."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.graphs import missed
from model_code.graphs.multiview import GraphSettings
from model_code.methods import UrbanMmclConfig
from tests.tiny import ROOT


def test_a_small_city_is_measured() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "graphs.py"), "300", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("| 300 |"))
    assert row.count("(") == 6 and row.endswith(" |")


def test_what_is_measured_is_the_method_s_default() -> None:
    """The benchmark takes `GraphSettings()`, the method its config's."""
    config = UrbanMmclConfig()
    assert GraphSettings() == GraphSettings(
        latent=config.latent, hidden=config.graph_hidden, width=config.graph_width,
        decoder=config.decoder, vgae=config.vgae, random_walk=config.random_walk,
        contrast=config.graph_contrast, walk_length=config.walk_length, tau=config.tau,
        kl_weight=config.kl_weight, shared_negatives=config.shared_negatives,
    )  # fmt: skip


def test_goals_are_judged() -> None:
    small = {"regions": 10_000, "all_s": 40.0, "all_cpu_s": 40.0, "peak_gib": 1.0}
    good = {"regions": 100_000, "all_s": 500.0, "all_cpu_s": 510.0, "peak_gib": 4.0}
    assert missed([small, good]) == []
    assert len(missed([small, good | {"peak_gib": 13.0}])) == 1
    assert len(missed([small, good | {"all_s": 601.0}])) == 1
    assert len(missed([small, good | {"all_cpu_s": 560.0}])) == 1
    assert missed([small]) == []
