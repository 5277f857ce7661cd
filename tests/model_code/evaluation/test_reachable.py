import numpy as np
import pandas as pd
import pytest

from model_code.errors import DataError
from model_code.evaluation.reachable import Noise, krige, reachable
from model_code.tables import contract

NOISE = Noise(variance=0.6, range_m=3000.0, nugget=0.2)


def covariance(a, b, noise=NOISE):
    distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return noise.variance * np.exp(-distance / noise.range_m)


def dense(given, residual, at, noise=NOISE):
    """Simple kriging as the textbook writes it."""
    within = covariance(given, given, noise) + noise.nugget * np.eye(len(given))
    return covariance(at, given, noise) @ np.linalg.inv(within) @ residual


def scene(count, rng=0, slots=1, kind="regression", noise=NOISE):
    """A city whose labels are a known function plus noise of known covariance."""
    generator = np.random.default_rng(rng)
    xy = generator.uniform(0, 1000 * np.sqrt(count), (count, 2))
    root = np.linalg.cholesky(covariance(xy, xy, noise) + noise.nugget * np.eye(count))
    free = generator.normal(size=(count, slots)) * 1.5
    label = free + root @ generator.normal(size=(count, slots))
    if kind == "classification":
        free = np.floor(generator.uniform(0, 3, (count, slots)))
        label = np.where(generator.random((count, slots)) < 0.3, 2.0, free)
    ids = np.array([f"r{i:05d}" for i in range(count)])
    keys = {"region_id": np.repeat(ids, slots), "slot": np.tile(np.arange(slots), count)}
    truth = pd.DataFrame({**keys, "value_transformed": free.ravel()}).assign(
        indicator="x",
        noise_variance=noise.variance,
        noise_range_m=noise.range_m,
        nugget_variance=noise.nugget,
    )
    targets = pd.DataFrame({**keys, "indicator": "x", "value": label.ravel()})
    indicators = pd.DataFrame({"indicator": ["x"], "kind": [kind], "transform": ["none"]})
    regions = pd.DataFrame({"region_id": ids, "x_m": xy[:, 0], "y_m": xy[:, 1]})
    part = np.array(["train", "train", "train", "val", "test"])[np.arange(count) % 5]
    splits = pd.DataFrame({"split": "random", "fold": 0, "region_id": ids, "part": part})
    return truth, targets, indicators, splits, regions


def r2(true, pred):
    return 1 - ((true - pred) ** 2).sum() / ((true - true.mean()) ** 2).sum()


def test_kriging_from_all_neighbours_is_the_dense_solution(monkeypatch):
    generator = np.random.default_rng(0)
    given, at = generator.uniform(0, 10_000, (2, 60, 2))
    residual = generator.normal(size=(60, 3))
    expected = dense(given, residual, at)
    np.testing.assert_allclose(krige(given, residual, at, NOISE), expected)
    monkeypatch.setattr("model_code.evaluation.reachable._CHUNK", 7 * 60**2)
    np.testing.assert_allclose(krige(given, residual, at, NOISE), expected)


def test_64_neighbours_come_close_to_the_dense_solution():
    generator = np.random.default_rng(1)
    xy = generator.uniform(0, 30_000, (900, 2))
    root = np.linalg.cholesky(covariance(xy, xy) + NOISE.nugget * np.eye(900))
    field = root @ generator.normal(size=(900, 1))
    local = krige(xy[:800], field[:800], xy[800:], NOISE)
    exact = dense(xy[:800], field[:800], xy[800:])
    assert np.abs(local - exact).max() < 0.05 * exact.std()


def test_kriging_without_correlated_noise_or_without_regions_adds_nothing():
    xy, residual = np.zeros((3, 2)), np.ones((3, 2))
    assert (krige(xy, residual, xy, Noise(0.0, 1.0, 0.0)) == 0).all()
    assert (krige(xy[:0], residual[:0], xy, NOISE) == 0).all()


def test_equals_the_dense_solution_on_a_small_city():
    truth, targets, _, splits, regions = city = scene(70, slots=2)
    found = reachable(*city).iloc[0]
    free = truth["value_transformed"].to_numpy().reshape(-1, 2)
    label = targets["value"].to_numpy().reshape(-1, 2)
    test = (splits["part"] == "test").to_numpy()
    xy = regions[["x_m", "y_m"]].to_numpy()
    kriged = free[test] + dense(xy[~test], (label - free)[~test], xy[test])
    assert found["true_function"] == pytest.approx(r2(label[test], free[test]))
    assert found["with_kriging"] == pytest.approx(r2(label[test], kriged))
    assert found["n_test"] == 14


def test_reaches_the_theoretical_value():
    noise = Noise(variance=0.6, range_m=1500.0, nugget=0.2)
    found, expected = [], []
    for rng in range(8):
        city = scene(800, rng=rng, noise=noise)
        found.append(reachable(*city)[["true_function", "with_kriging"]].iloc[0])
        xy = city[4][["x_m", "y_m"]].to_numpy()
        test = (city[3]["part"] == "test").to_numpy()
        within = covariance(xy[~test], xy[~test], noise) + noise.nugget * np.eye((~test).sum())
        toward = covariance(xy[test], xy[~test], noise)
        explained = np.einsum("ij,ij->i", toward, np.linalg.solve(within, toward.T).T).mean()
        left, total = noise.variance + noise.nugget, 1.5**2 + noise.variance + noise.nugget
        expected.append([1 - left / total, 1 - (left - explained) / total])
    np.testing.assert_allclose(np.mean(found, axis=0), np.mean(expected, axis=0), atol=0.02)
    assert np.mean(expected, axis=0)[1] > np.mean(expected, axis=0)[0] + 0.05


def test_reads_no_label_of_a_test_region():
    truth, targets, indicators, splits, regions = scene(60)
    test = targets["region_id"].isin(splits.loc[splits["part"] == "test", "region_id"])
    other = targets.assign(value=targets["value"].where(~test, targets["value"] * 2 + 1))

    def kriged_error(targets):
        found = reachable(truth, targets, indicators, splits, regions).iloc[0]
        label = targets.loc[test, "value"].to_numpy()
        return (1 - found["with_kriging"]) * ((label - label.mean()) ** 2).sum()

    xy = regions[["x_m", "y_m"]].to_numpy()
    free, label = truth["value_transformed"].to_numpy(), targets["value"].to_numpy()
    kriged = free[test] + dense(xy[~test], (label - free)[~test], xy[test])
    for labels in (targets, other):
        expected = ((labels.loc[test, "value"].to_numpy() - kriged) ** 2).sum()
        assert kriged_error(labels) == pytest.approx(expected)


def test_labels_are_transformed_as_the_indicator_says():
    truth, targets, indicators, splits, regions = scene(60)
    original = targets.assign(value=np.expm1(targets["value"].clip(-1, 3)))
    logged = targets.assign(value=np.log1p(original["value"]))
    plain = reachable(truth, logged, indicators, splits, regions)
    log1p = reachable(truth, original, indicators.assign(transform="log1p"), splits, regions)
    pd.testing.assert_frame_equal(plain, log1p)


def test_a_region_without_a_label_takes_no_part():
    truth, targets, indicators, splits, regions = scene(60)
    rows = np.arange(60)
    wrong = targets.assign(value=targets["value"] + 1e6 * (rows % 4 == 0))
    found = reachable(truth, wrong[rows % 4 != 0], indicators, splits, regions).iloc[0]
    kept = [rows % 4 != 0]
    expected = reachable(
        truth, targets[kept[0]], indicators, splits, regions[kept[0]].reset_index(drop=True)
    ).iloc[0]
    assert found["n_test"] == 9
    assert found["with_kriging"] == pytest.approx(expected["with_kriging"])


def test_slots_may_have_noise_of_their_own():
    truth, targets, indicators, splits, regions = scene(80, slots=2)
    truth.loc[truth["slot"] == 1, "noise_variance"] = 0.0
    found = reachable(truth, targets, indicators, splits, regions).iloc[0]
    free = truth["value_transformed"].to_numpy().reshape(-1, 2)
    label = targets["value"].to_numpy().reshape(-1, 2)
    test = (splits["part"] == "test").to_numpy()
    xy = regions[["x_m", "y_m"]].to_numpy()
    kriged = free[test].copy()
    kriged[:, 0] += dense(xy[~test], (label - free)[~test, 0], xy[test])
    assert found["with_kriging"] == pytest.approx(r2(label[test], kriged))


def test_classes_are_scored_without_kriging():
    truth, targets, *rest = scene(100, kind="classification")
    truth[["noise_variance", "noise_range_m", "nugget_variance"]] = np.nan
    found = reachable(truth, targets, *rest).iloc[0]
    assert (found["scale"], found["metric"]) == ("class", "macro_f1")
    assert 0.5 < found["true_function"] < 1
    assert np.isnan(found["with_kriging"])


def test_follows_its_contract_and_ignores_the_order_of_rows():
    truth, targets, indicators, splits, regions = scene(60)
    splits = pd.concat(
        [splits, splits.assign(fold=1), splits.assign(split="spatial")], ignore_index=True
    )
    indicators = pd.concat([indicators, indicators.assign(indicator="pois")], ignore_index=True)
    found = reachable(truth, targets, indicators, splits, regions)
    assert list(found) == contract("reachable").names()
    assert found["fold"].dtype == np.int32
    assert found[["task", "split", "fold"]].values.tolist() == [
        ["x", "random", 0],
        ["x", "random", 1],
        ["x", "spatial", 0],
    ]  # no truth, no row
    shuffled = (table.sample(frac=1, random_state=0) for table in (truth, targets))
    again = reachable(*shuffled, indicators, splits.sample(frac=1, random_state=0), regions)
    pd.testing.assert_frame_equal(found, again)


def test_a_test_set_of_one_is_not_estimable():
    truth, targets, indicators, splits, regions = scene(5)
    found = reachable(truth, targets, indicators, splits, regions).iloc[0]
    assert found["n_test"] == 1
    assert np.isnan(found["true_function"])


def test_a_truth_that_does_not_fit_is_an_error():
    truth, targets, *rest = scene(10, slots=2)
    with pytest.raises(DataError, match=r"1 slot.*2"):
        reachable(truth[truth["slot"] == 0], targets, *rest)
    truth.loc[0, "noise_variance"] = 0.1
    with pytest.raises(DataError, match="one covariance"):
        reachable(truth, targets, *rest)
