"""Small made-up predictions and indicators, with known structure, for the tests of this folder."""

import numpy as np
import pandas as pd
import pyarrow as pa

from model_code.contracts import Checker, conform
from model_code.tables import contract

INDICATORS = pd.DataFrame(
    {
        "indicator": ["flow", "income", "land_use"],
        "kind": ["hourly", "regression", "classification"],
        "transform": ["log1p", "log1p", "none"],
        "contained_in": [[], [], []],
    }
)


def predictions(
    regions=12, folds=2, seeds=(0, 1), noise=0.5, variant="default", tasks=("flow", "income"), rng=0
):
    """Every fold tests every region; the truth depends on task, region and slot alone."""
    generator = np.random.default_rng(rng)
    rows = []
    for task in tasks:
        slots = 3 if task == "flow" else 1
        grid = pd.MultiIndex.from_product(
            [range(folds), seeds, range(regions), range(slots)],
            names=["fold", "seed", "number", "slot"],
        ).to_frame(index=False)
        where = grid["number"].to_numpy() + 1.0
        if task == "land_use":
            true = where * 7 % 5 // 2
            wrong = generator.random(len(grid)) < noise
            pred = np.where(wrong, generator.integers(0, 4, len(grid)), true).astype(float)
            original = true, pred
        else:
            true = np.log1p(where * (grid["slot"].to_numpy() + 1) % 11)
            pred = true + noise * generator.normal(size=len(grid))
            original = np.expm1(true), np.expm1(pred)
        rows.append(
            grid.assign(
                task=task,
                y_true=true,
                y_pred=pred,
                y_true_original=original[0],
                y_pred_original=original[1],
            )
        )
    frame = pd.concat(rows, ignore_index=True)
    frame["region_id"] = frame.pop("number").map("r{:03d}".format)
    return frame.assign(variant=variant, split="random")


def assert_follows_contract(name, frame):
    """Columns and their order, types, bounds, missing values, order of rows, unique keys."""
    table = contract(name)
    assert list(frame) == table.names()
    Checker(table).check(conform(table, pa.Table.from_pandas(frame, preserve_index=False)))
