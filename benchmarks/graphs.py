"""What UrbanMMCL's graphs cost as cities grow: `python benchmarks/graphs.py [N ...] [--threads T]`.

A city of N regions with the embedded city's latent fields and POIs drawn from them, trips, and random node
features. Trips are not those of the simulator's gravity model: 60 start in each region, and go a distance of a gamma
distribution (mean 3 km) in any direction alike, so that no region attracts more than another.

Build the three views, then one epoch of pretraining of the graph half with the method's default settings and
width. Each size is a process of its own; time (wall, and that of all processors) and the peak of memory of the
whole process. Exits with 1 when the goals for 100,000 regions are missed: 12 GiB, 10 minutes, and time that
grows no faster than N log N from 10,000 on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SIZES = (1_000, 10_000, 100_000)
TRIPS = 60  # that start in each region
GOAL_GIB, GOAL_S, SLACK = 12.0, 600.0, 1.1


def city(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Centroids [N, 2], POI counts [N, C], and trips as origins and destinations."""
    from model_code.demo.indicators import by_region
    from model_code.demo.latents import draw_latents
    from model_code.demo.place import Place
    from model_code.demo.pois import CATEGORIES

    place = Place(n)
    z = by_region(draw_latents(place, seed))
    rng = np.random.default_rng(seed)
    base, *slopes = np.array(list(CATEGORIES.values())).T
    mixed = np.column_stack([z.commerce, z.employment, z.industry]) - 0.5
    counts = rng.poisson(base * np.exp(mixed @ np.array(slopes))).astype(np.float32)
    origin = np.repeat(np.arange(n), TRIPS)
    away, angle = rng.gamma(2.0, 1500.0, len(origin)), rng.uniform(0, 2 * np.pi, len(origin))
    start = place.centre[origin]
    end = place.cell(start[:, 0] + away * np.cos(angle), start[:, 1] + away * np.sin(angle))
    return {
        "xy": place.centre,
        "counts": counts,
        "origin": origin[end >= 0],
        "destination": end[end >= 0],
    }


def measured(n: int, threads: int) -> dict[str, float]:
    """Times of one size in this process, in seconds, and its peak of memory."""
    import torch
    from torch import Tensor, nn

    from model_code.graphs.multiview import GraphSettings, GraphViews, ViewGraph
    from model_code.graphs.views import distance_graph, function_graph, mobility_graph
    from model_code.methods import UrbanMmclConfig
    from model_code.training import Settings, fit, seeded

    class Nothing(nn.Linear):
        def loss(self, index: Tensor) -> Tensor:
            return self(torch.ones(1, 1)).sum()

    torch.set_num_threads(threads)
    fit(Nothing(1, 1), np.arange(1), Settings(epochs=1), seed=0)  # imports what a first fit imports
    config = UrbanMmclConfig()
    given, everyone = city(n), np.ones(n, bool)
    row: dict[str, float] = {"regions": n}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        wall, processor = time.monotonic(), time.process_time()
        found = work()
        row[f"{name}_s"] = time.monotonic() - wall
        row[f"{name}_cpu_s"] = time.process_time() - processor
        return found

    k = config.neighbours
    trips = given["origin"], given["destination"], np.ones(len(given["origin"]))
    views = {
        "function": timed("function", lambda: function_graph(given["counts"], k, everyone)),
        "mobility": timed("mobility", lambda: mobility_graph(*trips, k, everyone)),
        "distance": timed("distance", lambda: distance_graph(given["xy"], k, everyone)),
    }
    row["edges"] = sum(len(view.column) for view in views.values())
    with seeded(0):
        table = torch.randn(n, config.width)

    class Training(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.graphs = {name: ViewGraph(view) for name, view in views.items()}
            self.propagated = {
                name: torch.from_numpy(view.normalised() @ table.numpy())
                for name, view in views.items()
            }
            means = {name: view.mean_weight for name, view in views.items()}
            with seeded(0):
                self.net = GraphViews(config.width, GraphSettings(), means)
            self.walks: dict[str, Tensor] = {}

        def features(self, index: Tensor, through: str | None) -> Tensor:
            return (table if through is None else self.propagated[through]).index_select(0, index)

        def loss(self, index: Tensor) -> Tensor:
            if not self.walks:
                everyone = torch.arange(n)
                self.walks = self.net.walks(self.graphs, self.features, everyone) or {}
            walks = {name: walk[index] for name, walk in self.walks.items()}
            return self.net.loss(self.graphs, self.features, index, walks)

    training = timed("prepare", Training)
    settings = Settings(epochs=1, batch=config.batch, learning_rate=config.learning_rate)
    timed("epoch", lambda: fit(training, np.arange(n), settings, seed=0))
    parts = ("function", "mobility", "distance", "prepare", "epoch")
    row["all_s"] = sum(row[f"{part}_s"] for part in parts)
    row["all_cpu_s"] = sum(row[f"{part}_cpu_s"] for part in parts)
    row["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return row


def table(rows: list[dict[str, float]]) -> str:
    """The rows as Markdown: wall seconds, those of all processors in brackets."""
    parts = ("function", "mobility", "distance", "prepare", "epoch", "all")
    lines = [
        f"| regions | edges | {' | '.join(parts)} | peak GiB |",
        f"|{'---|' * (len(parts) + 3)}",
    ]
    for row in rows:
        times = [f"{row[f'{part}_s']:.1f} ({row[f'{part}_cpu_s']:.1f})" for part in parts]
        lines.append(
            f"| {row['regions']:,} | {row['edges']:,} | {' | '.join(times)} | {row['peak_gib']:.2f} |"
        )
    return "\n".join(lines)


def missed(rows: list[dict[str, float]]) -> list[str]:
    """Which goals are missed. Growth is judged by the time of the processors, wall time being that of a
    machine with other work."""
    found = []
    by_size = {int(row["regions"]): row for row in rows}
    if large := by_size.get(100_000):
        if large["peak_gib"] > GOAL_GIB:
            found.append(
                f"100,000 regions take {large['peak_gib']:.1f} GiB, more than {GOAL_GIB:g}"
            )
        if large["all_s"] > GOAL_S:
            found.append(f"100,000 regions take {large['all_s']:.0f} s, more than {GOAL_S:g}")
        if small := by_size.get(10_000):
            ratio = large["all_cpu_s"] / small["all_cpu_s"]
            allowed = 10 * math.log(100_000) / math.log(10_000)
            if ratio > SLACK * allowed:
                found.append(f"ten times the regions take {ratio:.1f} times the time")
    return found


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measured(int(sys.argv[2]), int(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int, default=list(SIZES))
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    rows = []
    for n in asked.sizes:
        command = [sys.executable, __file__, "--child", str(n), str(asked.threads)]
        # numpy's products, too, which know nothing of torch's number.
        own = {**os.environ, "OMP_NUM_THREADS": str(asked.threads)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=own)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(table(rows[-1:]), flush=True)
    print(table(rows))
    if failed := missed(rows):
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
