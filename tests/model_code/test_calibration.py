from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError

from model_code.backends import Answer, Ask, Identity, Segmentation
from model_code.calibration import (
    SCORES,
    CalibrationConfig,
    CalibrationConfigs,
    StreetCalibration,
    _best,
    calibrate,
    clip_scores,
    cycle_scores,
    score,
    sentences,
)

COLOURS = ("red", "green", "blue")
SIZE = (6, 10)


class Bands:
    """Segments by the strongest channel; cannot judge a grey picture."""

    identity = Identity("bands", "0")
    classes = COLOURS

    def segment(self, pictures):
        shares, reasons = [], []
        for picture in pictures:
            grey = np.ptp(picture.astype(int), axis=-1).max() == 0
            found = np.bincount(picture.argmax(axis=-1).ravel(), minlength=3) / picture[..., 0].size
            shares.append(np.full(3, np.nan) if grey else found)
            reasons.append("no colour" if grey else "")
        return Segmentation(COLOURS, np.array(shares).reshape(-1, 3), tuple(reasons))


class Brush:
    """Paints a column for each colour word, in order; grey where a text names none."""

    identity = Identity("brush", "0")

    def paint(self, texts, seeds):
        return [
            paint([w for w in text.lower().rstrip(".").split() if w in COLOURS]) for text in texts
        ]


class Counts:
    """Both towers count the three colours; texts of more than eight words are too long."""

    identity = Identity("counts", "0")
    weight = 0.8
    context = 10

    def encode_images(self, pictures):
        return unit([Bands().segment([picture]).shares[0] for picture in pictures])

    def encode_texts(self, texts):
        words = [text.lower().replace(".", " ").split()[: self.context - 2] for text in texts]
        return unit([[w.count(colour) + 0.1 for colour in COLOURS] for w in words])

    def tokens(self, texts):
        return np.array([len(text.split()) + 2 for text in texts], np.int64)


def unit(rows):
    rows = np.nan_to_num(np.array(rows, np.float32), nan=1.0)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def paint(names) -> np.ndarray:
    picture = np.full((*SIZE, 3), 90, np.uint8)
    for name, columns in zip(
        names, np.array_split(np.arange(SIZE[1]), max(1, len(names))), strict=False
    ):
        picture[:, columns, COLOURS.index(name)] = 200
    return picture


CONFIG = CalibrationConfig(clip_share=0.5)
PICTURES = [paint(["red"]), paint(["red", "blue"]), paint(["green"]), paint([]), paint(["blue"])]
TEXTS = ["all red", "red and blue", "green. Some red there. " * 3, "all red", ""]


def shares_of(pictures):
    return Bands().segment(pictures).shares


def scored(pictures=PICTURES, texts=TEXTS, config=CONFIG, **given):
    parts = {"painter": Brush(), "segmenter": Bands()} | given
    return score(
        pictures, shares_of(pictures), texts, parts["painter"], parts["segmenter"], Counts(), config,
        list(range(len(texts))),
    )  # fmt: skip


# --- scores --------------------------------------------------------------------------------------


def naive_cycles(a, b):
    difference = [abs(x - y) for x, y in zip(a, b, strict=True)]
    present = [d for d, x, y in zip(difference, a, b, strict=True) if x > 0 or y > 0]
    return {
        "cycle_paper": 1 - sum(difference) / len(difference),
        "cycle_present": 1 - sum(present) / len(present),
        "cycle_score": 1 - sum(difference) / 2,
    }


@given(
    arrays.arrays(
        np.float64, (2, 4, 6), elements=st.floats(0, 1).map(lambda v: v if v > 0.3 else 0)
    )
)
def test_cycles_equal_their_naive_twin(parts):
    parts = parts + np.eye(6)[0]  # no empty picture
    a, b = parts / parts.sum(axis=2, keepdims=True)
    found = cycle_scores(a, b)
    for i in range(4):
        for name, value in naive_cycles(a[i], b[i]).items():
            assert found[name][i] == pytest.approx(value, abs=1e-12)
            assert 0 <= found[name][i] <= 1


def test_cycles_at_their_ends():
    one, other, missing = np.eye(150)[:1], np.eye(150)[1:2], np.full((1, 150), np.nan)
    assert {name: float(v[0]) for name, v in cycle_scores(one, one).items()} == dict.fromkeys(
        ("cycle_paper", "cycle_present", "cycle_score"), 1.0
    )
    apart = cycle_scores(one, other)
    assert apart["cycle_paper"][0] == pytest.approx(1 - 2 / 150)  # never further
    assert apart["cycle_present"][0] == apart["cycle_score"][0] == 0
    assert all(np.isnan(v[0]) for v in cycle_scores(one, missing).values())


def test_scores_row_by_row():
    table = scored()
    assert tuple(table.columns) == SCORES and list(table.index) == [0, 1, 2, 3, 4]
    clip = Counts()
    for i in (0, 1, 2):
        pieces = sentences(TEXTS[i]) if len(TEXTS[i].split()) > 8 else [TEXTS[i]]
        cosines = [
            float(clip.encode_images([PICTURES[i]])[0] @ clip.encode_texts([p])[0]) for p in pieces
        ]
        points = [min(max(clip.weight * c, 0), 1) for c in cosines]
        cycles = naive_cycles(
            shares_of([PICTURES[i]])[0], shares_of(Brush().paint([TEXTS[i]], [i]))[0]
        )
        assert table.clip_cosine[i] == pytest.approx(np.mean(cosines), abs=1e-6)
        assert table.clip_score[i] == pytest.approx(np.mean(points), abs=1e-6)
        assert table.clip_by[i] == ("sentences" if len(pieces) > 1 else "whole")
        assert table.cycle_score[i] == pytest.approx(cycles["cycle_score"])
        expected = (np.mean(points) + cycles["cycle_score"]) / 2
        assert table.perception_score[i] == pytest.approx(expected, abs=1e-6)
        assert table.note[i] == ""


def test_a_picture_that_cannot_be_judged_is_scored_by_clip_alone():
    row = scored().loc[3]
    assert row.note == "CLIPScore alone: the segmenter cannot judge the picture"
    assert np.isnan([row.cycle_paper, row.cycle_present, row.cycle_score]).all()
    assert row.perception_score == row.clip_score > 0


def test_a_painting_that_cannot_be_judged_is_named():
    row = scored(texts=["nothing", *TEXTS[1:]]).loc[0]
    assert "painted picture (no colour)" in row.note
    assert row.perception_score == row.clip_score and np.isnan(row.cycle_score)


def test_an_empty_text_has_no_score():
    for text in ("", "  \n"):
        row = scored(texts=[*TEXTS[:4], text]).loc[4]
        assert row.note == "no caption" and row.clip_by == ""
        assert np.isnan([row.clip_cosine, row.clip_score, row.perception_score]).all()


@pytest.mark.parametrize("part", ["segmenter", "painter"])
def test_without_a_part_clip_stands_alone(part):
    table = scored(**{part: None})
    assert table.note[:4].tolist() == [f"CLIPScore alone: no {part}"] * 4
    pd.testing.assert_series_equal(table.perception_score, table.clip_score, check_names=False)
    assert table.cycle_score.isna().all()


def test_a_row_depends_on_itself_alone():
    whole = scored()
    for i in range(len(TEXTS)):
        alone = score(
            PICTURES[i : i + 1], shares_of(PICTURES[i : i + 1]), TEXTS[i : i + 1], Brush(), Bands(),
            Counts(), CONFIG, [i],
        )  # fmt: skip
        pd.testing.assert_frame_equal(alone, whole.loc[[i]].reset_index(drop=True))
    assert len(scored([], [])) == 0


def test_the_parts_weigh_as_configured():
    for share in (0.0, 0.25, 1.0):
        table = scored(config=CalibrationConfig(clip_share=share)).loc[:2]
        expected = share * table.clip_score + (1 - share) * table.cycle_score
        np.testing.assert_allclose(table.perception_score, expected)


def test_long_sentences_say_so():
    table = clip_scores([PICTURES[0]] * 2, ["red " * 12, "red " * 5 + ". " + "red " * 5], Counts())
    assert table.note.tolist() == ["a sentence is longer than the text tower reads", ""]
    assert table.clip_by.tolist() == ["sentences", "sentences"]


def test_sentences():
    assert sentences("One. Two! Three? 4.5 m\nFive") == ["One.", "Two!", "Three?", "4.5 m", "Five"]


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one length"):
        score(PICTURES, shares_of(PICTURES), TEXTS[:2], Brush(), Bands(), Counts(), CONFIG, [0] * 5)


# --- calibration ---------------------------------------------------------------------------------


class Guesser:
    """Names a colour by chance of seed and temperature; now and then fails. It never knows how it
    was judged."""

    identity = Identity("guesser", "0")

    def __init__(self):
        self.asked: list[list[Ask]] = []

    def caption(self, asks):
        self.asked.append(list(asks))
        return [self.one(ask) for ask in asks]

    @staticmethod
    def one(ask):
        draw = int(np.random.default_rng((ask.seed, round(10 * ask.temperature))).integers(5))
        if draw == 4:
            return Answer(error="out of ink", tokens_in=3)
        return Answer(text="" if draw == 3 else f"all {COLOURS[draw]}", tokens_in=3, tokens_out=2)


B = 60
CITY = [paint([COLOURS[i % 3]]) for i in range(B)]
ASKS = [Ask("street_view", picture, seed=i) for i, picture in enumerate(CITY)]


def judge(positions, texts, seeds):
    pictures = [CITY[i] for i in positions]
    return score(pictures, shares_of(pictures), texts, Brush(), Bands(), Counts(), CONFIG, seeds)


def naive_calibration(config):
    """One ask at a time."""
    tries, best = [], []
    for i, ask in enumerate(ASKS):
        mine = []
        for attempt in range(config.retries + 1):
            seed = ask.seed
            if attempt:
                seed = int(np.random.SeedSequence((ask.seed, attempt)).generate_state(1)[0] >> 1)
            now = replace(ask, seed=seed, temperature=attempt * config.warmer)
            answer = Guesser.one(now)
            points = judge(np.array([i]), [answer.text], [seed]).perception_score[0]
            mine.append((attempt, answer, points))
            if points >= config.threshold:
                break
        tries += [(i, attempt, answer.text) for attempt, answer, _ in mine]
        given = [t for t in mine if t[1].text]
        top = max(given, key=lambda t: t[2], default=None)
        best.append((top[0], top[1].text, top[2] >= config.floor) if top else (-1, "", False))
    return tries, best


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_calibration_equals_its_naive_twin(retries):
    config = CalibrationConfig(threshold=0.7, floor=0.5, retries=retries)
    tries, best = calibrate(ASKS, Guesser(), judge, config)
    expected_tries, expected_best = naive_calibration(config)
    assert list(zip(tries.position, tries.attempt, tries.text, strict=True)) == expected_tries
    assert list(zip(best.attempt, best.text, best.kept, strict=True)) == expected_best
    assert best.position.tolist() == list(range(B))
    assert best.tries.tolist() == tries.groupby("position").size().tolist()


def test_rounds_are_batched_and_smaller():
    captioner = Guesser()
    calibrate(ASKS, captioner, judge, CalibrationConfig(threshold=0.7, retries=3))
    sizes = [len(asks) for asks in captioner.asked]
    assert sizes[0] == B and sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)
    assert len(sizes) <= 4


def test_each_try_has_another_seed_and_is_warmer():
    tries, _ = calibrate(ASKS, Guesser(), judge, CalibrationConfig(threshold=1, retries=3))
    assert (tries.groupby("position").seed.nunique() == 4).all()
    np.testing.assert_allclose(tries.temperature, 0.3 * tries.attempt)
    assert tries.seed.between(0, 2**31 - 1).all()
    again, _ = calibrate(ASKS, Guesser(), judge, CalibrationConfig(threshold=1, retries=3))
    pd.testing.assert_frame_equal(tries, again)


def test_nothing_is_lost():
    tries, best = calibrate(
        ASKS, Guesser(), judge, CalibrationConfig(threshold=0.7, floor=0.35, retries=1)
    )
    failed = tries[tries.text == ""]
    assert set(failed.error) == {"out of ink", "an empty caption"}
    assert failed.perception_score.isna().all() and (failed.note == "no caption").all()
    assert (tries.error[tries.text != ""] == "").all() and (tries.tokens_in == 3).all()
    none = best[best.attempt == -1]
    assert len(none) and (~none.kept).all() and none.reason.str.startswith("no caption: ").all()
    low = best[~best.kept & (best.attempt >= 0)]
    assert len(low) and low.reason.str.contains("under the floor of 0.35").all()
    assert (best.reason[best.kept] == "").all() and best.kept.any()


def test_a_second_try_is_no_better_than_a_first():
    """Tries are blind: those of the second round name the right colour as often by chance."""
    config = CalibrationConfig(threshold=1, floor=0, retries=1)
    tries, _ = calibrate(ASKS * 1, Guesser(), judge, config)
    right = [
        text == f"all {COLOURS[i % 3]}" for i, text in zip(tries.position, tries.text, strict=True)
    ]
    rate = pd.Series(right).groupby(tries.attempt.to_numpy()).mean()
    assert (rate < 0.45).all()


def test_no_asks():
    tries, best = calibrate([], Guesser(), judge, CONFIG)
    assert len(tries) == len(best) == 0
    assert {"position", "attempt", "text", "error", *SCORES} <= set(tries.columns)


def test_one_answer_an_ask():
    class Lazy(Guesser):
        def caption(self, asks):
            return super().caption(asks)[1:]

    with pytest.raises(ValueError, match="60 captions were asked for, 59 came"):
        calibrate(ASKS, Lazy(), judge, CONFIG)


def test_configs():
    with pytest.raises(ValidationError, match="floor must not be above threshold"):
        CalibrationConfig(threshold=0.2, floor=0.3)
    with pytest.raises(ValidationError, match="Extra inputs"):
        CalibrationConfig(treshold=0.2)


def test_a_city_loads_without_anything_heavy():
    code = (
        "import sys, model_code.calibration, model_code.vision.clip_config\n"
        "print([m for m in ('torch', 'pandas', 'scipy', 'open_clip') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_view_has_limits_of_its_own():
    own = CalibrationConfigs.model_validate({"street_view": {"threshold": 0.9}})
    assert own.of("street_view").threshold == 0.9
    assert own.of("street_view").clip_share == StreetCalibration().clip_share
    assert own.of("satellite") == CalibrationConfig()
    low = CalibrationConfigs.model_validate({"street_view": {"threshold": 0.1}}).street_view
    assert (low.threshold, low.floor) == (0.1, 0.1)  # what is not said gives way
    with pytest.raises(ValueError, match="clip_floor must not be above clip_threshold"):
        CalibrationConfigs.model_validate({"satellite": {"clip_floor": 0.9}})
    with pytest.raises(ValueError, match="threshold: say it by view, below `satellite`"):
        CalibrationConfigs.model_validate({"threshold": 0.5})


def test_scores_with_and_without_a_cycle_are_compared_by_their_own_limits():
    """A try that passes by CLIPScore alone goes before a higher score that fails as a mixed one."""

    def scored(positions, texts, seeds):
        table = judge(positions, texts, seeds)
        mixed = (
            np.arange(len(table)) % 2 == 0
            if len(scored.rounds) == 0
            else np.zeros(len(table), bool)
        )
        scored.rounds.append(len(table))
        points = np.where(mixed, 0.65, 0.62)
        return table.assign(cycle_score=np.where(mixed, 0.7, np.nan), perception_score=points)

    class Sure(Guesser):
        @staticmethod
        def one(ask):
            return Answer(text=f"all {COLOURS[ask.seed % 3]}")

    scored.rounds = []
    config = CalibrationConfig(
        threshold=0.7, floor=0.7, clip_threshold=0.5, clip_floor=0.35, retries=2
    )
    tries, best = calibrate(ASKS, Sure(), scored, config)
    assert scored.rounds == [B, B // 2]
    assert best.kept.all() and best.attempt.tolist() == [1, 0] * (B // 2)
    kept_low = CalibrationConfig(
        threshold=0.7, floor=0.6, clip_threshold=0.5, clip_floor=0.35, retries=1
    )
    assert _best(tries, kept_low).attempt.tolist() == best.attempt.tolist()
    none_pass = CalibrationConfig(threshold=0.7, floor=0.7, clip_threshold=0.7, clip_floor=0.7)
    assert _best(tries, none_pass).attempt.tolist() == [0] * B


def test_clip_score_alone_has_limits_of_its_own():
    def alone(positions, texts, seeds):
        pictures = [CITY[i] for i in positions]
        return score(pictures, shares_of(pictures), texts, None, None, Counts(), CONFIG, seeds)

    config = CalibrationConfig(threshold=1, floor=1, clip_threshold=0.6, clip_floor=0.4, retries=2)
    tries, best = calibrate(ASKS, Guesser(), alone, config)
    points = tries.set_index(["position", "attempt"])["perception_score"]
    again = {i for i, attempt in points.index if attempt == 1}
    assert again == {i for i in range(B) if not points[i, 0] >= 0.6} and 0 < len(again) < B
    assert (best.kept == (best.perception_score >= 0.4)).all() and 0 < best.kept.sum() < B
    assert best.reason[~best.kept & (best.attempt >= 0)].str.contains("floor of 0.4").all()
