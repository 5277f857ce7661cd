"""One self-contained, offline HTML page for a city: maps, leaderboard, embeddings, provenance.

The page loads nothing: style, script, pictures and numbers are inside it, and its content security
policy lets nothing else in. The same tables give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from model_code.report import palette
from model_code.report.captions import SCORES, CaptionData, caption_views
from model_code.report.labels import method_label
from model_code.report.shapes import quantised_rings

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

PROVING_REGIONS = 2000
_MISSING = 65535


@dataclass(frozen=True)
class Picture:
    """A PNG with the sentence that stands below it and serves those who cannot see it."""

    caption: str
    png: bytes


@dataclass(frozen=True)
class Finding:
    """A wide picture under a title, with what it shows in sentences."""

    title: str
    sentences: Sequence[str]
    picture: Picture


@dataclass(frozen=True)
class ReportData:
    """All that the page shows. Tables as in `model_code.tables` unless said otherwise.

    Attributes:
        predictions: by method.
        summary: of `model_code.evaluation.leaderboard.summary`.
        embedding_maps: by method (or `method · variant`): region_id, pca_1, pca_2, tsne_1, tsne_2
            (NaN where t-SNE was not made), cluster.
        provenance: stage, fingerprint, code (the digest of its code), inputs (list of strings).
        pictures: contact sheets and other figures for the section on data.
        reproduce: command lines that make this page again.
        reachable: of a simulated city only.
        captions: of a city that has them.
        ablations: what parts of methods add; `transfer`: encoders that were pretrained elsewhere;
            `experts`: which experts each task uses, and what they put out; `hours`: the hourly outflow; `views`: UrbanMMCL's parts.
    """

    city: str
    title: str
    description: str
    regions: gpd.GeoDataFrame
    coverage: pd.DataFrame
    indicators: pd.DataFrame
    targets: pd.DataFrame
    splits: pd.DataFrame
    predictions: Mapping[str, pd.DataFrame]
    leaderboard: pd.DataFrame
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    embedding_maps: Mapping[str, pd.DataFrame]
    rejected: pd.DataFrame  # as `model_code.rejections.summary` gives it
    raw_files: pd.DataFrame
    provenance: pd.DataFrame
    pictures: Sequence[Picture] = ()
    reproduce: Sequence[str] = ()
    citation: str = ""
    reachable: pd.DataFrame | None = field(default=None)
    captions: CaptionData | None = None
    ablations: Sequence[Finding] = ()
    transfer: Sequence[Finding] = ()
    experts: Sequence[Finding] = ()
    hours: Sequence[Finding] = ()
    views: Sequence[Finding] = ()


def render_report(data: ReportData) -> str:
    """The page as one string of HTML."""
    environment = Environment(
        loader=PackageLoader("model_code.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, size=_size, percent=_percent, base64=_text64)
    style, script = _asset("report.css"), _asset("report.js")
    return environment.get_template("report.html").render(
        data=data,
        key_figures=_key_figures(data),
        coverage=data.coverage.to_dict("records"),
        indicators=data.indicators.to_dict("records"),
        caption_views=caption_views(data.captions) if data.captions else [],
        caption_scores=SCORES,
        rejected=data.rejected.to_dict("records"),
        raw_files=_raw_file_rows(data.raw_files),
        provenance=data.provenance.to_dict("records"),
        small=len(data.regions) < PROVING_REGIONS,
        proving_regions=PROVING_REGIONS,
        style=Markup(style),  # noqa: S704 (own file)
        script=Markup(script),  # noqa: S704 (own file)
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
        payload=_embed(_payload(data)),
    )


def _text64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _asset(name: str) -> str:
    return (resources.files("model_code.report") / "templates" / name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _embed(payload: Mapping[str, Any]) -> Markup:
    """JSON that may stand inside a script element whatever names users chose."""
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 (escaped above)


# --- words and numbers of the fixed parts --------------------------------------------------------


def _number(value: float) -> str:
    """Thousands separated; decimals only below 100."""
    if abs(value) >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"


def _percent(share: float) -> str:
    """Whole percents, but nothing that exists becomes 0 % and nothing partial becomes 100 %."""
    if 0 < share < 0.01:
        return "< 1 %"
    if 0.99 < share < 1:
        return "> 99 %"
    return f"{100 * share:.0f} %"


def _key_figures(data: ReportData) -> list[tuple[str, str]]:
    shown = data.summary[["method", "variant"]].drop_duplicates()
    methods = shown["method"].nunique()
    variants = len(shown) - methods
    return [
        ("regions", f"{len(data.regions):,}"),
        ("km²", _number(float(data.regions["area_km2"].sum()))),
        ("modalities", str(int((data.coverage["regions"] > 0).sum()))),
        ("indicators", str(len(data.indicators))),
        ("methods", str(methods)),
        *([("further variants", str(variants))] if variants else []),
        ("raw files", f"{len(data.raw_files):,}"),
    ]


def _raw_file_rows(raw_files: pd.DataFrame) -> list[dict[str, Any]]:
    """Files with the same source, licence, date and origin in one row: a folder is one line."""
    rows = []
    keys = ["source", "licence", "date", "origin"]
    for values, group in raw_files.groupby(keys, sort=True):
        digest = group["sha256"].iloc[0]
        if len(group) > 1:
            digest = hashlib.sha256("".join(group["sha256"]).encode()).hexdigest()
        more = f" and {len(group) - 1:,} more" if len(group) > 1 else ""
        rows.append(
            dict(zip(keys, values, strict=True))
            | {
                "path": f"{group['path'].iloc[0]}{more}",
                "bytes": int(group["bytes"].sum()),
                "sha256": digest,
            }
        )
    return rows


# --- numbers of the interactive parts ------------------------------------------------------------


def _payload(data: ReportData) -> dict[str, Any]:
    ids = pd.Index(data.regions["region_id"])
    tasks = [_task(row) for row in data.indicators.to_dict("records")]
    return {
        "palette": {
            "sequential": palette.SEQUENTIAL,
            "diverging": palette.DIVERGING,
            "diverging_dark": palette.DIVERGING_DARK,
            "qualitative": palette.qualitative(36),
        },
        "regions": _regions(data.regions),
        "parts": _parts(data.splits, ids),
        "tasks": tasks,
        "truth": _truth(data.targets, tasks, ids),
        "fits": _fits(data.predictions, tasks, ids),
        "board": _board(data.leaderboard, data.summary),
        "comparisons": _comparisons(data.comparisons),
        "reachable": _reachable(data.reachable),
        "embeddings": {
            str(name): {
                **{
                    axis: _packed(found[axis])
                    for axis in ("pca_1", "pca_2", "tsne_1", "tsne_2")
                    if found[axis].notna().any()
                },
                "cluster": _codes(found["cluster"]),
            }
            for name, rows in data.embedding_maps.items()
            for found in [rows.set_index("region_id").reindex(ids)]
        },
    }


def _task(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "name": str(row["indicator"]),
        "kind": str(row["kind"]),
        "log": row["transform"] == "log1p",
        "unit": str(row["unit"]),
        "description": str(row["description"]),
        "classes": [str(c) for c in row["classes"]],
    }


def _regions(regions: gpd.GeoDataFrame) -> dict[str, Any]:
    rings = quantised_rings(regions.geometry.to_numpy())
    west, north = rings.origin
    return {
        "ids": [str(v) for v in regions["region_id"]],
        "x": _base64(rings.x),
        "y": _base64(rings.y),
        "lengths": _base64(rings.lengths),
        "owner": _base64(rings.owner),
        "width": rings.width,
        "height": rings.height,
        "unit_m": rings.unit,
        "area_km2": [_significant(v) for v in regions["area_km2"]],
        "cx": _base64(_units((regions["x_m"] - west) / rings.unit, rings.width)),
        "cy": _base64(_units((north - regions["y_m"]) / rings.unit, rings.height)),
    }


def _parts(splits: pd.DataFrame, ids: pd.Index[Any]) -> dict[str, Any]:
    """By split, 0 (train), 1 (val) or 2 (test) of each region in its first fold."""
    found = {}
    for split, rows in splits.groupby("split", sort=True):
        first = rows[rows["fold"] == rows["fold"].min()].set_index("region_id")["part"]
        found[str(split)] = _codes(first.map({"train": 0, "val": 1, "test": 2}).reindex(ids))
    return found


def _units(values: pd.Series[Any], top: int) -> NDArray[np.uint16]:
    return values.to_numpy(float).round().clip(0, top).astype(np.uint16)


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def _packed(values: pd.Series[Any], *, log: bool = False) -> dict[str, Any]:
    """Numbers [N] in 65,535 steps between their least and greatest, as base64; NaN is kept.

    With `log` the steps are even in log1p, so that small values keep three digits too.
    """
    numbers = values.to_numpy(float, copy=True)
    if log:
        numbers = np.log1p(np.maximum(numbers, -1 + 1e-9))
    found = numbers[np.isfinite(numbers)]
    low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 1.0)
    step = (high - low) / (_MISSING - 1) or 1.0
    steps = np.where(np.isfinite(numbers), (numbers - low) / step, _MISSING)
    packed = {"low": low, "step": step, "q": _base64(steps.round().astype(np.uint16))}
    return packed | {"log": True} if log else packed


def _codes(values: pd.Series[Any]) -> dict[str, Any]:
    """Whole numbers [N] from 0, exactly."""
    numbers = values.fillna(_MISSING).to_numpy(float)
    return {"low": 0.0, "step": 1.0, "q": _base64(numbers.round().astype(np.uint16))}


def _truth(
    targets: pd.DataFrame, tasks: Sequence[Mapping[str, Any]], ids: pd.Index[Any]
) -> dict[str, Any]:
    """Values by region; an hourly indicator is averaged over the day."""
    means = targets.groupby(["indicator", "region_id"])["value"].mean()
    found = {}
    for task in tasks:
        name = task["name"]
        values = means[name] if name in means.index.levels[0] else pd.Series(dtype=float)  # type: ignore[attr-defined]
        values = values.reindex(ids)
        found[name] = (
            _codes(values) if task["kind"] == "classification" else _packed(values, log=task["log"])
        )
    return found


def _fits(
    predictions: Mapping[str, pd.DataFrame],
    tasks: Sequence[Mapping[str, Any]],
    ids: pd.Index[Any],
) -> list[dict[str, Any]]:
    """By method, task and split what was predicted, joined over folds and seeds."""
    by_name = {task["name"]: task for task in tasks}
    fits = []
    for method, table in predictions.items():
        for keys, rows in table.groupby(["variant", "task", "split"], sort=True):
            variant, name, split = (str(key) for key in keys)
            task = by_name[name]
            fit = {"method": method_label(method, variant), "task": name, "split": split}
            if task["kind"] == "classification":
                fit |= _class_fit(rows, ids, len(task["classes"]))
            else:
                fit |= _number_fit(rows, ids, task)
            fits.append(fit)
    return fits


def _number_fit(rows: pd.DataFrame, ids: pd.Index[Any], task: Mapping[str, Any]) -> dict[str, Any]:
    columns = ["y_true", "y_pred", "y_true_original", "y_pred_original"]
    means = rows.groupby("region_id")[columns].mean().reindex(ids)
    fit = {
        "value": _packed(means["y_pred_original"], log=task["log"]),
        "error": _packed(means["y_pred"] - means["y_true"]),
        "tested": int(means["y_pred"].notna().sum()),
    }
    if task["kind"] == "hourly":
        hours = rows.groupby("slot")[["y_true_original", "y_pred_original"]].mean()
        hours = hours.reindex(range(24))
        fit["hours"] = {
            name: [_significant(v) for v in hours[column]]
            for name, column in (("true", "y_true_original"), ("predicted", "y_pred_original"))
        }
    return fit


def _class_fit(rows: pd.DataFrame, ids: pd.Index[Any], count: int) -> dict[str, Any]:
    """The class that most fits chose (of equals the first), and the share that were wrong."""
    votes = rows.groupby(["region_id", "y_pred"]).size().rename("votes").reset_index()
    votes = votes.sort_values(["region_id", "votes", "y_pred"], ascending=[True, False, True])
    chosen = votes.drop_duplicates("region_id").set_index("region_id")["y_pred"].reindex(ids)
    wrong = (rows["y_pred"] != rows["y_true"]).groupby(rows["region_id"]).mean().reindex(ids)
    true, pred = rows["y_true"].to_numpy(int), rows["y_pred"].to_numpy(int)
    count = max([count, *(true + 1), *(pred + 1)]) if count == 0 else count
    matrix = np.bincount(true * count + pred, minlength=count * count).reshape(count, count)
    return {
        "value": _codes(chosen),
        "error": _packed(wrong),
        "tested": int(chosen.notna().sum()),
        "confusion": matrix.tolist(),
    }


def _significant(value: float) -> float | None:
    """Four digits, which is more than a person reads off a chart; None for what is missing."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def _board(leaderboard: pd.DataFrame, summary: pd.DataFrame) -> list[dict[str, Any]]:
    """One row a (split, task, method, variant): mean, deviation and every fit of each figure."""
    rows = ["split", "task", "method", "variant"]
    figures = [c.removesuffix("_mean") for c in summary.columns if c.endswith("_mean")]
    named = leaderboard.assign(figure=leaderboard["metric"] + "_" + leaderboard["scale"])
    runs = {
        tuple(str(k) for k in keys): [_significant(v) for v in values if np.isfinite(v)]
        for keys, values in named.groupby([*rows, "figure"])["value"]
    }
    board = []
    for row in summary.to_dict("records"):
        key = tuple(str(row[name]) for name in rows)
        board.append(
            {
                "split": key[0],
                "task": key[1],
                "method": method_label(key[2], key[3]),
                "inputs": str(row["inputs"]).replace(",", ", "),
                "protocol": str(row["protocol"]),
                "captioner": str(row["captioner"]),
                "contained": bool(row["target_in_inputs"]),
                "headline": str(row["headline"]),
                "rank": None if pd.isna(row["rank"]) else float(row["rank"]),
                "figures": {
                    figure: {
                        "mean": _significant(row[f"{figure}_mean"]),
                        "sd": _significant(row[f"{figure}_sd"]),
                        "runs": runs.get((*key, figure), []),
                    }
                    for figure in figures
                    if pd.notna(row[f"{figure}_mean"])
                },
            }
        )
    return board


def _comparisons(comparisons: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "task": str(row["task"]),
            "split": str(row["split"]),
            "a": method_label(str(row["method_a"]), str(row["variant_a"])),
            "b": method_label(str(row["method_b"]), str(row["variant_b"])),
            "difference": _significant(row["difference"]),
            "low": _significant(row["low"]),
            "high": _significant(row["high"]),
            "regions": int(row["regions"]),
        }
        for row in comparisons.to_dict("records")
        if pd.notna(row["difference"])
    ]


def _reachable(reachable: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Means over folds."""
    if reachable is None or reachable.empty:
        return []
    keys = ["task", "split", "scale", "metric"]
    means = reachable.groupby(keys)[["true_function", "with_kriging"]].mean().reset_index()
    return [
        {
            "task": str(row["task"]),
            "split": str(row["split"]),
            "figure": f"{row['metric']}_{row['scale']}",
            "function": _significant(row["true_function"]),
            "kriging": _significant(row["with_kriging"]),
        }
        for row in means.to_dict("records")
    ]
