import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from model_code.errors import DataError
from model_code.evaluation.reachable import Noise, krige, reachable
from tests.model_code.evaluation.data import assert_follows_contract

VARIANCE, NUGGET, RANGE_M = 0.6, 0.2, 3000.0


def noise_of(count, slots=1):
    return Noise(RANGE_M, np.full(slots, VARIANCE), np.full((count, slots), NUGGET))


def covariance(a, b, range_m=RANGE_M):
    distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return VARIANCE * np.exp(-distance / range_m)


def dense(given, residual, at, nugget=NUGGET):
    """Simple kriging as the textbook writes it."""
    within = covariance(given, given) + nugget * np.eye(len(given))
    return covariance(at, given) @ np.linalg.inv(within) @ residual


def scene(count, rng=0, slots=1, range_m=RANGE_M):
    """A city whose labels are a known function plus noise of known covariance."""
    generator = np.random.default_rng(rng)
    xy = generator.uniform(0, 1000 * np.sqrt(count), (count, 2))
    root = np.linalg.cholesky(covariance(xy, xy, range_m) + NUGGET * np.eye(count))
    free = generator.normal(size=(count, slots)) * 1.5
    label = free + root @ generator.normal(size=(count, slots))
    ids = np.array([f"r{i:05d}" for i in range(count)])
    keys = {"region_id": np.repeat(ids, slots), "slot": np.tile(np.arange(slots), count)}
    truth = pd.DataFrame({**keys, "value_transformed": free.ravel()}).assign(
        indicator="x",
        noise_variance=VARIANCE,
        noise_range_m=range_m,
        nugget_variance=NUGGET,
    )
    targets = pd.DataFrame({**keys, "indicator": "x", "value": label.ravel()})
    indicators = pd.DataFrame({"indicator": ["x"], "kind": ["regression"], "transform": ["none"]})
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
    np.testing.assert_allclose(krige(given, residual, at, noise_of(60, 3)), expected)
    monkeypatch.setattr("model_code.evaluation.reachable._CHUNK", 7 * 60**2)
    np.testing.assert_allclose(krige(given, residual, at, noise_of(60, 3)), expected)


def test_64_neighbours_come_close_to_the_dense_solution():
    generator = np.random.default_rng(1)
    xy = generator.uniform(0, 22_000, (500, 2))
    root = np.linalg.cholesky(covariance(xy, xy) + NUGGET * np.eye(500))
    field = root @ generator.normal(size=(500, 1))
    local = krige(xy[:450], field[:450], xy[450:], noise_of(450))
    exact = dense(xy[:450], field[:450], xy[450:])
    assert np.abs(local - exact).max() < 0.05 * exact.std()


def test_kriging_without_correlated_noise_or_without_regions_adds_nothing():
    xy, residual = np.zeros((3, 2)), np.ones((3, 2))
    none = Noise(RANGE_M, np.zeros(2), np.zeros((3, 2)))
    assert (krige(xy, residual, xy, none) == 0).all()
    assert (krige(xy[:0], residual[:0], xy, noise_of(0, 2)) == 0).all()


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
    found, expected = [], []
    for rng in range(24):
        city = scene(400, rng=rng, range_m=1500.0)
        found.append(reachable(*city)[["true_function", "with_kriging"]].iloc[0])
        xy = city[4][["x_m", "y_m"]].to_numpy()
        test = (city[3]["part"] == "test").to_numpy()
        within = covariance(xy[~test], xy[~test], 1500.0) + NUGGET * np.eye((~test).sum())
        toward = covariance(xy[test], xy[~test], 1500.0)
        explained = np.einsum("ij,ij->i", toward, np.linalg.solve(within, toward.T).T).mean()
        noise, total = VARIANCE + NUGGET, 1.5**2 + VARIANCE + NUGGET
        expected.append([1 - noise / total, 1 - (noise - explained) / total])
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
    original = targets.assign(value=np.expm1(targets["value"].clip(0, 3)))
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


def test_slots_and_regions_may_have_noise_of_their_own():
    truth, targets, indicators, splits, regions = scene(80, slots=3)
    own = np.random.default_rng(0).uniform(0.05, 2.0, (80, 3))
    truth["nugget_variance"] = own.ravel()
    truth.loc[truth["slot"] == 1, "noise_variance"] = 0.0
    truth.loc[truth["slot"] == 2, "noise_variance"] = 2 * VARIANCE
    found = reachable(truth, targets, indicators, splits, regions).iloc[0]
    free = truth["value_transformed"].to_numpy().reshape(-1, 3)
    label = targets["value"].to_numpy().reshape(-1, 3)
    test = (splits["part"] == "test").to_numpy()
    xy = regions[["x_m", "y_m"]].to_numpy()
    kriged = free[test].copy()
    for slot, variance in ((0, 1.0), (2, 2.0)):
        nugget = own[~test, slot] / variance
        kriged[:, slot] += dense(xy[~test], (label - free)[~test, slot], xy[test], nugget)
    assert found["with_kriging"] == pytest.approx(r2(label[test], kriged))


def test_classes_are_scored_by_their_labels_without_kriging():
    truth, targets, _, splits, regions = scene(100)
    generator = np.random.default_rng(0)
    names = np.array(["farm", "house", "mill", "shop"])  # no region was seen as a farm
    free = generator.integers(0, 4, 100)
    seen = np.where((free == 0) | (generator.random(100) < 0.2), 3, free)
    truth = truth.assign(label=names[free], noise_variance=0.0, nugget_variance=0.0)
    targets = targets.assign(value=seen - 1.0)
    indicators = pd.DataFrame(
        {
            "indicator": ["x"],
            "kind": ["classification"],
            "transform": ["none"],
            "classes": [names[1:]],
        }
    )
    found = reachable(truth, targets, indicators, splits, regions).iloc[0]
    test = (splits["part"] == "test").to_numpy()
    expected = f1_score(names[seen][test], names[free][test], average="macro", zero_division=0)
    assert (found["scale"], found["metric"]) == ("class", "macro_f1")
    assert found["true_function"] == pytest.approx(expected)
    assert np.isnan(found["with_kriging"])


def test_follows_its_contract_and_ignores_the_order_of_rows():
    truth, targets, indicators, splits, regions = scene(60)
    splits = pd.concat(
        [splits, splits.assign(fold=1), splits.assign(split="spatial")], ignore_index=True
    )
    indicators = pd.concat([indicators, indicators.assign(indicator="pois")], ignore_index=True)
    found = reachable(truth, targets, indicators, splits, regions)
    assert_follows_contract("reachable", found)
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
    with pytest.raises(DataError, match="several values"):
        reachable(truth.assign(region_id="r00000"), targets, *rest)
    for column in ("noise_variance", "noise_range_m"):
        wrong = truth.copy()
        wrong.loc[0, column] = 0.1
        with pytest.raises(DataError, match="one variance"):
            reachable(wrong, targets, *rest)
