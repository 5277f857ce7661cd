"""What docs/captioning.md shows can be written, and its captioner of one's own runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from model_code.backends import Ask
from model_code.city import Captions
from resources import backends
from tests.tiny import ROOT

PAGE = (ROOT / "docs" / "captioning.md").read_text()
YAMLS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]


def test_every_kind_is_shown_and_can_be_written() -> None:
    kinds = [Captions.model_validate(each["captions"]).captioner.kind for each in YAMLS]
    assert kinds == ["openai", "vllm", "transformers", "custom"]


def test_a_captioner_of_ones_own_takes_ten_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len([line for line in code.splitlines() if line.strip() and line[0] != "#"]) <= 10
    (tmp_path / "my_captions.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    captioner = backends.captioner(Captions.model_validate(YAMLS[-1]["captions"]))
    found = captioner.caption([Ask("satellite", np.full((2, 2, 3), 9, np.uint8))])
    assert found[0].text == "Behold of mean brightness 9."
    sys.modules.pop("my_captions")
