from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from model_code.errors import DataError
from model_code.methods import METHODS, VisionLstmConfig
from model_code.methods.base import RegionData
from model_code.methods.baselines.vision_lstm import METHOD, LastState
from model_code.methods.run import inputs_of
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
from tests.model_code.methods.fake_city import fake_city, with_towers

CONFIG = VisionLstmConfig.model_validate(SMALL)
TOWER = {
    "shrink": 1, "patch_px": 8, "image_width": 32, "image_layers": 1, "text_width": 32,
    "text_layers": 1, "embed_dim": 8, "context": 16,
}  # fmt: skip


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
    assert found > 0.6
    assert checkpoint.record["loss"][-1] < 0.5 * checkpoint.record["loss"][0]


def test_street_views_alone_tell(data: RegionData) -> None:
    spec = METHODS["vision_lstm"]
    alone = config(satellite=False)
    assert inputs_of(spec, alone) == ("street_views",)
    cut = replace(data, chips=None, chip_present=None)  # a city without imagery
    assert regions_of(METHOD, cut, CONFIG).kinds == ["street_view"]
    none = replace(data, views=None, view_region=None)
    assert regions_of(METHOD, none, CONFIG).kinds == ["satellite"]
    with pytest.raises(DataError, match=r"neither satellite chips nor street views[\s\S]*`satel"):
        regions_of(METHOD, none, alone)


def test_towers_rest_and_are_in_no_checkpoint(city: tuple) -> None:
    data, targets, parts = with_towers(city[0], TOWER), *city[1:]
    changed = config(backbone="towers")
    assert "towers" in METHODS["vision_lstm"].needs and "towers" not in changed.switched_off()
    found = METHOD.fit(data, targets, parts, changed, seed=0)
    assert not [n for n in found.tensors if "visual" in n or n.endswith("values")]
    kept = dict(data.memo)
    rows = METHOD.embed(found, data, changed)
    assert len(kept) == 2 and all(data.memo[key] is value for key, value in kept.items())
    again = replace(data)  # computed anew, in another process
    np.testing.assert_allclose(METHOD.embed(found, again, changed), rows, atol=1e-5)
    scales = [
        found.tensors[f"encoder.encoders.{view}.mean"] for view in ("satellite", "street_view")
    ]
    own = parts.train & data.chip_present
    np.testing.assert_allclose(
        scales[0], data.memo["street net", "satellite"][own].mean(axis=0), atol=1e-5
    )
    np.testing.assert_allclose(
        scales[1],
        data.memo["street net", "street_view"][parts.train[data.view_region]].mean(axis=0),
        atol=1e-5,
    )
    with pytest.raises(DataError, match="no pretrained towers of the view"):
        METHOD.fit(city[0], targets, parts, changed, seed=0)


def test_what_cannot_work_is_refused() -> None:
    file = {"path": "/a", "sha256": "0" * 64}
    for changes, words in (
        ({"satellite": False, "street_views": False}, "at least one of"),
        ({"backbone": "inception_v3"}, "75 pixels or more; see chip_px"),
        ({"backbone": "inception_v3", "chip_px": 80}, "75 pixels or more; see view_px"),
        ({"backbone": "towers", "satellite_weights": file}, "their own weights"),
    ):
        with pytest.raises(ValidationError, match=words):
            config(**changes)


def test_goes_on_after_a_kill(city: tuple, tmp_path) -> None:
    supervised_fit_goes_on_after_a_kill(METHOD, CONFIG, city, tmp_path, killed_in=1)
