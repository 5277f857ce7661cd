"""Writes docs/results from a city that has been built: `python benchmarks/experiments.py [CITY]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from model_code.city import Cities
from model_code.evaluation.compare import ALL_TASKS
from model_code.evaluation.leaderboard import mean_ranks, summary
from model_code.methods import METHODS
from model_code.report import figures
from model_code.report.gains import ablated_methods, ablation_gains, gains
from model_code.report.labels import is_default, method_label
from model_code.report.markdown import markdown
from resources.lake import Lake, read

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
SYSTEMS = ("urbanvlp", "musecl", "urbanmmcl", "lmemr", "urbanmoe")
RUN = ["split", "method", "variant", "fold", "seed"]


def means(board: pd.DataFrame, catalogue: pd.DataFrame) -> pd.DataFrame:
    """Mean R2 over the numbers that no modality contains: mean and deviation over folds and seeds, by
    split, method and variant."""
    free = catalogue.loc[catalogue["contained_in"].map(len) == 0, "indicator"]
    rows = board[
        (board["metric"] == "r2") & (board["scale"] == "transformed") & board["task"].isin(free)
    ]
    run = rows.groupby(RUN)["value"].mean()
    return run.groupby(RUN[:3]).agg(["mean", "std"]).reset_index()


def verdict(gain: float, low: float, high: float) -> str:
    """A gain with its interval; one that holds zero is a tie."""
    if pd.isna(low):
        return "not estimable"
    word = "better" if low > 0 else "worse" if high < 0 else "tie"
    return f"{gain:+.3f} [{low:+.3f}, {high:+.3f}] {word}"


def overview(board: pd.DataFrame, catalogue: pd.DataFrame) -> pd.DataFrame:
    """All methods and variants by mean R2 on each split, what they read and what they may see."""
    mean = means(board, catalogue)
    about = board.groupby(["method", "variant"])[["inputs", "protocol"]].first()
    table = pd.DataFrame(index=mean.set_index(["method", "variant"]).index.unique())
    for split in sorted(mean["split"].unique()):
        own = mean[mean["split"] == split].set_index(["method", "variant"])[["mean", "std"]]
        table[f"{split}: mean R²"] = [
            shown(*row) or ("not estimable" if name in own.index else "")
            for name, row in zip(table.index, own.reindex(table.index).to_numpy(), strict=True)
        ]
    order = mean[mean["split"] == mean["split"].max()].set_index(["method", "variant"])["mean"]
    table = table.join(about.assign(inputs=about["inputs"].str.replace(",", ", ")))
    return labelled(table.loc[order.reindex(table.index).sort_values(ascending=False).index])


def shown(mean: float, deviation: float) -> str:
    """Mean ± deviation, or what there is of them."""
    if pd.isna(mean):
        return ""
    return f"{mean:.3f}" if pd.isna(deviation) else f"{mean:.3f} ± {deviation:.3f}"


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """The index of method and variant as one column of names."""
    names = [method_label(m, v) for m, v in table.index]
    return table.reset_index(drop=True).assign(method=names)[["method", *table.columns]]


def versus(
    board: pd.DataFrame, comparisons: pd.DataFrame, systems: list[str], split: str, task: str
) -> pd.DataFrame:
    """What the default of each system gains over the default of every other method on a task."""
    at = comparisons[(comparisons["split"] == split) & (comparisons["task"] == task)]
    names = board.loc[board["variant"].map(is_default), "method"].unique()
    table = pd.DataFrame(index=pd.Index(sorted(names), name="over"))
    for system in systems:
        rows = gains(at, system)
        rows = rows[rows["over"].map(is_default)].set_index("method")
        told = [verdict(*row) for row in rows[["gain", "low", "high"]].to_numpy()]
        table[f"{METHODS[system].title} gains"] = pd.Series(told, rows.index, dtype=object)
    table = table.dropna(how="all").fillna("").reset_index()
    return table.assign(over=[METHODS[name].title for name in table["over"]])


def hourly(
    board: pd.DataFrame,
    comparisons: pd.DataFrame,
    by_hour: pd.DataFrame,
    task: str,
    system: str,
) -> pd.DataFrame:
    """All methods and variants on an hourly task: R2 and mean absolute error over all hours by split,
    the mean of the R2 of single hours (0 for who tells every region the mean of each hour, which counts over all
    hours), and what the system's default gains over each in R2; a star where an input holds the target."""
    own = board[board["task"] == task]
    gained = gains(comparisons[comparisons["task"] == task], system)
    gained = gained.rename(columns={"over": "variant"})
    table = pd.DataFrame(index=own.set_index(["method", "variant"]).index.unique().sort_values())
    for split in sorted(own["split"].unique()):
        at = own[own["split"] == split]
        for name, metric, scale in (("R²", "r2", "transformed"), ("MAE", "mae", "original")):
            rows = at[(at["metric"] == metric) & (at["scale"] == scale)]
            found = rows.groupby(["method", "variant"])["value"].agg(["mean", "std"])
            found = found.reindex(table.index)
            if metric == "r2":
                order = found["mean"]
            table[f"{split}: {name}"] = [shown(*row) or "not estimable" for row in found.to_numpy()]
        single = by_hour[(by_hour["task"] == task) & (by_hour["split"] == split)]
        single = single[(single["metric"] == "r2") & (single["scale"] == "transformed")]
        mean = single.groupby(["method", "variant"])["value"].mean().reindex(table.index)
        table[f"{split}: R² by hour"] = mean.map(lambda v: "" if pd.isna(v) else f"{v:.3f}")
        told = gained[gained["split"] == split].set_index(["method", "variant"])
        told = told.reindex(table.index)[["gain", "low", "high"]]
        table[f"{split}: {METHODS[system].title} gains"] = [
            "" if pd.isna(g) else verdict(g, low, high) for g, low, high in told.to_numpy()
        ]
    order = order.sort_values(ascending=False)
    held = own.groupby(["method", "variant"])["target_in_inputs"].any().reindex(order.index)
    table = labelled(table.loc[order.index])
    return table.assign(method=table["method"] + np.where(held, " *", ""))


def scores(summarised: pd.DataFrame, reached: pd.DataFrame | None, split: str) -> pd.DataFrame:
    """Tasks by the defaults of all methods: headline metric, mean ± deviation over folds and seeds."""
    rows = summarised[(summarised["split"] == split)].copy()
    rows = rows[rows["variant"].map(is_default)]
    rows["method"] = [
        method_label(m, v) for m, v in zip(rows["method"], rows["variant"], strict=True)
    ]
    mean = [row[f"{row['headline']}_mean"] for _, row in rows.iterrows()]
    deviation = [row[f"{row['headline']}_sd"] for _, row in rows.iterrows()]
    mark = rows["target_in_inputs"].map({True: " *", False: ""})
    rows["score"] = [
        f"{shown(m, d)}{star}" if pd.notna(m) else "not estimable"
        for m, d, star in zip(mean, deviation, mark, strict=True)
    ]
    table = rows.pivot(index="task", columns="method", values="score")
    if reached is not None:
        own = reached[reached["split"] == split].groupby("task")
        table["true function"] = own["true_function"].mean().map("{:.3f}".format)
        kriged = own["with_kriging"].mean()
        table["with kriging"] = kriged.map(lambda v: "" if pd.isna(v) else f"{v:.3f}")
    return table.reset_index().fillna("")


def ablations(comparisons: pd.DataFrame, method: str, split: str) -> pd.DataFrame:
    """What a method's default gains over each of its variants, by indicator."""
    rows = ablation_gains(comparisons, method)
    rows = rows[rows["split"] == split]
    rows = rows.assign(
        told=[verdict(*row) for row in rows[["gain", "low", "high"]].to_numpy()],
        over=rows["over"].str.replace("_", " "),
    )
    table = rows.pivot(index="task", columns="over", values="told").fillna("")
    # The mean, where there is one, comes first.
    order = sorted(table.index, key=lambda task: (task != ALL_TASKS, task))
    return table.reindex(order).rename_axis(columns=None).reset_index()


def page(city: str, command: str) -> Iterator[str]:
    """The lines of the results' page; `command` is what makes it."""
    board, comparisons = read("leaderboard", city=city), read("comparisons", city=city)
    catalogue = read("indicators", city=city)
    reached = read("reachable", city=city) if Lake().handle(city, "reachable").exists else None
    summarised = summary(board)
    about = Cities.load()[city]
    systems = [
        name
        for name in SYSTEMS
        if (
            (comparisons["task"] == ALL_TASKS)
            & (comparisons["method_a"].eq(name) | comparisons["method_b"].eq(name))
        ).any()
    ]
    free = [str(name) for name in catalogue.loc[(catalogue["contained_in"].map(len) == 0)
            & (catalogue["kind"] != "classification"), "indicator"]]  # fmt: skip
    yield f"# Results: {about.title}"
    yield ""
    yield (
        f"Made by `{command}`: seeds {list(about.seeds)}, all folds. R² on the transformed "
        "scale, macro F1 for classes: mean ± standard deviation over folds and seeds. Gains are "
        "differences over all test regions with the 95 % interval of a paired bootstrap (of whole "
        "blocks on the spatial split); an interval that holds 0 is a tie. Every figure: "
        f"[{city}.csv]({city}.csv)."
    )
    yield ""
    yield f"![Leaderboard]({city}.png)"
    yield ""
    if free and len(table := overview(board, catalogue)):
        yield f"## All methods, mean over {len(free)} indicators"
        yield ""
        yield f"The numbers that no modality contains: {', '.join(free)}."
        yield ""
        yield markdown(table)
        yield ""
    for split in sorted(board["split"].unique()) if systems else ():
        yield f"## What the systems gain over other methods, {split} split, in this mean"
        yield ""
        yield markdown(versus(board, comparisons, systems, split, ALL_TASKS))
        yield ""
    for task in catalogue.loc[catalogue["kind"] == "hourly", "indicator"]:
        if "lmemr" in set(board["method"]):
            yield f"## Hours of the day: {task}"
            yield ""
            yield (
                "R² over all hours on the transformed scale, mean absolute error in trips, and the mean "
                "of the R² of single hours: to know the mean of each hour is worth much of the first, "
                "and nothing of the last. *: the target is contained in an input."
            )
            yield ""
            by_hour = read("hourly_metrics", city=city)
            yield markdown(hourly(board, comparisons, by_hour, task, "lmemr"))
            yield ""
    for split in sorted(board["split"].unique()):
        yield f"## By indicator, {split} split"
        yield ""
        yield "*: the target is contained in an input."
        yield ""
        yield markdown(scores(summarised, reached, split))
        yield ""
    for method in ablated_methods(comparisons):
        for split in sorted(board["split"].unique()):
            yield f"## What {METHODS[method].title} gains over its variants, {split} split"
            yield ""
            yield markdown(ablations(comparisons, method, split))
            yield ""
    ranks = mean_ranks(summarised)
    ranks["mean_rank"] = ranks["mean_rank"].map("{:.2f}".format)
    if ranks["tasks"].max() > 1:
        yield "## Mean rank over tasks"
        yield ""
        yield markdown(ranks)
        yield ""
    timings = read("timings", city=city)
    spent = timings.loc[timings["seconds"] >= 1, ["asset", "seconds", "bytes"]].copy()
    yield (
        f"## Seconds by asset (1 s and more; {timings['seconds'].sum():,.0f} s in all{_when(timings)}; "
        "other work on the machine counts too)"
    )
    yield ""
    yield markdown(spent.assign(seconds=spent["seconds"].map("{:.1f}".format)))
    yield ""


def _when(timings: pd.DataFrame) -> str:
    """The days on which the assets were computed, where that is known."""
    days = timings["made_at"].dropna().dt.strftime("%Y-%m-%d")
    if days.empty:
        return ""
    return f", made {days.min()}" + (f" to {days.max()}" if days.min() < days.max() else "")


def main(city: str, command: str = "") -> None:
    """Write the page and its files; `command` is what makes them, if not `make results`."""
    board = summary(read("leaderboard", city=city))
    RESULTS.mkdir(parents=True, exist_ok=True)
    board.to_csv(RESULTS / f"{city}.csv", index=False, lineterminator="\n", float_format="%.6g")
    (RESULTS / f"{city}.png").write_bytes(figures.leaderboard_heatmap(board))
    name = "README.md" if city == "demo_large" else f"{city}.md"
    (RESULTS / name).write_text(
        "\n".join(page(city, command or f"make results CITY={city}")), encoding="utf-8"
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "demo_large")
