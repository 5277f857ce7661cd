from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.finetuning import (
    LabelledModel,
    Mode,
    Table,
    TaskHeads,
    embed_all,
    predict_all,
    restore,
    tune,
)
from model_code.methods.base import Checkpoint, Parts, Targets, Workspace
from model_code.training import Settings, seeded, state_arrays
from tests.model_code.methods.fake_city import TASKS, fake_city, r2

SETTINGS = Settings(epochs=3, batch=16, learning_rate=1e-2)


class Encoder(nn.Module):
    """POI counts to eight numbers, with dropout and a token that is a parameter of its own."""

    def __init__(self, counts: np.ndarray) -> None:
        super().__init__()
        self.width = 8
        self.layer = nn.Linear(counts.shape[1], 8)
        self.dropout = nn.Dropout(0.2)
        self.token = nn.Parameter(torch.randn(8))
        self.register_buffer("counts", torch.from_numpy(np.log1p(counts)), persistent=False)

    def forward(self, index: Tensor) -> Tensor:
        return self.dropout(torch.tanh(self.layer(self.counts[index])) + self.token)


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city()


@pytest.fixture(scope="module")
def pretrained(city: tuple) -> dict[str, np.ndarray]:
    with seeded(11):
        return state_arrays(Encoder(city[0].poi_counts))


def run(city: tuple, pretrained: dict, mode: Mode, **kwargs: object) -> Checkpoint:
    data, targets, parts = city
    return tune(
        lambda: Encoder(data.poi_counts),
        kwargs.pop("targets", targets),
        kwargs.pop("parts", parts),
        kwargs.pop("settings", SETTINGS),
        mode=mode,
        seed=0,
        pretrained=None if mode == "scratch" else pretrained,
        encoder_rate=1e-4,
        **kwargs,
    )


def moved(before: dict[str, np.ndarray], after: Checkpoint) -> dict[str, float]:
    return {
        name: float(np.abs(after.tensors[f"encoder.{name}"] - value).max())
        for name, value in before.items()
    }


def test_probe_leaves_the_encoder_as_it_is(city: tuple, pretrained: dict) -> None:
    assert set(moved(pretrained, run(city, pretrained, "probe")).values()) == {0.0}


def test_finetune_moves_the_encoder_a_little_and_end_to_end_a_lot(
    city: tuple, pretrained: dict
) -> None:
    small = moved(pretrained, run(city, pretrained, "finetune"))
    large = moved(pretrained, run(city, pretrained, "end_to_end"))
    assert small.keys() == {"layer.weight", "layer.bias", "token"}
    for name, step in small.items():  # Adam moves by about the rate in each of nine steps
        assert 1e-5 < step < 2e-3
        assert 1e-3 < large[name] < 0.2


def test_scratch_starts_from_its_seed_and_not_from_pretrained_weights(
    city: tuple, pretrained: dict
) -> None:
    still = Settings(epochs=1, batch=16, learning_rate=1e-12)
    with seeded(0):
        fresh = state_arrays(Encoder(city[0].poi_counts))
    assert max(moved(fresh, run(city, pretrained, "scratch", settings=still)).values()) < 1e-6
    assert max(moved(pretrained, run(city, pretrained, "scratch", settings=still)).values()) > 0.1
    assert (
        max(moved(pretrained, run(city, pretrained, "end_to_end", settings=still)).values()) < 1e-6
    )


def test_modes_and_weights_must_fit(city: tuple, pretrained: dict) -> None:
    data, targets, parts = city
    for mode, weights in (("scratch", pretrained), ("probe", None)):
        with pytest.raises(ValueError, match="pretrained weights"):
            tune(
                lambda: Encoder(data.poi_counts), targets, parts, SETTINGS,
                mode=mode, seed=0, pretrained=weights,
            )  # fmt: skip


@pytest.mark.parametrize("hidden", [0, 5])
def test_every_trainable_parameter_moves_in_one_step(city: tuple, hidden: int) -> None:
    data, targets, parts = city
    with seeded(0):
        model = LabelledModel(Encoder(data.poi_counts), TaskHeads(TASKS, 8, hidden))
    model.heads.set_scales(targets, parts.train)
    model.labels = model.heads.encode(targets)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model.loss(torch.from_numpy(np.flatnonzero(parts.train))).backward()
    optimiser.step()
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_the_loss_is_the_naive_one(city: tuple) -> None:
    data, targets, parts = city
    with seeded(0):
        heads = TaskHeads(TASKS, 8, 0)
    heads.set_scales(targets, parts.train)
    output = torch.randn(len(data), 29, generator=torch.Generator().manual_seed(0))
    losses, start = [], 0
    for task in TASKS:
        values = targets.values[task.name]
        known = np.isfinite(values[:, 0])
        if task.kind == "classification":
            codes = torch.from_numpy(values[known, 0]).long()
            losses.append(F.cross_entropy(output[known, start : start + 3], codes))
            start += 3
            continue
        train = values[parts.train & known]
        wanted = (values[known] - train.mean(axis=0)) / train.std(axis=0)
        given = output[known, start : start + task.slots].numpy()
        losses.append(torch.tensor(((given - wanted) ** 2).mean()))
        start += task.slots
    expected = float(torch.stack([x.float() for x in losses]).mean())
    assert float(heads.loss(output, heads.encode(targets))) == pytest.approx(expected, rel=1e-5)


def test_missing_labels_have_no_gradient(city: tuple) -> None:
    data, targets, _ = city
    with seeded(0):
        heads = TaskHeads(TASKS, 8, 0)
    labels = heads.encode(targets)
    output = torch.zeros(len(data), 29, requires_grad=True)
    heads.loss(output, labels).backward()
    assert output.grad is not None
    missing = labels.isnan()
    assert (
        missing.any() and (output.grad[missing] == 0).all() and (output.grad[~missing] != 0).any()
    )
    nothing = torch.full_like(labels, torch.nan)
    assert heads.loss(output, nothing).item() == 0.0


def test_a_checkpoint_gives_the_model_back(city: tuple, pretrained: dict) -> None:
    data, _, _ = city
    checkpoint = run(city, pretrained, "end_to_end", hidden=6)
    encoder = restore(checkpoint, Encoder(data.poi_counts)).encoder
    before = moved(state_arrays(encoder), checkpoint)
    assert set(before.values()) == {0.0}
    embedding = embed_all(encoder, len(data))
    assert embedding.shape == (len(data), 8) and embedding.dtype == np.float32
    predicted = predict_all(checkpoint, Encoder(data.poi_counts), len(data))
    assert {k: v.shape for k, v in predicted.items()} == {
        "income": (60, 1), "population": (60, 1), "use": (60, 1), "outflow": (60, 24),
    }  # fmt: skip
    assert set(np.unique(predicted["use"])) <= {0.0, 1.0, 2.0}


def test_learning_helps(city: tuple, pretrained: dict) -> None:
    settings = Settings(epochs=40, batch=16, learning_rate=2e-2, patience=10)
    checkpoint = run(city, pretrained, "end_to_end", settings=settings)
    predicted = predict_all(checkpoint, Encoder(city[0].poi_counts), 60)
    assert r2(predicted["outflow"], city[1].values["outflow"], city[2].test) > 0.4


def test_test_labels_change_nothing(city: tuple, pretrained: dict) -> None:
    _, targets, parts = city
    values = {name: v.copy() for name, v in targets.values.items()}
    for v in values.values():
        v[parts.test] = 1.0
    first = run(city, pretrained, "finetune")
    second = run(city, pretrained, "finetune", targets=Targets(targets.tasks, values))
    assert first.record == second.record
    for name, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, second.tensors[name])


def test_without_labels_to_validate_on_the_last_epoch_stays(city: tuple, pretrained: dict) -> None:
    _, _, parts = city
    alone = Parts(parts.train, np.zeros_like(parts.val), parts.test)
    record = run(city, pretrained, "finetune", parts=alone).record
    assert record["best_epoch"] == 2
    assert len(record["loss"]) == 3 and record["validation"] == []


def test_the_record_keeps_the_losses_that_chose_the_epoch(city: tuple, pretrained: dict) -> None:
    record = run(city, pretrained, "end_to_end").record
    assert len(record["loss"]) == len(record["validation"]) == 3
    assert record["best_epoch"] == int(np.argmin(record["validation"]))


def test_it_says_how_far_it_is_and_leaves_nothing_behind(
    city: tuple, pretrained: dict, tmp_path
) -> None:
    lines: list[str] = []
    workspace = Workspace(progress=lines.append, resume=tmp_path)
    kept = run(city, pretrained, "finetune", workspace=workspace)
    assert lines and list(tmp_path.iterdir()) == []
    plain = run(city, pretrained, "finetune")
    for name, tensor in plain.tensors.items():
        np.testing.assert_array_equal(tensor, kept.tensors[name])


def test_a_table_is_an_encoder_without_state() -> None:
    rows = np.arange(6, dtype=np.float64).reshape(3, 2)
    table = Table(rows)
    assert state_arrays(table) == {} and list(table.parameters()) == []
    np.testing.assert_array_equal(embed_all(table, 3), rows)
