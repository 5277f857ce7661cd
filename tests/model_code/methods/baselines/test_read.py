from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from model_code.errors import DataError
from model_code.methods import METHODS, ReadConfig
from model_code.methods.base import Checkpoint, RegionData
from model_code.methods.baselines import read
from model_code.methods.baselines.read import (
    METHOD,
    Grader,
    MeanTeacher,
    _seen,
    built_share,
    drawn_grades,
    tile_statistics,
    tiles_of,
)
from model_code.methods.run import fit_predictor, predict
from model_code.training import seeded
from tests.model_code.methods.baselines.embedding import goes_on_after_a_kill
from tests.model_code.methods.fake_city import equal, fake_city, r2

CONFIG = ReadConfig(
    chip_px=32, tiles=2, components=3, epochs=2, batch=13, augment=False, dropout=0.0,
    built=("house",), ramp_share=0.4,
)  # fmt: skip
EVERYONE = np.ones(40, bool)


def config(**changes: object) -> ReadConfig:
    return ReadConfig.model_validate(CONFIG.model_dump() | changes)


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city(40)


@pytest.fixture(scope="module")
def data(city: tuple) -> RegionData:
    return city[0]


@pytest.fixture(scope="module")
def checkpoint(data: RegionData) -> Checkpoint:
    return pretrained(data)


def pretrained(data: RegionData, changed: ReadConfig = CONFIG, **kwargs: object) -> Checkpoint:
    return METHOD.pretrain(data, changed, **{"seed": 0, "visible": EVERYONE, **kwargs})


def training(data: RegionData, changed: ReadConfig = CONFIG) -> MeanTeacher:
    grades, _ = drawn_grades(built_share(data, changed), data.chip_present, changed, 0)
    with seeded(1):
        return MeanTeacher(Grader(changed), METHOD._chips(data, changed), grades, changed, steps=10)


def test_tiles_are_cut_in_rows() -> None:
    chips = torch.arange(2 * 6 * 6 * 3).view(2, 6, 6, 3)
    found = tiles_of(chips, 3)
    twin = [
        chip[y : y + 2, x : x + 2] for chip in chips for y in range(0, 6, 2) for x in range(0, 6, 2)
    ]
    assert torch.equal(found, torch.stack(twin))
    assert torch.equal(tiles_of(chips, 1), chips)


def naive_statistics(parts: Tensor, weight: Tensor, floor: Tensor) -> Tensor:
    rows = []
    for own, w in zip(parts, weight, strict=True):
        total = sum(w)
        mean = [sum(w * own[:, k]) / total for k in range(own.shape[1])]

        def joint(j: int, k: int, own=own, w=w, mean=mean, total=total) -> Tensor:
            return sum(w * (own[:, j] - mean[j]) * (own[:, k] - mean[k])) / total

        variance = [joint(k, k) for k in range(own.shape[1])]
        scale = [(v + f).sqrt() for v, f in zip(variance, floor, strict=True)]
        pairs = [
            joint(j, k) / (scale[j] * scale[k]) for j, k in combinations(range(own.shape[1]), 2)
        ]
        rows.append(torch.stack([total, *mean, *(v.sqrt() for v in variance), *pairs]))
    return torch.stack(rows)


@pytest.mark.parametrize("regions", [1, 5])
def test_statistics_are_those_of_each_chip(regions: int) -> None:
    with seeded(0):
        parts = torch.randn(regions, 4, 3, dtype=torch.float64, requires_grad=True)
        weight = torch.rand(regions, 4, dtype=torch.float64, requires_grad=True)
        back = torch.randn(regions, 10, dtype=torch.float64)
    floor = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)
    found, twin = (f(parts, weight, floor) for f in (tile_statistics, naive_statistics))
    torch.testing.assert_close(found, twin)
    for one, other in zip(
        *(torch.autograd.grad((rows * back).sum(), (parts, weight)) for rows in (found, twin)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_statistics_of_tiles_that_are_alike_are_finite() -> None:
    parts = torch.ones(2, 4, 3)
    found = tile_statistics(parts, torch.zeros(2, 4), torch.full((3,), 1e-6))
    assert found.isfinite().all() and (found[:, 7:] == 0).all()


@pytest.mark.parametrize("scale", [1e-4, 1e-9, 1e-30])
def test_tiles_that_hardly_count_are_told_apart_as_well(scale: float) -> None:
    with seeded(0):
        parts, weight, floor = torch.randn(3, 4, 3), torch.rand(3, 4), torch.full((3,), 1e-6)
    found, small = (tile_statistics(parts, w, floor)[:, 1:] for w in (weight, scale * weight))
    torch.testing.assert_close(small, found)
    none, alike = (
        tile_statistics(parts, w, floor)[:, 1:] for w in (torch.zeros(3, 4), torch.ones(3, 4))
    )
    torch.testing.assert_close(none, alike)


def test_a_tile_counts_by_the_chance_of_a_higher_grade_however_small(data: RegionData) -> None:
    student = Grader(CONFIG)
    with torch.no_grad():
        student.grades.weight.zero_()
        student.grades.bias.copy_(torch.tensor([30.0, 0.0, 1.0]))
    _, weight = _seen(student, METHOD._chips(data, CONFIG)[:2], CONFIG)
    expected = (1 + np.e) * np.exp(-30)
    np.testing.assert_allclose(weight, np.full((2, 4), expected), rtol=1e-4)


def test_the_teacher_s_word_counts_in_full_after_a_share_of_all_steps(
    data: RegionData, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, fit = [], read.fit
    monkeypatch.setattr(read, "fit", lambda *a, **k: trained.append(a[0]) or fit(*a, **k))
    pretrained(data)
    (module,) = trained
    steps = int(module.step)
    assert steps == 2 * np.ceil(data.chip_present.sum() / 13) > 2
    assert module.ramp_steps == pytest.approx(0.4 * steps) and module.ramp() == 1
    module.step.zero_()
    assert module.ramp() == pytest.approx(np.exp(-5))


def test_the_loss_is_that_of_the_paper_tile_by_tile(data: RegionData) -> None:
    module = training(data)
    with torch.no_grad(), seeded(4):  # a teacher of its own, that has followed for a while
        for parameter in module.teacher.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        module.step.fill_(2)
    graded = (module.grades >= 0).nonzero()[:2, 0].tolist()
    other = int((module.grades < 0).nonzero()[0])
    index = torch.tensor([graded[0], other, graded[1]])
    ours = module.loss(index)  # the teacher has followed
    assert module.step == 3 and module.ramp() == pytest.approx(np.exp(-5 * 0.25**2))
    crosses, gaps = [], []
    for i in index.tolist():
        tiles = [t for row in module.chips[i].split(16) for t in row.split(16, dim=1)]
        said = torch.stack([module.student(tile[None])[0] for tile in tiles])
        told = torch.stack([module.teacher(tile[None])[0] for tile in tiles]).detach()
        gaps.append((said.softmax(1) - told.softmax(1)) ** 2)
        if i != other:
            crosses.append(-said.mean(dim=0).log_softmax(0)[module.grades[i]])
    twin = torch.stack(crosses).mean() + module.ramp() * torch.cat(gaps).mean()
    torch.testing.assert_close(ours, twin, rtol=1e-4, atol=1e-5)
    parameters = list(module.student.parameters())
    both = (torch.autograd.grad(loss, parameters) for loss in (ours, twin))
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_the_teacher_follows_and_is_not_trained(data: RegionData) -> None:
    module = training(data, config(decay=0.6))
    first = [p.detach().clone() for p in module.student.parameters()]
    decays = (0.0, 0.5, 0.6)  # at once, the mean, the config's
    expected = [torch.zeros_like(p) for p in first]
    for step, decay in enumerate(decays):
        with torch.no_grad():
            for own, start in zip(module.student.parameters(), first, strict=True):
                own.copy_(start + step)
        module.loss(torch.arange(8)).backward()
        expected = [
            decay * e + (1 - decay) * p
            for e, p in zip(expected, module.student.parameters(), strict=True)
        ]
    for own, mean in zip(module.teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(own, mean, atol=1e-4, rtol=1e-4)
        assert own.grad is None
    assert all(p.grad is not None and p.grad.any() for p in module.student.parameters())


def test_batches_of_one_with_and_without_a_grade(data: RegionData) -> None:
    module = training(data)
    for grade in (True, False):
        row = ((module.grades >= 0) == grade).nonzero()[0]
        loss = module.loss(row)
        loss.backward()
        assert loss.isfinite() and (loss > 0.1) == grade


def test_grades_are_thirds_of_the_built_up_share_of_the_drawn(data: RegionData) -> None:
    share = data.chip_shares[:, 0].astype(float)
    np.testing.assert_array_equal(built_share(data, CONFIG), share)
    both = built_share(data, config(built=("house", "lake", "mill")))
    np.testing.assert_allclose(both, data.chip_shares[:, [0, 2]].sum(axis=1), rtol=1e-6)
    usable = data.chip_present.copy()
    share[np.flatnonzero(usable)[:4]] = np.nan
    grades, (low, high) = drawn_grades(share, usable, config(graded=1.0), 0)
    able = usable & np.isfinite(share)
    assert ((grades >= 0) == able).all()
    assert np.bincount(grades[able]).min() >= able.sum() // 3 - 1
    assert (grades[able] == (share[able] > low) * 1 + (share[able] > high) * 1).all()
    few, between = drawn_grades(share, usable, config(graded=0.4), 0)
    assert between == (low, high) and (few >= 0).sum() == np.ceil(0.4 * able.sum())
    assert (few == grades)[few >= 0].all()
    assert (few != drawn_grades(share, usable, config(graded=0.4), 1)[0]).any()


def test_classes_are_those_that_the_segmenter_names_however_many(data: RegionData) -> None:
    shares = np.random.default_rng(0).random((40, 7)).astype(np.float32)
    names = ("urban", "agriculture", "range", "forest", "water", "barren", "unknown")
    land = replace(data, chip_shares=shares, chip_classes=names)  # as many as LoveDA has
    for built, columns in (("urban",), [0]), (("barren", "urban"), [0, 5]):
        found = built_share(land, config(built=built))
        np.testing.assert_allclose(found, shares[:, columns].sum(axis=1), rtol=1e-6)
    with pytest.raises(DataError, match="none of building, industrial, road"):
        built_share(land, ReadConfig())


def test_what_cannot_work_is_refused(data: RegionData) -> None:
    for changes, cut, words in (
        ({"built": ("mill",)}, {}, r"none of mill[\s\S]*house, park, lake"),
        (
            {},
            {"chip_shares": None},
            r"no satellite chip has shares[\s\S]*`captions`[\s\S]*`min_modality_share`",
        ),
        ({}, {"chip_shares": np.full((40, 3), 0.2)}, r"equally built up[\s\S]*grade_quantiles"),
        ({}, {"chip_shares": np.full((40, 3), np.nan)}, r"of the 0 visible chips"),
        ({}, {"chip_present": ~EVERYONE}, r"fewer than 3 visible regions have a chip"),
    ):
        with pytest.raises(DataError, match=words):
            pretrained(replace(data, **cut), config(**changes))
    for changes, words in (
        ({"backbone": "towers"}, "whole backbone"),
        ({"tiles": 3}, "multiple of tiles"),
        ({"tiles": 4}, "16 pixels or more; see chip_px and tiles"),
        ({"grade_quantiles": (0.6, 0.3)}, "ascend"),
    ):
        with pytest.raises(ValidationError, match=words):
            config(**changes)


def test_a_region_without_a_chip_stands_at_the_mean_whatever_its_pixels_hold(
    data: RegionData, checkpoint: Checkpoint
) -> None:
    gone = ~data.chip_present
    rows = METHOD.embed(checkpoint, data, CONFIG)
    assert gone.any() and rows.shape == (40, 1 + 3 + 3 + 3)
    np.testing.assert_allclose(
        rows[gone], np.tile(rows[~gone].mean(axis=0), (gone.sum(), 1)), rtol=1e-4, atol=1e-5
    )
    noise = np.where(gone[:, None, None, None], 255, data.chips).astype(np.uint8)
    other = replace(data, chips=noise)
    np.testing.assert_array_equal(METHOD.embed(checkpoint, other, CONFIG), rows)
    nobody = replace(data, chip_present=~EVERYONE)
    assert (METHOD.embed(checkpoint, nobody, CONFIG) == checkpoint.tensors["absent"]).all()


def test_one_region_is_embedded_as_among_all(data: RegionData, checkpoint: Checkpoint) -> None:
    rows = METHOD.embed(checkpoint, data, CONFIG)
    some = np.flatnonzero(data.chip_present)[[4]]
    part = replace(
        data, region_ids=data.region_ids[some], chips=data.chips[some], chip_present=EVERYONE[:1]
    )
    np.testing.assert_allclose(METHOD.embed(checkpoint, part, CONFIG), rows[some], atol=1e-4)


def test_a_fit_depends_on_its_seed_and_on_its_grades(
    data: RegionData, checkpoint: Checkpoint
) -> None:
    assert checkpoint.record["graded"] == sum(checkpoint.record["grades"]) >= 10
    assert not equal(checkpoint, pretrained(data, seed=1))
    other = replace(data, chip_shares=data.chip_shares[:, ::-1].copy())
    assert not equal(checkpoint, pretrained(other))


def test_goes_on_after_a_kill(data: RegionData, tmp_path) -> None:
    goes_on_after_a_kill(METHOD, CONFIG, data, tmp_path, killed_in=2)


def test_embeddings_predict() -> None:
    data, targets, parts = fake_city(100)
    changed = config(epochs=8, learning_rate=3e-3)
    found = METHOD.pretrain(data, changed, seed=0, visible=~parts.test)
    rows = METHOD.embed(found, data, changed)
    spec = METHODS["read"]
    head = fit_predictor(spec, changed, found, rows, seed=0, targets=targets, parts=parts)
    told = predict(spec, changed, head, rows, data)["income"]
    assert r2(told, targets.values["income"], parts.test & data.chip_present) > 0.5
