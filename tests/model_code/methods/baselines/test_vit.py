from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model_code.methods import METHODS, VitConfig
from model_code.methods.base import Workspace
from model_code.methods.baselines.vit import METHOD, ChipEncoder, _resized, _turned
from model_code.methods.run import fit_checkpoint, predict
from model_code.training import seeded
from tests.model_code.methods.fake_city import fake_city, r2

CONFIG = VitConfig(
    image_px=16, patch_px=8, width=16, heads=2, depth=1, epochs=30, batch=32, learning_rate=3e-3
)


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city(100)


def encoder(city: tuple, config: VitConfig = CONFIG) -> ChipEncoder:
    with seeded(0):
        return ChipEncoder(city[0], config)


def test_learns_every_kind_of_target(city: tuple) -> None:
    data, targets, parts = city
    spec = METHODS["vit"]
    checkpoint = fit_checkpoint(spec, CONFIG, data, seed=0, targets=targets, parts=parts)
    predicted = predict(spec, CONFIG, checkpoint, METHOD.embed(checkpoint, data, CONFIG), data)
    seen = parts.test & data.chip_present
    assert r2(predicted["income"], targets.values["income"], seen) > 0.6
    assert r2(predicted["outflow"], targets.values["outflow"], seen) > 0.6
    use = targets.values["use"]
    known = seen & np.isfinite(use[:, 0])
    assert (predicted["use"] == use)[known].mean() > 0.6


def test_an_absent_chip_is_the_token_whatever_its_pixels_hold(city: tuple) -> None:
    data = city[0]
    model = encoder(city).eval()
    rows = model(torch.arange(100))
    absent = torch.from_numpy(~data.chip_present)
    assert absent.any() and not absent.all()
    assert (rows[absent] == model.absent).all() and not (rows[~absent] == model.absent).all(1).any()
    noise = np.where(data.chip_present[:, None, None, None], data.chips, 255)
    other = encoder((replace(data, chips=noise),)).eval()
    assert torch.equal(other(torch.arange(100)), rows)


def test_every_parameter_learns_also_where_every_region_has_a_chip(city: tuple) -> None:
    data = replace(city[0], chip_present=np.ones(100, bool))
    model = encoder((data,), CONFIG.model_copy(update={"absent_rate": 0.2}))
    with seeded(1):
        (model(torch.arange(100)) ** 2).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_embedding_does_not_depend_on_its_batch(city: tuple) -> None:
    model = encoder(city).eval()
    whole = model(torch.arange(100))
    for index in ([7], [3, 7, 99]):
        torch.testing.assert_close(model(torch.tensor(index)), whole[index])


def test_turns_are_the_eight_symmetries() -> None:
    chip = torch.arange(12).reshape(3, 2, 2)
    with seeded(0):
        turned = _turned(chip.expand(400, 3, 2, 2))
    expected = {
        tuple(turn.flatten().tolist())
        for base in (chip, chip.mT)
        for turn in (torch.rot90(base, k, (1, 2)) for k in range(4))
    }
    assert {tuple(t.flatten().tolist()) for t in turned} == expected and len(expected) == 8


def test_chips_are_brought_to_the_size_of_the_config(city: tuple) -> None:
    chips = city[0].chips
    same = _resized(chips, 16)
    np.testing.assert_array_equal(same.permute(0, 2, 3, 1).numpy(), chips)
    small = _resized(chips, 8)
    assert small.shape == (100, 3, 8, 8) and small.dtype == torch.uint8
    np.testing.assert_allclose(small.float().mean((1, 2, 3)), chips.mean((1, 2, 3)), atol=1.5)


def test_goes_on_after_a_kill(city: tuple, tmp_path) -> None:
    data, targets, parts = city
    config = CONFIG.model_copy(update={"epochs": 5})

    class PowerCut(BaseException):
        pass

    def cut(line: str) -> None:
        if " 3 of " in line:
            raise PowerCut

    def fit(workspace: Workspace):
        return METHOD.fit(data, targets, parts, config, seed=0, workspace=workspace)

    with pytest.raises(PowerCut):
        fit(Workspace(cut, tmp_path))
    assert list(tmp_path.iterdir())
    whole, resumed = fit(Workspace()), fit(Workspace(None, tmp_path))
    assert whole.record == resumed.record
    for name, tensor in whole.tensors.items():
        np.testing.assert_array_equal(tensor, resumed.tensors[name])
