"""The section on captions: figures by view, how scores are spread, the best and worst of each view."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from model_code.backends import View
from model_code.calibration import CalibrationConfig, CalibrationConfigs

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

# Columns of `caption_scores`, and what a person calls them.
SCORES = {
    "perception_score": "PerceptionScore",
    "clip_score": "CLIPScore",
    "cycle_score": "CycleScore",
    "cycle_present": "Cycle, classes present",
    "cycle_paper": "Cycle, as printed",
}
VIEWS: dict[View, str] = {"satellite": "Satellite chips", "street_view": "Street views"}
_LONGEST_PX = 320  # of a picture in the page
_BINS = 25
_LEAST_SHARE = 0.01  # of a class that is worth a bar


@dataclass(frozen=True)
class CaptionData:
    """What the section shows. Tables as in `model_code.tables`.

    Attributes:
        examples: rows of `calibrated_captions` with the scores of their tries, from the best to the
            worst of each view, and rank (`best` or `worst`), note, picture and painted (uint8
            [H, W, 3]), classes (K names), shares and painted_shares (K shares of those pictures;
            empty or NaN where the segmenter cannot judge).
        limits: under which a caption is written again, or not kept, by view.
    """

    calibrated: pd.DataFrame
    scores: pd.DataFrame
    image_shares: pd.DataFrame
    examples: pd.DataFrame
    limits: CalibrationConfigs


def caption_views(data: CaptionData) -> list[dict[str, Any]]:
    """By view what the template shows of it; views without a picture are left out."""
    keys = ["view", "image_id", "attempt"]
    scores = data.scores[[*keys, *(name for name in SCORES if name != "perception_score")]]
    taken = data.calibrated.merge(scores, on=keys, how="left")
    found = []
    for view, title in VIEWS.items():
        limits = data.limits.of(view)
        own = taken[taken["view"] == view]
        if own.empty:
            continue
        notes = data.image_shares.loc[data.image_shares["view"] == view, "note"]
        examples = data.examples[data.examples["view"] == view]
        found.append(
            {
                "view": view,
                "title": title,
                "pictures": len(own),
                "kept": int(own["kept"].sum()),
                "kept_share": float(own["kept"].mean()),
                "tries": float(own["tries"].mean()),
                "tried": [
                    (int(tries), int((own["tries"] == tries).sum()))
                    for tries in sorted(own["tries"].unique())
                ],
                "without": int((own["text"] == "").sum()),
                "declined": int((notes != "").sum()),
                "means": {
                    name: float(own[name].mean()) if own[name].notna().any() else None
                    for name in SCORES
                },
                "histograms": [
                    histogram(name, own[name], limits) for name in SCORES if own[name].notna().any()
                ],
                "ranks": [
                    (rank, [_card(row) for row in rows.itertuples()])
                    for rank in ("best", "worst")
                    for rows in [examples[examples["rank"] == rank]]
                    if len(rows)
                ],
            }
        )
    return found


def histogram(name: str, values: pd.Series[Any], limits: CalibrationConfig) -> dict[str, Any]:
    """Bars of scores from 0 to 1: heights in percent of the highest, and what is marked."""
    counts, _ = np.histogram(values.dropna(), bins=_BINS, range=(0, 1))
    marks = {"floor": limits.floor, "threshold": limits.threshold}
    return {
        "title": SCORES[name],
        "mean": float(values.mean()),
        "most": int(counts.max()),
        "width": 100 / _BINS,
        "bars": [round(100 * float(v) / max(int(counts.max()), 1), 2) for v in counts],
        "marks": marks if name == "perception_score" else {},
    }


_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def score_summary(scores: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """By view and score, how the scores of all tries are spread: how many there are, their mean and
    quantiles; of rows of `caption_scores`. A score that nothing has is left out."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for view, own in scores.groupby("view"):
        spread = {}
        for name in SCORES:
            if len(values := own[name].dropna()):
                at = {f"p{100 * q:02.0f}": round(float(values.quantile(q)), 4) for q in _QUANTILES}
                spread[name] = {"count": len(values), "mean": round(float(values.mean()), 4), **at}
        found[str(view)] = spread
    return found


def calibration_summary(calibrated: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """By view, of rows of `calibrated_captions`: pictures, captions that are kept and their share, and
    how many pictures took how many tries."""
    found = {}
    for view, own in calibrated.groupby("view"):
        tries = own["tries"].value_counts().sort_index()
        found[str(view)] = {
            "pictures": len(own),
            "kept": int(own["kept"].sum()),
            "kept_share": round(float(own["kept"].mean()), 4),
            "mean_tries": round(float(own["tries"].mean()), 4),
            "pictures_by_tries": {str(number): int(count) for number, count in tries.items()},
            "without_caption": int((own["text"] == "").sum()),
        }
    return found


def _card(row: Any) -> dict[str, Any]:
    """One caption with its pictures as data URLs."""
    return {
        "image_id": row.image_id,
        "region_id": row.region_id,
        "text": row.text,
        "kept": bool(row.kept),
        "reason": row.reason,
        "note": row.note,
        "tries": int(row.tries),
        "picture": data_url(row.picture),
        "painted": data_url(row.painted),
        "scores": [
            (title, float(getattr(row, name)))
            for name, title in SCORES.items()
            if np.isfinite(getattr(row, name))
        ],
        "shares": _shares(row.classes, row.shares, row.painted_shares),
    }


def _shares(classes: Any, shares: Any, painted: Any) -> list[tuple[str, float, float | None]]:
    """Names with the shares of the picture and of the painting, largest first."""
    if not len(shares):
        return []
    judged = len(painted) and np.isfinite(painted).all()
    others = [float(v) for v in painted] if judged else [None] * len(shares)
    rows = [
        (str(name).replace("_", " "), float(share), other)
        for name, share, other in zip(classes, shares, others, strict=True)
        if max(share, other or 0) >= _LEAST_SHARE
    ]
    return sorted(rows, key=lambda item: (-item[1], item[0]))


def data_url(picture: NDArray[np.uint8]) -> str:
    """A picture as JPEG inside a page, at most so many pixels wide or high as it shows."""
    image = Image.fromarray(picture)
    image.thumbnail((_LONGEST_PX, _LONGEST_PX), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=85, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
