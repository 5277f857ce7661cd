"""What it costs to carry an encoder to another city: `python benchmarks/transfer.py`.

Three simulated cities that share no ground, and Manhattan where its files are in the data root. Each
is built by the job `whole_city`, then tests the encoders of the others by the job
`transfer_encoders`; what stands in the lake already is not made again. Writes transfer.md and
transfer.csv: each city's figures with the encoder of every city, beside those of the towers as they
come, which no city has pretrained.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from model_code.city import data_root
from model_code.demo.city_yaml import city_yaml
from model_code.evaluation.leaderboard import HEADLINE
from model_code.report.markdown import markdown
from pipelines.cli import ROOT, advice, execute
from pipelines.derived_cities import given, put
from resources.lake import read

SIMULATED = {"transfer_a": 21, "transfer_b": 22, "transfer_c": 23}  # seed of the simulator
APART_KM = 50.0
REAL = "transfer_manhattan"
NOWHERE = "no city"

# The methods whose encoders are carried, and what each is before it has seen a city: a method and a
# variant of it. UrbanMMCL's graph half learns from the graphs of the city that it comes to, so that it
# is never without one.
CARRIED: dict[str, tuple[str, str] | None] = {
    "urbanclip": ("clip_probe", "satellite"),
    "urbanvlp": ("urbanvlp", "without_text"),
    "urbanmmcl": None,
}
METHODS: dict[str, Any] = {
    "clip_probe": {"variants": {"satellite": {"street_views": False}}},
    "urbanclip": {},
    "urbanvlp": {"variants": {"without_text": {"text": False}}},
    "urbanmmcl": {},
}
KEY = ["method", "split", "city", "pretrained_on", "task", "metric", "in_mean"]


def configs(regions: int, seeds: Sequence[int], mode: str) -> dict[str, dict[str, Any]]:
    """The YAML of every city, by name; Manhattan only where its files are."""
    found = {}
    for place, (name, seed) in enumerate(SIMULATED.items()):
        text = city_yaml(name, regions=regions, seed=seed, captions=True, north_km=APART_KM * place)
        found[name] = yaml.safe_load(text) | {"title": f"Embedded city of seed {seed}"}
    manhattan = given("manhattan")
    if (Path(data_root()) / manhattan["boundary"]["path"]).exists():
        found[REAL] = manhattan | {"name": REAL}
    methods = {name: {"config": {"mode": mode}} | choice for name, choice in METHODS.items()}
    for name, config in found.items():
        others = [other for other in SIMULATED if other != name]
        config |= {"methods": methods, "transfer": {method: [*others] for method in CARRIED}}
        config["seeds"] = list(seeds)
        config.pop("schedule", None)
    return found


def figures_of(city: str) -> pd.DataFrame:
    """Headline figures of a city by fold and seed: of encoders pretrained here, in other cities, and,
    of methods that have such, in none. `in_mean` are the R2 of numbers that no modality contains."""
    board = read("leaderboard", city=city)
    variant = board["variant"].str.split("_without_").str[0]  # less what the city cannot give
    parts = [read("transfer", city=city)]
    for method, of in CARRIED.items():
        if of is None:
            continue
        name, untrained = of
        rows = board[(board["method"] == name) & (variant == untrained)]
        parts.append(rows.assign(method=method, pretrained_on=NOWHERE))
    rows = pd.concat(parts, ignore_index=True)
    catalogue = read("indicators", city=city)
    free = catalogue.loc[catalogue["contained_in"].map(len) == 0, "indicator"]
    rows["in_mean"] = (rows["metric"] == "r2") & rows["task"].isin(free)
    return rows[rows["scale"].map(HEADLINE) == rows["metric"]].replace({REAL: "manhattan"})


def by_indicator(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and deviation over folds and seeds, one row a figure."""
    found = rows.groupby([*KEY, "inputs"])["value"].agg(["mean", "std", "count"]).reset_index()
    return found.rename(columns={"mean": "value", "std": "sd", "count": "runs"})


def matrix(table: pd.DataFrame, method: str, split: str) -> pd.DataFrame:
    """Mean R2 over indicators: what the encoder was pretrained on by where it is tested."""
    own = table[table["in_mean"] & (table["method"] == method) & (table["split"] == split)]
    cities = [city for city in (*SIMULATED, "manhattan") if city in set(own["city"])]
    found = own.pivot_table(index="pretrained_on", columns="city", values="value")
    nowhere = [NOWHERE] if CARRIED[method] else []
    return found.reindex(index=[*cities, *nowhere], columns=cities)


def gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean R2 over indicators less that of the city's own encoder, on the same folds by the same
    seeds, one row a (method, split, against, seed, pair of cities)."""
    run = ["method", "split", "city", "seed"]
    mean = rows[rows["in_mean"]].groupby([*run, "pretrained_on"])["value"].mean().reset_index()
    own = mean[mean["pretrained_on"] == mean["city"]].drop(columns="pretrained_on")
    other = mean[mean["pretrained_on"] != mean["city"]]
    joined = other.merge(own, on=run, suffixes=("", "_own"))
    joined["gap"] = joined["value"] - joined["value_own"]
    nowhere, real = joined["pretrained_on"] == NOWHERE, joined["city"] == "manhattan"
    joined["where"] = real.map({True: "manhattan", False: "simulated cities"})
    joined["encoder"] = nowhere.map({True: "of no city", False: "of another city"})
    return joined


def gap_table(joined: pd.DataFrame) -> pd.DataFrame:
    """Gaps by method, split and place: mean, deviation over pairs of cities and seeds, and in how
    many of these the encoder did better than the city's own."""
    found = joined.groupby(["where", "method", "split", "encoder"])["gap"]
    table = found.agg(
        mean="mean", sd="std", better=lambda gap: f"{(gap > 0).sum()} of {len(gap)}"
    ).reset_index()
    table["less the city's own"] = [
        f"{m:+.3f}" + (f" ± {s:.3f}" if pd.notna(s) else "")
        for m, s in zip(table["mean"], table["sd"], strict=True)
    ]
    return table.drop(columns=["mean", "sd"])


def page(rows: pd.DataFrame, table: pd.DataFrame, regions: int, mode: str) -> str:
    """The results in Markdown."""
    seeds = sorted(int(seed) for seed in rows["seed"].unique())
    lines = [
        "# Transfer between cities",
        "",
        f"Made by `python benchmarks/transfer.py`: simulated cities of {regions:,} regions, seeds "
        f"{list(SIMULATED.values())} of the simulator, {APART_KM:g} km apart, so that they share no "
        f"ground (the job refuses cities that do); seeds {seeds} of training; `mode: {mode}`. An "
        "encoder is pretrained without labels in the city of the row; its heads are fitted and tested "
        "in the city of the column, on the same splits whatever the encoder. `no city`: the towers "
        "as they come, pretrained on generic pictures alone. UrbanMMCL has no such row: what is carried "
        "are its projections, and its graph half learns anew, without labels, from the graphs of the "
        "city of the column.",
        "",
        "R² on the transformed scale, mean over the numbers that no modality contains (each city has "
        "its own), folds and seeds. By indicator, and macro F1 of classes: [transfer.csv](transfer.csv).",
        "",
    ]
    for method in CARRIED:
        for split in sorted(table["split"].unique()):
            found = matrix(table, method, split).map("{:.3f}".format).replace("nan", "")
            found = found.rename_axis(index="pretrained on \\ tested in").reset_index()
            lines += [f"## {method}, {split} split", "", markdown(found), ""]
    lines += [
        "## What it costs",
        "",
        "Each encoder's mean R² less that of the city's own, on the same folds by the same seed: mean "
        "± standard deviation over pairs of cities and seeds; `better`: how many of these are above "
        "0.",
        "",
        markdown(gap_table(gaps(rows))),
        "",
    ]
    if "manhattan" in set(table["city"]):
        lines += [
            "Manhattan has street views in 3 of its 180 regions, below the floor of coverage: its own "
            "encoder and those that come to it are their satellite branches alone.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    """Build the cities, and write the page and its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regions", type=int, default=300, help="of each simulated city")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--mode", default="probe", help="`mode` of the methods")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    chosen = parser.parse_args()
    cities = configs(chosen.regions, chosen.seeds, chosen.mode)
    with advice():
        put(cities)
    started = time.perf_counter()
    for job in ("whole_city", "transfer_encoders"):
        for name in cities:
            sys.stderr.write(f"{time.perf_counter() - started:6.0f} s  {job} of {name}\n")
            execute(job, name)
    with advice():
        rows = pd.concat([figures_of(name) for name in cities], ignore_index=True)
    table = by_indicator(rows)
    chosen.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(chosen.out / "transfer.csv", index=False, lineterminator="\n", float_format="%.6g")
    text = page(rows, table, chosen.regions, chosen.mode)
    (chosen.out / "transfer.md").write_text(text, encoding="utf-8")
    sys.stderr.write(f"{time.perf_counter() - started:6.0f} s  written to {chosen.out}\n")


if __name__ == "__main__":
    main()
