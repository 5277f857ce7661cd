"""Learning from labels with an encoder: probe, finetune, end_to_end or scratch, in one loop.

N regions, B regions in a batch, D embedding width, C output columns of a task (one a slot, or one a
class).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.heads import check_labels, decode, output_columns
from model_code.methods.base import (
    NOWHERE,
    Checkpoint,
    Floats,
    Mask,
    Parts,
    Targets,
    Task,
    Workspace,
)
from model_code.scaling import Scaler
from model_code.training import Settings, evaluating, fit, load_arrays, seeded, state_arrays

Mode = Literal["probe", "finetune", "end_to_end", "scratch"]

_CHUNK = 512  # regions a forward pass outside training


class RegionEncoder(Protocol):
    """An `nn.Module` that holds the city's data (in buffers that its state leaves out) and maps
    indexes of regions [B] to embeddings [B, width]."""

    width: int

    def __call__(self, index: Tensor) -> Tensor:
        """Embeddings [B, width] of the regions `index` [B]."""


class TaskOutputs(nn.Module):
    """What all heads share: whose output columns [B, C] are whose, in the order of the tasks, and the
    scales of the labels. `weights` [T] are the tasks' weights in the loss, 1 unless set."""

    mean: Tensor
    scale: Tensor
    weights: Tensor

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.spans: list[slice] = []  # by task, its columns of the output
        for task in tasks:
            start = self.spans[-1].stop if self.spans else 0
            self.spans.append(slice(start, start + output_columns(task)))
        self.tasks, self.columns = tuple(tasks), self.spans[-1].stop
        self.register_buffer("mean", torch.zeros(self.columns))
        self.register_buffer("scale", torch.ones(self.columns))
        self.register_buffer("weights", torch.ones(len(self.tasks)), persistent=False)

    def set_scales(self, targets: Targets, train: Mask) -> None:
        """Standardise the numbers among the targets on the training regions."""
        for task, span in zip(self.tasks, self.spans, strict=True):
            if task.kind != "classification":
                scaler = Scaler.fit(targets.values[task.name], train)
                self.mean[span] = torch.from_numpy(scaler.mean).float()
                self.scale[span] = torch.from_numpy(scaler.scale).float()

    def encode(self, targets: Targets) -> Tensor:
        """Labels [N, C] as the loss wants them, NaN where missing: standardised numbers; the code of
        a class, repeated in its columns."""
        columns = [
            np.broadcast_to(
                targets.values[t.name], (len(targets.values[t.name]), output_columns(t))
            )
            for t in self.tasks
        ]
        labels = torch.from_numpy(np.hstack(columns)).float()
        return (labels - self.mean) / self.scale

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean over the tasks of the mean over the labels that are there: squared error of
        standardised numbers, cross-entropy of classes; zero for a task without any label here."""
        known = ~labels.isnan()
        labels = labels.nan_to_num()
        squared = (output - labels) ** 2 * known
        losses = []
        for task, span in zip(self.tasks, self.spans, strict=True):
            errors, there = squared[:, span], known[:, span]
            if task.kind == "classification":
                there = there[:, 0]
                codes = labels[:, span.start].long()
                errors = F.cross_entropy(output[:, span], codes, reduction="none") * there
            losses.append(errors.sum() / there.sum().clamp(min=1))
        return (torch.stack(losses) * self.weights).mean()

    def decode(self, output: Tensor) -> dict[str, Floats]:
        """By task, predictions on the transformed scale [B, slots], or codes of classes [B, 1]."""
        numbers = (output * self.scale + self.mean).double().cpu().numpy()
        return {
            task.name: decode(numbers[:, span], task.kind)
            for task, span in zip(self.tasks, self.spans, strict=True)
        }


class TaskHeads(TaskOutputs):
    """All tasks' outputs [B, C] from embeddings [B, D], after one shared hidden layer (none with
    width 0)."""

    def __init__(self, tasks: Sequence[Task], width: int, hidden: int) -> None:
        super().__init__(tasks)
        layers = [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.1)] if hidden else []
        self.layers = nn.Sequential(*layers, nn.Linear(hidden or width, self.columns))

    def forward(self, embedding: Tensor) -> Tensor:
        return cast(Tensor, self.layers(embedding))  # [B, C]


MakeHeads = Callable[[Sequence[Task], int, int], TaskOutputs]  # of tasks, width and hidden width


class LabelledModel(nn.Module):
    """An encoder with heads. Embeddings are shifted and scaled before the heads, so that a head's
    learning rate does not depend on the size of an encoder's numbers."""

    shift: Tensor
    stretch: Tensor

    def __init__(self, encoder: nn.Module, heads: TaskOutputs) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, heads
        width = cast(RegionEncoder, encoder).width
        self.register_buffer("shift", torch.zeros(width))
        self.register_buffer("stretch", torch.ones(width))
        self.labels = torch.empty(0)  # [N, C] in training; not a part of the state

    def forward(self, index: Tensor) -> Tensor:
        return cast(Tensor, self.heads((self.encoder(index) - self.shift) / self.stretch))  # [B, C]

    def loss(self, index: Tensor) -> Tensor:
        return self._loss(self(index), index)

    def validation(self, index: Tensor) -> float:
        """The same loss over any number of regions."""
        return float(self._loss(_in_chunks(self, index), index))

    def _loss(self, output: Tensor, index: Tensor) -> Tensor:
        return self.heads.loss(output, self.labels[index].to(output.device))


class Table(nn.Module):
    """Given embeddings [N, D] as an encoder without parameters."""

    rows: Tensor

    def __init__(self, embedding: Floats) -> None:
        super().__init__()
        self.width = embedding.shape[1]
        values = torch.from_numpy(np.array(embedding, np.float32))
        self.register_buffer("rows", values, persistent=False)

    def forward(self, index: Tensor) -> Tensor:
        return self.rows[index]  # [B, D]


def tune(
    make_encoder: Callable[[], nn.Module],
    targets: Targets,
    parts: Parts,
    settings: Settings,
    *,
    mode: Mode,
    seed: int,
    pretrained: Mapping[str, NDArray[Any]] | None = None,
    encoder_rate: float | None = None,
    hidden: int = 0,
    make_heads: MakeHeads = TaskHeads,
    task_weights: Sequence[float] | None = None,
    workspace: Workspace = NOWHERE,
) -> Checkpoint:
    """Train heads on an encoder with the labels of the training regions; the validation regions
    choose the epoch, and no test label is read.

    `make_encoder` gives a freshly initialised `RegionEncoder`; `pretrained` is its state, which all
    modes but `scratch` start from. `probe` leaves the encoder as it is, `finetune` trains it at
    `encoder_rate`, `end_to_end` and `scratch` at the heads' own rate. `hidden` is the width of the
    heads' hidden layer (0: linear), `task_weights` [T] what each task counts in the loss.
    """
    check_labels(targets, parts)
    if (pretrained is None) != (mode == "scratch"):
        raise ValueError("every mode but `scratch` starts from pretrained weights")
    with seeded(seed):
        encoder = make_encoder()
        heads = make_heads(targets.tasks, cast(RegionEncoder, encoder).width, hidden)
    heads.set_scales(targets, parts.train)
    if task_weights is not None:
        heads.weights.copy_(torch.tensor(task_weights))
    model = LabelledModel(encoder, heads)
    if pretrained is not None:
        load_arrays(encoder, pretrained)
        embedding = embed_all(encoder, len(parts.train))
        scaler = Scaler.fit(embedding, parts.train)
        model.shift.copy_(torch.from_numpy(scaler.mean))
        model.stretch.copy_(torch.from_numpy(scaler.scale))
        if mode == "probe":  # a frozen encoder has nothing to compute twice
            model.encoder = Table(embedding)
    if mode == "finetune":
        assert encoder_rate is not None
        settings = replace(settings, rates={"encoder.": encoder_rate})

    model.labels = heads.encode(targets)
    labelled = (~model.labels.isnan()).any(dim=1).numpy()
    judges = torch.from_numpy(np.flatnonzero(parts.val & labelled))
    history = fit(
        model,
        np.flatnonzero(parts.train & labelled),
        settings,
        seed=seed,
        validate=(lambda: model.validation(judges)) if len(judges) else None,
        resume=workspace.resume,
        progress=workspace.progress,
    )
    model.encoder = encoder
    record = {
        "head": "mlp",
        "hidden": hidden,
        "mode": mode,
        "best_epoch": history.best_epoch,
        "loss": history.train,
        "validation": history.validation,
        "tasks": [
            {"name": t.name, "kind": t.kind, "slots": t.slots, "classes": list(t.classes)}
            for t in targets.tasks
        ],
    }
    return Checkpoint(state_arrays(model), record)


def restore(
    checkpoint: Checkpoint, encoder: nn.Module, make_heads: MakeHeads = TaskHeads
) -> LabelledModel:
    """The model of a checkpoint of `tune`, on a freshly made encoder."""
    record = checkpoint.record
    tasks = [
        Task(t["name"], t["kind"], slots=t["slots"], classes=tuple(t["classes"]))
        for t in record["tasks"]
    ]
    with seeded(0):  # the weights are about to be replaced
        heads = make_heads(tasks, cast(RegionEncoder, encoder).width, record["hidden"])
    model = LabelledModel(encoder, heads)
    load_arrays(model, checkpoint.tensors)
    return model


def embed_all(encoder: nn.Module, regions: int) -> NDArray[np.float32]:
    """Embeddings of all regions, float32 [N, D], in evaluation mode."""
    return embed_some(encoder, np.arange(regions))


def embed_some(encoder: nn.Module, index: NDArray[np.int64]) -> NDArray[np.float32]:
    """Embeddings of the regions `index` [B], float32 [B, D], in evaluation mode."""
    with evaluating(encoder):
        return _in_chunks(encoder, torch.from_numpy(index)).numpy()


def predict_all(
    checkpoint: Checkpoint, encoder: nn.Module, regions: int, make_heads: MakeHeads = TaskHeads
) -> dict[str, Floats]:
    """By task, predictions of all regions [N, slots] on the transformed scale."""
    model = restore(checkpoint, encoder, make_heads)
    with evaluating(model):
        return model.heads.decode(_in_chunks(model, torch.arange(regions)))


def _in_chunks(module: nn.Module, index: Tensor) -> Tensor:
    return torch.cat([module(rows) for rows in torch.split(index, _CHUNK)])


def fit_mlp(embedding: Floats, targets: Targets, parts: Parts, *, seed: int) -> Checkpoint:
    """The MLP head of `model_code.heads`: one hidden layer on the given embeddings."""
    settings = Settings(epochs=200, batch=128, learning_rate=2e-3, weight_decay=0.01, patience=20)
    return tune(
        lambda: Table(embedding),
        targets,
        parts,
        settings,
        mode="probe",
        pretrained={},
        hidden=128,
        seed=seed,
    )


def predict_mlp(checkpoint: Checkpoint, embedding: Floats) -> dict[str, Floats]:
    """Predictions of `fit_mlp` for the rows of `embedding`."""
    return predict_all(checkpoint, Table(embedding), len(embedding))
