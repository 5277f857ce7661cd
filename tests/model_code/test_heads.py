from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from model_code.errors import DataError
from model_code.heads import STRENGTHS, fit_head, predict_head
from model_code.methods.base import Checkpoint, Parts, Targets, Task
from tests.model_code.methods.fake_city import r2

NUMBER = Task("number", "regression")
OTHER = Task("other", "regression")
HOURS = Task("hours", "hourly", slots=24)
KIND = Task("kind", "classification", classes=("a", "b", "c", "never"))


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, Targets, Parts]:
    """Embeddings that hold the labels linearly; the labels are missing in different regions."""
    rng = np.random.default_rng(0)
    n, width = 120, 7
    embedding = rng.normal(3, [1, 10, 0.1, 1, 1, 1, 0], (n, width)).astype(np.float32)
    z = (embedding - 3) / [1, 10, 0.1, 1, 1, 1, 1]
    hours = z @ rng.normal(size=(width, 24)) + 0.2 * rng.normal(size=(n, 24))
    kind = np.digitize(z[:, 0] + 0.1 * rng.normal(size=n), [-0.5, 1.2]).astype(float)
    values = {
        "number": (z @ rng.normal(size=(width, 1)) + 0.5 * rng.normal(size=(n, 1))) * 40 + 7,
        "other": z[:, :1] * 0.01,
        "hours": hours,
        "kind": kind[:, None],
    }
    values["other"][rng.random(n) < 0.3] = np.nan
    values["hours"][rng.random(n) < 0.1, 5:] = np.nan
    values["kind"][rng.random(n) < 0.2] = np.nan
    order = rng.permutation(n)
    parts = Parts(order < 70, (order >= 70) & (order < 95), order >= 95)
    return embedding, Targets((NUMBER, OTHER, HOURS, KIND), values), parts


@pytest.fixture(scope="module", params=["ridge", "mlp"])
def fitted(world: tuple, request: pytest.FixtureRequest) -> tuple[str, Checkpoint]:
    return request.param, fit_head(*world, request.param)


def naive_ridge(
    embedding: np.ndarray, labels: np.ndarray, parts: Parts
) -> tuple[float, np.ndarray]:
    """Strength and predictions of one scalar task, by scikit-learn, one strength after another."""
    wide = embedding.astype(np.float64)
    mean, deviation = wide[parts.train].mean(axis=0), wide[parts.train].std(axis=0)
    wide = (wide - mean) / np.where(deviation > 0, deviation, 1)
    known = np.isfinite(labels)
    train, val = parts.train & known, parts.val & known
    best: tuple[float, float, np.ndarray] | None = None
    for strength in STRENGTHS:
        model = Ridge(strength * train.sum(), solver="svd").fit(wide[train], labels[train])
        error = ((model.predict(wide[val]) - labels[val]) ** 2).mean()
        if best is None or error < best[0]:
            best = (error, strength, model.predict(wide))
    assert best is not None
    return best[1], best[2]


@pytest.mark.parametrize("task", ["number", "other"])
def test_ridge_equals_the_naive_search(world: tuple, task: str) -> None:
    embedding, targets, parts = world
    checkpoint = fit_head(embedding, targets, parts)
    strength, expected = naive_ridge(embedding, targets.values[task][:, 0], parts)
    record = {t["name"]: t for t in checkpoint.record["tasks"]}
    assert record[task]["strength"] == strength
    np.testing.assert_allclose(predict_head(checkpoint, embedding)[task][:, 0], expected, rtol=1e-6)


def test_without_validation_labels_the_strength_is_the_best_by_leave_one_out(world: tuple) -> None:
    embedding, targets, parts = world
    labels = targets.values["number"].copy()
    labels[parts.val] = np.nan
    alone = Targets((NUMBER,), {"number": labels})
    rows = np.flatnonzero(parts.train)
    wide = embedding[rows].astype(np.float64)
    wide = (wide - wide.mean(axis=0)) / np.where(wide.std(axis=0) > 0, wide.std(axis=0), 1)
    errors = []
    for strength in STRENGTHS:
        missed = []
        for i, row in enumerate(rows):
            x, y = np.delete(wide, i, axis=0), np.delete(labels[rows, 0], i)
            centred = x - x.mean(axis=0)
            # The penalty of the whole fit, so that only the row itself is left out.
            gram = centred.T @ centred + strength * len(rows) * np.eye(x.shape[1])
            weight = np.linalg.solve(gram, centred.T @ (y - y.mean()))
            missed.append((wide[i] - x.mean(axis=0)) @ weight + y.mean() - labels[row, 0])
        errors.append(np.square(missed).mean())
    chosen = fit_head(embedding, alone, parts).record["tasks"][0]["strength"]
    assert chosen == STRENGTHS[int(np.argmin(errors))]


def test_heads_learn_every_kind_of_target(world: tuple, fitted: tuple) -> None:
    embedding, targets, parts = world
    predicted = predict_head(fitted[1], embedding)
    assert {name: p.shape[1] for name, p in predicted.items()} == {
        "number": 1, "other": 1, "hours": 24, "kind": 1,
    }  # fmt: skip
    assert r2(predicted["number"], targets.values["number"], parts.test) > 0.8
    assert r2(predicted["hours"], targets.values["hours"], parts.test) > 0.8
    truth = targets.values["kind"]
    known = parts.test & np.isfinite(truth[:, 0])
    assert (predicted["kind"] == truth)[known].mean() > 0.7
    assert set(np.unique(predicted["kind"])) == {0.0, 1.0, 2.0}  # the fourth was never seen


def test_a_head_does_not_read_the_test_rows(world: tuple, fitted: tuple) -> None:
    embedding, targets, parts = world
    kind, first = fitted
    other = embedding.copy()
    other[parts.test] = 1e6
    values = {name: v.copy() for name, v in targets.values.items()}
    for v in values.values():
        v[parts.test] = 0.0
    second = fit_head(other, Targets(targets.tasks, values), parts, kind)
    assert first.record == second.record
    for name, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, second.tensors[name])


def test_a_prediction_does_not_depend_on_the_other_rows(world: tuple, fitted: tuple) -> None:
    embedding, checkpoint = world[0], fitted[1]
    whole, part = predict_head(checkpoint, embedding), predict_head(checkpoint, embedding[5:9])
    for name, predicted in part.items():
        np.testing.assert_allclose(predicted, whole[name][5:9], rtol=1e-4, atol=1e-5)


def test_discriminants_equal_the_naive_ones(world: tuple) -> None:
    embedding, targets, parts = world
    checkpoint = fit_head(embedding, Targets((KIND,), {"kind": targets.values["kind"]}), parts)
    wide = (embedding - checkpoint.tensors["mean"]) / checkpoint.tensors["scale"]
    codes = targets.values["kind"][:, 0]
    rows = parts.train & np.isfinite(codes)
    means = np.stack([wide[rows & (codes == c)].mean(axis=0) for c in range(3)])
    residual = wide[rows] - means[codes[rows].astype(int)]
    strength = checkpoint.record["tasks"][0]["strength"]
    inverse = np.linalg.inv(residual.T @ residual / rows.sum() + strength * np.eye(7))
    scores = [
        wide @ inverse @ mean - mean @ inverse @ mean / 2 + np.log((codes[rows] == c).sum()) / 2
        for c, mean in enumerate(means)
    ]
    predicted = predict_head(checkpoint, embedding)["kind"][:, 0]
    np.testing.assert_array_equal(predicted, np.argmax(scores, axis=0))


def test_a_class_between_two_others_is_found(world: tuple) -> None:
    embedding, _, parts = world
    band = np.digitize(embedding[:, 0], [2.5, 3.5]).astype(float)[:, None]
    targets = Targets((Task("band", "classification", classes=("l", "m", "h")),), {"band": band})
    predicted = predict_head(fit_head(embedding, targets, parts), embedding)["band"]
    assert (predicted == band)[band == 1].mean() > 0.8


def test_rare_classes_are_predicted(world: tuple) -> None:
    embedding, _, parts = world
    rare = (embedding[:, 3] > 4.2).astype(float)[:, None]
    assert 0.05 < rare.mean() < 0.2
    targets = Targets((Task("rare", "classification", classes=("no", "yes")),), {"rare": rare})
    predicted = predict_head(fit_head(embedding, targets, parts), embedding)["rare"]
    assert (predicted == rare)[rare == 1].mean() > 0.9


def test_the_seed_decides_an_mlp(world: tuple) -> None:
    embedding, targets, parts = world
    few = Targets((NUMBER,), {"number": targets.values["number"]})
    zero, again, one = (fit_head(embedding, few, parts, "mlp", seed=s) for s in (0, 0, 1))
    assert all(np.array_equal(zero.tensors[k], again.tensors[k]) for k in zero.tensors)
    assert any(not np.array_equal(zero.tensors[k], one.tensors[k]) for k in zero.tensors)


def test_what_cannot_be_learned_is_refused(world: tuple) -> None:
    embedding, targets, parts = world
    values = {**targets.values, "other": np.where(parts.train[:, None], np.nan, 1.0)}
    with pytest.raises(DataError, match=r"'other' has no label[^\n]*\n.*indicators\.other"):
        fit_head(embedding, Targets(targets.tasks, values), parts)
    broken = embedding.copy()
    broken[np.flatnonzero(parts.val)[0], 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        fit_head(broken, targets, parts)
