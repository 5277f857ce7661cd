from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from model_code.errors import DataError
from model_code.methods import METHODS, AutoencoderConfig
from model_code.methods.base import Checkpoint, RegionData
from model_code.methods.baselines.autoencoder import METHOD, Reconstruction
from model_code.methods.run import fit_predictor, predict
from model_code.training import seeded
from tests.model_code.methods.baselines.embedding import goes_on_after_a_kill
from tests.model_code.methods.fake_city import equal, fake_city, r2

CONFIG = AutoencoderConfig(chip_px=16, channels=4, width=6, epochs=3, batch=13)
EVERYONE = np.ones(40, bool)


def config(**changes: object) -> AutoencoderConfig:
    return AutoencoderConfig.model_validate(CONFIG.model_dump() | changes)


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city(40)


@pytest.fixture(scope="module")
def data(city: tuple) -> RegionData:
    return city[0]


def pretrained(
    data: RegionData, changed: AutoencoderConfig = CONFIG, **kwargs: object
) -> Checkpoint:
    return METHOD.pretrain(data, changed, **{"seed": 0, "visible": EVERYONE, **kwargs})


def training(data: RegionData, changed: AutoencoderConfig = CONFIG) -> Reconstruction:
    with seeded(1):
        return Reconstruction(METHOD.encoder(data, changed), changed)


@pytest.mark.parametrize("index", [[4], [0, 6, 9]], ids=["one", "few"])
def test_the_loss_is_the_error_pixel_by_pixel(data: RegionData, index: list[int]) -> None:
    module = training(data)
    ours = module.loss(torch.tensor(index))
    errors = []
    for i in index:
        drawn = module.decoder(module.coder(torch.from_numpy(data.chips[[i]])))[0]
        for row, column, band in np.ndindex(16, 16, 3):
            true = data.chips[i, row, column, band] / 127.5 - 1
            errors.append((drawn[band, row, column] - float(true)) ** 2)
    twin = torch.stack(errors).mean()
    torch.testing.assert_close(ours, twin, rtol=1e-4, atol=1e-6)
    parameters = list(module.parameters())
    both = (torch.autograd.grad(loss, parameters) for loss in (ours, twin))
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_every_parameter_learns_and_nothing_but_the_bottleneck_gets_through(
    data: RegionData,
) -> None:
    module = training(data)
    module.loss(torch.arange(40)).backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []
    codes = module.coder(torch.from_numpy(data.chips))
    assert codes.shape == (40, 6) and module.decoder(codes).shape == (40, 3, 16, 16)
    large = training(data, config(chip_px=48))
    assert large.decoder(large.coder(large.pixels[:2])).shape == (2, 3, 48, 48)


@pytest.fixture(scope="module")
def learned(data: RegionData) -> Checkpoint:
    return pretrained(data, config(epochs=60, learning_rate=1e-2))


def test_it_draws_better_than_the_mean_chip(data: RegionData, learned: Checkpoint) -> None:
    """The chips show three latents, which six numbers can tell."""
    there = data.chips[data.chip_present] / 127.5 - 1
    assert learned.record["loss"][-1] < 0.7 * there.var(axis=0).mean()


def test_a_fit_depends_on_its_seed(data: RegionData) -> None:
    first = pretrained(data)
    assert equal(first, pretrained(data)) and not equal(first, pretrained(data, seed=1))
    assert len(first.record["loss"]) == 3


def test_what_hidden_regions_hold_changes_nothing(city: tuple) -> None:
    data, _, parts = city
    hidden = parts.test[:, None, None, None]
    changed = replace(data, chips=np.where(hidden, 7, data.chips).astype(np.uint8))
    inductive = config(inductive=True)
    first = pretrained(data, inductive, visible=~parts.test)
    assert equal(first, pretrained(changed, inductive, visible=~parts.test))
    assert not equal(pretrained(data), pretrained(changed))  # the test can fail


def test_a_region_without_a_chip_stands_at_the_mean_whatever_its_pixels_hold(
    data: RegionData,
) -> None:
    gone, found = ~data.chip_present, pretrained(data)
    rows = METHOD.embed(found, data, CONFIG)
    assert gone.any() and rows.shape == (40, 6) and rows.dtype == np.float32
    mean = rows[~gone].mean(axis=0)
    np.testing.assert_allclose(rows[gone], np.tile(mean, (gone.sum(), 1)), atol=1e-5)
    noise = np.where(gone[:, None, None, None], 255, data.chips).astype(np.uint8)
    np.testing.assert_array_equal(METHOD.embed(found, replace(data, chips=noise), CONFIG), rows)
    assert equal(found, pretrained(replace(data, chips=noise)))
    with pytest.raises(DataError, match=r"sources\.imagery"):
        pretrained(data, visible=gone)
    some = np.array([2, 17, 30])
    part = replace(
        data, region_ids=data.region_ids[some], chips=data.chips[some],
        chip_present=data.chip_present[some],
    )  # fmt: skip
    np.testing.assert_allclose(METHOD.embed(found, part, CONFIG), rows[some], atol=1e-5)


def test_goes_on_after_a_kill(data: RegionData, tmp_path) -> None:
    goes_on_after_a_kill(METHOD, CONFIG, data, tmp_path, killed_in=2)


def test_labels_train_it_on_and_its_embeddings_predict(city: tuple, learned: Checkpoint) -> None:
    data, targets, parts = city
    found = learned
    rows = METHOD.embed(found, data, CONFIG)
    spec = METHODS["autoencoder"]
    head = fit_predictor(spec, CONFIG, found, rows, seed=0, targets=targets, parts=parts)
    seen = parts.test & data.chip_present
    assert (
        r2(predict(spec, CONFIG, head, rows, data)["income"], targets.values["income"], seen) > 0.3
    )
    changed = config(mode="finetune", tuning={"epochs": 1, "hidden": 8}, absent_rate=0.3)
    predictor = fit_predictor(
        spec, changed, found, rows, seed=0, targets=targets, parts=parts, data=data
    )
    assert np.isfinite(predict(spec, changed, predictor, rows, data)["income"]).all()
    for name, value in found.tensors.items():
        same = np.array_equal(predictor.tensors[f"encoder.{name}"], value)
        assert same is (name == "heard"), name


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of 16"):
        config(chip_px=40)
