"""What the tests of the baselines on chips and street views share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model_code.methods import METHODS, StreetNetConfig
from model_code.methods.base import Checkpoint, Workspace
from model_code.methods.baselines.street_net import StreetMethod, StreetRegions
from model_code.methods.run import fit_checkpoint, predict
from model_code.training import seeded
from tests.model_code.methods.fake_city import equal, r2

SMALL = {
    "chip_px": 16, "view_px": (16, 24), "width": 8, "hidden": 8, "epochs": 2, "batch": 13,
    "augment": False,
}  # fmt: skip


def regions_of(method: StreetMethod, data, config: StreetNetConfig) -> StreetRegions:
    with seeded(0):
        return method.encoder(data, config, np.ones(len(data), bool))


def silent(data) -> np.ndarray:
    """The regions [N] without street views."""
    return np.bincount(data.view_region, minlength=len(data)) == 0


def unlearned(regions: nn.Module, count: int) -> list[str]:
    """Names of parameters that some training steps on all of a city do not reach."""
    regions.train()
    with seeded(1):
        weight = torch.randn(regions.width)
        for _ in range(4):
            (regions(torch.arange(count)) @ weight).square().sum().backward()
    return [n for n, p in regions.named_parameters() if p.grad is None or not p.grad.any()]


def rows_do_not_depend_on_the_batch(regions: StreetRegions, count: int, alone: list[int]) -> None:
    regions.eval()
    with torch.no_grad():
        whole = regions(torch.arange(count))
        assert whole.shape == (count, regions.width) and whole.isfinite().all()
        for index in ([alone], [*([i] for i in alone)], [list(range(count - 1, -1, -1))]):
            for own in index:
                torch.testing.assert_close(regions(torch.tensor(own)), whole[own])


def score(name: str, config: StreetNetConfig, city: tuple) -> tuple[float, Checkpoint]:
    """R2 of an indicator in the test regions, and the checkpoint."""
    data, targets, parts = city
    spec = METHODS[name]
    found = fit_checkpoint(spec, config, data, seed=0, targets=targets, parts=parts)
    rows = spec.load().embed(found, data, config)
    told = predict(spec, config, found, rows, data)["income"]
    return r2(told, targets.values["income"], parts.test), found


def supervised_fit_goes_on_after_a_kill(
    method: StreetMethod, config: StreetNetConfig, city: tuple, folder: Path, *, killed_in: int
) -> None:
    """A fit that is killed when it tells its `killed_in`-th line, and goes on, ends as one that is not."""

    class PowerCut(BaseException):
        pass

    lines: list[str] = []

    def cut(line: str) -> None:
        lines.append(line)
        if len(lines) == killed_in:
            raise PowerCut

    def fit(workspace: Workspace) -> Checkpoint:
        data, targets, parts = city
        return method.fit(data, targets, parts, config, seed=0, workspace=workspace)

    with pytest.raises(PowerCut):
        fit(Workspace(cut, folder))
    assert list(folder.iterdir())
    whole, resumed = fit(Workspace()), fit(Workspace(None, folder))
    assert equal(whole, resumed) and whole.record == resumed.record
