"""The benchmark runs on a tiny model; its figures are taken by hand, never in a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from tests.resources.tiny_models import save_qwen
from tests.tiny import ROOT


def test_each_captioner_has_a_row_and_is_compared_with_the_first(tmp_path: Path) -> None:
    real = {
        "kind": "transformers", "model": str(save_qwen(tmp_path / "qwen")), "max_tokens": 8, "batch": 2,
        "device": "cpu",
    }  # fmt: skip
    choices = {"qwen": real, "again": real | {"batch": 3}, "told": {"kind": "template"}}
    files = []
    for name, choice in choices.items():
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump(choice))
    script = str(ROOT / "benchmarks" / "captioners.py")
    command = [sys.executable, script, *map(str, files), "--images", "5", "--px", "32"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout.splitlines()
    own = {line.split()[0]: line.split() for line in said if line.split()[0] in choices}
    assert [own[name][1] for name in choices] == ["transformers", "transformers", "template"]
    assert all(row[3] == "5" and float(row[4]) > 0 for row in own.values())
    assert own["qwen"][8] == own["again"][8] == "5" and own["told"][8] == "0"
    assert float(own["qwen"][6]) > 0 == float(own["told"][6])
    # Random weights say nothing in so few tokens, and the reader is told.
    assert own["qwen"][7] == "5" and any(
        line.startswith("qwen: 5 times: ") and "max_tokens" in line for line in said
    )
