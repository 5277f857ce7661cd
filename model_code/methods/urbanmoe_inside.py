"""What the experts of a fitted UrbanMoE put out, task by task (the paper's appendix D.1).

B regions, K experts that a task may use, W width of an output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from model_code.methods import UrbanMoeConfig
from model_code.methods.base import Checkpoint, Floats, RegionData
from model_code.methods.urbanmoe import Branch, ExpertRegions, Pool, read, restored
from model_code.training import evaluating

OWN, PAIR, SHARED, MIXTURE = "own", "pair", "shared", "mixture"


@dataclass(frozen=True)
class Outputs:
    """Of one task in one branch.

    Shapes:
        experts [B, K, W], in the order of `Pool.allowed` (eq 3); gates [B, K] (eq 4-5); mixture [B, W]
        (eq 6); kinds [K].
    """

    branch: str
    task: str
    kinds: tuple[str, ...]
    experts: Floats
    gates: Floats
    mixture: Floats


def kinds(pool: Pool) -> tuple[str, ...]:
    """The kind of each of the K experts that a task may use: `own`, `pair` or `shared`."""
    own, pairs = pool.tasks * pool.specific, pool.tasks * (pool.tasks - 1) // 2 * pool.pair
    numbers = pool.allowed()[0]  # of all tasks alike
    found = np.searchsorted([own, own + pairs], numbers, side="right")
    return tuple((OWN, PAIR, SHARED)[kind] for kind in found)


def experts_of_a_task(checkpoint: Checkpoint) -> int:
    """K, of the net of a checkpoint that has most."""
    return max(Pool(**net["pool"]).each for net in checkpoint.record["nets"])


def outputs(
    checkpoint: Checkpoint,
    data: RegionData,
    config: UrbanMoeConfig,
    index: NDArray[np.int64],
    *,
    tasks: int,
) -> Iterator[Outputs]:
    """What a checkpoint's experts put out for the regions at the positions `index` [B], for its first
    `tasks` tasks, by branch, in evaluation mode.

    Raises:
        DataError: no branch is left to read.
    """
    rows, left = torch.from_numpy(index), tasks
    for model in restored(checkpoint, read(data, config), config):
        encoder = cast(ExpertRegions, model.encoder)
        with evaluating(model):
            found = encoder.opened(rows)
        for number, task in enumerate(model.heads.tasks[:left]):
            for branch, (outer, gates) in found.items():
                pool = cast(Branch, encoder.branches[branch]).pool
                usable = torch.from_numpy(pool.allowed()[number])
                experts = outer[usable].transpose(0, 1)  # [B, K, W]
                own = gates[:, number]
                mixture = torch.bmm(own[:, None], experts)[:, 0]
                yield Outputs(branch, task.name, kinds(pool), *map(_array, (experts, own, mixture)))
        left -= len(model.heads.tasks)
        if left <= 0:
            return


def _array(values: torch.Tensor) -> Floats:
    return values.numpy()
