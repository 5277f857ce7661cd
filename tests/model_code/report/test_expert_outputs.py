from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from model_code.report import expert_outputs, palette
from model_code.tables import contract

KINDS = ("own", "own", "pair", "shared", "mixture")
TASKS = ("income", "main_land_use")
REGIONS = 8


@pytest.fixture
def outputs() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (
            branch,
            task,
            number,
            f"r{region}",
            kind,
            weight,
            *rng.normal(size=2),
            "tsne",
            spread,
            near,
        )
        for branch, spread_of, near_of in (("image", 0.25, 1.0), ("text", 0.75, 0.0))
        for task in TASKS
        for number, kind in enumerate(KINDS)
        for weight, spread, near in [
            (0.25, spread_of, near_of) if kind != "mixture" else (np.nan, np.nan, np.nan)
        ]
        for region in range(REGIONS)
    ]
    return pd.DataFrame(rows, columns=contract("urbanmoe_outputs").names())


def test_a_sentence_a_branch_by_kind_and_by_chance(outputs: pd.DataFrame) -> None:
    image, text = expert_outputs.sentences(outputs)
    assert image.startswith("Image branch") and "own 0.25, of pairs 0.25, shared 0.25" in image
    assert "same expert in 100% of cases (by chance: 25%)" in image and "shut off" not in image
    assert text.startswith("Text branch") and "in 0% of cases" in text


def test_what_is_shut_off_does_not_count_and_is_told(outputs: pd.DataFrame) -> None:
    shut = (outputs["branch"] == "image") & (outputs["number"] == 0)
    outputs.loc[shut, ["weight", "spread", "own_nearest"]] = [0.0, 9.0, 0.0]
    image, text = expert_outputs.sentences(outputs)
    assert "own 0.25" in image and "in 100% of cases" in image and "25% are shut off" in image
    assert "shut off" not in text
    outputs["spread"] = np.nan  # one region
    assert expert_outputs.sentences(outputs) == []


def test_a_panel_for_each_task_and_branch_in_the_colours_of_the_kinds(
    outputs: pd.DataFrame,
) -> None:
    outputs.loc[(outputs["task"] == "income") & (outputs["number"] == 3), "weight"] = 0.0
    figure = expert_outputs.expert_scatter.__wrapped__(outputs)
    titles = [f"{task.replace('_', ' ')}: {b} (t-SNE)" for task in TASKS for b in ("image", "text")]
    assert [axes.get_title() for axes in figure.axes] == titles
    inks = dict(zip(("own", "pair", "shared"), palette.qualitative(3), strict=True))
    inks["mixture"] = palette.INK
    for axes, (task, branch) in zip(
        figure.axes, [(t, b) for t in TASKS for b in ("image", "text")], strict=True
    ):
        own = outputs[(outputs["task"] == task) & (outputs["branch"] == branch)]
        drawn = [c for c in axes.collections if len(c.get_offsets())]
        for kind, points in zip(("own", "pair", "shared", "mixture"), drawn, strict=True):
            rows = own[own["kind"] == kind]
            np.testing.assert_allclose(points.get_offsets(), rows[["axis_1", "axis_2"]])
            colours = points.get_facecolors()
            np.testing.assert_allclose(colours[:, :3], [to_rgb(inks[kind])] * len(rows))
            pale = kind == "shared" and task == "income"
            assert np.allclose(colours[:, 3], 0.15 if pale else 0.75)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "own", "of pairs", "shared", "the mixture",
    ]  # fmt: skip


@pytest.mark.parametrize("rows", [slice(0), slice(1)])
def test_it_is_a_picture_of_however_few(outputs: pd.DataFrame, rows: slice) -> None:
    assert expert_outputs.expert_scatter(outputs[rows]).startswith(b"\x89PNG")
