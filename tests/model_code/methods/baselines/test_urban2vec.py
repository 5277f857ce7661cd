from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from model_code.errors import DataError
from model_code.finetuning import embed_all
from model_code.methods import METHODS, Urban2VecConfig
from model_code.methods.base import Checkpoint, RegionData
from model_code.methods.baselines.tile2vec import NearTriplets
from model_code.methods.baselines.urban2vec import (
    METHOD,
    Bags,
    WordTraining,
    poi_words,
    settled,
    vocabulary,
)
from model_code.methods.musecl import MuseRegions, started
from model_code.methods.nearness import NearSampler, on_sphere
from model_code.methods.run import fit_predictor, inputs_of, predict
from model_code.training import load_arrays, seeded
from tests.model_code.methods.baselines.embedding import goes_on_after_a_kill
from tests.model_code.methods.baselines.test_tile2vec import TOWER
from tests.model_code.methods.fake_city import equal, fake_city, r2, with_towers

CONFIG = Urban2VecConfig(
    backbone="small", view_px=(16, 24), width=12, augment=False, neighbours=3, epochs=2, batch=13,
    word_epochs=2, word_pairs=8, word_min_count=2, settle_steps=10,
)  # fmt: skip
REGIONS = 40
EVERYONE = np.ones(REGIONS, bool)


def config(**changes: object) -> Urban2VecConfig:
    return Urban2VecConfig.model_validate(CONFIG.model_dump() | changes)


@pytest.fixture(scope="module")
def city() -> tuple:
    """A city where a region has few of the words, and some have no POI or street view at all."""
    data, targets, parts = fake_city(REGIONS)
    named, said = (r % 4 == 0 for r in (data.poi_name_region, data.poi_comment_region))
    counts = np.where(data.poi_counts > data.poi_counts.max(axis=1, keepdims=True) / 2, 1, 0)
    counts = counts * data.poi_counts
    counts[[3, 8]] = 0
    named &= ~np.isin(data.poi_name_region, [3, 8])
    said &= ~np.isin(data.poi_comment_region, [3, 8])
    data = replace(
        data,
        poi_counts=counts.astype(np.float32),
        poi_names=data.poi_names[named],
        poi_name_region=data.poi_name_region[named],
        poi_name_category=data.poi_name_category[named],
        poi_comments=data.poi_comments[said],
        poi_comment_region=data.poi_comment_region[said],
        poi_comment_category=data.poi_comment_category[said],
    )
    return data, targets, parts


@pytest.fixture(scope="module")
def data(city: tuple) -> RegionData:
    return city[0]


@pytest.fixture(scope="module")
def checkpoint(data: RegionData) -> Checkpoint:
    return pretrained(data)


def pretrained(data: RegionData, changed: Urban2VecConfig = CONFIG, **kwargs: object) -> Checkpoint:
    return METHOD.pretrain(data, changed, **{"seed": 0, "visible": EVERYONE, **kwargs})


def word_training(data: RegionData, changed: Urban2VecConfig = CONFIG) -> WordTraining:
    bags = Bags(data, vocabulary(data, changed, EVERYONE))
    noise = torch.bincount(bags.word, bags.count).sqrt()
    with seeded(1):
        return WordTraining(torch.randn(REGIONS, 12), bags, noise, changed)


def counted(data: RegionData) -> dict[int, Counter]:
    """Text by text, how often each region has each word."""
    found: dict[int, Counter] = {i: Counter() for i in range(len(data))}
    for i, row in enumerate(data.poi_counts):
        for name, count in zip(data.poi_categories, row, strict=True):
            if count:
                found[i][f"§{name}"] += int(count)
    for texts, owner in (
        (data.poi_names, data.poi_name_region), (data.poi_comments, data.poi_comment_region)
    ):  # fmt: skip
        for text, i in zip(texts.tolist(), owner.tolist(), strict=True):
            found[i].update(set(text.lower().split()))
    return found


# --- words ---------------------------------------------------------------------------------------


def test_words_are_counted_once_a_text_and_categories_once_a_poi(data: RegionData) -> None:
    twice = data.poi_comments.astype("U20")
    twice[:5] = "Busy BUSY!"
    odd = replace(data, poi_comments=twice)
    found: dict[int, Counter] = {i: Counter() for i in range(REGIONS)}
    for word, region, count in zip(*poi_words(odd), strict=True):
        found[int(region)][str(word)] += int(count)
    plain = replace(odd, poi_comments=np.where(np.arange(len(twice)) < 5, "busy", twice))
    assert found == counted(plain)


def test_rare_words_and_those_of_nearly_all_regions_are_left_out(data: RegionData) -> None:
    visible = np.arange(REGIONS) < 30
    told = counted(data)
    seen = [told[i] for i in range(30) if told[i]]
    every = sorted({word for own in seen for word in own})
    kept = [
        word
        for word in every
        if word.startswith("§")
        or (
            sum(own[word] for own in seen) >= 4
            and sum(word in own for own in seen) <= 0.3 * len(seen)
        )
    ]
    changed = config(word_min_count=4, word_max_share=0.3)
    assert vocabulary(data, changed, visible) == kept
    assert 3 < len(kept) < len(every)  # some of each kind
    silent = replace(data, poi_counts=None, poi_names=None, poi_comments=None)
    assert vocabulary(silent, CONFIG, visible) == []


def test_bags_hold_what_a_region_has(data: RegionData) -> None:
    words = vocabulary(data, CONFIG, EVERYONE)
    bags, told = Bags(data, words), counted(data)
    for i in range(REGIONS):
        expected = {words.index(w): c for w, c in told[i].items() if w in words}
        entries = slice(int(bags.start[i]), int(bags.start[i + 1]))
        assert dict(
            zip(bags.word[entries].tolist(), bags.count[entries].tolist(), strict=True)
        ) == (expected)
        assert bags.total()[i] == sum(expected.values())
        each = torch.arange(len(words))
        has = bags.has(torch.full_like(each, i), each)
        assert set(each[has].tolist()) == set(expected)
    assert bags.total()[3] == 0
    some = int(bags.total().argmax())
    with seeded(0):
        drawn = Counter(bags.draw(torch.full((4000,), some)).tolist())
    entries = slice(int(bags.start[some]), int(bags.start[some + 1]))
    share = bags.count[entries] / bags.count[entries].sum()
    for word, part in zip(bags.word[entries].tolist(), share.tolist(), strict=True):
        assert drawn.pop(word, 0) / 4000 == pytest.approx(part, abs=0.04)
    assert not drawn
    assert Bags(data, []).total().sum() == 0 and not Bags(data, []).has(each[:2], each[:2]).any()


# --- losses --------------------------------------------------------------------------------------


def same_gradients(ours: torch.Tensor, twin: torch.Tensor, parameters: list) -> None:
    torch.testing.assert_close(ours, twin, rtol=1e-4, atol=1e-5)
    both = (torch.autograd.grad(loss, parameters) for loss in (ours, twin))
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_street_views_are_drawn_to_near_ones_triplet_by_triplet(data: RegionData) -> None:
    regions = started(data, METHOD.settings(CONFIG), EVERYONE, 1)
    places = on_sphere(data.view_lonlat[regions.view_order])
    everything = np.ones(len(places), bool)
    sampler = NearSampler(places, everything, neighbours=3)
    module = NearTriplets(regions, "street_view", sampler, margin=5.0)
    index = torch.tensor([0, 6, 9])
    with seeded(3):
        ours = module.loss(index)
    with seeded(3):
        triplets = module.sampler.triplets(index)
    shown = data.views[regions.view_order]
    hinges = []
    for triplet in triplets.tolist():
        near = [np.linalg.norm(places[triplet[0]] - places[k]) for k in triplet[1:]]
        assert near[0] < near[1]
        a, n, d = (module.head(module.encoder(torch.from_numpy(shown[[i]])))[0] for i in triplet)
        far = [(a - x + 1e-6).pow(2).sum().sqrt() for x in (n, d)]
        hinges.append(max(5.0 + far[0] - far[1], torch.zeros(())))
    same_gradients(ours, torch.stack(hinges).mean(), list(module.parameters()))


def test_regions_are_drawn_to_their_words_pair_by_pair(data: RegionData) -> None:
    module, told = word_training(data), counted(data)
    words = vocabulary(data, CONFIG, EVERYONE)
    index = torch.tensor([0, 5, 9])
    with seeded(3):
        ours = module.loss(index)
    with seeded(3):
        drawn = module.drawn(index)
    hinges = []
    for i, own, other in zip(*(part.tolist() for part in drawn), strict=True):
        assert words[own] in told[i] and words[other] not in told[i]
        near, far = (
            (module.regions[i] - module.words[k] + 1e-6).pow(2).sum().sqrt() for k in (own, other)
        )
        hinges.append(max(2.0 + near - far, torch.zeros(())))
    assert len(hinges) > 12
    same_gradients(ours, torch.stack(hinges).mean(), list(module.parameters()))


def test_other_words_are_drawn_by_the_root_of_how_often_they_are_found(data: RegionData) -> None:
    module = word_training(data, config(word_pairs=20_000))
    region = 5
    with seeded(0):
        _, _, other = module.drawn(torch.tensor([region]))
    each = torch.arange(len(module.noise))
    lacking = ~module.bags.has(torch.full_like(each, region), each)
    often = torch.bincount(module.bags.word, module.bags.count)
    expected = often.sqrt() * lacking
    found = torch.bincount(other, minlength=len(each)) / len(other)
    torch.testing.assert_close(found, (expected / expected.sum()).float(), atol=0.02, rtol=0)


def test_every_vector_learns_and_a_region_that_lacks_nothing_has_no_loss(data: RegionData) -> None:
    module = word_training(data)
    told = (module.bags.total() > 0).nonzero()[:, 0]
    with seeded(2):
        module.loss(told).backward()
    assert module.words.grad.abs().sum(dim=1).all()
    moved = module.regions.grad.abs().sum(dim=1) > 0
    assert moved[told].all() and not moved[[3, 8]].any()
    full = replace(
        data, poi_counts=np.ones_like(data.poi_counts), poi_names=None, poi_comments=None
    )
    nothing = word_training(full)
    for index in ([0], [1, 2]):
        value = nothing.loss(torch.tensor(index))
        value.backward()
        assert value == 0


def test_a_region_settles_down_the_slope_of_its_own_words(data: RegionData) -> None:
    """One step, against the gradient of the hinge's mean, word by word."""
    bags = Bags(data, vocabulary(data, CONFIG, EVERYONE))
    noise = torch.bincount(bags.word, bags.count).sqrt()
    with seeded(4):
        start, words = torch.randn(REGIONS, 12), torch.randn(bags.words, 12)
    found = settled(start, bags, words, noise, config(settle_steps=1, settle_rate=0.5))
    with seeded(0):
        others = torch.multinomial(noise, 32, replacement=True).tolist()
    for i in (0, 3, 5, 39):
        own = {
            int(bags.word[e]): float(bags.count[e])
            for e in range(int(bags.start[i]), int(bags.start[i + 1]))
        }
        z = start[i].clone().requires_grad_()
        lacks = [k for k in others if k not in own]
        hinges = [
            count * torch.relu(2.0 + (z - words[k]).norm() - (z - words[other]).norm())
            for k, count in own.items()
            for other in lacks
        ]
        slope = torch.zeros(12)
        if hinges:
            mean = torch.stack(hinges).sum() / sum(own.values()) / len(lacks)
            (slope,) = torch.autograd.grad(mean, z)
        torch.testing.assert_close(found[i], (start[i] - 0.5 * slope), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[3], start[3])  # no POI


# --- the whole -----------------------------------------------------------------------------------


def test_a_fit_depends_on_its_seed(data: RegionData, checkpoint: Checkpoint) -> None:
    assert equal(pretrained(data), checkpoint)
    assert not equal(pretrained(data, seed=1), checkpoint)
    assert [len(checkpoint.record[k]) for k in ("loss", "word_loss")] == [2, 2]
    assert len(checkpoint.record["words"]) == len(checkpoint.tensors["words.vectors"])


def test_losses_fall(data: RegionData) -> None:
    found = pretrained(data, config(epochs=12, word_epochs=10, learning_rate=3e-3))
    for key in ("loss", "word_loss"):
        assert np.mean(found.record[key][-3:]) < 0.95 * np.mean(found.record[key][:2]), key


def test_what_hidden_regions_hold_changes_nothing(city: tuple) -> None:
    data, _, parts = city
    hidden = parts.test
    views, named = hidden[data.view_region], hidden[data.poi_name_region]
    changed = replace(
        data,
        views=np.where(views[:, None, None, None], 0, data.views).astype(np.uint8),
        view_lonlat=np.where(views[:, None], 0, data.view_lonlat),
        poi_counts=np.where(hidden[:, None], 90, data.poi_counts).astype(np.float32),
        poi_names=np.where(named, "unheard", data.poi_names),
    )
    inductive = config(inductive=True)
    first = pretrained(data, inductive, visible=~hidden)
    second = pretrained(changed, inductive, visible=~hidden)
    assert equal(first, second) and first.record == second.record
    assert not equal(pretrained(data), pretrained(changed))  # the test can fail


def test_regions_start_at_the_mean_of_their_views_and_end_by_their_words(
    data: RegionData, checkpoint: Checkpoint
) -> None:
    rows = METHOD.embed(checkpoint, data, CONFIG)
    assert rows.shape == (REGIONS, 12) and rows.dtype == np.float32
    silent = replace(data, poi_counts=None, poi_names=None, poi_comments=None)
    starts = METHOD.embed(checkpoint, silent, CONFIG)
    own = {n: v for n, v in checkpoint.tensors.items() if not n.startswith("words.")}
    with seeded(0):
        regions = MuseRegions(data, METHOD.settings(CONFIG))
    load_arrays(regions, own)
    np.testing.assert_allclose(starts, embed_all(regions, REGIONS), atol=1e-6)
    unlike = ~np.isclose(rows, starts, atol=1e-6).all(axis=1)
    assert not unlike[[3, 8]].any() and unlike.sum() >= REGIONS - 4
    gone = np.bincount(data.view_region, minlength=REGIONS) == 0
    assert gone.any()
    middle = np.tile(starts[~gone].mean(axis=0), (gone.sum(), 1))
    np.testing.assert_allclose(starts[gone], middle, atol=1e-4)


def test_a_row_does_not_depend_on_who_else_is_embedded(
    data: RegionData, checkpoint: Checkpoint
) -> None:
    rows = METHOD.embed(checkpoint, data, CONFIG)
    some = np.array([2, 17, 30])
    position = np.full(REGIONS, -1)
    position[some] = np.arange(3)
    parts = {
        name: np.isin(getattr(data, f"{name}_region"), some)
        for name in ("view", "poi_name", "poi_comment")
    }
    part = replace(
        data, region_ids=data.region_ids[some], poi_counts=data.poi_counts[some],
        views=data.views[parts["view"]], poi_names=data.poi_names[parts["poi_name"]],
        poi_comments=data.poi_comments[parts["poi_comment"]],
        **{f"{n}_region": position[getattr(data, f"{n}_region")[p]] for n, p in parts.items()},
    )  # fmt: skip
    np.testing.assert_allclose(METHOD.embed(checkpoint, part, CONFIG), rows[some], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "fields", "learns", "inputs"),
    [
        ({"pois": False}, {}, False, ("street_views",)),
        ({}, {"poi_counts": None, "poi_names": None, "poi_comments": None}, False, None),
        ({}, {"poi_names": None, "poi_comments": None}, True, None),
        ({}, {"poi_counts": None}, True, None),
        ({"backbone": "towers"}, {}, True, None),
    ],
    ids=str,
)  # fmt: skip
def test_street_views_alone_and_what_a_city_has_not(
    data: RegionData, changes: dict, fields: dict, learns: bool, inputs: tuple | None
) -> None:
    less, changed = replace(with_towers(data, TOWER), **fields), config(epochs=1, **changes)
    found = pretrained(less, changed)
    assert ("words.vectors" in found.tensors) is learns
    assert np.isfinite(METHOD.embed(found, less, changed)).all()
    read = inputs_of(METHODS["urban2vec"], changed)
    assert read == (inputs or ("street_views", "pois", "poi_texts"))
    assert ("towers" in changed.switched_off()) is (changed.backbone != "towers")


def test_what_cannot_work_is_refused(data: RegionData) -> None:
    with pytest.raises(ValidationError, match=r"inception_v3 needs pictures of 75.*view_px"):
        config(backbone="inception_v3")
    for less in (replace(data, views=None, view_region=None), data):
        with pytest.raises(DataError, match=r"sources\.street_views"):
            pretrained(less, visible=np.zeros(REGIONS, bool))


@pytest.mark.parametrize("killed_in", [2, 4], ids=["views", "words"])
def test_goes_on_after_a_kill(data: RegionData, tmp_path, killed_in: int) -> None:
    goes_on_after_a_kill(METHOD, CONFIG, data, tmp_path, killed_in=killed_in)


def test_embeddings_predict_what_views_and_words_tell(city: tuple) -> None:
    data, targets, parts = city
    changed = config(epochs=5, word_epochs=5, settle_steps=30)
    found = pretrained(data, changed)
    rows = METHOD.embed(found, data, changed)
    spec = METHODS["urban2vec"]
    head = fit_predictor(spec, changed, found, rows, seed=0, targets=targets, parts=parts)
    predicted = predict(spec, changed, head, rows, data)
    seen = ~parts.train
    assert r2(predicted["income"], targets.values["income"], seen) > 0.2
