from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from model_code.training import (
    Batches,
    Settings,
    evaluating,
    fit,
    load_arrays,
    mix,
    parameter_groups,
    rate_factor,
    state_arrays,
)
from tests.model_code.regression import (
    SETTINGS,
    TRAIN,
    assert_same,
    make,
    train,
)


def test_seeds() -> None:
    zero, one = train(seed=0)[0], train(seed=1)[0]
    assert_same(zero, train(seed=0)[0])
    assert any(not np.array_equal(zero[name], one[name]) for name in zero)
    assert mix(0, 1) != mix(1, 0)


@pytest.mark.parametrize("batch, drop_last, sizes", [
    (16, False, [16, 16, 8]), (16, True, [16, 16]), (100, True, [40]), (None, False, [40]),
])  # fmt: skip
def test_batches(batch: int | None, drop_last: bool, sizes: list[int]) -> None:
    index = np.arange(100, 140)
    batches = Batches(index, Settings(epochs=1, batch=batch, drop_last=drop_last), seed=0)
    drawn = list(batches)
    assert [len(b) for b in drawn] == sizes and len(batches) == len(sizes)
    joined = torch.cat(drawn).numpy()
    assert len(set(joined)) == len(joined) and set(joined) <= set(index)
    batches.set_epoch(1)
    second = torch.cat(list(batches)).numpy()
    if batch is None:
        np.testing.assert_array_equal(joined, index)
        np.testing.assert_array_equal(second, index)
    else:
        assert not np.array_equal(second, joined)
        np.testing.assert_array_equal(torch.cat(list(batches)).numpy(), second)


def test_every_parameter_that_is_not_frozen_is_in_one_group() -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(4, 4), "head": nn.Linear(4, 1)})
    model["encoder"].bias.requires_grad_(False)
    rates = {"encoder.": 1e-5}
    settings = Settings(epochs=1, learning_rate=1e-2, weight_decay=0.1, rates=rates)
    found = {
        id(p): (group["lr"], group["weight_decay"])
        for group in parameter_groups(model, settings)
        for p in group["params"]
    }
    assert found == {
        id(model["encoder"].weight): (1e-5, 0.1),
        id(model["head"].weight): (1e-2, 0.1),
        id(model["head"].bias): (1e-2, 0.0),
    }
    with pytest.raises(ValueError, match="encodr"):
        parameter_groups(model, Settings(epochs=1, rates={"encodr": 1.0}))


def test_schedules() -> None:
    assert [rate_factor(step, 4, "constant") for step in range(4)] == [1.0] * 4
    np.testing.assert_allclose(
        [rate_factor(step, 4, "cosine") for step in range(5)], [1, 0.853553, 0.5, 0.146447, 0],
        atol=1e-6,
    )  # fmt: skip


def test_evaluating_restores_each_part() -> None:
    model = make()
    model.layers[1].eval()
    with evaluating(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.layers] == [True, False, True, True]


def test_arrays_round_trip_and_must_fit() -> None:
    model, other = make(), make()
    fit(other, TRAIN, SETTINGS, seed=0)
    load_arrays(model, state_arrays(other))
    assert_same(state_arrays(model), state_arrays(other))
    with pytest.raises(RuntimeError, match="Missing key"):
        load_arrays(model, {})
