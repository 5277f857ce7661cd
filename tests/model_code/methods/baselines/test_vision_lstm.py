from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model_code.methods import VisionLstmConfig
from model_code.methods.base import RegionData
from model_code.methods.baselines.vision_lstm import METHOD, LastState
from model_code.training import seeded
from tests.model_code.methods.baselines.street import (
    SMALL,
    regions_of,
    rows_do_not_depend_on_the_batch,
    score,
    silent,
    supervised_fit_goes_on_after_a_kill,
    unlearned,
)
from tests.model_code.methods.fake_city import fake_city

CONFIG = VisionLstmConfig.model_validate(SMALL)


def config(**changes: object) -> VisionLstmConfig:
    return VisionLstmConfig.model_validate(CONFIG.model_dump() | changes)


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city(40)


@pytest.fixture(scope="module")
def data(city: tuple) -> RegionData:
    return city[0]


@pytest.mark.parametrize("counts", [[3, 0, 1, 5], [0, 2], [4], [0, 0]], ids=str)
def test_packed_sequences_end_as_each_does_alone(counts: list[int]) -> None:
    with seeded(0):
        module = LastState(6)
        vectors = torch.randn(sum(counts), 6, requires_grad=True)
        back = torch.randn(len(counts), 6)
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    found = module(vectors, owner, len(counts))
    states = []
    for own in torch.split(vectors, counts):
        state = (torch.zeros(1, 6), torch.zeros(1, 6))
        for step in own:
            _, state = module.lstm(step[None], state)
        states.append(state[0][0])
    twin = torch.stack(states)
    torch.testing.assert_close(found, twin)
    if sum(counts):
        inputs = [vectors, *module.parameters()]
        both = (torch.autograd.grad((rows * back).sum(), inputs) for rows in (found, twin))
        for one, other in zip(*both, strict=True):
            torch.testing.assert_close(one, other)


def test_one_long_sequence_makes_nobody_else_s_longer() -> None:
    with seeded(0):
        module = LastState(8)
        counts = torch.ones(200_000, dtype=torch.int64)
        counts[3] = 4_000  # padded to it, all would take 26 GB
        vectors = torch.randn(int(counts.sum()), 8)
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    with torch.no_grad():
        found = module(vectors, owner, len(counts))
        for region in (0, 3, 4):
            alone = module.lstm(vectors[owner == region][None])[1][0][0, 0]
            torch.testing.assert_close(found[region], alone)


@pytest.mark.parametrize("aggregate", ["lstm", "mean"])
def test_a_row_is_that_of_its_pictures_and_of_nobody_else(data: RegionData, aggregate: str) -> None:
    regions = regions_of(METHOD, data, config(aggregate=aggregate))
    gone = np.flatnonzero(silent(data))
    assert 0 < len(gone) < 40
    rows_do_not_depend_on_the_batch(regions, 40, [int(gone[0]), 7, 39])
    rows = regions(torch.arange(40))
    chips, streets = rows[:, :8], rows[:, 8:]
    assert ((chips == regions.tokens["satellite"]).all(dim=1).numpy() == ~data.chip_present).all()
    assert ((streets == regions.tokens["street_view"]).all(dim=1).numpy() == silent(data)).all()


def test_the_order_of_street_views_matters_to_the_lstm_alone(data: RegionData) -> None:
    order = np.arange(len(data.view_region))[::-1]
    other = replace(
        data, views=data.views[order].copy(), view_region=data.view_region[order].copy(),
        view_lonlat=data.view_lonlat[order].copy(),
    )  # fmt: skip
    for aggregate, alike in (("lstm", False), ("mean", True)):
        changed = config(aggregate=aggregate)
        rows = [regions_of(METHOD, d, changed).eval()(torch.arange(40)) for d in (data, other)]
        assert torch.allclose(*rows, atol=1e-5) is alike


def test_training_shows_a_few_street_views_in_random_order(data: RegionData) -> None:
    regions = regions_of(METHOD, data, config(absent_rate=1e-9, views_per_step=2)).train()
    most = torch.arange(40)[torch.from_numpy(np.bincount(data.view_region, minlength=40) == 3)]
    with seeded(0):
        view, owner = regions.streets(most)
        assert torch.bincount(owner).tolist() == [2] * len(most)
    everyone = regions_of(METHOD, data, config(absent_rate=1e-9, views_per_step=None)).train()
    with seeded(0):
        view, owner = everyone.streets(torch.arange(40))
    assert len(view) == len(data.view_region) and (owner.diff() >= 0).all()
    for shuffle in (True, False):
        regions = regions_of(
            METHOD, data, config(absent_rate=1e-9, views_per_step=None, shuffle=shuffle)
        ).train()
        with seeded(0):
            first, second = regions(most), regions(most)
        assert torch.equal(first, second) is not shuffle


@pytest.mark.parametrize("changes", [{}, {"street_views": False}, {"satellite": False}], ids=str)
def test_every_parameter_learns(data: RegionData, changes: dict) -> None:
    everywhere = replace(data, chip_present=np.ones(40, bool))
    regions = regions_of(METHOD, everywhere, config(absent_rate=0.2, augment=True, **changes))
    assert regions.width == (8 if changes else 16)
    assert unlearned(regions, 40) == []


@pytest.mark.parametrize("aggregate", ["lstm", "mean"])
def test_learns_from_labels(aggregate: str) -> None:
    changed = config(epochs=15, batch=32, learning_rate=5e-3, absent_rate=0.02, aggregate=aggregate)
    found, checkpoint = score("vision_lstm", changed, fake_city(100))
    assert found > 0.3
    assert checkpoint.record["loss"][-1] < 0.7 * checkpoint.record["loss"][0]


def test_a_fit_holds_its_pictures_once(city: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    made, encoder = [], METHOD.encoder
    monkeypatch.setattr(METHOD, "encoder", lambda *args: made.append(args) or encoder(*args))
    METHOD.fit(*city, config(epochs=1), seed=0)
    assert len(made) == 1


def test_goes_on_after_a_kill(city: tuple, tmp_path) -> None:
    supervised_fit_goes_on_after_a_kill(METHOD, CONFIG, city, tmp_path, killed_in=2)
