"""The benchmark runs at a small size; its figures are taken by hand, never in a test."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.modes import MODES, accuracy, measured, table
from model_code.methods.base import Targets
from tests.model_code.methods.fake_city import fake_city
from tests.model_code.methods.test_urbanmmcl import CONFIG

SETTINGS = CONFIG.model_dump(exclude={"mode", "head", "tuning"}) | {
    "tuning": {"epochs": 2, "hidden": 8}
}


def test_every_mode_is_measured_beside_pretraining() -> None:
    data, targets, parts = fake_city(40)
    rows = pd.DataFrame(list(measured(data, targets, parts, ["income"], SETTINGS, [0])))
    assert rows["mode"].tolist() == ["pretraining", *MODES]
    assert (rows["epoch_s"] > 0).all() and (rows["best"] <= rows["epochs"]).all()
    assert rows["epochs"].iloc[0] == CONFIG.epochs and set(rows["epochs"].iloc[2:]) == {2}
    assert np.isfinite(rows.loc[1:, ["r2", "f1"]].to_numpy()).all()
    shown = table(rows)
    assert shown["mean R²"].iloc[0] == "" and shown["regions an epoch"].tolist() == ["40"] + 4 * [
        "24"
    ]


def test_accuracy_is_of_free_numbers_and_classes_on_test_regions() -> None:
    _, targets, parts = fake_city(40)
    tasks = tuple(task for task in targets.tasks if task.kind != "hourly")
    own = Targets(tasks, targets.values)
    perfect = {task.name: np.nan_to_num(targets.values[task.name]) for task in tasks}
    assert accuracy(perfect, own, parts, ["income"]) == {"r2": 1.0, "f1": 1.0}
    perfect["population"] = 0 * perfect["population"]
    perfect["income"][~parts.test] = 9.0
    assert accuracy(perfect, own, parts, ["income"])["r2"] == 1.0
    assert accuracy(perfect, own, parts, ["income", "population"])["r2"] < 1
