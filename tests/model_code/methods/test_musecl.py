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
from model_code.methods import METHODS, MuseClConfig
from model_code.methods.base import Checkpoint, RegionData, Workspace
from model_code.methods.musecl import (
    METHOD,
    Alignment,
    MuseRegions,
    PoiWords,
    TripletSampler,
    TripletTraining,
    mobility,
    poi_sentences,
    samplers,
    similarity,
    started,
)
from model_code.methods.run import fit_predictor, inputs_of, predict
from model_code.training import evaluating, load_arrays, seeded
from model_code.vision.backbones import ImageEncoder
from tests.model_code.methods.fake_city import equal, fake_city, r2, with_towers

CONFIG = MuseClConfig.model_validate(
    {
        "chip_px": 16, "view_px": (16, 24), "width": 12, "epochs": 2, "align_epochs": 2, "batch": 16,
        "augment": False, "word_epochs": 2, "word_min_count": 1, "positives": 3, "candidates": 4,
        "satellite_backbone": "small", "street_view_backbone": "small",
    }
)  # fmt: skip
TOWER = {
    "shrink": 1, "patch_px": 8, "image_width": 32, "image_layers": 1, "text_width": 32,
    "text_layers": 1, "embed_dim": 8, "context": 16,
}  # fmt: skip
REGIONS = 40
EVERYONE = np.ones(REGIONS, bool)


def config(**changes: object) -> MuseClConfig:
    return MuseClConfig.model_validate(CONFIG.model_dump() | changes)


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city(REGIONS)


@pytest.fixture(scope="module")
def data(city: tuple) -> RegionData:
    return city[0]


@pytest.fixture(scope="module")
def checkpoint(data: RegionData) -> Checkpoint:
    return pretrained(data)


def pretrained(data: RegionData, changed: MuseClConfig = CONFIG, **kwargs: object) -> Checkpoint:
    return METHOD.pretrain(data, changed, **{"seed": 0, "visible": EVERYONE, **kwargs})


def regions_of(data: RegionData, changed: MuseClConfig = CONFIG) -> MuseRegions:
    with seeded(1):
        return MuseRegions(data, changed)


def assert_same_gradients(ours: torch.Tensor, twin: torch.Tensor, parameters: list) -> None:
    torch.testing.assert_close(ours, twin, rtol=1e-4, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(ours, parameters, allow_unused=True),
        torch.autograd.grad(twin, parameters, allow_unused=True),
        strict=True,
    ):
        if a is None or b is None:  # tokens for what no region of the batch lacks
            assert a is b or not (b if a is None else a).any()
        else:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


# --- similarity and sampling ---------------------------------------------------------------------


def test_mobility_and_similarity_are_those_of_the_paper_pair_by_pair(data: RegionData) -> None:
    flows = mobility(data, EVERYONE)
    trips = list(zip(data.flow_origin, data.flow_destination, data.flow_count, strict=True))
    for i in range(REGIONS):
        assert flows[i].tolist() == [
            sum(c for o, _, c in trips if o == i), sum(c for _, d, c in trips if d == i)
        ]  # fmt: skip
    ours = similarity(*[torch.from_numpy(flows)] * 2)
    for i, j in ((0, 1), (5, 30), (7, 7)):
        distance = sum((flows[i, d] - flows[j, d]) ** 2 for d in range(2)) ** 0.5
        assert ours[i, j].item() == pytest.approx(1 / (distance + 1e-6))


@pytest.mark.parametrize("block_bytes", [1, 8 * 9 * 4, 2**26])
def test_positives_are_the_most_similar_and_negatives_the_least_of_the_drawn(
    monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr("model_code.methods.musecl._BLOCK_BYTES", block_bytes)
    rng = np.random.default_rng(2)
    features, usable = rng.integers(0, 50, (12, 3)).astype(float), rng.random(12) < 0.8
    few = np.flatnonzero(usable)
    alike = {
        (i, j): 1 / (np.linalg.norm(features[i] - features[j]) + 1e-6) for i in few for j in few
    }
    every = TripletSampler(features, usable, positives=2, candidates=400)
    seen: set[tuple[int, int]] = set()
    for step in range(30):
        with seeded(step):
            triplets, near = every.draw(torch.arange(12))
        for (i, p, n), (sp, sn) in zip(triplets.tolist(), near.tolist(), strict=True):
            others = sorted((alike[i, j], j) for j in few if j != i)
            assert {v for v, _ in others[-2:]} >= {alike[i, p]} and p != i
            assert alike[i, n] == others[0][0]  # 400 draws leave none out
            assert (sp, sn) == pytest.approx((alike[i, p], alike[i, n]))
            seen.add((i, p))
        assert triplets[:, 0].tolist() == few.tolist()
    assert len(seen) == 2 * len(few)  # either positive is drawn


def test_random_negatives_are_any_other_region(data: RegionData) -> None:
    drawn = samplers(data, config(negatives="random"), EVERYONE)["satellite"]
    negatives: set[int] = set()
    for step in range(300):
        with seeded(step):
            triplets, near = drawn.draw(torch.tensor([4, 4, 4]))
        negatives |= set(triplets[:, 2].tolist())
        assert (near[:, 1] < near[:, 0]).all()
    # All that are less alike than the most similar one: who is as similar is no negative.
    most = drawn.regions[drawn.nearest[drawn.position[4], 0]].item()
    assert negatives == set(drawn.regions.tolist()) - {4, most}


def test_equal_regions_have_finite_similarities_and_no_negatives() -> None:
    drawn = TripletSampler(np.ones((5, 2)), np.ones(5, bool), positives=2, candidates=3)
    triplets, _ = drawn.draw(torch.arange(5))
    assert triplets.shape == (0, 3)
    assert similarity(torch.ones(2, 3), torch.ones(2, 3)).isfinite().all()


def test_regions_without_picture_pois_or_trips_are_in_no_triplet(data: RegionData) -> None:
    counts = data.poi_counts.copy()
    counts[3] = 0
    moving = (data.flow_origin != 5) & (data.flow_destination != 5)
    less = replace(
        data,
        poi_counts=counts,
        flow_origin=data.flow_origin[moving],
        flow_destination=data.flow_destination[moving],
        flow_count=data.flow_count[moving],
    )
    visible = EVERYONE.copy()
    visible[7] = False
    drawn = samplers(less, CONFIG, visible)
    viewed = np.bincount(data.view_region, minlength=REGIONS) > 0
    chips = data.chip_present & visible & (np.arange(REGIONS) != 3)
    np.testing.assert_array_equal(drawn["satellite"].regions, np.flatnonzero(chips))
    assert not {5, 7} & set(drawn["street_view"].regions.tolist())
    assert set(drawn["street_view"].regions.tolist()) <= set(np.flatnonzero(viewed))
    none, _ = drawn["satellite"].draw(torch.tensor([3, 7]))
    assert len(none) == 0
    two = np.arange(REGIONS) < 2
    assert samplers(data, CONFIG, two) == {}


def test_a_view_of_each_region_is_drawn_at_random(data: RegionData) -> None:
    regions = regions_of(data)
    own = data.view_region[regions.view_order]
    some = torch.from_numpy(np.unique(own))
    seen: set[int] = set()
    for step in range(60):
        with seeded(step):
            views = regions.drawn("street_view", some).tolist()
        assert own[views].tolist() == some.tolist()
        seen |= set(views)
    assert seen == set(range(len(own)))


# --- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_the_triplet_loss_is_that_of_the_paper_triplet_by_triplet(
    data: RegionData, distance: str
) -> None:
    changed = config(distance=distance)
    regions, index = regions_of(data, changed), torch.tensor([0, 6, 9, 21])
    drawn = samplers(data, changed, EVERYONE)
    training = TripletTraining(regions, drawn, changed)
    with seeded(3):
        ours = training.loss(index)
    twin = torch.zeros(())
    with seeded(3):  # the same draws, in the same order
        for view, sampler in drawn.items():
            triplets, _ = sampler.draw(index)
            shown = regions.drawn(view, triplets.flatten())
            pictures = regions.pixels[view][shown].view(-1, 3, 16, (16, 24)[view > "sb"], 3)
            hinges = []
            for triplet in pictures:
                a, p, n = (
                    regions.joint.heads[view].linear(regions.encoders[view](one[None]))[0]
                    for one in triplet
                )
                if distance == "cosine":
                    near, far = (1 - F.cosine_similarity(a, x, dim=0) for x in (p, n))
                else:
                    near, far = ((a - x + 1e-6).norm() for x in (p, n))
                margin = {"cosine": 0.3, "euclidean": 5.0}[distance]
                hinges.append(max(margin + near - far, torch.zeros(())))
            twin = twin + torch.stack(hinges).mean()
    assert_same_gradients(ours, twin, list(training.parameters()))


def aligned(data: RegionData, changed: MuseClConfig = CONFIG) -> Alignment:
    regions = regions_of(data, changed)
    with evaluating(regions):
        values = regions.values(torch.arange(REGIONS))
    teacher = None
    if changed.pois:
        words = PoiWords(3, changed.width)
        words.learn(data, changed, EVERYONE, 0)
        teacher = words(torch.from_numpy(data.poi_counts))
    return Alignment(regions.joint, values, teacher, samplers(data, changed, EVERYONE), changed)


def test_the_alignment_is_that_of_the_paper_region_by_region(data: RegionData) -> None:
    """Equations 7 to 11, for regions with and without a chip or a street view."""
    changed = config(absent_rate=1e-9, temperature=0.2)
    counts = data.poi_counts.copy()
    counts[4] = 0
    data = replace(data, poi_counts=counts)
    module = aligned(data, changed)
    joint, index = module.joint, [2, 4, 8, 11, 25, 31]
    views = np.bincount(data.view_region, minlength=REGIONS)
    index += [int(np.flatnonzero(views == 0)[0]), int(np.flatnonzero(~data.chip_present)[0])]
    words = PoiWords(3, changed.width)
    words.learn(data, changed, EVERYONE, 0)
    fused, told = [], []
    for i in (i for i in index if counts[i].any()):
        pois = [words.words[k] for k in range(3) for _ in range(int(counts[i, k]))]
        told.append((sum(pois) / len(pois) - words.mean) / words.scale)
        parts = [
            head.linear(module.values[view][0][i]) if module.values[view][1][i] else head.absent
            for view, head in joint.heads.items()
        ]
        alpha = [joint.fusion.score(torch.relu(joint.fusion.hidden(e)))[0] for e in parts]
        beta = torch.stack(alpha).softmax(0)
        fused.append(sum(b * e for b, e in zip(beta, parts, strict=True)))
    logits = [[F.cosine_similarity(f, t, dim=0) / 0.2 for t in told] for f in fused]
    losses = [torch.logsumexp(torch.stack(row), 0) - row[i] for i, row in enumerate(logits)]
    twin = torch.stack(losses).mean()
    assert len(losses) == len(index) - 1
    assert_same_gradients(module.loss(torch.tensor(index)), twin, list(module.parameters()))


@pytest.mark.parametrize(
    "changes",
    [{}, {"fusion": "add"}, {"pois": False}, {"satellite": False}, {"street_views": False},
     {"distance": "euclidean"}],
    ids=str,
)  # fmt: skip
def test_every_parameter_that_can_learn_does_and_backbones_rest_in_the_alignment(
    data: RegionData, changes: dict
) -> None:
    changed = config(absent_rate=0.3, **changes)
    regions = regions_of(data, changed)
    training = TripletTraining(regions, samplers(data, changed, EVERYONE), changed)
    alignment = aligned(data, changed)
    for module, learns in ((training, "encoders"), (alignment, "joint")):
        before = {name: p.detach().clone() for name, p in module.named_parameters()}
        with seeded(2):
            module.loss(torch.arange(REGIONS)).backward()
        torch.optim.SGD(module.parameters(), lr=1.0).step()
        still = [n for n, p in module.named_parameters() if torch.equal(p, before[n])]
        assert still == [] and any(name.startswith(learns) for name in before)
    assert not any("encoders" in name for name in before)
    assert {name.split(".")[0] for name, _ in training.named_parameters()} == {"encoders", "heads"}


@pytest.mark.parametrize("index", [[7], [0, 1, 2]], ids=["one", "few"])
def test_a_small_batch_has_a_loss(data: RegionData, index: list[int]) -> None:
    regions = regions_of(data)
    training = TripletTraining(regions, samplers(data, CONFIG, EVERYONE), CONFIG)
    for module in (training, aligned(data), aligned(data, config(pois=False))):
        value = module.loss(torch.tensor(index))
        value.backward()
        assert value.isfinite()
        assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


# --- words ---------------------------------------------------------------------------------------


def test_sentences_begin_with_the_category_and_regions_are_sentences_too(data: RegionData) -> None:
    visible = np.arange(REGIONS) < 20
    found = poi_sentences(data, np.array(["§0", "§1", "§2"]), visible, 0)
    said = visible[data.poi_name_region].sum(), visible[data.poi_comment_region].sum()
    first = np.flatnonzero(visible[data.poi_name_region])[0]
    code = data.poi_categories.index(data.poi_name_category[first])
    assert found[0] == [f"§{code}", *data.poi_names[first].lower().split()]
    whole = found[sum(said) :]
    assert len(whole) == 20
    for i in range(20):
        assert [whole[i].count(f"§{k}") for k in range(3)] == data.poi_counts[i].tolist()
        assert whole[i] != sorted(whole[i])
    silent = replace(data, poi_names=None, poi_comments=None)
    assert poi_sentences(silent, np.array(["§0", "§1", "§2"]), visible, 0) == whole


def test_categories_that_no_visible_region_has_count_nowhere(data: RegionData) -> None:
    counts = np.hstack([data.poi_counts, np.zeros((REGIONS, 1), np.float32)])
    counts[39, 3], counts[38] = 5, [0, 0, 0, 2]
    odd = replace(data, poi_counts=counts, poi_categories=(*data.poi_categories, "zoo"))
    words = PoiWords(4, 12)
    words.learn(odd, CONFIG, np.arange(REGIONS) < 38, 0)
    assert words.known.tolist() == [True, True, True, False]
    vectors, present = words(torch.from_numpy(counts))
    assert not present[38] and present[39] and vectors.isfinite().all()
    torch.testing.assert_close(
        vectors[39], words(torch.from_numpy(counts * [1, 1, 1, 0]).float())[0][39]
    )
    seen = vectors[:38][present[:38]]
    torch.testing.assert_close(seen.mean(0), torch.zeros(12), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.std(0, correction=0), torch.ones(12), atol=1e-3, rtol=0)


# --- pretraining ---------------------------------------------------------------------------------


def test_pretraining_is_deterministic_in_its_seed(data: RegionData, checkpoint: Checkpoint) -> None:
    assert equal(pretrained(data), checkpoint)
    assert not equal(pretrained(data, seed=1), checkpoint)
    assert [len(checkpoint.record[k]) for k in ("loss", "align_loss")] == [2, 2]
    assert checkpoint.record["features"] == ["satellite", "street_view"]


@pytest.mark.parametrize("killed_in", [2, 4], ids=["triplets", "alignment"])
def test_goes_on_after_a_kill(
    data: RegionData, checkpoint: Checkpoint, tmp_path, killed_in: int
) -> None:
    class PowerCut(BaseException):
        pass

    lines: list[str] = []

    def cut(line: str) -> None:
        lines.append(line)
        if len(lines) == killed_in:  # the state of the epoch before is kept
            raise PowerCut

    with pytest.raises(PowerCut):
        pretrained(data, workspace=Workspace(cut, tmp_path))
    again: list[str] = []
    resumed = pretrained(data, workspace=Workspace(again.append, tmp_path))
    assert equal(resumed, checkpoint) and resumed.record == checkpoint.record
    assert len(again) == 5 - killed_in  # what was done is not done again


def test_both_losses_fall(data: RegionData) -> None:
    found = pretrained(data, config(epochs=25, align_epochs=40, learning_rate=3e-3, word_epochs=30))
    for key in ("loss", "align_loss"):
        first, last = found.record[key][0], found.record[key][-1]
        assert last < 0.8 * first, key


def test_what_hidden_regions_hold_changes_nothing(city: tuple) -> None:
    data, _, parts = city
    visible, hidden = ~parts.test, parts.test
    views, named = hidden[data.view_region], hidden[data.poi_name_region]
    touched = hidden[data.flow_origin] | hidden[data.flow_destination]
    changed = replace(
        data,
        chips=np.where(hidden[:, None, None, None], 7, data.chips).astype(np.uint8),
        views=np.where(views[:, None, None, None], 0, data.views).astype(np.uint8),
        poi_counts=np.where(hidden[:, None], 90, data.poi_counts).astype(np.float32),
        poi_names=np.where(named, "unheard", data.poi_names),
        flow_count=np.where(touched, 1e4, data.flow_count),
    )
    for fusion in ("attention", "concat"):
        inductive = config(inductive=True, fusion=fusion)
        first = pretrained(data, inductive, visible=visible)
        assert equal(first, pretrained(changed, inductive, visible=visible))
    assert not equal(pretrained(data), pretrained(changed))  # the test can fail


# --- pretrained towers ---------------------------------------------------------------------------

TOWERS = {"satellite_backbone": "towers", "street_view_backbone": "towers"}


@pytest.fixture(scope="module")
def towered(data: RegionData) -> RegionData:
    return with_towers(data, TOWER)


def weights(checkpoint: Checkpoint, view: str) -> dict[str, np.ndarray]:
    """The image tower in a checkpoint, by its names in the given towers."""
    start = f"encoders.{view}.tower.visual."
    return {
        name.replace(start, "clip.visual."): value
        for name, value in checkpoint.tensors.items()
        if name.startswith(start)
    }


@pytest.mark.parametrize("rest", [True, False])
def test_towers_rest_unless_they_are_told_to_train(towered: RegionData, rest: bool) -> None:
    found = pretrained(towered, config(rest=rest, **TOWERS))
    for view, given in towered.towers.items():
        own = weights(found, view)
        assert bool(own) is not rest  # what rests is in the city's towers
        assert not any(np.array_equal(value, given.tensors[name]) for name, value in own.items())
    assert inputs_of(METHODS["musecl"], config(**TOWERS))[-1] == "flows"


def test_resting_towers_are_read_once_and_give_what_reading_again_gives(
    towered: RegionData,
) -> None:
    fresh = replace(towered)
    changed = config(**TOWERS)
    visible = np.arange(REGIONS) < 30
    found = pretrained(fresh, changed, visible=visible)
    assert set(fresh.memo) == {("tower vectors", "satellite"), ("tower vectors", "street_view")}
    with seeded(0):
        regions = MuseRegions(fresh, changed)
    load_arrays(regions, found.tensors)
    assert regions.known == {}
    with evaluating(regions):
        for view, pictures in regions.pixels.items():
            features = regions.features(view, torch.arange(len(pictures))).numpy()
            if view == "satellite":
                seen = features[visible & fresh.chip_present]
            else:
                seen = features[visible[fresh.view_region[regions.view_order]]]
            np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-3)
            np.testing.assert_allclose(seen.std(axis=0), 1, atol=1e-2)
    assert np.isfinite(METHOD.embed(found, fresh, changed)).all()


def test_what_resting_towers_made_is_read_where_the_heads_are_trained(towered: RegionData) -> None:
    """Another device stands in for a GPU; the training moves the heads alone."""
    changed = config(**TOWERS)
    regions = started(towered, changed, EVERYONE, 0)
    module = TripletTraining(regions, samplers(towered, changed, EVERYONE), changed).to("meta")
    assert next(regions.encoders.parameters()).device.type == "cpu"
    assert module.loss(torch.arange(REGIONS)).device.type == "meta"


def test_a_checkpoint_without_its_towers_embeds_as_one_with_them(towered: RegionData) -> None:
    changed = config(**TOWERS)
    found = pretrained(towered, changed)
    whole = dict(found.tensors)
    for view, given in towered.towers.items():
        for name, value in given.tensors.items():
            if name.startswith("clip.visual."):
                whole[f"encoders.{view}.tower.{name.removeprefix('clip.')}"] = value
    assert len(whole) > len(found.tensors) + 10
    rows = METHOD.embed(found, towered, changed)
    np.testing.assert_array_equal(
        rows, METHOD.embed(replace(found, tensors=whole), towered, changed)
    )
    with pytest.raises(DataError, match="other towers than those of this city"):
        METHOD.embed(found, with_towers(towered, TOWER, seed=6), changed)


def test_labels_train_towers_that_have_rested(city: tuple, towered: RegionData) -> None:
    _, targets, parts = city
    found = pretrained(towered, config(**TOWERS))
    rows = METHOD.embed(found, towered, config(**TOWERS))
    for mode in ("end_to_end", "scratch"):
        changed = config(**TOWERS, mode=mode, tuning={"epochs": 1, "batch": 13, "hidden": 8})
        spec = METHODS["musecl"]
        predictor = fit_predictor(
            spec, changed, found, rows, seed=0, targets=targets, parts=parts, data=towered
        )
        own = {n.removeprefix("encoder."): v for n, v in predictor.tensors.items()}
        for view, given in towered.towers.items():
            held = weights(Checkpoint(own), view)
            assert held and not any(np.array_equal(v, given.tensors[n]) for n, v in held.items())
        predicted = predict(spec, changed, predictor, rows, towered)
        assert np.isfinite(predicted["income"]).all()


def test_towers_that_a_city_has_not_are_named(data: RegionData, towered: RegionData) -> None:
    with pytest.raises(DataError, match="no pretrained towers of the view satellite"):
        pretrained(data, config(**TOWERS))
    only = {"satellite": towered.towers["satellite"]}
    with pytest.raises(DataError, match="no pretrained towers of the view street_view"):
        pretrained(replace(data, towers=only), config(**TOWERS))
    own = config(**{**TOWERS, "street_view_backbone": "small"})
    pretrained(replace(data, towers=only), own)


@pytest.mark.parametrize(
    ("changes", "reads"),
    [
        (TOWERS, True),
        ({}, False),
        ({**TOWERS, "street_views": False}, True),
        ({**TOWERS, "satellite_backbone": "small", "street_views": False}, False),
        ({**TOWERS, "satellite": False, "street_views": False}, False),
    ],
    ids=str,
)
def test_towers_are_needed_where_a_view_that_is_on_has_them(changes: dict, reads: bool) -> None:
    assert ("towers" not in config(**changes).switched_off()) is reads


ALL = ["imagery", "street_views", "pois", "poi_texts", "flows"]


@pytest.mark.parametrize(
    ("changes", "fields", "features", "width", "inputs", "losses"),
    [
        ({}, {}, ["satellite", "street_view"], 12, ALL, (2, 2)),
        ({"fusion": "add"}, {}, ["satellite", "street_view"], 12, ALL, (2, 2)),
        ({"fusion": "concat"}, {}, ["satellite", "street_view", "pois"], 36, ALL, (2, 0)),
        ({"satellite": False}, {}, ["street_view"], 12, ALL[1:], (2, 2)),
        ({"street_views": False}, {}, ["satellite"], 12, ["imagery", "pois", "poi_texts"], (2, 2)),
        ({"pois": False}, {}, ["satellite", "street_view"], 12,
         ["imagery", "street_views", "pois", "flows"], (2, 2)),
        ({"pois": False, "fusion": "add"}, {}, ["satellite", "street_view"], 12,
         ["imagery", "street_views", "pois", "flows"], (2, 0)),
        ({"pois": False, "satellite": False}, {}, ["street_view"], 12, ["street_views", "flows"], (2, 0)),
        ({"pois": False, "street_views": False}, {}, ["satellite"], 12, ["imagery", "pois"], (2, 0)),
        ({"satellite": False, "street_views": False}, {}, ["pois"], 12, ["pois", "poi_texts"], (0, 0)),
        ({}, {"views": None, "view_region": None}, ["satellite"], 12, ALL, (2, 2)),
        ({}, {"chips": None, "chip_present": None}, ["street_view"], 12, ALL, (2, 2)),
        ({}, {"flow_origin": None, "flow_destination": None, "flow_count": None},
         ["satellite", "street_view"], 12, ALL, (2, 2)),
        ({}, {"poi_names": None, "poi_comments": None}, ["satellite", "street_view"], 12, ALL, (2, 2)),
        ({}, {"poi_counts": None}, ["satellite", "street_view"], 12, ALL, (2, 2)),
    ],
    ids=str,
)  # fmt: skip
def test_variants_and_what_a_city_has_not(
    data: RegionData, changes: dict, fields: dict, features: list[str], width: int,
    inputs: list[str], losses: tuple[int, int],
) -> None:  # fmt: skip
    less, changed = replace(data, **fields), config(**changes)
    found = pretrained(less, changed)
    assert found.record["features"] == features
    assert (len(found.record["loss"]), len(found.record["align_loss"])) == losses
    rows = METHOD.embed(found, less, changed)
    assert rows.shape == (REGIONS, width) and np.isfinite(rows).all() and rows.std() > 0
    assert list(inputs_of(METHODS["musecl"], changed)) == inputs


def test_what_cannot_work_is_refused(data: RegionData) -> None:
    with pytest.raises(ValidationError, match="at least one of satellite"):
        config(satellite=False, street_views=False, pois=False)
    with pytest.raises(ValidationError, match=r"inception_v3 needs pictures of 75.*view_px"):
        config(street_view_backbone="inception_v3")
    with pytest.raises(DataError, match="neither satellite chips"):
        pretrained(replace(data, poi_counts=None), config(satellite=False, street_views=False))


def test_given_weights_are_what_the_backbone_starts_from(data: RegionData, tmp_path) -> None:
    with seeded(9):
        state = ImageEncoder("small").layers.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    weights = {"path": str(tmp_path / "w.safetensors")}
    weights["sha256"] = file_digest(weights["path"])
    changed = config(satellite_weights=weights, learning_rate=1e-12)
    found = pretrained(data, changed)
    for name, value in state.items():
        np.testing.assert_allclose(
            found.tensors[f"encoders.satellite.layers.{name}"], value, atol=1e-6
        )


def test_papers_backbones_train_and_embed(data: RegionData) -> None:
    some = np.arange(6)
    of_some = np.isin(data.view_region, some)
    small = replace(
        data, region_ids=data.region_ids[some], chips=data.chips[some],
        chip_present=data.chip_present[some], poi_counts=data.poi_counts[some], poi_names=None,
        poi_comments=None, views=data.views[of_some], view_region=data.view_region[of_some],
        flow_origin=np.arange(6), flow_destination=np.roll(np.arange(6), 1), flow_count=np.arange(1, 7.0),
    )  # fmt: skip
    changed = config(
        satellite_backbone="resnet18", street_view_backbone="inception_v3", chip_px=32,
        view_px=(80, 96), epochs=1, align_epochs=1, batch=3,
    )  # fmt: skip
    found = METHOD.pretrain(small, changed, seed=0, visible=np.ones(6, bool))
    assert np.isfinite(METHOD.embed(found, small, changed)).all()


# --- embeddings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["attention", "add", "concat"])
def test_a_row_does_not_depend_on_who_else_is_embedded(data: RegionData, fusion: str) -> None:
    changed = config(fusion=fusion)
    found = pretrained(data, changed)
    rows = METHOD.embed(found, data, changed)
    some = np.array([2, 17, 30])
    of_some = np.isin(data.view_region, some)
    position = np.full(REGIONS, -1)
    position[some] = np.arange(3)
    part = replace(
        data, region_ids=data.region_ids[some], chips=data.chips[some],
        chip_present=data.chip_present[some], poi_counts=data.poi_counts[some],
        views=data.views[of_some], view_region=position[data.view_region[of_some]],
    )  # fmt: skip
    np.testing.assert_allclose(METHOD.embed(found, part, changed), rows[some], atol=1e-5)


def test_absent_pictures_are_their_tokens_and_absent_pois_too(data: RegionData) -> None:
    counts = data.poi_counts.copy()
    counts[3] = 0
    less, changed = replace(data, poi_counts=counts), config(fusion="concat")
    found = pretrained(less, changed)
    parts = np.split(METHOD.embed(found, less, changed), 3, axis=1)
    views = np.bincount(data.view_region, minlength=REGIONS)
    gone = {
        "satellite": ~data.chip_present,
        "street_view": views == 0,
        "pois": np.arange(REGIONS) == 3,
    }
    for part, (name, without) in zip(parts, gone.items(), strict=True):
        token = found.tensors[f"joint.heads.{name}.absent"]
        np.testing.assert_array_equal((part == token).all(axis=1), without)
        assert without.any() and token.any()
        # It stands where the others are on average.
        np.testing.assert_allclose(part[~without].mean(axis=0), token, atol=1e-4)


def test_a_region_without_pois_is_an_average_one_by_any_seed(data: RegionData) -> None:
    counts = data.poi_counts.copy()
    counts[3] = 0
    less, changed = replace(data, poi_counts=counts), config(satellite=False, street_views=False)
    rows = [METHOD.embed(pretrained(less, changed, seed=s), less, changed) for s in (0, 1)]
    assert not np.allclose(*(np.delete(row, 3, axis=0) for row in rows), atol=0.1)
    for row in rows:
        np.testing.assert_allclose(row[3], np.delete(row, 3, axis=0).mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(rows[0][3], rows[1][3], atol=1e-4)


def test_all_views_of_a_region_are_in_its_embedding(
    data: RegionData, checkpoint: Checkpoint
) -> None:
    rows = METHOD.embed(checkpoint, data, CONFIG)
    many = np.flatnonzero(np.bincount(data.view_region) == 3)[0]
    for view in np.flatnonzero(data.view_region == many):
        views = data.views.copy()
        views[view] = 255 - views[view]
        other = METHOD.embed(checkpoint, replace(data, views=views), CONFIG)
        changed = ~np.isclose(other, rows, atol=1e-6).all(axis=1)
        np.testing.assert_array_equal(np.flatnonzero(changed), [many])


@pytest.mark.parametrize("fusion", ["attention", "concat"])
def test_the_encoder_takes_the_checkpoint_and_is_tuned(city: tuple, fusion: str) -> None:
    data, targets, parts = city
    one = replace(targets, tasks=targets.tasks[:1])  # a city with one task
    found = pretrained(data, config(fusion=fusion))
    rows = METHOD.embed(found, data, config(fusion=fusion))
    for mode in ("finetune", "end_to_end", "scratch"):
        changed = config(fusion=fusion, mode=mode, tuning={"epochs": 2, "batch": 13, "hidden": 8})
        spec = METHODS["musecl"]
        predictor = fit_predictor(
            spec, changed, found, rows, seed=0, targets=one, parts=parts, data=data
        )
        predicted = predict(spec, changed, predictor, rows, data)
        assert set(predicted) == {"income"} and np.isfinite(predicted["income"]).all()
        # Word vectors rest; without pretraining there are none.
        words = ("words.", *(["joint.heads.pois.linear"] if mode == "scratch" else []))
        still = [
            name for name, value in found.tensors.items()
            if not name.startswith(words)
            and np.array_equal(predictor.tensors[f"encoder.{name}"], value)
        ]  # fmt: skip
        assert still == []


def test_embeddings_predict_what_the_pictures_show() -> None:
    data, targets, parts = fake_city(120)
    found = METHOD.pretrain(data, config(epochs=6), seed=0, visible=np.ones(120, bool))
    rows = METHOD.embed(found, data, CONFIG)
    spec = METHODS["musecl"]
    head = fit_predictor(spec, CONFIG, found, rows, seed=0, targets=targets, parts=parts)
    predicted = predict(spec, CONFIG, head, rows, data)
    assert r2(predicted["income"], targets.values["income"], parts.test) > 0.5
