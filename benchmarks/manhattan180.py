"""Manhattan in 180 regions: UrbanMMCL's graph half beside its peers, the same of the registry, and simple
baselines.

    CITYLOOM_DATA=... python benchmarks/manhattan180.py [--seeds 5] [--choose] [--write FILE]

The protocol of MVURE, MGFN and HREP: one embedding of all 180 regions, learned without labels
(transductive); ridge regression of strength 1 on it as it is, five blocks of 36 regions held out in their
order, negatives set to 0, figures over all 180 at once; and k-means with 12 clusters against 13 districts.
Ridge and k-means depend on an embedding's scale and width, so a second protocol stands beside it: five
shuffled folds, 20 times, standardised on the training folds, strength by inner cross-validation; and five
compact areas held out.

Nothing of the graph half and of `volumes` is chosen by the three targets; of the others the page of results
tells. `--choose` shows what `volumes` was chosen by: calls to 311 and population.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, r2_score
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.graphs.multiview import GraphSettings, GraphViews, ViewGraph
from model_code.graphs.views import distance_graph, function_graph, mobility_graph
from model_code.methods import method_config, method_spec
from model_code.methods.base import HourlyFlows, Pretrained, RegionData
from model_code.pca import principal_axes
from model_code.training import Settings, evaluating, fit, seeded

Floats = NDArray[np.floating[Any]]

CLUSTERS = 12
TARGETS = ("checkin_count", "crime_count")
CHOSEN_BY = ("service_call_count_311", "population_worldpop2020_areal")
GOALS = {"checkin_count": 0.86, "crime_count": 0.78, "nmi_20": 0.80}
SIZE = 1.0  # root of a block's variance in `volumes`, chosen by CHOSEN_BY
# Of `compact`: factors a side of the unit pattern and how many times a block's size it has, by the
# modularity of the trips within clusters; the size, by CHOSEN_BY.
FACTORS, PATTERN, COMPACT_SIZE = 12, 4.0, 2.0

# Measured once with the peers' own code on this machine's kind, and published figures: check-ins R2,
# crime R2, NMI of land use.
PEERS = {
    "MVURE, 2000 epochs (its own code)": (0.611, 0.595, "0.763"),
    "MGFN, 2000 epochs (its own code)": (0.603, 0.481, "0.734"),
    "HREP, 2000 epochs (its own code; three runs)": ("0.669 - 0.743", "0.516 - 0.678", "0.73 - 0.77"),
    "HAFusion, 2000 epochs, the last one (its own code)": (0.789, 0.717, "0.740"),
    "MGFN (published)": (0.72, 0.72, ""),
    "HREP (published)": (0.75, 0.68, ""),
    "HAFusion (published, 10 folds, best epoch by the test folds)": (0.844, 0.734, ""),
}  # fmt: skip


# --- the city ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Manhattan:
    """Trips [N, N] from row to column, the seven mobility patterns of MGFN's authors [7, N, N], centroids
    [N, 2] in metres, POI counts [N, C], labels."""

    trips: Floats
    patterns: Floats
    xy: Floats
    pois: Floats
    targets: dict[str, Floats]
    district: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.trips)


def manhattan(folder: Path) -> Manhattan:
    """The files of the folder `nyc`."""
    import geopandas as gpd
    import pandas as pd

    regions = gpd.read_file(folder / "regions" / "mh180.geojson").sort_values("region_id")
    centre = regions.to_crs(32618).geometry.centroid
    table = pd.read_parquet(folder / "indicators" / "mh180_indicators.parquet")
    table = table.sort_values("region_id")
    assert (table["region_id"].to_numpy() == np.arange(180)).all()
    trips, patterns = (
        np.load(folder / "mobility" / f"mh180_od_{name}.npy", allow_pickle=False).astype(np.float64)
        for name in ("trips_total", "mgfn_patterns_7x180x180")
    )
    patterns[:, -1, -1] = 0  # what lies in no region stands in the last
    return Manhattan(
        trips,
        patterns,
        np.column_stack([centre.x, centre.y]),
        table.filter(regex="^poi_cat_").to_numpy(np.float64),
        {name: table[name].to_numpy(np.float64) for name in (*TARGETS, *CHOSEN_BY)},
        table["district_label_mh_cd"].to_numpy(np.int64),
    )


# --- embeddings ----------------------------------------------------------------------------------


def pca(matrix: Floats, width: int) -> Floats:
    """Scores [N, width] on the principal axes."""
    mean, axes = principal_axes(matrix, width)
    return np.asarray((matrix - mean) @ axes.T)


def volumes(city: Manhattan) -> Floats:
    """Out- and inflow [N, 2], of mean 1."""
    both = np.column_stack([city.trips.sum(axis=1), city.trips.sum(axis=0)])
    return np.asarray(both / both.mean(axis=0))


def ppmi_factors(trips: Floats, width: int) -> Floats:
    """Origin and destination factors [N, 2 width] of the positive pointwise mutual information of
    trips: the pattern of a region's trips, whatever their number."""
    share = trips / trips.sum()
    expected = np.outer(share.sum(axis=1), share.sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(share / expected)
    left, strength, right = np.linalg.svd(np.where(information > 0, information, 0))
    root = np.sqrt(strength[:width])
    return np.hstack([left[:, :width] * root, right[:width].T * root])


def both_ways(matrix: Floats) -> Floats:
    """Rows and columns [N, 2 N] of a matrix [N, N]."""
    return np.hstack([matrix, matrix.T])


def block(values: Floats) -> Floats:
    """Centred, with a total variance of 1: blocks side by side weigh the same."""
    centred = values - values.mean(axis=0)
    return np.asarray(centred / np.sqrt((centred**2).sum(axis=1).mean()))


def simple(city: Manhattan) -> dict[str, Floats]:
    """Embeddings that nothing was trained for."""
    log = np.log1p(city.trips)
    return {
        "two volumes": np.column_stack([city.trips.sum(axis=1), city.trips.sum(axis=0)]) / 1e4,
        "PCA-32 of trips": pca(both_ways(city.trips / city.trips.mean()), 32),
        "PCA-32 of log trips": pca(both_ways(log), 32),
        "PCA-32 of log trips + volumes": np.hstack([pca(both_ways(log), 32), volumes(city)]),
        "PPMI factors 48 + 48": ppmi_factors(city.trips, 48),
        "centroid": city.xy / 1e3,
        "POI counts": city.pois,
        "`compact`": compact(city),
        "`compact` without unit pattern": compact(city, pattern=0),
        "`compact` without POIs": compact(city, without="POIs"),
        "`compact` without volume": compact(city, without="volume"),
        "`compact` without log volume": compact(city, without="log volume"),
        "`compact` without log trips": compact(city, without="log trips"),
    }


def compact(
    city: Manhattan,
    *,
    factors: int = FACTORS,
    pattern: float = PATTERN,
    size: float = COMPACT_SIZE,
    without: str = "",
) -> Floats:
    """Few numbers of trips and POIs for regression, and beside them, `pattern` times as large so that
    k-means goes by it, the direction of a region's PPMI factors: whom it is linked to, whatever the
    strength."""
    both = np.column_stack([city.trips.sum(axis=1), city.trips.sum(axis=0)])
    parts = {
        "log trips": pca(both_ways(np.log1p(city.trips)), 16),
        "volume": volumes(city),
        "log volume": np.log1p(both),
        "POIs": pca(np.log1p(city.pois), 4),
    }
    kept = [block(part) for name, part in parts.items() if name != without]
    if pattern:
        pairs = ppmi_factors(city.trips, factors)
        kept.append(pattern * block(pairs / np.linalg.norm(pairs, axis=1, keepdims=True)))
    return size * np.hstack(kept)


def regressions(city: Manhattan) -> dict[str, tuple[Floats, Any]]:
    """Regressions that make no embedding: what they read [N, W], and the model."""
    trips, log = both_ways(city.trips), both_ways(np.log1p(city.trips))
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 6, 13)))
    roots = np.hstack([np.sqrt(trips), city.pois])
    return {
        "trips, strength by inner validation": (trips, ridge),
        "trips and log trips, strength by inner validation": (np.hstack([trips, log]), ridge),
        "300 extra trees on roots of trips and POIs": (
            roots,
            ExtraTreesRegressor(300, random_state=0),
        ),
    }


class Training(nn.Module):
    """The graph half alone, on given node features [N, W]."""

    def __init__(
        self, city: Manhattan, nodes: Floats, k: int, settings: GraphSettings, seed: int
    ) -> None:
        super().__init__()
        everyone = np.ones(len(city), bool)
        origin, destination = np.nonzero(city.trips)
        count = city.trips[origin, destination]
        views = {
            "function": function_graph(city.pois, k, everyone),
            "mobility": mobility_graph(origin, destination, count, k, everyone),
            "distance": distance_graph(city.xy, k, everyone),
        }
        self.graphs = {name: ViewGraph(view) for name, view in views.items()}
        self.table = torch.from_numpy(nodes.astype(np.float32))
        self.propagated = {
            name: torch.from_numpy((view.normalised() @ self.table.numpy()).astype(np.float32))
            for name, view in views.items()
        }
        with seeded(seed):
            means = {name: view.mean_weight for name, view in views.items()}
            self.net = GraphViews(nodes.shape[1], settings, means)

    def features(self, index: Tensor, through: str | None) -> Tensor:
        return (self.table if through is None else self.propagated[through])[index]

    def loss(self, index: Tensor) -> Tensor:
        walks = self.net.walks(self.graphs, self.features, index)
        return self.net.loss(self.graphs, self.features, index, walks)

    def vectors(self, walks: int = 8) -> dict[str, Floats]:
        """By view, the vectors [N, G] of length one, means over walks of one seed."""
        everyone = torch.arange(len(self.table))
        generator = torch.Generator().manual_seed(0)
        found = []
        with evaluating(self):
            for _ in range(walks):
                own = self.net.walks(self.graphs, self.features, everyone, generator)
                found.append(self.net(self.graphs, self.features, everyone, own)[0])
        return {
            name: F.normalize(torch.stack([v[name] for v in found]).mean(dim=0), dim=1).numpy()
            for name in self.graphs
        }


def trained(
    city: Manhattan, nodes: Floats, seed: int, *, k: int, epochs: int = 100, **changes: Any
) -> dict[str, Floats]:
    """Vectors of the three views after a fixed number of steps, each on the whole city."""
    training = Training(city, nodes, k, replace(GraphSettings(), **changes), seed)
    fit(training, np.arange(len(city)), Settings(epochs=epochs, learning_rate=1e-3), seed=seed)
    return training.vectors()


def poi_nodes(city: Manhattan) -> Floats:
    """log1p of the POI counts, standardised: node features where a city has no picture."""
    return np.asarray(StandardScaler().fit_transform(np.log1p(city.pois)))


def flow_nodes(city: Manhattan) -> Floats:
    """Pattern and volume of trips, and POIs: blocks of equal weight, [N, W]."""
    parts = [
        ppmi_factors(city.trips, 24),
        pca(both_ways(np.log1p(city.trips)), 32),
        volumes(city),
        pca(np.log1p(city.pois), 8),
    ]
    return 4 * np.hstack([block(part) for part in parts])


def as_printed(city: Manhattan, seed: int, decoder: str = "as_printed") -> Floats:
    """Dense graphs, POIs as node features, and Z*: the sum of node features and views at one width."""
    nodes = poi_nodes(city)
    vectors = trained(city, nodes, seed, k=len(city), decoder=decoder)
    rng = np.random.default_rng(seed)
    width = next(iter(vectors.values())).shape[1]
    into = np.linalg.qr(rng.standard_normal((width, nodes.shape[1])))[0]
    return np.asarray(nodes @ into.T + sum(vectors.values()))


def learned_blocks(city: Manhattan, seed: int) -> list[Floats]:
    """The views' vectors on nodes of trips and POIs, each reduced to 16 axes."""
    vectors = trained(city, flow_nodes(city), seed, k=10)
    return [block(pca(values, 16)) for values in vectors.values()]


def given_blocks(city: Manhattan) -> dict[str, Floats]:
    """What `volumes` keeps of trips and POIs beside what it learns."""
    return {
        "pattern": block(ppmi_factors(city.trips, 24)),
        "log trips": block(pca(both_ways(np.log1p(city.trips)), 32)),
        "volume": block(volumes(city)),
        "POIs": block(pca(np.log1p(city.pois), 8)),
    }


def region_data(city: Manhattan) -> RegionData:
    """Trips, POIs and places as methods are given them. The trips have no hours; instead, each of the
    ready patterns stands as an hour of its own."""
    origin, destination = np.nonzero(city.trips)
    pattern, start, end = np.nonzero(city.patterns)
    return RegionData(
        region_ids=np.array([f"{i:03}" for i in range(len(city))]),
        lonlat_deg=np.full((len(city), 2), np.nan),  # no method here reads it
        xy_m=city.xy,
        area_km2=np.ones(len(city)),
        poi_counts=city.pois.astype(np.float32),
        poi_categories=tuple(f"{i}" for i in range(city.pois.shape[1])),
        flow_origin=origin,
        flow_destination=destination,
        flow_count=city.trips[origin, destination],
        hourly_flows=HourlyFlows(start, end, pattern, city.patterns[pattern, start, end]),
    )


def registered(city: Manhattan, name: str, seed: int, **changes: Any) -> Floats:
    """The embedding of a method of the registry, by its defaults."""
    config, data = method_config(name, changes), region_data(city)
    method = cast(Pretrained, method_spec(name).load())
    checkpoint = method.pretrain(data, config, seed=seed, visible=np.ones(len(city), bool))
    return method.embed(checkpoint, data, config).astype(np.float64)


# --- protocols -----------------------------------------------------------------------------------


def blocks_of_five(embedding: Floats, target: Floats, model: Any = None) -> dict[str, float]:
    """The peers' protocol for a number, by Ridge(1) or another model: MAE, RMSE, R2."""
    model = Ridge(alpha=1.0) if model is None else model
    found = cross_val_predict(model, embedding, target, cv=KFold(5)).clip(min=0)
    error = found - target
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": float(r2_score(target, found)),
    }


def clustering(
    embedding: Floats, district: NDArray[np.int64], seeds: Sequence[int]
) -> tuple[float, float]:
    """Mean NMI and ARI of k-means over its seeds."""
    pairs = []
    for seed in seeds:
        found = KMeans(CLUSTERS, random_state=seed, n_init=10).fit_predict(embedding)
        pairs.append(
            (
                normalized_mutual_info_score(district, found),
                adjusted_rand_score(district, found),
            )
        )
    nmi, ari = np.mean(pairs, axis=0)
    return float(nmi), float(ari)


def our_r2(embedding: Floats, target: Floats, repeats: int) -> float:
    """R2 over all regions, mean over shuffled foldings."""
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11)))
    folds = [KFold(5, shuffle=True, random_state=seed) for seed in range(repeats)]
    return float(
        np.mean(
            [r2_score(target, cross_val_predict(model, embedding, target, cv=f)) for f in folds]
        )
    )


def spatial_r2(embedding: Floats, target: Floats, xy: Floats) -> float:
    """R2 over all regions where five compact areas are held out in turn."""
    areas = KMeans(5, random_state=0, n_init=10).fit_predict(xy)
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11)))
    found = cross_val_predict(model, embedding, target, cv=GroupKFold(5), groups=areas)
    return float(r2_score(target, found))


def scores(city: Manhattan, embedding: Floats, *, repeats: int, k_seeds: int) -> dict[str, float]:
    """All figures of one embedding."""
    row: dict[str, float] = {}
    for name in TARGETS:
        target = city.targets[name]
        row |= {f"{name}_{key}": value for key, value in blocks_of_five(embedding, target).items()}
        row[f"{name}_ours"] = our_r2(embedding, target, repeats)
        row[f"{name}_spatial"] = spatial_r2(embedding, target, city.xy)
    row["nmi_3"], row["ari_3"] = clustering(embedding, city.district, [3])
    row["nmi_20"], row["ari_20"] = clustering(embedding, city.district, range(k_seeds))
    return row


# --- the run -------------------------------------------------------------------------------------


def modularity(trips: Floats, cluster: NDArray[np.int32]) -> float:
    """Share of trips within clusters, less what it would be by chance (Newman 2004, eq 5)."""
    links = (trips + trips.T) / trips.sum() / 2
    member = np.eye(int(cluster.max()) + 1)[cluster]
    between = member.T @ links @ member
    return float(np.trace(between) - (between.sum(axis=1) ** 2).sum())


def choose(city: Manhattan) -> None:
    """R2 of calls and population by the parts and the size of `volumes`, without what is learned, and
    of `compact`, with the modularity of its clusters."""

    def show(name: str, size: float, embedding: Floats, more: str = "") -> None:
        r2 = [blocks_of_five(embedding, city.targets[name])["r2"] for name in CHOSEN_BY]
        print(f"{name:40} x {size:<5} {r2[0]:7.3f} {r2[1]:7.3f} {np.mean(r2):7.3f}{more}")

    given = given_blocks(city)
    for names in (
        ("log trips", "volume"),
        ("pattern", "log trips", "volume"),
        ("log trips", "volume", "POIs"),
        ("pattern", "log trips", "volume", "POIs"),
    ):
        for size in (0.3, 1.0, 3.0, 10.0, 30.0):
            show(" + ".join(names), size, size * np.hstack([given[name] for name in names]))
    for factors in (8, 12, 16, 24):
        for pattern in (2.0, 4.0):
            unit = compact(city, factors=factors, pattern=pattern, size=1.0)
            found = [
                KMeans(CLUSTERS, random_state=seed, n_init=10).fit_predict(unit)
                for seed in range(5)
            ]
            share = np.mean([modularity(city.trips, cluster) for cluster in found])
            for size in (0.3, 1.0, 2.0, 4.0):
                name = f"compact, {factors} factors, pattern {pattern:g}"
                show(name, size, size * unit, f"  modularity {share:.3f}")


def embeddings(city: Manhattan) -> dict[str, Callable[[int], Floats]]:
    """By name, how an embedding is made from a training seed."""
    given = given_blocks(city)
    kept: dict[int, list[Floats]] = {}

    def learned(seed: int) -> list[Floats]:
        if seed not in kept:
            kept[seed] = learned_blocks(city, seed)
        return kept[seed]

    def views(seed: int, first: int = 3) -> Floats:
        return np.hstack(learned(seed)[:first])

    def joined(*names: str, graphs: bool) -> Callable[[int], Floats]:
        def make(seed: int) -> Floats:
            parts = [given[name] for name in names] + (learned(seed) if graphs else [])
            return SIZE * np.hstack(parts)

        return make

    return {
        "HREP (`hrep`)": lambda seed: registered(city, "hrep", seed),
        "MVURE (`mvure`)": lambda seed: registered(city, "mvure", seed),
        "ReMVC (`remvc`)": lambda seed: registered(city, "remvc", seed),
        "MGFN (`mgfn`, its authors' patterns)": lambda seed: registered(
            city, "mgfn", seed, neighbours=None
        ),
        "graph half, decoder as printed": lambda seed: as_printed(city, seed),
        "the same, decoder with scale and bias": lambda seed: as_printed(city, seed, "scaled"),
        "views alone, on nodes of trips and POIs": joined(graphs=True),
        "`volumes`": joined(*given, graphs=True),
        "`volumes` without what is learned": joined(*given, graphs=False),
        "`volumes` without pattern": joined("log trips", "volume", "POIs", graphs=True),
        "`volumes` without volume": joined("pattern", "log trips", "POIs", graphs=True),
        "`volumes` without POIs": joined("pattern", "log trips", "volume", graphs=True),
        "`compact` + views": lambda seed: np.hstack([compact(city), COMPACT_SIZE * views(seed)]),
        "`compact` + views without distance": lambda seed: np.hstack(
            [compact(city), COMPACT_SIZE * views(seed, 2)]
        ),
    }


COLUMNS = {
    "check-ins MAE / RMSE / R2": ("checkin_count_mae", "checkin_count_rmse", "checkin_count_r2"),
    "crime MAE / RMSE / R2": ("crime_count_mae", "crime_count_rmse", "crime_count_r2"),
    "NMI / ARI, k-means seed 3": ("nmi_3", "ari_3"),
    "mean of k-means seeds": ("nmi_20", "ari_20"),
    "ours: check-ins, crime R2": ("checkin_count_ours", "crime_count_ours"),
    "areas held out": ("checkin_count_spatial", "crime_count_spatial"),
}


def line(name: str, rows: list[dict[str, float]], seconds: float) -> str:
    """A row of the table: means over training seeds, with the deviation of R2 and NMI."""
    cells = []
    for keys in COLUMNS.values():
        shown = []
        for key in keys:
            values = [row[key] for row in rows]
            digits = 0 if key.endswith(("_mae", "_rmse")) else 3
            text = f"{np.mean(values):.{digits}f}"
            shown.append(text + (f" ± {np.std(values):.3f}" if len(values) > 1 and digits else ""))
        cells.append(" / ".join(shown))
    return f"| {name} | {' | '.join(cells)} | {seconds:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="of training")
    parser.add_argument("--quick", action="store_true", help="one seed, few repeats: does it run")
    parser.add_argument("--only", default="", help="embeddings whose name holds this")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--choose", action="store_true", help="what `volumes` was chosen by")
    parser.add_argument("--write", type=Path, help="append each row to this file as JSON")
    asked = parser.parse_args()
    folder = os.environ.get("CITYLOOM_DATA")
    if not folder:
        parser.error("set CITYLOOM_DATA to the folder that holds `nyc`")
    torch.set_num_threads(asked.threads)
    city = manhattan(Path(folder) / "nyc")
    if asked.choose:
        choose(city)
        return
    repeats, k_seeds = (1, 2) if asked.quick else (20, 20)
    seeds = range(1 if asked.quick else asked.seeds)
    print(f"| embedding | {' | '.join(COLUMNS)} | processor s a fit |")
    print(f"|{'---|' * (len(COLUMNS) + 2)}")
    for name, values in PEERS.items():
        print(f"| {name} | {values[0]} | {values[1]} | {values[2]} | | | | |")
    found = {}
    for name, embedding in simple(city).items():
        if asked.only not in name:
            continue
        found[name] = [scores(city, embedding, repeats=repeats, k_seeds=k_seeds)]
        print(line(name, found[name], 0.0), flush=True)
    for name, (values, model) in regressions(city).items():
        if asked.only not in name:
            continue
        reached = {key: blocks_of_five(values, city.targets[key], model) for key in TARGETS}
        cells = ["{mae:.0f} / {rmse:.0f} / {r2:.3f}".format(**reached[key]) for key in TARGETS]
        print(f"| {name} | {cells[0]} | {cells[1]} | | | | | |", flush=True)
    for name, make in embeddings(city).items():
        if asked.only not in name:
            continue
        started = time.process_time()
        made = [make(seed) for seed in seeds]
        seconds = (time.process_time() - started) / len(made)
        different = made if any((m != made[0]).any() for m in made) else made[:1]
        rows = [
            scores(city, embedding, repeats=repeats, k_seeds=k_seeds) for embedding in different
        ]
        found[name] = rows
        print(line(name, rows, seconds), flush=True)
        if asked.write:
            with asked.write.open("a") as file:
                file.write(json.dumps({"name": name, "seconds": seconds, "rows": rows}) + "\n")
    for name in ("`compact`", "`volumes`"):
        for key, goal in GOALS.items() if name in found else ():
            column = key if key.startswith("nmi") else f"{key}_r2"
            value = np.mean([row[column] for row in found[name]])
            told = "met" if value >= goal else "missed"
            print(f"{name}, {key}: {value:.3f}, goal {goal}: {told}")


if __name__ == "__main__":
    main()
