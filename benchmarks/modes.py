"""What training on costs UrbanMMCL, and what it brings: `python benchmarks/modes.py [CITY] [--seeds S ...]`.

The paper's section 5.3 with the control that it lacks: one pretraining a seed, then a probe (an MLP on
frozen embeddings), `finetune`, `end_to_end` and `scratch` on the random split. Seconds of processor an
epoch, epochs until the validation regions chose, and what the test regions say. Writes
docs/results/modes.md. The city must have been built.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from assets.inputs import TABLE_OF, labels, region_data
from model_code.city import Cities
from model_code.evaluation.metrics import r2
from model_code.methods import METHODS, MethodConfig, method_config
from model_code.methods.base import Floats, Parts, RegionData, Targets
from model_code.methods.run import fit_checkpoint, fit_predictor, parts_for, predict
from model_code.report.markdown import markdown
from resources.lake import Lake, read

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
SPEC = METHODS["urbanmmcl"]
MODES = ("probe", "finetune", "end_to_end", "scratch")


def accuracy(
    found: dict[str, Floats], targets: Targets, parts: Parts, free: Sequence[str]
) -> dict[str, float]:
    """On the test regions: the mean R2 of the `free` numbers, the mean macro F1 of classes."""
    from sklearn.metrics import f1_score

    numbers, classes = [], []
    for task in targets.tasks:
        true, guess = targets.values[task.name][:, 0], found[task.name][:, 0]
        known = parts.test & np.isfinite(true)
        if task.kind == "classification":
            classes.append(f1_score(true[known], guess[known], average="macro"))
        elif task.name in free:
            numbers.append(r2(true[known], guess[known]).item())
    return {"r2": float(np.mean(numbers)), "f1": float(np.mean(classes)) if classes else np.nan}


def measured(
    data: RegionData,
    targets: Targets,
    parts: Parts,
    free: Sequence[str],
    settings: dict[str, Any],
    seeds: Sequence[int],
) -> Iterator[dict[str, Any]]:
    """A row a seed and mode, and one a seed for pretraining: mode, seed, regions (of an epoch), epochs,
    best (the epoch whose weights stay, from 1), epoch_s (processor), r2, f1."""

    def config(mode: str, **changes: Any) -> MethodConfig:
        return method_config(SPEC.name, {**settings, "mode": mode, "head": "mlp", **changes})

    # What is encoded once is encoded before the clock starts, and kept with the data.
    first = fit_checkpoint(SPEC, config("probe", epochs=1), data, seed=0)
    SPEC.load().embed(first, data, config("probe"))
    for seed in seeds:
        started = time.process_time()
        checkpoint = fit_checkpoint(SPEC, config("probe"), data, seed=seed)
        count = len(checkpoint.record["loss"])
        yield {
            "mode": "pretraining", "seed": seed, "regions": len(data), "epochs": count, "best": count,
            "epoch_s": (time.process_time() - started) / max(count, 1),
        }  # fmt: skip
        embedding = SPEC.load().embed(checkpoint, data, config("probe"))
        for mode in MODES:
            started = time.process_time()
            predictor = fit_predictor(
                SPEC, config(mode), checkpoint, embedding,
                seed=seed, targets=targets, parts=parts, data=data,
            )  # fmt: skip
            spent, count = time.process_time() - started, len(predictor.record["loss"])
            found = predict(SPEC, config(mode), predictor, embedding, data)
            yield {
                "mode": mode, "seed": seed, "regions": int(parts.train.sum()), "epochs": count,
                "best": predictor.record["best_epoch"] + 1, "epoch_s": spent / count,
                **accuracy(found, targets, parts, free),
            }  # fmt: skip


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds, in the order of the work."""
    means = rows.groupby("mode", sort=False)[
        ["regions", "epoch_s", "best", "epochs", "r2", "f1"]
    ].mean()
    return pd.DataFrame(
        {
            "mode": means.index,
            "regions an epoch": means["regions"].astype(int).map("{:,}".format).to_numpy(),
            "s an epoch": means["epoch_s"].map("{:.3f}".format).to_numpy(),
            "best epoch": means["best"].map("{:.0f}".format).to_numpy(),
            "epochs run": means["epochs"].map("{:.0f}".format).to_numpy(),
            "s in all": (means["epoch_s"] * means["epochs"]).map("{:.1f}".format).to_numpy(),
            "mean R²": means["r2"].map("{:.3f}".format).replace("nan", "").to_numpy(),
            "macro F1": means["f1"].map("{:.3f}".format).replace("nan", "").to_numpy(),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("city", nargs="?", default="demo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    city, lake = Cities.load()[asked.city], Lake()
    tables = ("regions", *dict.fromkeys(TABLE_OF[m] for m in SPEC.needs if m in TABLE_OF))
    handles = {name: lake.handle(city.name, name) for name in tables}
    data = region_data(handles, SPEC.needs, city.chips.min_valid_share)
    targets = labels(lake.handle(city.name, "targets"), data.region_ids)
    parts = parts_for(read("splits", city=city.name), data.region_ids, "random", 0)
    catalogue = read("indicators", city=city.name)
    inside = catalogue["contained_in"].map(len) > 0
    free = sorted(catalogue.loc[~inside & (catalogue["kind"] == "regression"), "indicator"])
    settings = city.methods[SPEC.name].config
    found = pd.DataFrame(list(measured(data, targets, parts, free, settings, asked.seeds)))
    shown = markdown(table(found))
    print(shown)
    lines = [
        "# What training on costs UrbanMMCL, and what it brings",
        "",
        f"Made by `python benchmarks/modes.py {city.name}`: {len(data):,} regions, the random split, means over seeds "
        f"{', '.join(map(str, asked.seeds))}. All indicators are learned together. Seconds are of the "
        "processor; what is encoded once is not in them, and validation after each epoch is; the best epoch is the one that the validation "
        f"regions chose. Mean R² is over the {len(free)} numbers that no modality contains, on "
        f"{int(parts.test.sum()):,} test regions. `scratch` keeps the pretrained towers, which rest in each "
        "mode: it is a control of the pretraining on the city's graphs and captions alone.",
        "",
        shown,
        "",
    ]  # fmt: skip
    (RESULTS / "modes.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
