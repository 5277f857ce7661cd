from __future__ import annotations

import numpy as np
import pytest
import torch

from model_code.methods.base import Checkpoint, RegionData
from model_code.methods.urbanmoe import METHOD, Pool, read, restored
from model_code.methods.urbanmoe_inside import experts_of_a_task, kinds, outputs
from tests.model_code.methods.fake_city import TASKS, fake_city
from tests.model_code.methods.test_urbanmoe import CONFIG, REGIONS, config, fitted

SOME = np.array([3, 11, 40])


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city(REGIONS)


@pytest.fixture(scope="module")
def data(city: tuple) -> RegionData:
    return city[0]


@pytest.fixture(scope="module")
def checkpoint(city: tuple) -> Checkpoint:
    return fitted(city)


def test_outputs_weighed_by_the_gates_are_the_embedding(
    data: RegionData, checkpoint: Checkpoint
) -> None:
    embedding = METHOD.embed(checkpoint, data, CONFIG)[SOME]
    embedding = embedding.reshape(len(SOME), len(TASKS), 2, CONFIG.width)
    (model,) = restored(checkpoint, read(data, CONFIG), CONFIG)
    with torch.no_grad():
        gates = model.eval().encoder.gates(torch.from_numpy(SOME))
    found = list(outputs(checkpoint, data, CONFIG, SOME, tasks=len(TASKS)))
    order = [(task.name, branch) for task in TASKS for branch in ("image", "text")]
    assert [(own.task, own.branch) for own in found] == order
    each = experts_of_a_task(checkpoint)
    assert each == 2 + (len(TASKS) - 1) + 2
    for number, own in enumerate(found):
        task, branch = divmod(number, 2)
        assert own.experts.shape == (len(SOME), each, CONFIG.width) and len(own.kinds) == each
        weights = gates[own.branch][:, task].numpy()
        mixed = np.einsum("bk,bkw->bw", weights, own.experts)
        for values in (own.mixture, mixed):
            np.testing.assert_allclose(values, embedding[:, task, branch], rtol=1e-4, atol=1e-5)


def test_kinds_are_in_the_order_of_the_pool() -> None:
    assert kinds(Pool(3, 2, 1, 1)) == ("own", "own", "pair", "pair", "shared")
    assert kinds(Pool(1, 2, 3, 0)) == ("own", "own")


@pytest.mark.parametrize("single_task", [False, True])
def test_no_more_tasks_than_asked_for(city: tuple, single_task: bool) -> None:
    changed = config(single_task=single_task, epochs=1)
    done = fitted(city, changed)
    found = outputs(done, city[0], changed, SOME, tasks=2)
    assert [own.task for own in found] == [task.name for task in TASKS[:2] for _ in range(2)]
