"""What the tests of plain baselines share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model_code.methods import MethodConfig
from model_code.methods.base import Checkpoint, Pretrained, RegionData, Workspace
from model_code.training import seeded
from tests.model_code.methods.fake_city import equal


def fit_embed(
    method: Pretrained, config: MethodConfig, data: RegionData, other: RegionData | None = None
) -> np.ndarray:
    """Embeddings of a city, or of another one, by a method that saw all regions of the first."""
    checkpoint = method.pretrain(data, config, seed=0, visible=np.ones(len(data), bool))
    return method.embed(checkpoint, other or data, config)


def all_learn(training: torch.nn.Module, index: torch.Tensor, learning_rate: float) -> None:
    """After some steps on the regions `index` each parameter has more of a gradient than rounding."""
    optimizer = torch.optim.Adam(training.parameters(), lr=learning_rate)
    with seeded(0):
        for _ in range(20):
            optimizer.zero_grad()
            loss = training.loss(index)
            loss.backward()
            optimizer.step()
    largest = {name: p.grad.abs().max().item() for name, p in training.named_parameters()}
    assert loss.isfinite() and np.isfinite(list(largest.values())).all()
    floor = 1e-4 * max(largest.values())
    assert [name for name, value in largest.items() if value < floor] == []


def goes_on_after_a_kill(
    method: Pretrained, config: MethodConfig, data: RegionData, folder: Path, *, killed_in: int
) -> None:
    """A fit that is killed when it tells its `killed_in`-th line, and goes on, ends as one that is
    not, and does nothing twice."""

    class PowerCut(BaseException):
        pass

    def fit(workspace: Workspace) -> tuple[Checkpoint, list[str]]:
        lines: list[str] = []

        def tell(line: str) -> None:
            lines.append(line)
            if workspace.progress is not None:
                workspace.progress(str(len(lines)))

        everyone = np.ones(len(data), bool)
        own = Workspace(tell, workspace.resume)
        return method.pretrain(data, config, seed=0, visible=everyone, workspace=own), lines

    def cut(line: str) -> None:
        if line == str(killed_in):
            raise PowerCut

    whole, told = fit(Workspace())
    with pytest.raises(PowerCut):
        fit(Workspace(cut, folder))
    assert list(folder.iterdir())
    resumed, left = fit(Workspace(None, folder))
    assert equal(resumed, whole) and resumed.record == whole.record
    assert len(left) == len(told) - (killed_in - 1)
