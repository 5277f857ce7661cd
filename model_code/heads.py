"""Heads on frozen embeddings: linear with inner selection, or a small MLP.

N regions, D embedding width, C output columns (one a slot of a scalar or hourly task, one a class
of a classification), L strengths.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_code.errors import DataError
from model_code.methods.base import Checkpoint, Floats, Parts, Targets, Task
from model_code.scaling import Scaler

# Penalties relative to the number of training regions; embeddings are standardised, so at 1 an axis
# of average variance is shrunk by half.
STRENGTHS = np.logspace(-4, 3, 15)


def fit_head(
    embedding: Floats,
    targets: Targets,
    parts: Parts,
    kind: Literal["ridge", "mlp"] = "ridge",
    seed: int = 0,
) -> Checkpoint:
    """Fit one head a task on `embedding` [N, D] of the training regions; the validation regions
    choose the ridge's strength or the MLP's epoch. Test rows are not read, labels or embeddings.

    Raises:
        DataError: an embedding that is not finite, or a task without a label in training.
    """
    check_labels(targets, parts)
    if not np.isfinite(embedding[parts.train | parts.val]).all():
        raise DataError(
            "an embedding holds NaN or infinite numbers", fix="look at the method's inputs"
        )
    if kind == "mlp":
        from model_code.finetuning import fit_mlp

        return fit_mlp(embedding, targets, parts, seed=seed)
    return _fit_ridge(np.asarray(embedding, np.float64), targets, parts)


def predict_head(checkpoint: Checkpoint, embedding: Floats) -> dict[str, Floats]:
    """By task, predictions of all rows on the transformed scale [N, slots]; codes [N, 1] of the
    classes of a classification."""
    if checkpoint.record["head"] == "mlp":
        from model_code.finetuning import predict_mlp

        return predict_mlp(checkpoint, embedding)
    fitted = checkpoint.tensors
    standardised = Scaler(fitted["mean"], fitted["scale"]).apply(np.asarray(embedding, np.float64))
    outputs = standardised @ fitted["weight"] + fitted["bias"]
    return {
        task["name"]: decode(outputs[:, slice(*task["columns"])], task["kind"])
        for task in checkpoint.record["tasks"]
    }


def check_labels(targets: Targets, parts: Parts) -> None:
    """Raise where a task has nothing to learn from."""
    for task in targets.tasks:
        if not np.isfinite(targets.values[task.name][parts.train]).any():
            raise DataError(
                f"indicator {task.name!r} has no label in any training region of this fold",
                fix=f"remove `indicators.{task.name}`, lower its `min_coverage`, or give the "
                "splits more training regions",
            )


def decode(outputs: Floats, kind: str) -> Floats:
    """Output columns of a task as its prediction: the strongest class, or the numbers themselves."""
    if kind == "classification":
        return np.asarray(outputs.argmax(axis=1)[:, None], np.float64)
    return outputs


def output_columns(task: Task) -> int:
    """How many numbers a head gives for a task."""
    return len(task.classes) if task.kind == "classification" else task.slots


def _fit_ridge(embedding: Floats, targets: Targets, parts: Parts) -> Checkpoint:
    """Ridge for numbers, linear discriminants for classes, each task with a strength of its own."""
    scaler = Scaler.fit(embedding, parts.train)
    inputs = scaler.apply(embedding)
    ends = np.cumsum([output_columns(task) for task in targets.tasks])
    spans = {
        t.name: slice(int(e) - output_columns(t), int(e))
        for t, e in zip(targets.tasks, ends, strict=True)
    }
    weight, bias = np.empty((inputs.shape[1], int(ends[-1]))), np.empty(int(ends[-1]))
    strength: dict[str, float] = {}

    numeric = [task for task in targets.tasks if task.kind != "classification"]
    if numeric:
        labels = np.hstack([targets.values[task.name] for task in numeric])
        widths = [task.slots for task in numeric]
        weights, biases, strengths = _ridge(inputs, labels, widths, parts)
        own = np.concatenate([np.arange(s.start, s.stop) for s in (spans[t.name] for t in numeric)])
        weight[:, own], bias[own] = weights, biases
        strength |= zip((task.name for task in numeric), strengths, strict=True)
    for task in targets.tasks:
        if task.kind == "classification":
            codes = targets.values[task.name][:, 0]
            found = _discriminants(inputs, codes, len(task.classes), parts)
            weight[:, spans[task.name]], bias[spans[task.name]], strength[task.name] = found

    tasks = [
        {
            "name": task.name,
            "kind": task.kind,
            "columns": [spans[task.name].start, spans[task.name].stop],
            "strength": strength[task.name],
        }
        for task in targets.tasks
    ]
    tensors = {"mean": scaler.mean, "scale": scaler.scale, "weight": weight, "bias": bias}
    return Checkpoint(tensors, {"head": "ridge", "tasks": tasks})


def _ridge(
    inputs: Floats, labels: Floats, widths: list[int], parts: Parts
) -> tuple[Floats, Floats, list[float]]:
    """Weights [D, C], intercepts [C] and strengths by task of `labels` [N, C], whose columns belong
    to tasks of the given widths.

    Columns that are missing in the same training regions share one decomposition, over all strengths
    at once. A task's strength has the least squared error on its labelled validation regions;
    without any, by leave-one-out inside the training regions.
    """
    scaler = Scaler.fit(labels, parts.train)
    labels = scaler.apply(labels)
    known = np.isfinite(labels)
    errors = np.empty((len(STRENGTHS), labels.shape[1]))
    paths: list[tuple[NDArray[np.int64], Floats, Floats]] = []
    patterns, group = np.unique(known[parts.train], axis=1, return_inverse=True)
    for g in range(patterns.shape[1]):
        columns = np.flatnonzero(group.ravel() == g)
        rows = np.flatnonzero(parts.train)[patterns[:, g]]
        weights, biases, left_out = _ridge_path(inputs[rows], labels[np.ix_(rows, columns)])
        predicted = inputs[parts.val] @ weights + biases[:, None]  # [L, V, columns]
        judged = known[parts.val][:, columns]
        missed = np.where(judged, predicted - labels[parts.val][:, columns], 0) ** 2
        score = missed.sum(axis=1) / np.maximum(judged.sum(axis=0), 1)
        errors[:, columns] = np.where(judged.any(axis=0), score, left_out)
        paths.append((columns, weights, biases))
    firsts = np.cumsum([0, *widths[:-1]])
    best = np.add.reduceat(errors, firsts, axis=1).argmin(axis=0)  # by task
    chosen = np.repeat(best, widths)
    weight, bias = np.empty((inputs.shape[1], labels.shape[1])), np.empty(labels.shape[1])
    for columns, weights, biases in paths:
        position = np.arange(len(columns))
        weight[:, columns] = weights[chosen[columns], :, position].T
        bias[columns] = biases[chosen[columns], position]
    return weight * scaler.scale, scaler.undo(bias), STRENGTHS[best].tolist()


def _ridge_path(inputs: Floats, labels: Floats) -> tuple[Floats, Floats, Floats]:
    """Weights [L, D, C], intercepts [L, C] and mean squared leave-one-out errors [L, C] for all
    strengths, from one decomposition of `inputs` [n, D]."""
    centre, middle = inputs.mean(axis=0), labels.mean(axis=0)
    left, size, right = np.linalg.svd(inputs - centre, full_matrices=False)  # [n,k] [k] [k,D]
    penalty = STRENGTHS[:, None] * len(inputs)
    projected = left.T @ (labels - middle)  # [k, C]
    shrunk = size / (size**2 + penalty)  # [L, k]
    weights = right.T @ (shrunk[:, :, None] * projected)  # [L, D, C]
    fitted = left @ ((shrunk * size)[:, :, None] * projected) + middle  # [L, n, C]
    leverage = (left**2) @ (shrunk * size).T + 1 / len(inputs)  # [n, L]
    free = np.maximum(1 - leverage.T[:, :, None], 1e-12)
    left_out = (((labels - fitted) / free) ** 2).mean(axis=1)
    return weights, middle - centre @ weights, left_out


def _discriminants(
    inputs: Floats, codes: Floats, classes: int, parts: Parts
) -> tuple[Floats, Floats, float]:
    """Weights [D, C], intercepts [C] and strength of a regularised linear discriminant analysis
    (Friedman 1989): the covariance within classes plus the strength on its diagonal.

    Unlike least squares on 0/1 columns it does not pass over a class that lies between two others.
    Priors are the square roots of the classes' shares: between accuracy (shares) and macro F1
    (equal). The strength has the least log loss on the labelled validation regions; 1 without any.
    """
    known = np.isfinite(codes)
    rows = parts.train & known
    own, count = (
        codes[rows].astype(np.int64),
        np.bincount(codes[rows].astype(np.int64), minlength=classes),
    )
    seen = count > 0
    means = np.zeros((classes, inputs.shape[1]))
    np.add.at(means, own, inputs[rows])
    means /= np.maximum(count, 1)[:, None]
    _, size, right = np.linalg.svd(inputs[rows] - means[own], full_matrices=False)  # [k] [k, D]
    within = size**2 / rows.sum()
    inside = means @ right.T  # [C, k]
    outside = means - inside @ right  # where classes have no spread at all
    strengths = STRENGTHS[:, None, None]
    weights = (inside / (within + strengths)) @ right + outside / strengths  # [L, C, D]
    prior = np.where(seen, 0.5 * np.log(np.maximum(count, 1)), -np.inf)
    biases = prior - 0.5 * (weights * means).sum(axis=2)  # [L, C]

    judges = parts.val & known
    best = int(np.flatnonzero(STRENGTHS >= 1)[0])
    if judges.any():
        scores = inputs[judges] @ weights.transpose(0, 2, 1) + biases[:, None]  # [L, V, C]
        scores -= scores.max(axis=2, keepdims=True)
        true = np.take_along_axis(scores, codes[judges].astype(np.int64)[None, :, None], axis=2)
        share = np.exp(true[:, :, 0]) / np.exp(scores).sum(axis=2)
        best = int(np.log(share + 1e-6).mean(axis=1).argmax())
    return weights[best].T, biases[best], float(STRENGTHS[best])
