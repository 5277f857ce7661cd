"""Writes docs/results from a city that has been built: `python benchmarks/experiments.py [CITY]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from model_code.city import Cities
from model_code.evaluation.compare import ALL_TASKS
from model_code.evaluation.leaderboard import mean_ranks, summary
from model_code.methods import METHODS
from model_code.report import figures
from model_code.report.gains import ablated_methods, ablation_gains, gains
from model_code.report.labels import method_label
from model_code.report.markdown import markdown
from resources.lake import Lake, read

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
CHAMPION = "urbanvlp"
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


def overview(
    board: pd.DataFrame, comparisons: pd.DataFrame, catalogue: pd.DataFrame
) -> pd.DataFrame:
    """All methods by mean R2 on both splits, and what the champion gains over each."""
    mean = means(board, catalogue)
    about = board.groupby(["method", "variant"])[["inputs", "protocol"]].first()
    gained = gains(comparisons, CHAMPION)
    gained = gained[gained["task"] == ALL_TASKS].rename(columns={"over": "variant"})
    table = pd.DataFrame(index=about.index)
    for split in sorted(mean["split"].unique()):
        own = mean[mean["split"] == split].set_index(["method", "variant"])
        table[f"{split}: mean R²"] = [
            f"{m:.3f} ± {s:.3f}" if pd.notna(m) else "" for m, s in own.reindex(table.index)[["mean", "std"]].to_numpy()
        ]  # fmt: skip
        told = gained[gained["split"] == split].set_index(["method", "variant"])
        told = told.reindex(table.index)[["gain", "low", "high"]]
        table[f"{split}: {METHODS[CHAMPION].title} gains"] = [
            "" if pd.isna(g) else verdict(g, low, high) for g, low, high in told.to_numpy()
        ]
    order = mean[mean["split"] == mean["split"].max()].set_index(["method", "variant"])["mean"]
    table = table.assign(inputs=about["inputs"].str.replace(",", ", "), protocol=about["protocol"])
    table = table.loc[order.reindex(table.index).sort_values(ascending=False).index]
    names = [method_label(m, v) for m, v in table.index]
    return table.reset_index(drop=True).assign(method=names)[["method", *table.columns]]


def scores(summarised: pd.DataFrame, reached: pd.DataFrame | None, split: str) -> pd.DataFrame:
    """Tasks by the defaults of all methods: headline metric, mean ± deviation over folds and seeds."""
    rows = summarised[(summarised["split"] == split)].copy()
    rows = rows[rows["variant"].str.split("_without_").str[0] == "default"]
    rows["method"] = [
        method_label(m, v) for m, v in zip(rows["method"], rows["variant"], strict=True)
    ]
    mean = [row[f"{row['headline']}_mean"] for _, row in rows.iterrows()]
    deviation = [row[f"{row['headline']}_sd"] for _, row in rows.iterrows()]
    mark = rows["target_in_inputs"].map({True: " *", False: ""})
    rows["score"] = [
        f"{m:.3f} ± {d:.3f}{star}" if pd.notna(m) else "not estimable"
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
    order = [ALL_TASKS, *sorted(set(table.index) - {ALL_TASKS})]
    return table.reindex(order).rename_axis(columns=None).reset_index()


def page(city: str) -> Iterator[str]:
    """The lines of the results' page."""
    board, comparisons = read("leaderboard", city=city), read("comparisons", city=city)
    catalogue = read("indicators", city=city)
    reached = read("reachable", city=city) if Lake().handle(city, "reachable").exists else None
    summarised = summary(board)
    about = Cities.load()[city]
    default = next(
        (v for m, v in zip(board["method"], board["variant"], strict=True)
         if m == CHAMPION and v.split("_without_")[0] == "default"),
        None,
    )  # fmt: skip
    free = [str(name) for name in catalogue.loc[(catalogue["contained_in"].map(len) == 0)
            & (catalogue["kind"] != "classification"), "indicator"]]  # fmt: skip
    yield f"# Results: {about.title}"
    yield ""
    yield (
        f"Made by `make run CITY={city}` and `python benchmarks/experiments.py {city}`: seeds {list(about.seeds)}, all folds. R² on the transformed "
        "scale, macro F1 for classes: mean ± standard deviation over folds and seeds. Gains are "
        "differences over all test regions with the 95 % interval of a paired bootstrap (of whole "
        "blocks on the spatial split); an interval that holds 0 is a tie. Every figure: "
        f"[{city}.csv]({city}.csv)."
    )
    yield ""
    yield f"![Leaderboard]({city}.png)"
    yield ""
    if default is not None:
        yield f"## All methods, mean over {len(free)} indicators"
        yield ""
        yield f"The numbers that no modality contains: {', '.join(free)}."
        yield ""
        yield markdown(overview(board, comparisons, catalogue))
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
    yield "## Mean rank over tasks"
    yield ""
    yield markdown(ranks)
    yield ""
    timings = read("timings", city=city)
    spent = timings.loc[timings["seconds"] >= 1, ["asset", "seconds", "bytes"]].copy()
    yield (
        f"## Seconds by asset (1 s and more; {timings['seconds'].sum():,.0f} s in all, of this run; "
        "other work on the machine counts too)"
    )
    yield ""
    yield markdown(spent.assign(seconds=spent["seconds"].map("{:.1f}".format)))
    yield ""


def main(city: str) -> None:
    """Write the page and its files."""
    board = summary(read("leaderboard", city=city))
    RESULTS.mkdir(parents=True, exist_ok=True)
    board.to_csv(RESULTS / f"{city}.csv", index=False, lineterminator="\n", float_format="%.6g")
    (RESULTS / f"{city}.png").write_bytes(figures.leaderboard_heatmap(board))
    name = "README.md" if city == "demo_large" else f"{city}.md"
    (RESULTS / name).write_text("\n".join(page(city)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "demo_large")
