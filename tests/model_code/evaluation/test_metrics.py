import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as peer

from model_code.errors import DataError
from model_code.evaluation import metrics
from model_code.evaluation.metrics import score
from tests.model_code.evaluation.data import INDICATORS, predictions

GROUPS = 7


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    group = generator.integers(0, GROUPS, 500)
    true = np.where(generator.random(500) < 0.1, 0.0, generator.normal(3, 2, 500))
    return true, true + generator.normal(size=500), group


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.r2, peer.r2_score),
        (metrics.rmse, peer.root_mean_squared_error),
        (metrics.mae, peer.mean_absolute_error),
    ],
)
def test_regression_agrees_with_scikit_learn(rows, ours, theirs):
    true, pred, group = rows
    expected = [theirs(true[group == g], pred[group == g]) for g in range(GROUPS)]
    np.testing.assert_allclose(ours(true, pred, group, GROUPS), expected)
    np.testing.assert_allclose(ours(true, pred), [theirs(true, pred)])


def test_mape_leaves_out_true_zeros_and_counts_them(rows):
    true, pred, group = rows
    kept = true != 0
    expected = [
        peer.mean_absolute_percentage_error(true[kept & (group == g)], pred[kept & (group == g)])
        for g in range(GROUPS)
    ]
    np.testing.assert_allclose(metrics.mape(true, pred, group, GROUPS), expected)
    left_out = metrics.zero_truths(true, group, GROUPS)
    assert left_out.sum() == (~kept).sum() > 0
    assert left_out[0] == ((true == 0) & (group == 0)).sum()
    assert np.isnan(metrics.mape(np.zeros(3), np.ones(3))).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_classes_agree_with_scikit_learn(pairs):
    true, pred = np.array(pairs, float).T
    hit, seen, named = metrics.class_counts(true, pred, classes=6)
    f1 = peer.f1_score(true, pred, average="macro", zero_division=0)
    np.testing.assert_allclose(metrics.macro_f1(hit, seen, named), [f1])
    np.testing.assert_allclose(metrics.accuracy(hit, seen), [peer.accuracy_score(true, pred)])
    present = sorted(set(true))
    recall = peer.recall_score(true, pred, labels=present, average="macro", zero_division=0)
    np.testing.assert_allclose(metrics.macro_recall(hit, seen), [recall])


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 / 3])
def test_r2_of_a_constant_truth_is_not_estimable(constant):
    true, pred = np.full(1001, constant), np.linspace(0, 1, 1001)
    assert np.isnan(metrics.r2(true, pred)).all()


def test_an_empty_group_is_not_estimable():
    y, group = np.array([1.0, 2.0]), np.array([2, 2])
    for metric in (metrics.r2, metrics.rmse, metrics.mae, metrics.mape):
        assert np.isnan(metric(y, y, group, 3)).tolist() == [True, True, False]


def test_score_is_what_a_loop_over_groups_gives():
    table = predictions(tasks=("flow", "income", "land_use"))
    scores = score(table.sample(frac=1, random_state=0), INDICATORS)
    assert not scores.duplicated([*metrics.FIT, "scale", "metric"]).any()
    assert len(scores) == 4 * (8 + 8 + 3)  # folds x seeds x (hourly, regression, class)
    found = scores.set_index([*metrics.FIT, "scale", "metric"])["value"]
    for key, rows in table.groupby(metrics.FIT):
        true, pred = rows["y_true"], rows["y_pred"]
        if key[1] == "land_use":
            assert found[(*key, "class", "accuracy")] == pytest.approx(
                peer.accuracy_score(true, pred)
            )
            f1 = peer.f1_score(true, pred, average="macro", zero_division=0)
            assert found[(*key, "class", "macro_f1")] == pytest.approx(f1)
            continue
        assert found[(*key, "transformed", "r2")] == pytest.approx(peer.r2_score(true, pred))
        true, pred = rows["y_true_original"], rows["y_pred_original"]
        assert found[(*key, "original", "mae")] == pytest.approx(
            peer.mean_absolute_error(true, pred)
        )
    left_out = scores[(scores["task"] == "income") & (scores["left_out"] > 0)]
    assert set(left_out["metric"]) == {"mape"}
    assert set(left_out["left_out"]) == {1}
    assert set(scores["n_test"]) == {12}  # regions, not region-hours


def test_one_test_region_is_not_estimable_even_with_many_hours():
    scores = score(predictions(regions=1, tasks=("flow", "land_use")), INDICATORS)
    assert scores["value"].isna().all()
    assert set(scores["n_test"]) == {1}


def test_score_without_classes_or_without_numbers():
    assert set(score(predictions(tasks=("income",)), INDICATORS)["scale"]) == {
        "original",
        "transformed",
    }
    assert set(score(predictions(tasks=("land_use",)), INDICATORS)["scale"]) == {"class"}


def test_unknown_tasks_and_values_that_are_not_finite_are_errors():
    table = predictions(tasks=("income",))
    with pytest.raises(DataError, match="wealth"):
        score(table.assign(task="wealth"), INDICATORS)
    table.loc[3, "y_pred_original"] = np.inf
    with pytest.raises(DataError, match=r"1 value.*y_pred_original.*income"):
        score(table, INDICATORS)


def test_score_is_independent_of_string_dtype():
    table = predictions()
    strings = ["variant", "task", "split", "region_id"]
    categorical = table.astype(dict.fromkeys(strings, "category"))
    found = score(categorical, INDICATORS)
    for column in metrics.FIT[:3]:
        found[column] = found[column].astype("str")
    pd.testing.assert_frame_equal(found, score(table, INDICATORS))
