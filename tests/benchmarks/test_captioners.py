"""The benchmark runs on a tiny model; its figures are taken by hand, never in a test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.captioners import main
from tests.resources.tiny_models import save_qwen


def test_each_captioner_has_a_row_and_is_compared_with_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = {
        "kind": "transformers", "model": str(save_qwen(tmp_path / "qwen")), "max_tokens": 8, "batch": 2,
        "device": "cpu",
    }  # fmt: skip
    ten = {"kind": "custom", "object": "tests.assets.test_asking:TenLines"}
    choices = {"ten": ten, "again": ten, "qwen": real, "told": {"kind": "template"}}
    files = []
    for name, choice in choices.items():
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump(choice))
    monkeypatch.setattr(sys, "argv", ["", *map(str, files), "--images", "5", "--px", "32"])
    main()
    said = capsys.readouterr().out.splitlines()
    own = {line.split()[0]: line.split() for line in said if line.split()[0] in choices}
    assert [own[name][1] for name in choices] == ["custom", "custom", "transformers", "template"]
    assert all(row[3] == "5" and float(row[4]) > 0 for row in own.values())
    assert [own[name][8] for name in choices] == ["5", "5", "0", "0"]
    assert float(own["qwen"][6]) > 0 == float(own["told"][6])
    # Random weights say nothing in so few tokens, and the reader is told.
    assert [own[name][7] for name in choices] == ["0", "0", "5", "0"]
    assert any(line.startswith("qwen: 5 times: ") and "max_tokens" in line for line in said)
