import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, r2_score

from model_code.errors import DataError
from model_code.evaluation.compare import ALL_TASKS, compare, weights
from tests.model_code.evaluation.data import INDICATORS, assert_follows_contract, predictions

TASKS = ("flow", "income", "land_use")


def methods():
    return {
        ("good", "default"): predictions(40, noise=0.2, tasks=TASKS, rng=1),
        ("good", "small"): predictions(40, noise=0.4, tasks=TASKS, rng=2, seeds=(5, 6, 7)),
        ("poor", "default"): predictions(40, noise=0.9, tasks=TASKS, rng=3),
    }


def naive(frames, task, metric, weight, unit_of):
    """The metric of each method, averaged over seeds, on rows repeated by their unit's weight."""
    values = []
    for frame in frames.values():
        rows = frame[frame["task"] == task]
        times = weight[rows["region_id"].map(unit_of)].astype(int)
        rows = rows.loc[rows.index.repeat(times)]
        values.append(np.mean([metric(r["y_true"], r["y_pred"]) for _, r in rows.groupby("seed")]))
    return np.array(values)


def macro_f1(true, pred):
    return f1_score(true, pred, average="macro", zero_division=0)


@pytest.mark.parametrize(
    ("task", "metric"), [("flow", r2_score), ("income", r2_score), ("land_use", macro_f1)]
)
@pytest.mark.parametrize("blocks", [0, 8])
def test_equals_the_loop_over_draws(task, metric, blocks):
    frames = methods()
    regions = sorted(frames["good", "default"]["region_id"].unique())
    number = np.arange(len(regions))
    unit = number % blocks if blocks else number
    splits = pd.DataFrame(
        {"split": "random", "fold": 0, "region_id": regions, "block": [f"b{u}" for u in unit]}
    )
    splits = pd.concat([splits, splits.assign(fold=1, block="of another repeat")])
    found = compare(frames, INDICATORS, splits=splits if blocks else None, draws=10, seed=3)
    found = found[found["task"] == task].set_index(
        ["method_a", "variant_a", "method_b", "variant_b"]
    )

    unit_of = dict(zip(regions, unit, strict=True))
    count = int(unit.max()) + 1
    whole = naive(frames, task, metric, np.ones(count), unit_of)
    drawn = np.array(
        [
            naive(frames, task, metric, w, unit_of)
            for chunk in weights(count, 10, seed=3)
            for w in chunk
        ]
    )
    order = np.argsort(-whole)
    names = list(frames)
    assert len(found) == 3
    for a, b in ((0, 1), (0, 2), (1, 2)):
        i, j = order[a], order[b]
        row = found.loc[(*names[i], *names[j])]
        np.testing.assert_allclose(row["difference"], whole[i] - whole[j], atol=1e-12)
        low, high = np.quantile(drawn[:, i] - drawn[:, j], [0.025, 0.975])
        np.testing.assert_allclose([row["low"], row["high"]], [low, high], atol=1e-12)


def test_the_mean_of_all_numbers_is_drawn_in_all_of_them_at_once():
    frames = methods()
    regions = sorted(frames["good", "default"]["region_id"].unique())
    # One region has no income: it is drawn all the same, and adds nothing there.
    frames = {
        key: frame[(frame["task"] != "income") | (frame["region_id"] != regions[3])]
        for key, frame in frames.items()
    }
    found = compare(frames, INDICATORS, draws=10, seed=3)
    found = found[found["task"] == ALL_TASKS]
    assert set(found["metric"]) == {"mean_r2"} and set(found["regions"]) == {len(regions)}
    unit_of = dict(zip(regions, range(len(regions)), strict=True))
    count = len(regions)
    chunks = [np.ones((1, count)), *weights(count, 10, seed=3)]
    drawn = np.array(
        [
            np.mean([naive(frames, t, r2_score, w, unit_of) for t in ("flow", "income")], axis=0)
            for chunk in chunks
            for w in chunk
        ]
    )
    names = list(frames)
    for row in found.itertuples():
        i = names.index((row.method_a, row.variant_a))
        j = names.index((row.method_b, row.variant_b))
        difference = drawn[:, i] - drawn[:, j]
        np.testing.assert_allclose(row.difference, difference[0], atol=1e-12)
        expected = np.quantile(difference[1:], [0.025, 0.975])
        np.testing.assert_allclose([row.low, row.high], expected, atol=1e-12)


def test_what_a_modality_contains_is_not_in_the_mean():
    contained = INDICATORS.assign(contained_in=[["flows"], [], []])
    found = compare(methods(), contained, draws=5)
    assert ALL_TASKS not in set(found["task"])  # one task is left, and stands for itself


def test_a_method_against_itself_differs_by_nothing():
    frame = predictions(30, tasks=TASKS)
    found = compare({("m", "default"): frame, ("m", "again"): frame.copy()}, INDICATORS)
    assert len(found) == 4
    assert (found[["difference", "low", "high"]] == 0).all(axis=None)


def test_the_interval_covers_the_true_difference_as_often_as_it_says():
    def frame(y, pred):
        ids = [f"r{i:04d}" for i in range(len(y))]
        shared = {"task": "income", "split": "random", "fold": 0, "seed": 0, "slot": 0}
        values = {"y_true": y, "y_pred": pred, "y_true_original": y, "y_pred_original": pred}
        return pd.DataFrame({"region_id": ids, "variant": "v", **values}).assign(**shared)

    generator = np.random.default_rng(0)
    expected = 0.6**2 - 0.4**2  # the truth has variance 1, so R2 is 1 - error variance
    hits = 0
    for _ in range(120):
        y, common, own_a, own_b = generator.normal(size=(4, 150))
        a = y + 0.4 * (0.8 * common + 0.6 * own_a)
        b = y + 0.6 * (0.8 * common + 0.6 * own_b)
        found = compare(
            {("a", "v"): frame(y, a), ("b", "v"): frame(y, b)}, INDICATORS, draws=300
        ).iloc[0]
        hits += found["method_a"] == "a" and found["low"] <= expected <= found["high"]
    assert 0.89 <= hits / 120 <= 0.99


def test_a_large_mean_costs_no_digits():
    def shifted(frame, by):
        rows = frame[frame["task"] != "land_use"]
        return rows.assign(y_true=rows["y_true"] + by, y_pred=rows["y_pred"] + by)

    near, far = (
        compare({k: shifted(f, by) for k, f in methods().items()}, INDICATORS, draws=50)
        for by in (0, 2**24)
    )
    columns = ["difference", "low", "high"]
    np.testing.assert_allclose(near[columns], far[columns], rtol=1e-5)


def test_whole_blocks_give_wider_intervals_where_neighbours_err_together():
    generator = np.random.default_rng(0)
    block = np.repeat(np.arange(30), 10)
    ids = [f"r{i:04d}" for i in range(300)]
    y = generator.normal(size=300)
    frames = {}
    for name, size in (("a", 0.3), ("b", 0.8)):
        pred = y + size * generator.normal(size=30)[block]
        values = {"y_true": y, "y_pred": pred, "y_true_original": y, "y_pred_original": pred}
        shared = {"task": "income", "split": "spatial", "fold": 0, "seed": 0, "slot": 0}
        frame = pd.DataFrame({"region_id": ids, "variant": "v", **values}).assign(**shared)
        frames[name, "v"] = frame
    splits = pd.DataFrame(
        {"split": "spatial", "fold": 0, "region_id": ids, "block": [f"b{b}" for b in block]}
    )
    apart = compare(frames, INDICATORS).iloc[0]
    together = compare(frames, INDICATORS, splits=splits).iloc[0]
    assert apart["difference"] == pytest.approx(together["difference"])
    assert together["high"] - together["low"] > 1.5 * (apart["high"] - apart["low"])


def test_follows_its_contract_and_repeats_itself():
    found = compare(methods(), INDICATORS, draws=100)
    assert_follows_contract("comparisons", found)
    assert len(found) == 12
    assert (found["difference"] >= 0).all()
    assert (found["low"] <= found["high"]).all()
    assert set(found["regions"]) == {40}
    backwards = dict(reversed(methods().items()))
    pd.testing.assert_frame_equal(found, compare(backwards, INDICATORS, draws=100))
    assert not found.equals(compare(methods(), INDICATORS, draws=100, seed=1))


def test_only_tasks_that_both_predict_are_compared():
    frames = methods()
    frames["narrow", "default"] = predictions(40, tasks=("flow",), rng=9)
    del frames["good", "small"]
    found = compare(frames, INDICATORS, draws=20)
    assert found["task"].value_counts().to_dict() == {"flow": 3, "income": 1, "land_use": 1}
    alone = compare({("m", "v"): predictions()}, INDICATORS)
    assert alone.empty
    assert_follows_contract("comparisons", alone)


def test_what_is_not_estimable_is_null():
    frames = {(name, "v"): predictions(1, tasks=("income",), rng=i) for i, name in enumerate("ab")}
    found = compare(frames, INDICATORS, draws=20)
    assert found[["difference", "low", "high"]].isna().all(axis=None)
    assert_follows_contract("comparisons", found)
    constant = {
        key: frame.assign(y_true=0.1)
        for key, frame in zip(frames, [predictions(tasks=("income",))] * 2, strict=True)
    }
    assert compare(constant, INDICATORS, draws=20)["difference"].isna().all()


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f[f["region_id"] != "r003"],
        lambda f: f[(f["region_id"] != "r003") | (f["seed"] != 1)],
        lambda f: f.assign(y_true=f["y_true"] * 1.01),
        lambda f: f.assign(region_id=f["region_id"].replace("r003", "elsewhere")),
    ],
)
def test_other_rows_or_another_truth_are_errors(change):
    frame = predictions(tasks=("income",))
    with pytest.raises(DataError, match=r"income \(random split\).*b/v.*a/v"):
        compare({("a", "v"): frame, ("b", "v"): change(frame)}, INDICATORS, draws=5)


def test_a_region_without_a_block_is_an_error():
    splits = pd.DataFrame({"split": "random", "fold": 0, "region_id": ["r000"], "block": ["b"]})
    frame = predictions(tasks=("income",))
    with pytest.raises(DataError, match="no block"):
        compare({("a", "v"): frame, ("b", "v"): frame}, INDICATORS, splits=splits, draws=5)


def test_weights_come_in_chunks_that_hold_every_draw(monkeypatch):
    monkeypatch.setattr("model_code.evaluation.compare._CHUNK", 50)
    chunks = list(weights(20, 7, seed=0))
    assert [len(chunk) for chunk in chunks] == [2, 2, 2, 1]
    assert (np.concatenate(chunks).sum(axis=1) == 20).all()
