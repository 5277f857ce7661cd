from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model_code.errors import DataError
from model_code.finetuning import embed_all, embed_some
from model_code.methods.base import RegionData
from model_code.methods.chips import ChipRegions, usable_chips
from model_code.training import seeded
from tests.model_code.methods.fake_city import fake_city


class Colour(nn.Module):
    """The mean colour of a chip, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.width = 3
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, chips: Tensor) -> Tensor:
        return self.factor * chips.float().mean((1, 2))


@pytest.fixture(scope="module")
def data() -> RegionData:
    return fake_city(40)[0]


def regions_of(data: RegionData, rate: float = 0.05) -> ChipRegions:
    encoders = {"one": Colour(1.0), "two": Colour(-2.0)}
    with seeded(0):
        return ChipRegions(data, encoders, chip_px=16, absent_rate=rate)


def test_encoders_stand_side_by_side_and_a_token_for_what_is_absent(data: RegionData) -> None:
    regions = regions_of(data)
    rows = embed_all(regions, 40)
    colour = data.chips.mean(axis=(1, 2))
    there = data.chip_present
    assert regions.width == 6 and rows.shape == (40, 6) and not there.all()
    np.testing.assert_allclose(rows[there], np.hstack([colour, -2 * colour])[there], rtol=1e-5)
    assert (rows[~there] == regions.absent.detach().numpy()).all()
    for index in ([3], np.flatnonzero(~there)[:1].tolist(), [3, *np.flatnonzero(~there)]):
        found = regions.eval()(torch.tensor(index))
        np.testing.assert_allclose(found.detach().numpy(), rows[index], rtol=1e-5)
    assert set(regions.state_dict()) == {
        "absent", "heard", "encoders.one.factor", "encoders.two.factor"
    }  # fmt: skip


def test_chips_are_hidden_in_training_so_that_the_token_learns(data: RegionData) -> None:
    regions = regions_of(replace(data, chip_present=np.ones(40, bool)), rate=0.3).train()
    with seeded(1):
        rows = regions(torch.arange(40))
    hidden = (rows == regions.absent).all(dim=1).sum()
    assert 5 < hidden < 20
    rows.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in regions.parameters())


def test_the_token_starts_at_the_mean_of_those_that_are_seen(data: RegionData) -> None:
    regions = regions_of(data)
    seen = data.chip_present & (np.arange(40) < 20)
    regions.start_token(embed_some(regions, np.flatnonzero(seen)))
    rows = embed_all(regions, 40)
    np.testing.assert_allclose(rows[~data.chip_present][0], rows[seen].mean(axis=0), rtol=1e-5)


def test_too_few_chips_are_told_with_what_to_check(data: RegionData) -> None:
    visible = np.arange(40) < 20
    found = usable_chips(data, visible, "m", 2)
    np.testing.assert_array_equal(found, visible & data.chip_present)
    none = replace(data, chips=None, chip_present=None)
    for less, seen in ((none, visible), (data, visible & ~data.chip_present)):
        with pytest.raises(DataError, match=r"m: fewer than 2 visible[\s\S]*sources\.imagery"):
            usable_chips(less, seen, "m", 2)


def test_units_that_hardly_differ_are_left_out_for_all(data: RegionData) -> None:
    faint = data.chips.copy()
    faint[..., 1] = 9  # and in one region that is not seen, alive
    faint[39, ..., 1] = 200
    less = replace(data, chips=faint, chip_present=np.ones(40, bool))
    regions = regions_of(less)
    own = embed_some(regions, np.arange(20))
    regions.silence(own)
    regions.start_token(own)
    assert not regions.absent[[1, 4]].any() and regions.absent[[0, 2, 3, 5]].all()
    assert regions.heard.tolist() == [True, False, True] * 2
    rows = embed_all(regions, 40)
    assert not rows[:, [1, 4]].any() and rows[:, [0, 2, 3, 5]].std(axis=0).all()
    regions.train()(torch.arange(40)).sum().backward()
    assert all(p.grad.isfinite().all() for p in regions.parameters())


def test_an_encoder_of_small_numbers_is_heard_beside_one_of_large(data: RegionData) -> None:
    regions = regions_of(data)
    own = embed_some(regions, np.flatnonzero(data.chip_present))
    regions.silence(own * np.repeat(np.float32([1, 1e-3]), 3))
    assert regions.heard.all()
    alike = own.copy()
    alike[:, 3:] = alike[0, 3:]
    alike[:, 1] = 7
    regions.silence(alike)  # the second encoder says the same of all
    assert regions.heard.tolist() == [True, False, True] + [True] * 3
