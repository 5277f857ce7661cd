from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from model_code.errors import DataError
from model_code.methods import METHODS, Tile2VecConfig
from model_code.methods.base import Checkpoint, RegionData
from model_code.methods.baselines.tile2vec import METHOD, NearTriplets
from model_code.methods.musecl import started
from model_code.methods.nearness import NearSampler
from model_code.methods.run import fit_predictor, inputs_of, predict
from model_code.training import seeded
from tests.model_code.methods.baselines.embedding import goes_on_after_a_kill
from tests.model_code.methods.fake_city import equal, fake_city, r2, with_towers

CONFIG = Tile2VecConfig(chip_px=16, width=12, epochs=3, batch=13, neighbours=4, augment=False)
TOWER = {
    "shrink": 1, "patch_px": 8, "image_width": 32, "image_layers": 1, "text_width": 32,
    "text_layers": 1, "embed_dim": 8, "context": 16,
}  # fmt: skip
EVERYONE = np.ones(40, bool)


def config(**changes: object) -> Tile2VecConfig:
    return Tile2VecConfig.model_validate(CONFIG.model_dump() | changes)


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city(40)


@pytest.fixture(scope="module")
def data(city: tuple) -> RegionData:
    return city[0]


def pretrained(data: RegionData, changed: Tile2VecConfig = CONFIG, **kwargs: object) -> Checkpoint:
    return METHOD.pretrain(data, changed, **{"seed": 0, "visible": EVERYONE, **kwargs})


def training(data: RegionData, changed: Tile2VecConfig = CONFIG) -> NearTriplets:
    regions = started(data, METHOD.settings(changed), EVERYONE, 1)
    sampler = NearSampler(data.xy_m, data.chip_present, neighbours=changed.neighbours)
    return NearTriplets(
        regions, "satellite", sampler, margin=changed.margin, norm_weight=changed.norm_weight
    )


@pytest.mark.parametrize("changes", [{}, {"margin": 20.0, "norm_weight": 0.5}], ids=str)
def test_the_loss_is_that_of_the_paper_triplet_by_triplet(data: RegionData, changes: dict) -> None:
    changed = config(**changes)
    module, index = training(data, changed), torch.tensor([0, 6, 9, 21])
    with seeded(3):
        ours = module.loss(index)
    with seeded(3):  # the same draws
        triplets = module.sampler.triplets(index)
    hinges, lengths = [], []
    for triplet in triplets.tolist():
        a, n, d = (
            module.head(module.encoder(torch.from_numpy(data.chips[[i]])))[0] for i in triplet
        )
        near, far = ((a - x + 1e-6).pow(2).sum().sqrt() for x in (n, d))
        hinges.append(max(changed.margin + near - far, torch.zeros(())))
        lengths += [x.pow(2).sum().sqrt() for x in (a, n, d)]
    twin = torch.stack(hinges).mean() + changed.norm_weight * torch.stack(lengths).mean()
    assert len(hinges) >= 3
    torch.testing.assert_close(ours, twin, rtol=1e-4, atol=1e-5)
    parameters = list(module.parameters())
    both = (torch.autograd.grad(loss, parameters) for loss in (ours, twin))
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_every_parameter_learns_and_the_penalty_shortens(data: RegionData) -> None:
    module = training(data, config(augment=True))
    with seeded(2):
        module.loss(torch.arange(40)).backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []
    rows = [
        METHOD.embed(pretrained(data, c), data, c)
        for c in (config(norm_weight=0.0), config(norm_weight=5.0))
    ]
    long, short = (np.linalg.norm(r, axis=1).mean() for r in rows)
    assert short < 0.8 * long


def test_a_batch_without_a_triplet_has_a_loss(data: RegionData) -> None:
    module = training(data, config(neighbours=200))  # everyone is near
    for index in ([7], [0, 1, 2]):
        value = module.loss(torch.tensor(index))
        value.backward()
        assert value == 0
    one = training(data).loss(torch.tensor([int(np.flatnonzero(data.chip_present)[0])]))
    assert one.isfinite()


def test_a_fit_depends_on_its_seed_and_on_who_is_near(data: RegionData) -> None:
    first = pretrained(data)
    assert equal(first, pretrained(data)) and not equal(first, pretrained(data, seed=1))
    assert len(first.record["loss"]) == 3
    order = np.random.default_rng(0).permutation(40)
    assert not equal(first, pretrained(replace(data, xy_m=data.xy_m[order])))
    assert not equal(first, pretrained(data, config(radius_m=2000.0)))


def test_what_hidden_regions_hold_changes_nothing(city: tuple) -> None:
    data, _, parts = city
    hidden = parts.test
    changed = replace(
        data,
        chips=np.where(hidden[:, None, None, None], 7, data.chips).astype(np.uint8),
        xy_m=np.where(hidden[:, None], 0, data.xy_m),
    )
    inductive = config(inductive=True)
    first = pretrained(data, inductive, visible=~hidden)
    assert equal(first, pretrained(changed, inductive, visible=~hidden))
    assert not equal(pretrained(data), pretrained(changed))  # the test can fail


def test_a_region_without_a_chip_stands_at_the_mean_whatever_its_pixels_hold(
    data: RegionData,
) -> None:
    gone = ~data.chip_present
    checkpoint = pretrained(data)
    rows = METHOD.embed(checkpoint, data, CONFIG)
    assert gone.any() and rows.shape == (40, 12) and rows.dtype == np.float32
    np.testing.assert_allclose(
        rows[gone], np.tile(rows[~gone].mean(axis=0), (gone.sum(), 1)), atol=1e-4
    )
    noise = np.where(gone[:, None, None, None], 255, data.chips).astype(np.uint8)
    np.testing.assert_array_equal(
        METHOD.embed(checkpoint, replace(data, chips=noise), CONFIG), rows
    )
    with pytest.raises(DataError, match=r"fewer than 3 visible regions[\s\S]*sources\.imagery"):
        pretrained(data, visible=np.arange(40) < 2)


def test_a_row_does_not_depend_on_who_else_is_embedded(data: RegionData) -> None:
    checkpoint = pretrained(data)
    rows = METHOD.embed(checkpoint, data, CONFIG)
    some = np.array([2, 17, 30])
    part = replace(
        data, region_ids=data.region_ids[some], xy_m=data.xy_m[some], chips=data.chips[some],
        chip_present=data.chip_present[some],
    )  # fmt: skip
    np.testing.assert_allclose(METHOD.embed(checkpoint, part, CONFIG), rows[some], atol=1e-5)


def test_goes_on_after_a_kill(data: RegionData, tmp_path) -> None:
    goes_on_after_a_kill(METHOD, CONFIG, data, tmp_path, killed_in=2)


@pytest.mark.parametrize(
    "changes", [{"backbone": "towers"}, {"backbone": "timm/resnet10t", "chip_px": 16}], ids=str
)
def test_other_backbones(data: RegionData, changes: dict) -> None:
    changed, towered = config(epochs=1, **changes), with_towers(data, TOWER)
    found = pretrained(towered, changed)
    assert np.isfinite(METHOD.embed(found, towered, changed)).all()
    towers = changes["backbone"] == "towers"
    assert ("towers" not in changed.switched_off()) is towers
    assert inputs_of(METHODS["tile2vec"], changed) == ("imagery",)
    assert any("satellite.tower.visual" in name for name in found.tensors) is False


def test_labels_train_it_on(city: tuple) -> None:
    data, targets, parts = city
    found = pretrained(data)
    rows = METHOD.embed(found, data, CONFIG)
    changed = config(
        mode="end_to_end", tuning={"epochs": 2, "batch": 13, "hidden": 8}, absent_rate=0.3
    )
    spec = METHODS["tile2vec"]
    predictor = fit_predictor(
        spec, changed, found, rows, seed=0, targets=targets, parts=parts, data=data
    )
    assert np.isfinite(predict(spec, changed, predictor, rows, data)["income"]).all()
    for name, value in found.tensors.items():
        assert not np.array_equal(predictor.tensors[f"encoder.{name}"], value), name


def test_what_cannot_work_is_refused(data: RegionData) -> None:
    for changes, key in (({"neighbours": 200}, "neighbours"), ({"radius_m": 0.1}, "radius_m")):
        with pytest.raises(DataError, match=rf"tile2vec: [\s\S]*`{key}`"):
            pretrained(data, config(**changes))
    with pytest.raises(ValidationError, match=r"inception_v3 needs pictures of 75.*chip_px"):
        config(backbone="inception_v3")


def test_embeddings_predict_where_near_regions_are_alike() -> None:
    """Chips that change smoothly over the map, so that nearness tells what they show."""
    data, targets, parts = fake_city(80)
    latents = (data.xy_m - data.xy_m.min(axis=0)) / np.ptp(data.xy_m, axis=0)
    pixels = np.dstack([latents, latents[:, ::-1], latents])[:, 0]
    rng = np.random.default_rng(0)
    chips = pixels[:, None, None, :3] * 255 + 20 * rng.standard_normal((80, 16, 16, 3))
    smooth = replace(
        data, chips=chips.clip(0, 255).astype(np.uint8), chip_present=np.ones(80, bool)
    )
    told = replace(targets, values={**targets.values, "income": latents[:, :1].copy()})
    found = METHOD.pretrain(smooth, config(epochs=6), seed=0, visible=np.ones(80, bool))
    assert found.record["loss"][-1] < 0.8 * found.record["loss"][0]
    rows = METHOD.embed(found, smooth, CONFIG)
    spec = METHODS["tile2vec"]
    head = fit_predictor(spec, CONFIG, found, rows, seed=0, targets=told, parts=parts)
    assert r2(predict(spec, CONFIG, head, rows, smooth)["income"], latents[:, :1], parts.test) > 0.5
