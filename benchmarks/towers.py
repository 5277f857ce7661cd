"""What text adds, by how much the towers knew before: `python benchmarks/towers.py [CITY]`.

The towers of UrbanVLP start from generic pairs of pictures and sentences, as any CLIP does. This
trains them on fewer and more such pairs, and compares the features as they come with those that
UrbanVLP has pretrained on the city's own captions: one seed, mean R2 over the numbers that no
modality contains. Writes docs/results/towers.md and .png. The city must have been built.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from assets.inputs import labels, region_data
from model_code.city import Cities
from model_code.demo.pairs import satellite_pairs, street_pairs
from model_code.evaluation.metrics import r2
from model_code.methods import METHODS
from model_code.methods.base import Checkpoint, RegionData, Workspace
from model_code.methods.run import (
    fit_checkpoint,
    fit_predictor,
    parts_for,
    predict,
    variant_configs,
)
from model_code.report.markdown import markdown
from model_code.vision.clip import train_clip
from model_code.vision.clip_config import ClipConfig
from resources.lake import Lake, read

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
PAIRS = {"satellite": satellite_pairs, "street_view": street_pairs}
SPEC = METHODS["urbanvlp"]
VARIANTS = {"as they come": {"text": False}, "pretrained on captions": {}}
SEED = 0


def towers(config: ClipConfig, counts: list[int]) -> Iterator[tuple[int, dict[str, Checkpoint]]]:
    """Towers of both views by how many pairs they have seen, each pair as often as any other."""
    drawn = {
        view: pairs(max(counts) + config.held_out, SEED, print) for view, pairs in PAIRS.items()
    }
    for count in counts:
        own = config.model_copy(update={"pairs": count})
        at = np.r_[:count, max(counts) : max(counts) + config.held_out]
        yield (
            count,
            {
                view: train_clip(
                    pictures[at], [texts[i] for i in at], own, seed=SEED, workspace=Workspace(print)
                )
                for view, (pictures, texts) in drawn.items()
            },
        )


def scores(city: str, data: RegionData, free: list[str]) -> Iterator[dict[str, object]]:
    """Mean R2 of both variants by split, from the towers that `data` holds."""
    lake = Lake()
    targets = labels(lake.handle(city, "targets"), data.region_ids)
    splits = read("splits", city=city)
    chosen = Cities.load()[city].methods[SPEC.name]
    for name, config in variant_configs(SPEC.name, chosen.config, VARIANTS).items():
        if name == "default":
            continue
        checkpoint = fit_checkpoint(SPEC, config, data, seed=SEED, workspace=Workspace(print))
        embedding = SPEC.load().embed(checkpoint, data, config)
        for split, fold in splits[["split", "fold"]].drop_duplicates().itertuples(index=False):
            parts = parts_for(splits, data.region_ids, split, fold)
            head = fit_predictor(
                SPEC, config, checkpoint, embedding, seed=SEED, targets=targets, parts=parts
            )
            found = predict(SPEC, config, head, embedding, data)
            each = []
            for task in free:
                true, guess = targets.values[task][parts.test], found[task][parts.test]
                known = np.isfinite(true)
                each.append(r2(true[known], guess[known]).item())
            yield {"towers": name, "split": split, "fold": fold, "r2": float(np.mean(each))}


def draw(table: pd.DataFrame) -> Figure:
    """Mean R2 over the number of generic pairs, a panel a split."""
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    splits = sorted(table["split"].unique())
    panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        for name, rows in table[table["split"] == split].groupby("towers"):
            axes.plot(rows["generic pairs"], rows["r2"], marker="o", label=name)
        axes.set_xscale("symlog", linthresh=100)
        axes.set_title(f"{split} split", fontsize=9)
        axes.set_xlabel("generic pairs that the towers have seen")
    axes.legend(frameon=False, fontsize=8)
    figure.axes[0].set_ylabel("mean R²")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("city", nargs="?", default="demo_large")
    parser.add_argument("--pairs", type=int, nargs="+", default=[64, 250, 1000, 4000])
    asked = parser.parse_args()
    city, lake = Cities.load()[asked.city], Lake()
    assert city.captions is not None
    tables = ("regions", "region_chips", "region_street_views", "calibrated_captions",
              "location_features")  # fmt: skip
    handles = {name: lake.handle(city.name, name) for name in tables}
    needs = [need for need in SPEC.needs if need != "towers"]
    data = region_data(handles, needs, city.chips.min_valid_share)
    catalogue = read("indicators", city=city.name)
    inside = catalogue["contained_in"].map(len) > 0
    free = sorted(catalogue.loc[~inside & (catalogue["kind"] != "classification"), "indicator"])
    rows = []
    for count, pair in towers(city.captions.clip, sorted(asked.pairs)):
        own = replace(data, towers=pair)
        rows += [{"generic pairs": count, **row} for row in scores(city.name, own, free)]
        print(pd.DataFrame(rows).groupby(["generic pairs", "towers", "split"])["r2"].mean())
    table = (
        pd.DataFrame(rows)
        .groupby(["generic pairs", "towers", "split"], as_index=False)["r2"]
        .mean()
    )
    draw(table).savefig(RESULTS / "towers.png", dpi=120)
    wide = table.pivot(index="generic pairs", columns=["split", "towers"], values="r2")
    wide.columns = [f"{split}: {name}" for split, name in wide.columns]
    lines = [
        "# What text adds, by how much the towers knew before",
        "",
        f"Made by `python benchmarks/towers.py {city.name}`: UrbanVLP on `{city.name}`, seed {SEED}, mean R² over "
        f"{len(free)} indicators and all folds. The towers are trained on generic pairs of pictures "
        "and sentences of no city, then read as they come, or pretrained on the city's captions.",
        "",
        "![Mean R² by generic pairs](towers.png)",
        "",
        markdown(wide.round(3).reset_index()),
        "",
    ]  # fmt: skip
    (RESULTS / "towers.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
