"""UrbanMoE on tables: `python benchmarks/china_grids.py [--quick] [--out FILE]`.

Beijing and Shanghai in grid cells (GeoHG's tables, below $CITYLOOM_DATA/china_grids): shares of land
cover stand for the image branch, shares of POIs for the text branch, POIs for the counts. Targets are
carbon, population, night light and GDP (log1p) and PM2.5. Against ridge, scikit-learn's
HistGradientBoosting and an MLP a task, which is trained in the same epochs, batches and steps and has
as many parameters as UrbanMoE has for a task. Every method reads the same columns, the validation cells
choose strength, iteration or epoch, and the test cells are read once; seeds change splits and weights.
Writes docs/results/china_grids.md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor, nn

from model_code.finetuning import predict_all, tune
from model_code.heads import fit_head, predict_head
from model_code.methods import UrbanMoeConfig
from model_code.methods.base import Floats, Parts, Targets, Task
from model_code.methods.urbanmoe import Inputs, fit_experts, predict_experts
from model_code.report.markdown import markdown
from model_code.scaling import Scaler, transform
from model_code.training import Settings

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results" / "china_grids.md"
CITIES = ("beijing", "shanghai")
SPLITS = ("random", "spatial")
TASKS = (
    *(Task(n, "regression", "log1p") for n in ("carbon", "population", "night_light", "gdp")),
    Task("pm25", "regression"),
)
BLOCK = 8  # cells on a side that go to one part together in the spatial split
# Narrower than for pictures, since the branches read 7 and 15 numbers; larger steps than the paper's
# and less patience, so that all of it takes minutes. The MLPs have the same.
CONFIG = UrbanMoeConfig(hidden=64, width=32, batch=256, learning_rate=1e-3, patience=10)
METHODS = ("ridge", "boosting", "MLP a task", "UrbanMoE, a net a task", "UrbanMoE")


@dataclass(frozen=True)
class Grid:
    """A city's cells: columns of land cover [N, 7] and of POIs [N, 15], labels, and place [N, 2]."""

    cover: Floats
    pois: Floats
    targets: Targets
    place: NDArray[np.int64]

    @property
    def table(self) -> Floats:
        """All columns as one table [N, 22]; the number of POIs by its logarithm."""
        return np.hstack([self.cover, self.pois[:, :-1], np.log1p(self.pois[:, -1:])])


def read_grid(file: Path) -> Grid:
    rows = pd.read_parquet(file)
    cover, pois = (
        rows[sorted(c for c in rows if c.startswith(start))].to_numpy(np.float64)
        for start in ("landcover_", "poi_")
    )
    values = {task.name: transform(rows[[task.name]].to_numpy(np.float64), task) for task in TASKS}
    return Grid(cover, pois, Targets(TASKS, values), rows[["x", "y"]].to_numpy(np.int64))


def split(grid: Grid, kind: str, seed: int) -> Parts:
    """60 / 20 / 20 of the cells at random, or of whole blocks of them."""
    unit = np.arange(len(grid.place))
    if kind == "spatial":
        column, row = (grid.place // BLOCK).T
        unit = np.unique(column * 10_000 + row, return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(unit.max() + 1) / (unit.max() + 1)
    share = order[unit]
    return Parts(share < 0.6, (share >= 0.6) & (share < 0.8), share >= 0.8)


# --- methods: predictions [N, 1] by task ---------------------------------------------------------

Predictions = dict[str, Floats]
Method = Callable[[Grid, Parts, int, UrbanMoeConfig], Predictions]


def ridge(grid: Grid, parts: Parts, seed: int, config: UrbanMoeConfig) -> Predictions:
    return predict_head(fit_head(grid.table, grid.targets, parts, "ridge", seed), grid.table)


def boosting(grid: Grid, parts: Parts, seed: int, config: UrbanMoeConfig) -> Predictions:
    """As many trees as the validation cells choose, of 500 at most."""
    found = {}
    for task in TASKS:
        labels = grid.targets.values[task.name][:, 0]
        train, val = (part & np.isfinite(labels) for part in (parts.train, parts.val))
        model = HistGradientBoostingRegressor(
            max_iter=500, learning_rate=0.05, early_stopping=False, random_state=seed
        ).fit(grid.table[train], labels[train])
        staged = model.staged_predict(grid.table[val])
        best = int(np.argmin([np.mean((p - labels[val]) ** 2) for p in staged]))
        outputs = [p for i, p in enumerate(model.staged_predict(grid.table)) if i == best]
        found[task.name] = outputs[0][:, None]
    return found


class Mlp(nn.Module):
    """Two hidden layers on standardised columns."""

    def __init__(self, table: Floats, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("rows", torch.from_numpy(table).float(), persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(table.shape[1], width), nn.GELU(), nn.Linear(width, width), nn.GELU()
        )

    def forward(self, index: Tensor) -> Tensor:
        return self.layers(self.rows[index])


def mlp(grid: Grid, parts: Parts, seed: int, config: UrbanMoeConfig) -> Predictions:
    table = Scaler.fit(grid.table, parts.train).apply(grid.table)
    width = mlp_width(grid, parts, config)
    settings = Settings(
        epochs=config.epochs,
        batch=config.batch,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        patience=config.patience,
    )
    found = {}
    for task in TASKS:
        own = replace(grid.targets, tasks=(task,))
        make = partial(Mlp, table, width)
        done = tune(make, own, parts, settings, mode="scratch", seed=seed)
        found |= predict_all(done, make(), len(table))
    return found


def mlp_width(grid: Grid, parts: Parts, config: UrbanMoeConfig) -> int:
    """The width w at which w (columns + w) is what UrbanMoE's weights come to for a task."""
    one = config.model_copy(update={"epochs": 1, "batch": len(grid.table)})
    done = fit_experts(inputs_of(grid), grid.targets, parts, one, seed=0)
    table = done.tensors["0.encoder.table"].size  # no MLP has an embedding of each cell
    size = (sum(values.size for values in done.tensors.values()) - table) / len(TASKS)
    columns = grid.table.shape[1]
    return round((np.sqrt(columns**2 + 4 * size) - columns) / 2)


def inputs_of(grid: Grid) -> Inputs:
    shares = grid.table[:, grid.cover.shape[1] :]
    ids = np.array([f"c{i:06}" for i in range(len(grid.table))])
    return Inputs(ids, {"land cover": grid.cover, "POI shares": shares}, grid.pois)


def experts(grid: Grid, parts: Parts, seed: int, config: UrbanMoeConfig) -> Predictions:
    inputs = inputs_of(grid)
    done = fit_experts(inputs, grid.targets, parts, config, seed=seed)
    return predict_experts(done, inputs, config)


def alone(grid: Grid, parts: Parts, seed: int, config: UrbanMoeConfig) -> Predictions:
    return experts(grid, parts, seed, config.model_copy(update={"single_task": True}))


RUNS: dict[str, Method] = dict(zip(METHODS, (ridge, boosting, mlp, alone, experts), strict=True))


# --- figures -------------------------------------------------------------------------------------


def scores(predicted: Predictions, targets: Targets, rows: NDArray[np.bool_]) -> pd.DataFrame:
    """R2, RMSE and MAE of each task on the transformed scale."""
    found = []
    for task in TASKS:
        true = targets.values[task.name][:, 0]
        known = rows & np.isfinite(true)
        missed, true = predicted[task.name][known, 0] - true[known], true[known]
        found.append(
            {
                "task": task.name,
                "R²": 1 - (missed**2).sum() / ((true - true.mean()) ** 2).sum(),
                "RMSE": np.sqrt((missed**2).mean()),
                "MAE": np.abs(missed).mean(),
            }
        )
    return pd.DataFrame(found)


def run(
    folder: Path,
    city: str,
    splits: Sequence[str],
    seeds: int,
    config: UrbanMoeConfig,
) -> pd.DataFrame:
    """A row a split, method, seed and task of one city."""
    parts_of = []
    grid = read_grid(folder / f"{city}_grid_indicators.parquet")
    for kind in splits:
        for seed in range(seeds):
            parts = split(grid, kind, seed)
            for name, method in RUNS.items():
                started = time.process_time()
                predicted = method(grid, parts, seed, config)
                seconds = time.process_time() - started
                rows = scores(predicted, grid.targets, parts.test)
                about = {"city": city, "split": kind, "method": name, "seed": seed}
                parts_of.append(rows.assign(**about, seconds=seconds))
                print(
                    f"{city}, {kind}, seed {seed}, {name}: mean R² {rows['R²'].mean():.3f}, "
                    f"{seconds:.1f} s of processor",
                    flush=True,
                )
    return pd.concat(parts_of, ignore_index=True)


def said(values: pd.Series) -> str:
    return f"{values.mean():.3f} ± {values.std():.3f}"


def by_task(rows: pd.DataFrame, figure: str) -> pd.DataFrame:
    """A row a method, a column a task, and the mean over tasks; the best of each in bold."""
    means = rows.groupby(["method", "seed"])[figure].mean().rename("value").reset_index()
    every = pd.concat(
        [rows.rename(columns={figure: "value"}), means.assign(task="mean")], ignore_index=True
    )
    cells = every.groupby(["method", "task"])["value"]
    table = cells.agg(said).unstack("task").loc[list(METHODS), [*(t.name for t in TASKS), "mean"]]
    middle = cells.mean().unstack("task").loc[table.index, table.columns]
    best = middle.idxmax() if figure == "R²" else middle.idxmin()
    for task, name in best.items():
        table.loc[name, task] = f"**{table.loc[name, task]}**"
    return table.reset_index()


def page(rows: pd.DataFrame, config: UrbanMoeConfig) -> str:
    seeds = rows["seed"].nunique()
    parts = [
        "# Results: UrbanMoE on tables of Beijing and Shanghai",
        f"Made by `python benchmarks/china_grids.py`: {seeds} seeds, each with a split of its own; mean ± "
        "standard deviation over them. All figures are on the transformed scale (log1p, but for "
        "PM2.5). Cells without pictures, so UrbanMoE's branches read shares of land cover and of "
        f"POIs (hidden {config.hidden}, width {config.width}). It and the MLPs train for {config.epochs} "
        f"epochs at most, patience {config.patience}, batch {config.batch}, learning rate "
        f"{config.learning_rate:g}, less than the paper's budget; every method reads the same {22} columns. Spatial: whole blocks of {BLOCK} "
        f"x {BLOCK} cells are held out.",
        "## Who is best",
        markdown(winners(rows)),
        verdict(rows),
    ]
    for (city, kind), own in rows.groupby(["city", "split"]):
        parts.append(f"## {city.capitalize()}, {kind} split")
        parts += [f"{name}\n\n{markdown(by_task(own, name))}" for name in ("R²", "RMSE", "MAE")]
    seconds = rows.groupby(["method", "city", "split", "seed"])["seconds"].first()
    cost = seconds.groupby("method").mean().loc[list(METHODS)].round(1).reset_index()
    parts += ["## Seconds of processor for all tasks of one fit", markdown(cost)]
    return "\n\n".join(parts) + "\n"


def winners(rows: pd.DataFrame) -> pd.DataFrame:
    """By city and split, mean R2 over tasks of each method, and on how many tasks each is best."""
    found = []
    for (city, kind), own in rows.groupby(["city", "split"]):
        means = own.groupby(["task", "method"])["R²"].mean().unstack("method")
        wins = means.idxmax(axis=1).value_counts()
        row = {"city": city, "split": kind}
        for name in METHODS:
            row[name] = f"{means[name].mean():.3f} (best on {wins.get(name, 0)})"
        found.append(row)
    return pd.DataFrame(found)


def verdict(rows: pd.DataFrame) -> str:
    """How far boosting, the usual choice for tables, is from UrbanMoE, and what to make of it."""
    means = rows.groupby(["city", "split", "seed", "method"])["R²"].mean().unstack("method")
    ahead = means["boosting"] - means["UrbanMoE"]
    cases = ahead.groupby(["city", "split"]).agg(["mean", "std"])
    clear = int((cases["mean"] > cases["std"]).sum())
    behind = int((cases["mean"] < -cases["std"]).sum())
    told = (
        f"Boosting has {ahead.mean():+.3f} of mean R² over UrbanMoE; it is ahead by more than the standard "
        f"deviation over seeds in {clear} of {len(cases)} cases, and behind by more in {behind}. "
    )
    if ahead.mean() > 0 and not behind:
        return (
            told
            + "For a table like these a user should take boosting, which is nowhere clearly worse."
        )
    if ahead.mean() < 0 and not clear:
        return (
            told
            + "For a table like these a user should take UrbanMoE, which is nowhere clearly worse."
        )
    return told + "Neither is the better choice for every table like these."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="one city, one seed, few epochs; writes nothing"
    )
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the page to write")
    asked = parser.parse_args()
    folder = Path(os.environ.get("CITYLOOM_DATA", "data")) / "china_grids" / "indicators"
    if not folder.is_dir():
        print(f"skipped: no {folder}; set CITYLOOM_DATA to the folder that holds china_grids/")
        return
    quick = {"epochs": 2, "n_specific": 2, "n_pair": 1}
    config = CONFIG.model_copy(update=quick) if asked.quick else CONFIG
    cities, seeds = (CITIES[:1], 1) if asked.quick else (CITIES, 3)
    rows = pd.DataFrame()
    for city in cities:  # the page stands after each, since a city takes minutes
        rows = pd.concat([rows, run(folder, city, asked.splits, seeds, config)], ignore_index=True)
        if not asked.quick:
            asked.out.write_text(page(rows, config), encoding="utf-8")
    print(page(rows, config))


if __name__ == "__main__":
    main()
