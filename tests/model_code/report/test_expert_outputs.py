from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from model_code.report import expert_outputs
from model_code.tables import contract

PNG = b"\x89PNG"
KINDS = ("own", "own", "pair", "shared", "mixture")


@pytest.fixture
def outputs() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (branch, task, number, f"r{region}", kind, *rng.normal(size=2), "tsne", spread, near)
        for branch, spread_of, near_of in (("image", 0.25, 1.0), ("text", 0.75, 0.0))
        for task in ("income", "main_land_use")
        for number, kind in enumerate(KINDS)
        for spread, near in [(spread_of, near_of) if kind != "mixture" else (np.nan, np.nan)]
        for region in range(8)
    ]
    return pd.DataFrame(rows, columns=contract("urbanmoe_outputs").names())


def test_a_sentence_a_branch_by_kind_and_by_chance(outputs: pd.DataFrame) -> None:
    image, text = expert_outputs.sentences(outputs)
    assert image.startswith("Image branch") and "own 0.25, of pairs 0.25, shared 0.25" in image
    assert "same expert's in 100% of cases (by chance: 25%)" in image
    assert text.startswith("Text branch") and "in 0% of cases" in text
    outputs["own_nearest"] = np.nan
    assert "nearest" not in expert_outputs.sentences(outputs)[0]


def test_a_panel_for_each_task_and_branch(outputs: pd.DataFrame) -> None:
    whole = expert_outputs.expert_scatter(outputs)
    assert whole.startswith(PNG)
    one = outputs.query("branch == 'text' and task == 'income' and kind != 'pair'")
    fewer = expert_outputs.expert_scatter(one)
    assert fewer.startswith(PNG) and len(fewer) < len(whole)
    assert expert_outputs.expert_scatter(outputs[:0]).startswith(PNG)
