"""Scores of captions without a reference, and the loop that writes poor captions again.

PerceptionScore: Hao et al. 2025, UrbanVLP, Eq 1-3; CLIPScore: Hessel et al. 2021
(arXiv:2104.08718). B captions, K classes of a segmenter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from model_code.backends import Ask, Captioner, Clip, Painter, Picture, Segmenter, View
from model_code.lazy import Lazy
from model_code.methods.base import Floats

if TYPE_CHECKING:
    import pandas as pd

SCORES = (
    "clip_cosine", "clip_score", "clip_by", "cycle_paper", "cycle_present", "cycle_score",
    "perception_score", "note",
)  # fmt: skip


class CalibrationConfig(BaseModel):
    """What a caption must reach.

    Under `threshold` it is written again with another seed and `warmer` by that temperature each
    time, at most `retries` times; the best of its tries stays, and is not kept for pretraining
    under `floor`. PerceptionScore weighs CLIPScore with `clip_share`, CycleScore with the rest
    (0.5: the paper's mean). Where CLIPScore stands alone, `clip_threshold` and `clip_floor` hold. A
    floor that is not given is never above its threshold.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    threshold: float = Field(0.6, ge=0, le=1)
    floor: float = Field(0.55, ge=0, le=1)
    clip_threshold: float = Field(0.5, ge=0, le=1)
    clip_floor: float = Field(0.35, ge=0, le=1)
    retries: int = Field(2, ge=0, le=20)
    warmer: float = Field(0.3, ge=0, le=2)
    clip_share: float = Field(0.5, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _floors(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        implied = {}
        for floor, threshold in _FLOORS:
            limit = given.get(threshold)
            if floor not in given and isinstance(limit, int | float):
                implied[floor] = min(cls.model_fields[floor].default, limit)
        return {**given, **implied}

    @model_validator(mode="after")
    def _ordered(self) -> CalibrationConfig:
        for floor, threshold in _FLOORS:
            if getattr(self, floor) > getattr(self, threshold):
                raise ValueError(f"{floor} must not be above {threshold}")
        return self


_FLOORS = (("floor", "threshold"), ("clip_floor", "clip_threshold"))


class StreetCalibration(CalibrationConfig):
    """Streets have much the same shares, so that wrong captions lose little of CycleScore, and few
    differences of it are worth as much as many of CLIPScore."""

    threshold: float = Field(0.7, ge=0, le=1)
    floor: float = Field(0.7, ge=0, le=1)
    clip_share: float = Field(0.3, ge=0, le=1)


class CalibrationConfigs(BaseModel):
    """What captions must reach, by view."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    satellite: CalibrationConfig = CalibrationConfig()
    street_view: StreetCalibration = StreetCalibration()

    @model_validator(mode="before")
    @classmethod
    def _by_view(cls, given: Any) -> Any:
        if isinstance(given, dict) and (names := set(given) & set(CalibrationConfig.model_fields)):
            told = ", ".join(sorted(names))
            raise ValueError(f"{told}: say it by view, below `satellite` or `street_view`")
        return given

    def of(self, view: View) -> CalibrationConfig:
        return self.satellite if view == "satellite" else self.street_view


# --- scores --------------------------------------------------------------------------------------


def score(
    pictures: Sequence[Picture],
    shares: Floats,
    texts: Sequence[str],
    painter: Painter | None,
    segmenter: Segmenter | None,
    clip: Clip,
    config: CalibrationConfig,
    seeds: Sequence[int],
) -> pd.DataFrame:
    """Columns `SCORES`, a row a caption; a row depends on its own picture, text and seed alone.

    `shares` [B, K] are what `segmenter` measures in the pictures (a row of NaN: not applicable);
    `seeds` [B] are the painter's. Where nothing can be painted or segmented, CLIPScore stands alone
    and `note` says why; an empty text has no score at all.
    """
    import pandas as pd

    b = len(texts)
    if not b == len(pictures) == len(seeds) or (segmenter is not None and len(shares) != b):
        raise ValueError("pictures, shares, texts and seeds must be of one length")
    written = np.array([bool(text.strip()) for text in texts], bool)
    table = pd.DataFrame(
        {name: "" if name in ("clip_by", "note") else np.full(b, np.nan) for name in SCORES},
        index=range(b),
    )
    table["note"] = np.where(written, "", "no caption")
    at = np.flatnonzero(written)
    if len(at):
        whole = clip_scores([pictures[i] for i in at], [texts[i] for i in at], clip)
        table.loc[at, list(whole.columns)] = whole.set_axis(at)
    if segmenter is None or painter is None:
        what = "segmenter" if segmenter is None else "painter"
        table.loc[at, "note"] = _joined(table.loc[at, "note"], f"CLIPScore alone: no {what}")
    else:
        judged = at[~np.isnan(np.asarray(shares)[at]).any(axis=1)]
        unjudged = np.setdiff1d(at, judged)
        table.loc[unjudged, "note"] = _joined(
            table.loc[unjudged, "note"], "CLIPScore alone: the segmenter cannot judge the picture"
        )
        if len(judged):
            painted = segmenter.segment(
                painter.paint([texts[i] for i in judged], [seeds[i] for i in judged])
            )
            cycles = cycle_scores(np.asarray(shares)[judged], painted.shares)
            for name, values in cycles.items():
                table.loc[judged, name] = values
            missed = np.isnan(cycles["cycle_score"])
            for i, why in zip(judged[missed], np.array(painted.reasons)[missed], strict=True):
                table.loc[[i], "note"] = _joined(
                    table.loc[[i], "note"],
                    f"CLIPScore alone: the segmenter cannot judge the painted picture ({why})",
                )
    alone = table["cycle_score"].isna()
    mixed = config.clip_share * table["clip_score"] + (1 - config.clip_share) * table["cycle_score"]
    table["perception_score"] = table["clip_score"].where(alone, mixed)
    return table


def clip_scores(pictures: Sequence[Picture], texts: Sequence[str], clip: Clip) -> pd.DataFrame:
    """`clip_cosine`, `clip_score` = min(w * max(cos, 0), 1), `clip_by` and `note`, a row a text.

    A text longer than the text tower reads is scored sentence by sentence, and averaged.
    """
    import pandas as pd

    long = clip.tokens(texts) > clip.context
    pieces = [sentences(text) if cut else [text] for text, cut in zip(texts, long, strict=True)]
    owner = np.repeat(np.arange(len(texts)), [len(p) for p in pieces])
    flat = [piece for p in pieces for piece in p]
    cosine = np.einsum(
        "bd,bd->b", clip.encode_images(pictures)[owner], clip.encode_texts(flat), dtype=np.float64
    )
    points = np.clip(clip.weight * cosine, 0, 1)
    number = np.bincount(owner)
    cut = np.bincount(owner, clip.tokens(flat) > clip.context) > 0
    return pd.DataFrame(
        {
            "clip_cosine": np.bincount(owner, cosine) / number,
            "clip_score": np.bincount(owner, points) / number,
            "clip_by": np.where(long, "sentences", "whole"),
            "note": np.where(cut, "a sentence is longer than the text tower reads", ""),
        }
    )


def sentences(text: str) -> list[str]:
    """The sentences of a text that is not empty."""
    return [s for s in re.split(r"(?<=[.!?])\s+|\n+", text.strip()) if s.strip()]


def cycle_scores(shares: Floats, painted: Floats) -> dict[str, Floats]:
    """Three readings of Eq 2 from pixel shares [B, K] of two pictures, each [B] in 0..1; NaN where
    either row is.

    `cycle_paper` is 1 - the mean difference over all classes, as printed, which K classes keep above
    1 - 2/K; `cycle_present` takes the classes that either picture shows; `cycle_score` is 1 - total
    variation, which spans 0 to 1.
    """
    difference = np.abs(np.asarray(shares, np.float64) - np.asarray(painted, np.float64))
    present = ((np.asarray(shares) > 0) | (np.asarray(painted) > 0)).sum(axis=1)
    total = difference.sum(axis=1)
    found = {
        "cycle_paper": 1 - total / difference.shape[1],
        "cycle_present": 1 - total / np.maximum(present, 1),
        "cycle_score": 1 - total / 2,
    }
    return {name: np.clip(values, 0, 1) for name, values in found.items()}


def _joined(notes: pd.Series, more: str) -> pd.Series:
    return notes.where(notes == "", notes + "; ") + more


# --- calibration ---------------------------------------------------------------------------------


class Scorer(Protocol):
    """Scores captions of the asks at `positions` [B]."""

    def __call__(
        self, positions: NDArray[np.int64], texts: Sequence[str], seeds: Sequence[int]
    ) -> pd.DataFrame:
        """The columns of `SCORES`, a row a text."""


def calibrate(
    asks: Sequence[Ask], captioner: Captioner, scorer: Scorer, config: CalibrationConfig
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every try, and the best one of each ask.

    `asks` may be `Lazy`: they are read in order, and none is held. All go round by round: those without a caption, without a score, or under the threshold
    are asked again, unless the captioner has said that it is of no use.

    Returns:
        tries: `position` (of the ask), `attempt` from 0, `text`, `error`, `seed`, `temperature`,
            `prompt` (its id), `tokens_in`, `tokens_out`, `took_s` (NaN: not measured), `requests`, and
            `SCORES`; ordered by position and attempt.
        best: `position`, `attempt` (-1: no try gave a caption), `tries`, `text`, `first_text`
            (of the first try, whatever its score), `perception_score`, `kept`, `reason` (empty
            where kept); a row an ask, in order.
    """
    import pandas as pd

    heads = [_head(ask) for ask in asks]
    rounds, waiting = [], np.arange(len(asks))
    for attempt in range(config.retries + 1):
        tries, final = _round(asks, heads, waiting, attempt, captioner, scorer, config)
        rounds.append(tries)
        limit = _limit(tries, config.threshold, config.clip_threshold)
        waiting = waiting[~(tries["perception_score"].to_numpy() >= limit) & ~final]
        if not len(waiting):
            break
    table = pd.concat(rounds).sort_values(["position", "attempt"], ignore_index=True)
    return table, _best(table, config)


def _limit(tries: pd.DataFrame, both: float, alone: float) -> Floats:
    """The limit of each try: `alone` where CLIPScore stands alone."""
    return np.where(tries["cycle_score"].isna(), alone, both)


def _head(ask: Ask) -> Ask:
    """What a row tells of an ask: one of many that need not hold their pictures."""
    return Ask(
        ask.kind, seed=ask.seed, temperature=ask.temperature, form=ask.form, prompt_id=ask.prompt_id
    )


def _round(
    asks: Sequence[Ask],
    heads: Sequence[Ask],
    positions: NDArray[np.int64],
    attempt: int,
    captioner: Captioner,
    scorer: Scorer,
    config: CalibrationConfig,
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """One try of each position, and for which of them another is of no use."""
    import pandas as pd

    asked = Lazy(positions.tolist(), lambda i: _again(asks[i], attempt, config.warmer))
    answers = captioner.caption(asked)
    if len(answers) != len(asked):
        raise ValueError(f"{len(asked)} captions were asked for, {len(answers)} came")
    errors = [a.error or ("" if a.text.strip() else "an empty caption") for a in answers]
    texts = ["" if error else a.text for a, error in zip(answers, errors, strict=True)]
    now = [_again(heads[i], attempt, config.warmer) for i in positions]
    seeds = [ask.seed for ask in now]
    tries = pd.DataFrame(
        {
            "position": positions,
            "attempt": np.int32(attempt),
            "text": np.array(texts, object),
            "error": np.array(errors, object),
            "seed": np.array(seeds, np.int64),
            "temperature": np.array([ask.temperature for ask in now], np.float64),
            "tokens_in": np.array([a.tokens_in for a in answers], np.int64),
            "tokens_out": np.array([a.tokens_out for a in answers], np.int64),
            "prompt": np.array([ask.prompt_id for ask in now], object),
            "took_s": np.array([a.seconds for a in answers], np.float64),
            "requests": np.array([a.requests for a in answers], np.int32),
        }
    )
    scores = scorer(positions, texts, seeds)
    final = np.array([bool(a.error) and a.final for a in answers], bool)
    return pd.concat([tries, scores[list(SCORES)].set_axis(tries.index)], axis=1), final


def _again(ask: Ask, attempt: int, warmer: float) -> Ask:
    """The same ask with another seed, and warmer; the first try is the ask as it is."""
    if attempt == 0:
        return ask
    seed = int(np.random.SeedSequence((ask.seed, attempt)).generate_state(1)[0] >> 1)
    return replace(ask, seed=seed, temperature=ask.temperature + attempt * warmer)


def _best(tries: pd.DataFrame, config: CalibrationConfig) -> pd.DataFrame:
    """What passes first, then what is kept, then the highest score, the earlier of equals; a caption without
    a score before none at all. Scores with and without a cycle have limits of their own, which alone
    compare them."""
    limits = ((config.threshold, config.clip_threshold), (config.floor, config.clip_floor))
    reached = sum(
        (tries["perception_score"] >= _limit(tries, *each)).astype(int) for each in limits
    )
    order = tries.assign(missing=tries["text"] == "", reached=reached).sort_values(
        ["position", "missing", "reached", "perception_score", "attempt"],
        ascending=[True, True, False, False, True],
        na_position="last",
        kind="stable",
    )
    best = order.drop_duplicates("position").reset_index(drop=True)
    first = tries[tries["attempt"] == 0].set_index("position")["text"]
    points, missing = best["perception_score"], best["missing"]
    floors = _limit(best, config.floor, config.clip_floor)
    kept = (points >= floors).to_numpy()
    number = tries.groupby("position").size().reindex(best["position"]).to_numpy(np.int32)
    reasons = [
        ""
        if keep
        else f"no caption: {error}"
        if none
        else "no score"
        if np.isnan(value)
        else f"PerceptionScore {value:.3f} is under the floor of {floor:g}"
        for keep, none, value, floor, error in zip(
            kept, missing, points, floors, best["error"], strict=True
        )
    ]
    return best[["position", "text", "perception_score"]].assign(
        attempt=best["attempt"].where(~missing, -1).astype(np.int32),
        tries=number,
        kept=kept,
        reason=np.array(reasons, object),
        first_text=first.reindex(best["position"]).to_numpy(object),
    )[["position", "attempt", "tries", "text", "first_text", "perception_score", "kept", "reason"]]
