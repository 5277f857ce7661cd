from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch.nn import functional as F

from model_code.errors import DataError
from model_code.fingerprint import file_digest
from model_code.methods import METHODS, PgSimClrConfig
from model_code.methods.base import Checkpoint, RegionData
from model_code.methods.baselines.pg_simclr import METHOD, PairTraining, samplers
from model_code.methods.run import fit_predictor, inputs_of, predict
from model_code.training import seeded
from model_code.vision.backbones import ImageEncoder
from model_code.vision.pictures import cropped
from tests.model_code.methods.baselines.embedding import goes_on_after_a_kill
from tests.model_code.methods.fake_city import equal, fake_city, r2

CONFIG = PgSimClrConfig(chip_px=16, crop=0.3, projection=8, epochs=2, batch=13)
EVERYONE = np.ones(40, bool)


def config(**changes: object) -> PgSimClrConfig:
    return PgSimClrConfig.model_validate(CONFIG.model_dump() | changes)


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city(40)


@pytest.fixture(scope="module")
def data(city: tuple) -> RegionData:
    return city[0]


@pytest.fixture(scope="module")
def checkpoint(data: RegionData) -> Checkpoint:
    return pretrained(data)


def pretrained(data: RegionData, changed: PgSimClrConfig = CONFIG, **kwargs: object) -> Checkpoint:
    return METHOD.pretrain(data, changed, **{"seed": 0, "visible": EVERYONE, **kwargs})


def training(data: RegionData, changed: PgSimClrConfig = CONFIG) -> PairTraining:
    with seeded(1):
        regions = METHOD.encoder(data, changed)
        return PairTraining(regions, samplers(data, changed, data.chip_present), changed)


def test_positives_are_the_most_alike_in_pois_and_the_nearest(data: RegionData) -> None:
    counts = data.poi_counts.copy()
    counts[3] = 0
    less = replace(data, poi_counts=counts)
    drawn = samplers(less, config(alike=2), data.chip_present)
    few = [i for i in np.flatnonzero(data.chip_present).tolist() if i != 3]
    for view, points, most in (("pois", counts, 2), ("near", data.xy_m, 4)):
        seen: dict[int, set[int]] = {}
        for step in range(40):
            with seeded(step):
                for i, j in drawn[view].pairs(torch.arange(40)).tolist():
                    seen.setdefault(i, set()).add(j)
        own = few if view == "pois" else np.flatnonzero(data.chip_present).tolist()
        assert set(seen) == set(own)  # region 3 has no POIs, and is unlike none
        for i, found in seen.items():
            away = sorted((np.linalg.norm(points[i] - points[j]), j) for j in own if j != i)
            assert max(np.linalg.norm(points[i] - points[j]) for j in found) <= away[most - 1][0]
    logs = samplers(data, config(counts="log1p"), data.chip_present)["pois"].points
    np.testing.assert_allclose(logs, np.log1p(data.poi_counts[data.chip_present]), rtol=1e-6)


def test_the_loss_is_that_of_simclr_picture_by_picture(data: RegionData) -> None:
    module, index = training(data).eval(), torch.tensor([0, 6, 9, 21, 30])
    with seeded(3):
        ours = module.loss(index)
    twin = torch.zeros(())
    with seeded(3):  # the same draws, in the same order
        for view, sampler in module.samplers.items():
            pairs = sampler.pairs(index)
            crops = cropped(module.pixels[pairs.T.flatten()], 0.3)
            vectors = [module.projections[view](module.encoders[view](c[None]))[0] for c in crops]
            of, total = pairs.T.flatten().tolist(), torch.zeros(())
            for i in range(len(of)):
                partner = (i + len(pairs)) % len(of)
                others = [
                    F.cosine_similarity(vectors[i], vectors[k], dim=0) / 0.5
                    for k in range(len(of))
                    if k == partner or of[k] not in (of[i], of[partner])
                ]
                own = F.cosine_similarity(vectors[i], vectors[partner], dim=0) / 0.5
                total = total + torch.logsumexp(torch.stack(others), 0) - own
            twin = twin + total / len(of)
    torch.testing.assert_close(ours, twin, rtol=1e-4, atol=1e-5)
    parameters = list(module.parameters())
    both = (torch.autograd.grad(loss, parameters) for loss in (ours, twin))
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_every_parameter_learns_and_small_batches_have_a_loss(data: RegionData) -> None:
    module = training(data)
    with seeded(2):
        module.loss(torch.arange(40)).backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []
    gone = int(np.flatnonzero(~data.chip_present)[0])
    for index in ([gone], [0], [0, 1, gone]):
        value = module.loss(torch.tensor(index))
        module.zero_grad()
        value.backward()
        assert value.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_a_fit_depends_on_its_seed_and_its_loss_falls(
    data: RegionData, checkpoint: Checkpoint
) -> None:
    assert equal(checkpoint, pretrained(data)) and not equal(checkpoint, pretrained(data, seed=1))
    assert checkpoint.record["views"] == ["pois", "near"] and len(checkpoint.record["loss"]) == 2
    losses = pretrained(data, config(epochs=15, near=False)).record["loss"]
    assert np.mean(losses[-3:]) < 0.95 * np.mean(losses[:3])


def test_what_hidden_regions_hold_changes_nothing(city: tuple) -> None:
    data, _, parts = city
    hidden = parts.test
    changed = replace(
        data,
        chips=np.where(hidden[:, None, None, None], 7, data.chips).astype(np.uint8),
        xy_m=np.where(hidden[:, None], 0, data.xy_m),
        poi_counts=np.where(hidden[:, None], 90, data.poi_counts).astype(np.float32),
    )
    inductive = config(inductive=True)
    first = pretrained(data, inductive, visible=~hidden)
    assert equal(first, pretrained(changed, inductive, visible=~hidden))
    assert not equal(pretrained(data), pretrained(changed))  # the test can fail


def test_pois_teach_and_are_not_in_the_embedding(data: RegionData, checkpoint: Checkpoint) -> None:
    rows = METHOD.embed(checkpoint, data, CONFIG)
    assert rows.shape == (40, 256) and rows.dtype == np.float32  # both views side by side
    other = replace(data, poi_counts=data.poi_counts[::-1].copy())
    np.testing.assert_array_equal(METHOD.embed(checkpoint, other, CONFIG), rows)
    assert not equal(checkpoint, pretrained(other))
    heard = checkpoint.tensors["heard"]
    deviation = rows[data.chip_present].std(axis=0)
    np.testing.assert_array_equal(deviation > 0, heard)
    assert 0.5 < heard.mean() < 1  # some units say next to nothing
    gone = ~data.chip_present
    mean = rows[~gone].mean(axis=0)
    np.testing.assert_allclose(rows[gone], np.tile(mean, (gone.sum(), 1)), atol=1e-5)
    some = np.array([2, 17, 30])
    part = replace(
        data, region_ids=data.region_ids[some], chips=data.chips[some],
        chip_present=data.chip_present[some], poi_counts=data.poi_counts[some],
    )  # fmt: skip
    np.testing.assert_allclose(METHOD.embed(checkpoint, part, CONFIG), rows[some], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "fields", "views", "inputs"),
    [
        ({"near": False}, {}, ["pois"], ("imagery", "pois")),
        ({"pois": False}, {}, ["near"], ("imagery",)),
        ({}, {"poi_counts": None}, ["near"], ("imagery", "pois")),
    ],
    ids=str,
)
def test_views_that_are_off_or_that_a_city_has_not(
    data: RegionData, changes: dict, fields: dict, views: list[str], inputs: tuple
) -> None:
    less, changed = replace(data, **fields), config(**changes)
    found = pretrained(less, changed)
    assert found.record["views"] == views
    assert METHOD.embed(found, less, changed).shape == (40, 128)
    assert inputs_of(METHODS["pg_simclr"], changed) == inputs


def test_a_checkpoint_is_of_a_city_with_its_views(data: RegionData, checkpoint: Checkpoint) -> None:
    gone = replace(data, poi_counts=None, poi_categories=())
    with pytest.raises(
        DataError, match="fitted on the views pois, near, and the city now has near"
    ):
        METHOD.embed(checkpoint, gone, CONFIG)
    with pytest.raises(
        DataError, match="fitted on the views near, and the city now has pois, near"
    ):
        METHOD.embed(pretrained(gone), data, CONFIG)


def test_what_cannot_work_is_refused(data: RegionData) -> None:
    for changes, words in (
        ({"near": False, "pois": False}, "at least one of pois and near"),
        ({"backbone": "towers"}, "name one, such as small"),
        ({"backbone": "inception_v3"}, "75 pixels"),
    ):
        with pytest.raises(ValidationError, match=words):
            config(**changes)
    with pytest.raises(DataError, match=r"near: true"):
        pretrained(replace(data, poi_counts=None), config(near=False))
    with pytest.raises(DataError, match=r"pois: false"):
        pretrained(replace(data, poi_counts=0 * data.poi_counts))
    with pytest.raises(DataError, match=r"sources\.imagery"):
        pretrained(replace(data, chips=None, chip_present=None))


def test_goes_on_after_a_kill(data: RegionData, tmp_path) -> None:
    goes_on_after_a_kill(METHOD, config(near=False), data, tmp_path, killed_in=2)


def test_given_weights_are_what_the_backbones_start_from(data: RegionData, tmp_path) -> None:
    with seeded(9):
        state = ImageEncoder("small").layers.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    weights = {"path": str(tmp_path / "w.safetensors")}
    weights["sha256"] = file_digest(weights["path"])
    found = pretrained(data, config(weights=weights, learning_rate=1e-12, epochs=1))
    for name, value in state.items():
        for view in ("pois", "near"):
            own = found.tensors[f"encoders.{view}.layers.{name}"]
            np.testing.assert_allclose(own, value, atol=1e-6)


def test_labels_train_it_on_and_its_embeddings_predict(city: tuple) -> None:
    data, targets, parts = city
    found = pretrained(data, config(epochs=5))
    rows = METHOD.embed(found, data, CONFIG)
    spec = METHODS["pg_simclr"]
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
