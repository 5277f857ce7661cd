from __future__ import annotations

import numpy as np
import pytest
import torch

from model_code.methods.base import Checkpoint, RegionData
from model_code.methods.urbanmoe import METHOD, Pool, read, restored
from model_code.methods.urbanmoe_inside import experts_of_a_task, kinds, outputs
from tests.model_code.methods.fake_city import TASKS, fake_city
from tests.model_code.methods.test_urbanmoe import CONFIG, POOLS, REGIONS, config, fitted

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


@pytest.mark.parametrize("changes", [{}, {"single_task": True, "epochs": 1}, {"image": False}])
def test_outputs_weighed_by_the_gates_are_the_embedding(
    city: tuple, checkpoint: Checkpoint, changes: dict
) -> None:
    data, changed = city[0], config(**changes)
    done = fitted(city, changed) if changes else checkpoint
    branches = ["image", "text"] if changed.image else ["text"]
    embedding = METHOD.embed(done, data, changed)[SOME]
    embedding = embedding.reshape(len(SOME), len(TASKS), len(branches), CONFIG.width)
    found = list(outputs(done, data, changed, SOME, tasks=len(TASKS)))
    order = [(task.name, branch) for task in TASKS for branch in branches]
    assert [(own.task, own.branch) for own in found] == order
    each = experts_of_a_task(done)
    assert each == 2 + (len(TASKS) - 1) + 2
    for number, own in enumerate(found):
        task, branch = divmod(number, len(branches))
        assert own.experts.shape == (len(SOME), each, CONFIG.width) and len(own.kinds) == each
        mixed = np.einsum("bk,bkw->bw", own.gates, own.experts)
        for values in (own.mixture, mixed):
            np.testing.assert_allclose(values, embedding[:, task, branch], rtol=1e-4, atol=1e-5)


def test_gates_are_those_of_the_net(data: RegionData, checkpoint: Checkpoint) -> None:
    (model,) = restored(checkpoint, read(data, CONFIG), CONFIG)
    with torch.no_grad():
        gates = model.eval().encoder.gates(torch.from_numpy(SOME))
    for number, own in enumerate(outputs(checkpoint, data, CONFIG, SOME, tasks=len(TASKS))):
        np.testing.assert_allclose(own.gates, gates[own.branch][:, number // 2], atol=1e-6)


@pytest.mark.parametrize("pool", POOLS)
def test_kinds_are_those_of_the_experts_that_a_task_may_use(pool: Pool) -> None:
    own, pairs = pool.tasks * pool.specific, pool.tasks * (pool.tasks - 1) // 2 * pool.pair
    for numbers in pool.allowed():
        told = ["own" if n < own else "pair" if n < own + pairs else "shared" for n in numbers]
        assert kinds(pool) == tuple(told)


@pytest.mark.parametrize("single_task", [False, True])
def test_no_more_tasks_than_asked_for(city: tuple, single_task: bool) -> None:
    changed = config(single_task=single_task, epochs=1)
    done = fitted(city, changed)
    found = outputs(done, city[0], changed, SOME, tasks=2)
    assert [own.task for own in found] == [task.name for task in TASKS[:2] for _ in range(2)]
