"""Heads on frozen embeddings: ridge with inner selection, or a small MLP.

N regions, D embedding width, C output columns (one a slot of a scalar or hourly task, one a class
of a classification), L strengths.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model_code.errors import DataError
from model_code.methods.base import Checkpoint, Floats, Parts, Targets, Task
from model_code.scaling import Scaler

# Penalties relative to the number of training regions; embeddings are standardised, so 1 means that
# an axis is shrunk to about half.
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
    """Least squares with a squared penalty; a classification is fitted on its 0/1 class columns,
    and its standardised columns are compared, so that rare classes are not passed over.

    Tasks that are missing in the same training regions share one decomposition, over all strengths
    at once. A task's strength is the one with the least squared error on its labelled validation
    regions; without any, by leave-one-out inside the training regions.
    """
    scaler = Scaler.fit(embedding, parts.train)
    inputs = scaler.apply(embedding)
    labels = np.hstack([_columns(task, targets.values[task.name]) for task in targets.tasks])
    ends = np.cumsum([output_columns(task) for task in targets.tasks])
    spans = [(int(e - output_columns(t)), int(e)) for t, e in zip(targets.tasks, ends, strict=True)]
    target_scaler = Scaler.fit(labels, parts.train)
    labels = target_scaler.apply(labels)

    known = np.isfinite(labels)
    weight = np.zeros((inputs.shape[1], labels.shape[1]))
    bias = np.zeros(labels.shape[1])
    errors = np.empty((len(STRENGTHS), labels.shape[1]))
    paths: list[tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]] = []
    patterns, group = np.unique(known[parts.train], axis=1, return_inverse=True)
    for g in range(patterns.shape[1]):
        columns = np.flatnonzero(group.ravel() == g)
        rows = np.flatnonzero(parts.train)[patterns[:, g]]
        weights, biases, left_out = _ridge_path(inputs[rows], labels[np.ix_(rows, columns)])
        predicted = inputs[parts.val] @ weights + biases[:, None]  # [L, V, columns]
        missed = (predicted - labels[parts.val][:, columns]) ** 2
        judged = known[parts.val][:, columns]
        score = np.where(judged, missed, 0).sum(axis=1) / np.maximum(judged.sum(axis=0), 1)
        errors[:, columns] = np.where(judged.any(axis=0), score, left_out)
        paths.append((columns, weights, biases))
    best = np.empty(labels.shape[1], np.int64)
    for start, end in spans:
        best[start:end] = errors[:, start:end].mean(axis=1).argmin()
    for columns, weights, biases in paths:
        chosen, position = best[columns], np.arange(len(columns))
        weight[:, columns] = weights[chosen, :, position].T
        bias[columns] = biases[chosen, position]

    # Numbers return to the transformed scale; a class that training never saw cannot win.
    scale, middle = target_scaler.scale.copy(), target_scaler.mean.copy()
    for task, (start, end) in zip(targets.tasks, spans, strict=True):
        if task.kind == "classification":
            seen = middle[start:end] > 0
            scale[start:end], middle[start:end] = 1.0, np.where(seen, 0.0, -np.inf)

    record = {
        "head": "ridge",
        "tasks": [
            {
                "name": task.name,
                "kind": task.kind,
                "columns": list(span),
                "strength": float(STRENGTHS[best[span[0]]]),
            }
            for task, span in zip(targets.tasks, spans, strict=True)
        ],
    }
    return Checkpoint(
        {
            "mean": scaler.mean,
            "scale": scaler.scale,
            "weight": weight * scale,
            "bias": bias * scale + middle,
        },
        record,
    )


def _ridge_path(inputs: Floats, labels: Floats) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
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


def _columns(task: Task, values: Floats) -> Floats:
    """Labels [N, slots] as output columns: 0/1 by class for a classification; NaN stays."""
    if task.kind != "classification":
        return np.asarray(values, np.float64)
    hot = (values == np.arange(len(task.classes))).astype(np.float64)
    return np.where(np.isfinite(values), hot, np.nan)
