"""Writes docs/results from a city that has been built: `python benchmarks/experiments.py [CITY]`."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from model_code.city import Cities
from model_code.evaluation.leaderboard import mean_ranks, summary
from model_code.report import figures
from resources.lake import Lake, read

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
KEY = ["split", "task"]


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown; figures as they stand in it."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def scores(board: pd.DataFrame, reached: pd.DataFrame | None, split: str) -> pd.DataFrame:
    """Tasks by methods: headline metric, mean ± deviation over folds and seeds."""
    rows = board[board["split"] == split].copy()
    rows["method"] = rows["method"].where(
        rows["variant"] == "default", rows["method"] + " · " + rows["variant"]
    )
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


def main(city: str) -> None:
    """Write the page and its files."""
    board = summary(read("leaderboard", city=city))
    reached = read("reachable", city=city) if Lake().handle(city, "reachable").exists else None
    about = Cities.load()[city]
    RESULTS.mkdir(parents=True, exist_ok=True)
    board.to_csv(RESULTS / f"{city}.csv", index=False, lineterminator="\n", float_format="%.6g")
    timings = read("timings", city=city)
    spent = timings[timings["asset"].str.contains("_checkpoint|_finetuned")]
    (RESULTS / f"{city}.png").write_bytes(figures.leaderboard_heatmap(board))
    lines = [
        f"# Results: {about.title}",
        "",
        f"Made by `make experiments`: seeds {list(about.seeds)}, all folds. R² on the transformed "
        "scale, macro F1 for classes: mean ± standard deviation over folds and seeds. "
        "*: the target is contained in an input. Every figure: "
        f"[{city}.csv]({city}.csv).",
        "",
        f"![Leaderboard]({city}.png)",
        "",
    ]
    for split in sorted(board["split"].unique()):
        lines += [f"## {split} split", "", markdown(scores(board, reached, split)), ""]
    ranks = mean_ranks(board)
    ranks["mean_rank"] = ranks["mean_rank"].map("{:.2f}".format)
    lines += ["## Mean rank over tasks", "", markdown(ranks), ""]
    spent = spent[["asset", "seconds", "bytes"]].copy()
    spent["seconds"] = spent["seconds"].map("{:.1f}".format)
    lines += [
        "## Seconds to fit (of this run; other work on the machine counts too)",
        "",
        markdown(spent),
        "",
    ]
    name = "README.md" if city == "demo_large" else f"{city}.md"
    (RESULTS / name).write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "demo_large")
