"""Learning from labels with an encoder: probe, finetune, end_to_end or scratch, in one loop.

N regions, B regions in a batch, D embedding width, C output columns of a task (one a slot, or one a
class).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.heads import check_labels, decode, output_columns
from model_code.methods.base import NOWHERE, Checkpoint, Floats, Parts, Targets, Task, Workspace
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


class TaskHead(nn.Module):
    """One task's output [B, C] from embeddings [B, D]; keeps the scale of its labels."""

    mean: Tensor
    scale: Tensor

    def __init__(self, task: Task, width: int, hidden: int, scaler: Scaler | None = None) -> None:
        super().__init__()
        self.kind = task.kind
        columns = output_columns(task)
        layers = [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.1)] if hidden else []
        self.layers = nn.Sequential(*layers, nn.Linear(hidden or width, columns))
        self.register_buffer("mean", torch.zeros(task.slots))
        self.register_buffer("scale", torch.ones(task.slots))
        if scaler is not None and task.kind != "classification":
            self.mean.copy_(torch.from_numpy(scaler.mean))
            self.scale.copy_(torch.from_numpy(scaler.scale))

    def forward(self, embedding: Tensor) -> Tensor:
        return cast(Tensor, self.layers(embedding))  # [B, C]

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Mean over the labels that are there (NaN: none): squared error of standardised numbers,
        or cross-entropy. Zero when there is none."""
        known = ~labels.isnan()
        filled = labels.nan_to_num()
        if self.kind == "classification":
            errors = F.cross_entropy(output, filled[:, 0].long(), reduction="none")[:, None]
        else:
            errors = (output - (filled - self.mean) / self.scale) ** 2
        return (errors * known).sum() / known.sum().clamp(min=1)

    def decode(self, output: Tensor) -> Floats:
        """Predictions on the transformed scale [B, slots], or codes of classes [B, 1]."""
        if self.kind != "classification":
            output = output * self.scale + self.mean
        return decode(output.double().cpu().numpy(), self.kind)


class LabelledModel(nn.Module):
    """An encoder with one head a task. Embeddings are shifted and scaled before the heads, so that
    a head's learning rate does not depend on the width of an encoder's numbers."""

    shift: Tensor
    stretch: Tensor

    def __init__(self, encoder: nn.Module, heads: list[TaskHead]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(heads)
        width = cast(RegionEncoder, encoder).width
        self.register_buffer("shift", torch.zeros(width))
        self.register_buffer("stretch", torch.ones(width))
        self.labels: list[Tensor] = []  # by task [N, slots], NaN where missing; not a part of state

    def forward(self, index: Tensor) -> list[Tensor]:
        embedding = (self.encoder(index) - self.shift) / self.stretch  # [B, D]
        return [head(embedding) for head in self.heads]

    def loss(self, index: Tensor) -> Tensor:
        return self._loss(self(index), index)

    def validation(self, index: Tensor) -> float:
        """The same loss over any number of regions."""
        chunks = [self(rows) for rows in torch.split(index, _CHUNK)]
        return float(self._loss([torch.cat(parts) for parts in zip(*chunks, strict=True)], index))

    def _loss(self, outputs: list[Tensor], index: Tensor) -> Tensor:
        losses = [
            cast(TaskHead, head).loss(output, labels[index].to(output.device))
            for head, output, labels in zip(self.heads, outputs, self.labels, strict=True)
        ]
        return torch.stack(losses).mean()


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
    workspace: Workspace = NOWHERE,
) -> Checkpoint:
    """Train heads on an encoder with the labels of the training regions; the validation regions
    choose the epoch, and no test label is read.

    `make_encoder` gives a freshly initialised `RegionEncoder`; `pretrained` is its state, which all
    modes but `scratch` start from. `probe` leaves the encoder as it is, `finetune` trains it at
    `encoder_rate`, `end_to_end` and `scratch` at the heads' own rate. `hidden` is the width of a
    head's hidden layer (0: linear).
    """
    check_labels(targets, parts)
    if (pretrained is None) != (mode == "scratch"):
        raise ValueError("every mode but `scratch` starts from pretrained weights")
    with seeded(seed):
        encoder = make_encoder()
        width = cast(RegionEncoder, encoder).width
        heads = [
            TaskHead(task, width, hidden, Scaler.fit(targets.values[task.name], parts.train))
            for task in targets.tasks
        ]
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

    values = [targets.values[task.name] for task in targets.tasks]
    model.labels = [torch.from_numpy(np.array(v, np.float32)) for v in values]
    labelled = np.logical_or.reduce([np.isfinite(v).any(axis=1) for v in values])
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
        "tasks": [
            {"name": t.name, "kind": t.kind, "slots": t.slots, "classes": list(t.classes)}
            for t in targets.tasks
        ],
    }
    return Checkpoint(state_arrays(model), record)


def restore(checkpoint: Checkpoint, encoder: nn.Module) -> LabelledModel:
    """The model of a checkpoint of `tune`, on a freshly made encoder."""
    record = checkpoint.record
    tasks = [
        Task(t["name"], t["kind"], slots=t["slots"], classes=tuple(t["classes"]))
        for t in record["tasks"]
    ]
    width = cast(RegionEncoder, encoder).width
    with seeded(0):
        heads = [TaskHead(task, width, record["hidden"]) for task in tasks]
    model = LabelledModel(encoder, heads)
    load_arrays(model, checkpoint.tensors)
    return model


def embed_all(encoder: nn.Module, regions: int) -> NDArray[np.float32]:
    """Embeddings of all regions, float32 [N, D], in evaluation mode."""
    with evaluating(encoder):
        return torch.cat(
            [encoder(rows) for rows in torch.split(torch.arange(regions), _CHUNK)]
        ).numpy()


def predict_all(checkpoint: Checkpoint, encoder: nn.Module, regions: int) -> dict[str, Floats]:
    """By task, predictions of all regions [N, slots] on the transformed scale."""
    model = restore(checkpoint, encoder)
    with evaluating(model):
        chunks = [model(rows) for rows in torch.split(torch.arange(regions), _CHUNK)]
        outputs = [torch.cat(parts) for parts in zip(*chunks, strict=True)]
        return {
            task["name"]: cast(TaskHead, head).decode(output)
            for task, head, output in zip(
                checkpoint.record["tasks"], model.heads, outputs, strict=True
            )
        }


def fit_mlp(embedding: Floats, targets: Targets, parts: Parts, *, seed: int) -> Checkpoint:
    """The MLP head of `model_code.heads`: one hidden layer a task on the given embeddings."""
    settings = Settings(epochs=200, batch=64, learning_rate=1e-3, weight_decay=0.01, patience=20)
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
