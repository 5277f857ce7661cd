"""A small city made of formulas: every table that the pictures and the page read."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely

from model_code.calibration import CalibrationConfig, CalibrationConfigs
from model_code.evaluation.compare import ALL_TASKS
from model_code.evaluation.leaderboard import summary
from model_code.rejections import summary as rejected_summary
from model_code.report import experts, figures, gains
from model_code.report.captions import CaptionData
from model_code.report.html import Finding, Picture, ReportData

EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
CLASSES = ("housing", "offices", "industry", "park")
TASKS = (
    ("population", "regression", "log1p", "people", ()),
    ("night_light", "regression", "none", "nW/cm2/sr", ()),
    ("poi_count", "regression", "log1p", "POIs", ("poi_counts",)),
    ("land_use", "classification", "none", "", ()),
    ("hourly_outflow", "hourly", "log1p", "trips/h", ()),
)
METHODS = (
    ("poi", "default", "pois", 0.25),
    ("chip_pca", "default", "imagery", 0.45),
    ("vit", "small", "imagery", 0.7),
)


@functools.cache
def city(rows: int = 12, columns: int = 13, *, seed: int = 0, evil: bool = False) -> Any:
    """Tables of a grid of `rows` x `columns` squares of 1 km; `evil` puts markup into names."""
    random = np.random.default_rng(seed)
    y, x = (a.ravel() for a in np.mgrid[:rows, :columns])
    n = rows * columns
    ids = np.array([f"r{r:03d}c{c:03d}" for r, c in zip(y, x, strict=True)], dtype="U80")
    if evil:
        ids[0] = EVIL
    x_m, y_m = 585_000.0 + 1000 * x, 4_510_000.0 + 1000 * y
    regions = gpd.GeoDataFrame(
        {
            "region_id": ids,
            "area_km2": 1.0,
            "inside_share": 1.0,
            "x_m": x_m + 500,
            "y_m": y_m + 500,
            "lon": -74.0 + x / 100,
            "lat": 40.7 + y / 100,
        },
        geometry=shapely.box(x_m, y_m, x_m + 1000, y_m + 1000),
        crs="EPSG:32618",
    )
    centre = np.exp(-((x - columns / 2) ** 2 + (y - rows / 2) ** 2) / (rows * columns / 8))
    wave = np.sin(x / 3) * np.cos(y / 4)
    hours = np.arange(24)
    day = 1 + np.exp(-((hours - 8) ** 2) / 4) + 0.8 * np.exp(-((hours - 18) ** 2) / 6)
    truth = {
        "population": np.expm1(5 + 4 * centre + 0.4 * wave)[:, None],
        "night_light": (10 + 50 * centre - 8 * wave)[:, None],
        "poi_count": np.round(np.expm1(1 + 3 * centre))[:, None],
        "land_use": np.digitize(centre + 0.3 * wave, [0.1, 0.3, 0.7]).astype(float)[:, None],
        "hourly_outflow": np.expm1(1 + 3 * centre)[:, None] * day[None, :],
    }
    labelled = {task: np.ones(n, bool) for task, *_ in TASKS}
    labelled["night_light"] = x != 3
    classes = (*CLASSES[:3], EVIL) if evil else CLASSES

    split_parts = []
    for split, folds in (("random", 1), ("spatial", 3)):
        for fold in range(folds):
            block = (x * folds // columns + y * 2 // rows) % folds if split == "spatial" else None
            draw = random.random(n)
            part = np.where(draw < 0.6, "train", np.where(draw < 0.8, "val", "test"))
            if block is not None:
                part = np.where(block == fold, "test", np.where(draw < 0.8, "train", "val"))
            split_parts.append(
                pd.DataFrame(
                    {
                        "split": split,
                        "fold": np.int32(fold),
                        "region_id": ids,
                        "part": part,
                        "block": "" if block is None else [f"block{b}" for b in block],
                    }
                )
            )
    splits = pd.concat(split_parts, ignore_index=True)

    target_parts, indicator_rows = [], []
    for task, kind, transform, unit, contained in TASKS:
        values, keep = truth[task], labelled[task]
        slots = values.shape[1]
        target_parts.append(
            pd.DataFrame(
                {
                    "indicator": task,
                    "region_id": np.repeat(ids[keep], slots),
                    "slot": np.tile(np.arange(slots, dtype=np.int32), keep.sum()),
                    "value": values[keep].ravel(),
                    "coverage": 1.0,
                }
            )
        )
        indicator_rows.append(
            {
                "indicator": task,
                "kind": kind,
                "transform": transform,
                "unit": unit,
                "description": f"{task.replace('_', ' ').capitalize()} of the region, made up.",
                "contained_in": list(contained),
                "classes": list(classes) if kind == "classification" else [],
                "regions": int(keep.sum()),
                "region_share": float(keep.mean()),
            }
        )
    targets = pd.concat(target_parts, ignore_index=True)
    indicators = pd.DataFrame(indicator_rows)

    predictions = {
        method: pd.concat(
            (
                _predictions(random, task, truth, labelled, splits, ids, variant, noise)
                for task in TASKS
            ),
            ignore_index=True,
        )
        for method, variant, _, noise in METHODS
    }
    leaderboard = _leaderboard(predictions)
    return SimpleNamespace(
        regions=regions,
        adjacency=_adjacency(ids, x, y),
        coverage=_coverage(n),
        indicators=indicators,
        targets=targets,
        splits=splits,
        predictions=predictions,
        leaderboard=leaderboard,
        summary=summary(leaderboard),
        comparisons=_comparisons(leaderboard),
        reachable=_reachable(leaderboard),
        embedding_maps={
            method: _embedding_map(random, ids, variant, x, y, centre)
            for method, variant, *_ in METHODS
        },
        rejected=_rejected(evil),
        raw_files=_raw_files(evil),
        provenance=_provenance(),
        chips=_chips(random, ids, centre),
        views=_views(random, ids[: max(n // 8, 1)]),
        heights=_heights(random, ids[: max(n - 20, 1)], centre),
        flows=_flows(random, ids, centre),
        mobility=_mobility(ids, truth["hourly_outflow"]),
    )


def _coverage(n: int) -> pd.DataFrame:
    regions = {
        "imagery": n,
        "street_views": n // 8,
        "pois": n - n // 30,
        "flows": n,
        "buildings": n - n // 7,
        "location": n,
    }
    return pd.DataFrame(
        {
            "modality": list(regions),
            "items": [40 * count for count in regions.values()],
            "regions": list(regions.values()),
            "region_share": [count / n for count in regions.values()],
        }
    )


def _adjacency(ids: np.ndarray, x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    columns = x.max() + 1
    index = np.arange(len(ids))
    right, up = index[x < x.max()], index[y < y.max()]
    a = np.r_[right, right + 1, up, up + columns]
    b = np.r_[right + 1, right, up + columns, up]
    return pd.DataFrame({"region_id": ids[a], "neighbour_id": ids[b], "border_m": 1000.0})


def _predictions(
    random: np.random.Generator,
    task: tuple[Any, ...],
    truth: dict[str, np.ndarray],
    labelled: dict[str, np.ndarray],
    splits: pd.DataFrame,
    ids: np.ndarray,
    variant: str,
    noise: float,
) -> pd.DataFrame:
    name, kind, transform, *_ = task
    values = truth[name]
    parts = []
    for (split, fold), rows in splits.groupby(["split", "fold"]):
        test = (rows["part"] == "test").to_numpy() & labelled[name]
        original = values[test]
        if not test.any():
            continue
        for seed in (0, 1):
            if kind == "classification":
                wrong = random.random(original.shape) < noise / 2
                guess = np.where(wrong, (original + 1) % len(CLASSES), original)
                true, pred, pred_original = original, guess, guess
            else:
                true = np.log1p(original) if transform == "log1p" else original
                pred = true + noise * true.std() * random.normal(size=true.shape)
                pred_original = np.expm1(pred) if transform == "log1p" else pred
            slots = original.shape[1]
            parts.append(
                pd.DataFrame(
                    {
                        "variant": variant,
                        "split": split,
                        "fold": fold,
                        "seed": seed,
                        "task": name,
                        "region_id": np.repeat(ids[test], slots),
                        "slot": np.tile(np.arange(slots), test.sum()),
                        "y_true": true.ravel(),
                        "y_pred": pred.ravel(),
                        "y_true_original": original.ravel(),
                        "y_pred_original": pred_original.ravel(),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def _leaderboard(predictions: dict[str, pd.DataFrame]) -> pd.DataFrame:
    kinds = {task: kind for task, kind, *_ in TASKS}
    contained = {task: contained for task, _, _, _, contained in TASKS}
    inputs = {method: given for method, _, given, _ in METHODS}
    rows = []
    for method, frame in predictions.items():
        for keys, fit in frame.groupby(["variant", "task", "split", "fold", "seed"]):
            variant, task, split, fold, seed = keys
            if kinds[task] == "classification":
                hit = float((fit["y_true"] == fit["y_pred"]).mean())
                figures = {("class", m): hit for m in ("accuracy", "macro_f1", "macro_recall")}
            else:
                figures = {}
                for scale, end in (("transformed", ""), ("original", "_original")):
                    true, error = (
                        fit[f"y_true{end}"],
                        fit[f"y_pred{end}"] - fit[f"y_true{end}"],
                    )
                    spread = true.var(ddof=0) or float("nan")
                    figures[scale, "r2"] = 1 - (error**2).mean() / spread
                    figures[scale, "rmse"] = (error**2).mean() ** 0.5
                    figures[scale, "mae"] = error.abs().mean()
            for (scale, metric), value in figures.items():
                rows.append(
                    {
                        "city": "sample",
                        "method": method,
                        "variant": variant,
                        "task": task,
                        "split": split,
                        "fold": fold,
                        "seed": seed,
                        "scale": scale,
                        "metric": metric,
                        "value": value,
                        "inputs": inputs[method],
                        "protocol": "supervised" if method == "vit" else "transductive",
                        "captioner": "",
                        "target_in_inputs": method == "poi" and bool(contained[task]),
                        "n_train": 94,
                        "n_test": len(fit),
                    }
                )
    return pd.DataFrame(rows)


def _comparisons(leaderboard: pd.DataFrame) -> pd.DataFrame:
    rows = []
    main = leaderboard[leaderboard["metric"].isin(["r2", "macro_f1"])]
    main = main[main["scale"] != "original"]
    for (task, split, metric), group in main.groupby(["task", "split", "metric"]):
        means = group.groupby(["method", "variant"])["value"].mean().sort_values(ascending=False)
        (best, other), (high, low) = means.index[:2], means.iloc[:2]
        rows.append(
            {
                "task": task,
                "split": split,
                "metric": metric,
                "method_a": best[0],
                "variant_a": best[1],
                "method_b": other[0],
                "variant_b": other[1],
                "difference": high - low,
                "low": high - low - 0.06,
                "high": high - low + 0.06,
                "regions": 31,
            }
        )
    return pd.DataFrame(rows)


def _reachable(leaderboard: pd.DataFrame) -> pd.DataFrame:
    main = leaderboard[leaderboard["metric"].isin(["r2", "macro_f1"])]
    main = main[(main["scale"] != "original") & (main["task"] != "poi_count")]
    keys = main[["task", "split", "fold", "scale", "metric"]].drop_duplicates()
    return keys.assign(true_function=0.84, with_kriging=0.9, n_test=31).reset_index(drop=True)


def _embedding_map(
    random: np.random.Generator,
    ids: np.ndarray,
    variant: str,
    x: np.ndarray,
    y: np.ndarray,
    centre: np.ndarray,
) -> pd.DataFrame:
    n = len(ids)
    cluster = np.digitize(centre, [0.1, 0.3, 0.6])
    return pd.DataFrame(
        {
            "variant": variant,
            "region_id": ids,
            "pca_1": centre + 0.05 * random.normal(size=n),
            "pca_2": np.sin(x / 4) + 0.05 * random.normal(size=n),
            "tsne_1": 30 * np.cos(cluster) + 4 * random.normal(size=n),
            "tsne_2": 30 * np.sin(cluster) + 4 * random.normal(size=n),
            "cluster": cluster,
        }
    )


def _rejected(evil: bool) -> pd.DataFrame:
    rows = [
        ("pois", "pois.csv", 7, "outside every region", "x=1, y=2", 1),
        ("pois", "pois.csv", 19, "outside every region", "x=3, y=4", 1),
        ("pois", "pois.csv", 23, "no coordinates", EVIL if evil else "lon is empty", 1),
        ("trips", "trips.parquet", 4, "unknown zone", "zone 265", 12),
        ("street_views", "views/", 3, "unreadable image", "b.jpg: truncated", 1),
    ]
    frame = pd.DataFrame(rows, columns=["stage", "source", "row", "reason", "detail", "items"])
    return rejected_summary(pa.Table.from_pandas(frame.astype({"items": float})).to_batches())


def _raw_files(evil: bool) -> pd.DataFrame:
    rows = [
        ("sources.imagery", "sample/image.tif", 48_000_000, "CC BY 4.0"),
        ("sources.pois", "sample/pois.csv", 1_200_000, EVIL if evil else "ODbL 1.0"),
        ("sources.street_views", "sample/views/a.jpg", 21_000, "CC BY-SA 4.0"),
        ("sources.street_views", "sample/views/b.jpg", 22_000, "CC BY-SA 4.0"),
    ]
    frame = pd.DataFrame(rows, columns=["source", "path", "bytes", "licence"])
    return frame.assign(sha256="0a1b2c" * 10 + "0a1b", date="2024-05", origin="made by a formula")


def _provenance() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "stage": ["boundary", "regions", "targets", "poi_embeddings", "leaderboard"],
            "fingerprint": [f"{i}f3a9c" * 10 for i in range(5)],
            "inputs": [[], ["boundary"], ["regions", "indicators"], ["poi_counts"], ["targets"]],
            "code": [f"c0de{i}" * 8 for i in range(5)],
        }
    )


def _chips(random: np.random.Generator, ids: np.ndarray, centre: np.ndarray) -> pd.DataFrame:
    size = 32
    base = np.stack([90 + 80 * centre, 140 - 60 * centre, 80 + 60 * centre], axis=1)
    pixels = base[:, None, None, :] + 12 * random.normal(size=(len(ids), size, size, 1))
    pixels[:, size // 2 - 1 : size // 2 + 2] = 120
    pixels = pixels.clip(0, 255).astype(np.uint8)
    return pd.DataFrame(
        {
            "region_id": ids,
            "pixels": [chip.tobytes() for chip in pixels],
            "height_px": size,
            "width_px": size,
            "bands": 3,
            "ground_m": 1000.0,
            "valid_share": 1.0,
        }
    )


def _views(random: np.random.Generator, ids: np.ndarray) -> pd.DataFrame:
    height, width = 32, 48
    ids = np.repeat(ids, 3)
    pixels = np.empty((len(ids), height, width, 3))
    pixels[:, : height // 2] = (150, 190, 230)
    pixels[:, height // 2 :] = (110, 110, 112)
    pixels[:, 8:20, 4:20] = random.integers(60, 200, (len(ids), 1, 1, 3))
    pixels = (pixels + 8 * random.normal(size=pixels.shape)).clip(0, 255).astype(np.uint8)
    return pd.DataFrame(
        {
            "region_id": ids,
            "view_id": [f"v{i:04d}" for i in range(len(ids))],
            "pixels": [view.tobytes() for view in pixels],
            "height_px": height,
            "width_px": width,
            "heading_deg": [
                float("nan") if i % 5 == 0 else float(i % 360) for i in range(len(ids))
            ],
            "lon": -74.0,
            "lat": 40.7,
        }
    )


def _heights(random: np.random.Generator, ids: np.ndarray, centre: np.ndarray) -> pd.DataFrame:
    size = 24
    blocks = random.random((len(ids), 6, 6)) * (5 + 60 * centre[: len(ids), None, None])
    pixels = np.where(blocks > 4, blocks, np.nan).repeat(4, axis=1).repeat(4, axis=2)
    pixels = pixels.astype(np.float32)
    return pd.DataFrame(
        {
            "region_id": ids,
            "pixels": [grid.tobytes() for grid in pixels],
            "height_px": size,
            "width_px": size,
            "building_count": 30,
            "with_height_share": 0.9,
            "built_share": 0.4,
            "mean_height_m": 12.0,
        }
    )


def _flows(random: np.random.Generator, ids: np.ndarray, centre: np.ndarray) -> pd.DataFrame:
    n, count = len(ids), 12 * len(ids)
    share = (centre + 0.05) / (centre + 0.05).sum()
    origin, destination = random.integers(0, n, count), random.choice(n, count, p=share)
    frame = pd.DataFrame(
        {
            "source": "trips",
            "origin_id": ids[origin],
            "destination_id": ids[destination],
            "hour": random.integers(0, 24, count).astype(np.int8),
            "trip_count": random.integers(1, 50, count).astype(float),
        }
    )
    keys = ["source", "origin_id", "destination_id", "hour"]
    return frame.groupby(keys, as_index=False)["trip_count"].sum()


def _mobility(ids: np.ndarray, outflow: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "source": "trips",
            "region_id": np.repeat(ids, 24),
            "hour": np.tile(np.arange(24, dtype=np.int8), len(ids)),
            "outflow": outflow.ravel(),
            "inflow": outflow[:, ::-1].ravel(),
        }
    )


def report_data(
    rows: int = 12, columns: int = 13, *, evil: bool = False, pictures: bool = True
) -> ReportData:
    tables = city(rows, columns, evil=evil)
    names = ("regions", "coverage", "indicators", "targets", "splits", "predictions")
    names += ("leaderboard", "summary", "comparisons", "embedding_maps", "rejected", "raw_files")
    names += ("provenance",)
    return ReportData(
        city="sample",
        title=EVIL if evil else "Sample City",
        description=EVIL if evil else "A grid of squares whose indicators are formulas.",
        reachable=tables.reachable,
        pictures=_pictures(tables) if pictures else (),
        reproduce=["make demo"],
        citation=EVIL if evil else "",
        captions=captions(evil=evil),
        **findings(),
        **{name: getattr(tables, name) for name in names},
    )


def captions(*, evil: bool = False) -> CaptionData:
    """Two chips and three street views of 4:3 with their captions; a picture could not be judged."""
    views = ["satellite"] * 2 + ["street_view"] * 3
    ids = [EVIL if evil else "r000c000", "r000c001", "v1", "v2", "v3"]
    keys = pd.DataFrame({"view": views, "image_id": ids})
    long = "A wide road under a grey sky, with trees on the left and a few cars. " * 9
    texts = ["Woodland, and a road.", EVIL if evil else "Roofs.", long, "A dark street.", "Water."]
    perception = [0.9, 0.7, 0.8, 0.3, 0.5]
    calibrated = keys.assign(
        region_id=["r000c000", "r000c001", "r000c000", "r000c001", "r000c002"],
        attempt=np.int32(0),
        tries=np.int32([1, 1, 1, 3, 2]),
        text=texts,
        perception_score=perception,
        kept=[True, True, True, False, True],
        reason=["", "", "", "PerceptionScore 0.300 is under the floor of 0.45", ""],
        captioner="TemplateCaptioner 1",
    )
    cycle = [0.95, 0.9, 0.9, 0.2, np.nan]
    scores = keys.assign(
        attempt=np.int32(0),
        clip_cosine=0.3,
        clip_score=[0.85, 0.5, 0.7, 0.4, 0.5],
        clip_by="whole",
        cycle_paper=cycle,
        cycle_present=cycle,
        cycle_score=cycle,
        perception_score=perception,
        note=["", "", "", "", "CLIPScore alone: the segmenter cannot judge the picture"],
    )
    classes = ["road", "forest", "open_sky"]
    shares = [[0.2, 0.7, 0.1], [0.6, 0.4, 0.0], [0.3, 0.3, 0.4], [0.9, 0.1, 0.0], []]
    image_shares = keys.assign(
        classes=[classes] * 5, shares=shares, note=["", "", "", "", "a grey picture"]
    )
    random = np.random.default_rng(0)
    sizes = [(32, 32)] * 2 + [(36, 48)] * 3
    pictures = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    examples = calibrated.merge(scores.drop(columns="perception_score")).assign(
        rank=["best", "worst", "best", "worst", "worst"],
        picture=pictures,
        painted=pictures[::-1][3:] + pictures[::-1][:3],
        classes=image_shares["classes"],
        shares=shares,
        painted_shares=[[0.25, 0.65, 0.1]] * 4 + [[np.nan] * 3],
    )
    limits = CalibrationConfigs(satellite=CalibrationConfig(threshold=0.6, floor=0.45))
    return CaptionData(calibrated, scores, image_shares, examples, limits)


def ablation_rows() -> pd.DataFrame:
    """Comparisons of a method with text: with its variants, and with the bare shares."""
    metrics = {"land_use": "macro_f1", ALL_TASKS: "mean_r2"}
    rows = [
        (task, split, metrics.get(task, "r2"), *pair)
        for split in ("random", "spatial")
        for task, *pair in (
            ("population", "urbanvlp", "default", "urbanvlp", "without_text", 0.1, 0.05, 0.15),
            ("night_light", "urbanvlp", "without_text", "urbanvlp", "default", 0.04, 0.01, 0.08),
            ("land_use", "urbanvlp", "default", "urbanvlp", "without_text", 0.02, -0.03, 0.06),
            (ALL_TASKS, "urbanvlp", "default", "urbanvlp", "without_text", 0.03, -0.01, 0.07),
            ("population", "urbanvlp", "default", "urbanvlp", "without_satellite", 0.2, 0.1, 0.3),
            ("population", "urbanvlp", "default", "shares", "default", 0.3, 0.2, 0.4),
            ("night_light", "shares", "default", "urbanvlp", "default", 0.02, -0.1, 0.1),
            ("population", "urbanvlp", "default", "poi", "default", 0.3, 0.2, 0.4),
        )
    ]
    columns = ["task", "split", "metric", "method_a", "variant_a", "method_b", "variant_b",
               "difference", "low", "high"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).assign(regions=31)


def transfer_rows() -> pd.DataFrame:
    """Figures of one city by where the encoder was pretrained."""
    rows = [
        (source, "sample", task, metric, value)
        for source, more in (("sample", 0.1), ("elsewhere", 0.0))
        for task, metric, value in (
            ("population", "r2", 0.5 + more),
            ("night_light", "r2", 0.3 + more),
            ("land_use", "macro_f1", 0.6),
        )
    ]
    return pd.DataFrame(rows, columns=["pretrained_on", "city", "task", "metric", "value"])


def expert_records(
    seeds: int = 2, tasks: Sequence[str] = ("carbon", "light", "people")
) -> list[dict]:
    """Records as UrbanMoE leaves them: 2 experts a task, 1 a pair, 2 shared; weights count up."""
    each = 2 + len(tasks) - 1 + 2
    records = []
    for seed in range(seeds):
        weight = np.arange(len(tasks) * each).reshape(len(tasks), each) / 100 + seed
        active = np.ones_like(weight)
        weight[0, 1] = active[0, 1] = 0
        found = {"weight": weight.tolist(), "active": active.tolist()}
        net = {
            "pool": {"tasks": len(tasks), "specific": 2, "pair": 1, "shared": 2},
            "tasks": [{"name": name} for name in tasks],
            "routing": {"image": found, "text": found},
        }
        fit = {"variant": "default", "split": "random", "fold": 0, "seed": seed}
        records.append({"fit": fit, "nets": [net]})
    return records


def findings() -> dict[str, list[Finding]]:
    rows = ablation_rows()
    bars = Picture("Gain of UrbanVLP", figures.text_bars(rows, "urbanvlp"))
    said = gains.sentences(gains.text_gains(rows, "urbanvlp"))
    matrix = Picture("Transfer", figures.transfer_matrix(transfer_rows()))
    weights = experts.first_fit(experts.expert_weights(expert_records()))
    routed = Picture("Experts", figures.expert_map(weights))
    return {
        "experts": [Finding("UrbanMoE: single experts", (), routed)],
        "ablations": [Finding("UrbanVLP: what text adds", said, bars)],
        "views": [Finding("Look-alikes", ["Share of look-alikes"], bars)],
        "transfer": [Finding("Spatial split", (), matrix)],
    }


def _pictures(tables: Any) -> list[Picture]:
    return [
        Picture("Satellite chips of 24 regions", figures.chip_sheet(tables.chips)),
        Picture("Street views", figures.view_sheet(tables.views)),
        Picture("Building heights", figures.height_sheet(tables.heights)),
        Picture("Trips between regions", figures.flow_map(tables.flows, tables.regions)),
    ]
