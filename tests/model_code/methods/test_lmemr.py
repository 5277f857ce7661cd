from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from model_code.errors import DataError
from model_code.methods import LmemrConfig, method_config
from model_code.methods.base import Checkpoint, Parts, RegionData, Targets, Task
from model_code.methods.lmemr import (
    HOURS,
    METHOD,
    GraphBlock,
    HourlyNet,
    channel_similarity,
    described,
    expectation,
    task_losses,
)
from model_code.methods.modalities import MODALITIES, modality_features
from model_code.training import evaluating, seeded
from tests.model_code.methods.fake_city import fake_city, r2
from tests.model_code.test_losses import same_value_and_gradient

SIZE: dict[str, Any] = {
    "encoder": "small", "image_px": 16, "width": 16, "heads": 2, "blocks": 2, "temporal_layers": 1,
}  # fmt: skip


def config(**changes: Any) -> LmemrConfig:
    made = method_config("lmemr", {**SIZE, **changes})
    assert isinstance(made, LmemrConfig)
    return made


def hourly_city(regions: int) -> tuple[RegionData, Targets, Parts]:
    data, targets, parts = fake_city(regions)
    task = next(task for task in targets.tasks if task.kind == "hourly")
    return data, Targets((task,), {task.name: targets.values[task.name]}), parts


@pytest.fixture(scope="module")
def city() -> tuple[RegionData, Targets, Parts]:
    return hourly_city(120)


def fitted(city: tuple, **changes: Any) -> Checkpoint:
    data, targets, parts = city
    settings = {"epochs": 2, **changes}
    return METHOD.fit(data, targets, parts, config(**settings), seed=0)


def net_of(city: tuple, **changes: Any) -> HourlyNet:
    data, targets, parts = city
    made = config(**changes)
    with seeded(0):
        net = METHOD._net(data, made, parts.train)
    net.set_labels(targets.values["outflow"])
    return net


# --- equations, as written -----------------------------------------------------------------------


def test_channel_similarity_is_equation_5_over_the_number_of_regions() -> None:
    with seeded(1):
        query = torch.randn(7, 4, dtype=torch.float64).requires_grad_()
        key = torch.randn(7, 4, dtype=torch.float64).requires_grad_()
    rows = []
    for i in range(4):
        products = [sum(query[b, i] * key[b, j] for b in range(7)) / 7 for j in range(4)]
        total = sum(p.exp() for p in products)
        rows.append(torch.stack([p.exp() / total for p in products]))
    found, naive = channel_similarity(query, key), torch.stack(rows)
    torch.testing.assert_close(found, naive)
    same_value_and_gradient((found**2).sum(), (naive**2).sum(), query, key)


def test_similarity_does_not_grow_with_the_number_of_regions() -> None:
    with seeded(1):
        query, key = torch.randn(2, 7, 4).unbind()
    many = channel_similarity(query.repeat(9, 1), key.repeat(9, 1))
    torch.testing.assert_close(many, channel_similarity(query, key))


def test_expectation_is_equation_15() -> None:
    with seeded(2):
        logits = torch.randn(2, 3, 5, dtype=torch.float64).requires_grad_()
    centres = torch.tensor([-2.0, -1.0, 0.0, 1.0, 4.0], dtype=torch.float64)
    each = []
    for row in logits.flatten(0, 1):
        total = sum(value.exp() for value in row)
        each.append(sum(v.exp() / total * m for v, m in zip(row, centres, strict=True)))
    expected = torch.stack(each).view(2, 3)
    found = expectation(logits, centres)
    torch.testing.assert_close(found, expected)
    same_value_and_gradient((found**2).sum(), (expected**2).sum(), logits)


def test_task_losses_are_equations_16_and_17_without_missing_hours() -> None:
    with seeded(3):
        logits = torch.randn(3, HOURS, 4, dtype=torch.float64).requires_grad_()
        flows = torch.randn(3, HOURS, dtype=torch.float64).requires_grad_()
        labels = torch.randn(3, HOURS, dtype=torch.float64)
        codes = torch.randint(4, (3, HOURS))
    labels[1, 5] = labels[2] = torch.nan
    surprise, squared, count = 0.0, 0.0, 0
    for i in range(3):
        for t in range(HOURS):
            if not torch.isnan(labels[i, t]):
                surprise = surprise - torch.log_softmax(logits[i, t], 0)[codes[i, t]]
                squared, count = squared + (flows[i, t] - labels[i, t]) ** 2, count + 1
    found = task_losses(logits, flows, labels, codes)
    same_value_and_gradient(found[0], surprise / count, logits)
    same_value_and_gradient(found[1], squared / count, flows)
    assert task_losses(None, flows, labels, labels)[0] == 0


def naive_contrast(left: Tensor, right: Tensor) -> Tensor:
    """Equation 4: a pair at a time."""
    total = torch.zeros(())
    for a, b in ((left, right), (right, left)):
        for i in range(len(a)):
            near = [F.cosine_similarity(a[i], b[k], dim=0) / 0.1 for k in range(len(b))]
            total = total - (near[i] - torch.logsumexp(torch.stack(near), 0))
    return total / (2 * len(left))


@pytest.mark.parametrize("batch", [None, 7])
def test_the_loss_is_equations_18_and_19(batch: int | None) -> None:
    """Put together by hand of the net's own parts, with regions that lack a modality left out; the
    matrix of eq 5 is over all training regions in a batch of some, too."""
    net = net_of(hourly_city(24), dropout=0.0, absent_rate=1e-9, spatial="none").train()
    index = net.train_rows[net.labels[net.train_rows].isfinite().all(dim=1)][:batch]
    hidden = torch.zeros(net.regions, dtype=torch.bool)
    states, who, intra = [], [], []
    for branch in net.branches.values():
        spatial, seen, semantic, told = branch.sides(hidden)
        both = seen & told
        rows = [i for i in net.train_rows.tolist() if both[i]]
        similarity = channel_similarity(branch.query(spatial[rows]), branch.key(semantic[rows]))
        contrasted = [i for i in index.tolist() if both[i]]
        intra.append(naive_contrast(spatial[contrasted], semantic[contrasted]))
        states.append(spatial + branch.mix(branch.value(semantic) @ similarity.T))
        who.append(seen)
    inter = []
    for m in range(4):
        for n in range(m + 1, 4):
            rows = [i for i in index.tolist() if who[m][i] and who[n][i]]
            inter.append(naive_contrast(states[m][rows], states[n][rows]))
    contrast = sum(intra) + sum(inter) / 6
    logits, flows = net.hours(net.fuse(torch.stack(states, dim=1))[index])
    surprise, squared = task_losses(logits, flows, net.labels[index], net.codes[index])
    expected = 0.5 * surprise + 0.5 * squared + 0.1 * contrast
    inputs = [p for p in net.parameters() if p.requires_grad]
    mine = torch.autograd.grad(net.loss(index), inputs, allow_unused=True, retain_graph=True)
    naive = torch.autograd.grad(expected, inputs, allow_unused=True)
    torch.testing.assert_close(net.loss(index), expected)
    for a, b in zip(mine, naive, strict=True):
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
        else:
            assert a is None and b is None


def test_graph_attention_is_equations_8_to_10() -> None:
    """One head, a neighbour at a time; a region without any keeps its state but for the bias."""
    with seeded(4):
        block = GraphBlock("gat", 6, 1, 0.0).eval()
        state = torch.randn(4, 6)
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])  # the fourth has none
    conv, normed = block.conv, block.norm(state)
    mapped = conv.lin(normed)
    source, target = conv.att_src[0, 0], conv.att_dst[0, 0]
    expected = []
    for i in range(4):
        around = [int(edges[0, e]) for e in range(4) if int(edges[1, e]) == i]
        total = conv.bias.clone()
        if around:
            score = [F.leaky_relu(mapped[i] @ target + mapped[j] @ source, 0.2) for j in around]
            weight = torch.stack(score).softmax(dim=0)
            total = total + sum(w * mapped[j] for w, j in zip(weight, around, strict=True))
        expected.append(state[i] + F.gelu(total))
    torch.testing.assert_close(block(state, edges), torch.stack(expected))


# --- scales and bins -----------------------------------------------------------------------------


def test_scales_bins_and_similarity_come_from_training_regions_alone(city: tuple) -> None:
    data, targets, parts = city
    values = targets.values["outflow"].copy()
    values[~parts.train] += 100
    net = net_of((data, replace(targets, values={"outflow": values}), parts))
    train = values[parts.train]
    assert float(net.mean) == pytest.approx(np.nanmean(train))
    assert float(net.scale) == pytest.approx(np.nanstd(train))
    seen = (train - np.nanmean(train)) / np.nanstd(train)
    low, high = np.nanmin(seen), np.nanmax(seen)
    np.testing.assert_allclose(net.edges, np.linspace(low, high, 11)[1:-1], rtol=1e-5)
    first, last = seen[seen < float(net.edges[0])], seen[seen >= float(net.edges[-1])]
    np.testing.assert_allclose(net.centres[[0, -1]], [first.mean(), last.mean()], rtol=1e-4)
    assert int(net.codes[parts.val].max()) == 9  # beyond what training saw: the open end


def test_the_frozen_similarity_is_that_of_the_final_weights(city: tuple) -> None:
    """After training it is S over the training regions, by the net as it then is."""
    data, _, parts = city
    checkpoint = fitted(city)
    net = METHOD.restored(checkpoint, data, config())
    with evaluating(net):
        for name, branch in net.branches.items():
            spatial, seen, semantic, told = branch.sides(torch.zeros(len(data), dtype=torch.bool))
            rows = torch.from_numpy(np.flatnonzero(parts.train & seen.numpy() & told.numpy()))
            found = checkpoint.tensors[f"branches.{name}.similarity"]
            np.testing.assert_allclose(
                found, branch.channels(spatial[rows], semantic[rows]), rtol=1e-4, atol=1e-6
            )
            np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


# --- what is missing -----------------------------------------------------------------------------


def bare(data: RegionData, region: int) -> RegionData:
    """The same city with one region that has no POI, street view, building, chip or description."""
    rows = np.arange(len(data)) == region
    kept = data.view_region != region
    return replace(
        data,
        chip_present=data.chip_present & ~rows,
        height_present=data.height_present & ~rows,
        views=data.views[kept],
        view_region=data.view_region[kept],
        poi_counts=np.where(rows[:, None], 0, data.poi_counts),
        descriptions={
            key: np.where(rows[:, None], np.nan, told) for key, told in data.descriptions.items()
        },
        neighbours=data.neighbours[(data.neighbours != region).all(axis=1)],
    )


def test_a_region_without_anything_has_a_prediction_of_learned_tokens(city: tuple) -> None:
    data, targets, parts = city
    lone, other = np.flatnonzero(parts.test)[:2]
    empty = bare(bare(data, lone), other)
    features = modality_features(empty, config())
    assert list(features) == list(MODALITIES)
    assert all(np.isnan(rows[[lone, other]]).all() for rows in features.values())
    checkpoint = METHOD.fit(empty, targets, parts, config(epochs=2), seed=0)
    embedding = METHOD.embed(checkpoint, empty, config())
    flows = METHOD.predict(checkpoint, empty, config())["outflow"]
    assert np.isfinite(embedding).all() and np.isfinite(flows).all()
    np.testing.assert_allclose(embedding[lone], embedding[other], rtol=1e-4, atol=1e-5)
    assert not np.allclose(embedding[lone], embedding[parts.train][0])


def test_tokens_for_what_is_absent_are_trained_where_all_regions_have_all() -> None:
    data, targets, parts = fake_city(40)
    data = replace(
        data,
        chip_present=np.ones(40, bool),
        descriptions={k: np.nan_to_num(v) for k, v in data.descriptions.items()},
    )
    task = targets.tasks[-1]
    city = (data, Targets((task,), {task.name: np.nan_to_num(targets.values[task.name])}), parts)
    before = net_of(city).state_dict()["branches.satellite.spatial.absent"].numpy()
    after = fitted(city, absent_rate=0.3).tensors["branches.satellite.spatial.absent"]
    assert not np.allclose(before, after)


def test_a_city_without_some_modalities_or_borders_runs_on_the_others(city: tuple) -> None:
    data, targets, parts = city
    data = replace(data, views=None, view_region=None, heights=None, neighbours=None)
    checkpoint = METHOD.fit(data, targets, parts, config(epochs=1), seed=0)
    assert checkpoint.record["modalities"] == ["satellite", "pois"]
    nothing = replace(data, chips=None, poi_counts=None)
    with pytest.raises(DataError, match="no modality is left"):
        METHOD.fit(nothing, targets, parts, config(), seed=0)


def test_two_hourly_targets_are_refused(city: tuple) -> None:
    data, targets, parts = city
    tasks = (targets.tasks[0], Task("inflow", "hourly", slots=24))
    with pytest.raises(DataError, match="inflow"):
        METHOD.fit(data, Targets(tasks, {}), parts, config(), seed=0)


# --- ablations -----------------------------------------------------------------------------------

ABLATIONS: dict[str, dict[str, Any]] = {
    "without_semantics": {"semantics": False},
    "without_intra": {"intra": False},
    "prompt_lite": {"prompt": "lite"},
    "prompt_shuffle": {"prompt": "shuffle"},
    "without_spatial": {"spatial": "none"},
    "gcn": {"spatial": "gcn"},
    "without_inter": {"inter": False},
    "late_concat": {"fusion": "concat"},
    "gated": {"fusion": "gate"},
    "pois_only": {"satellite": False, "buildings": False, "street_views": False},
    "regression_only": {"objective": "regression"},
    "classification_only": {"objective": "classification"},
    "quantile_bins": {"bins": "quantile"},
    "small_contrasts": {"contrast_at_once": 16},
    "small_steps": {"batch": 32},
}


@pytest.fixture(scope="module")
def default(city: tuple) -> Checkpoint:
    return fitted(city, epochs=1)


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_is_a_fit_of_its_own(city: tuple, default: Checkpoint, name: str) -> None:
    changed = fitted(city, epochs=1, **ABLATIONS[name])
    assert np.isfinite(changed.record["loss"]).all()
    assert changed.record["loss"] != default.record["loss"]
    embedding = METHOD.embed(changed, city[0], config(**ABLATIONS[name]))
    assert embedding.shape == (120, 16)


def test_ablations_leave_out_what_they_say(city: tuple, default: Checkpoint) -> None:
    names = set(default.tensors)
    without = set(fitted(city, epochs=1, semantics=False).tensors)
    assert any("semantic" in n for n in names) and not any("semantic" in n for n in without)
    assert not any("similarity" in n for n in without)
    flat = set(fitted(city, epochs=1, spatial="none").tensors)
    assert any("blocks" in n for n in names) and not any("blocks" in n for n in flat)
    head = fitted(city, epochs=1, objective="regression").tensors["head.2.weight"]
    assert head.shape[0] == 1
    assert config(semantics=False).switched_off() == {"descriptions"}
    assert config(spatial="none").switched_off() == {"adjacency"}
    assert config(satellite=False, pois=False).switched_off() == {"imagery", "pois"}


def test_shuffled_descriptions_are_the_same_ones_elsewhere(city: tuple) -> None:
    data = city[0]
    plain, shuffled = (described(data, config(prompt=p)) for p in ("full", "shuffle"))
    for name, rows in plain.items():
        moved = (shuffled[name] != rows).any(axis=1).mean()
        assert moved > 0.9
        np.testing.assert_array_equal(
            np.sort(np.nan_to_num(shuffled[name]), axis=0), np.sort(np.nan_to_num(rows), axis=0)
        )
    lite = described(data, config(prompt="lite"))
    np.testing.assert_array_equal(lite["pois"], data.descriptions["levels_lite", "pois"])


def test_configs_refuse_what_cannot_work() -> None:
    for changes, words in (
        ({"width": 30, "heads": 4}, "multiple of heads"),
        ({"satellite": False, "buildings": False, "street_views": False, "pois": False}, "at least one"),
        ({"weights": {"path": "/a", "sha256": "0" * 64}, "encoder": "towers"}, "bring their own"),
        ({"encoder": "inception_v3", "image_px": 64}, "75 pixels"),
    ):  # fmt: skip
        with pytest.raises(ValidationError, match=words):
            config(**changes)


# --- learning ------------------------------------------------------------------------------------


def test_it_learns_the_day_of_each_region(city: tuple) -> None:
    data, targets, parts = city
    made = config(epochs=25, learning_rate=1e-2)
    checkpoint = METHOD.fit(data, targets, parts, made, seed=0)
    assert checkpoint.record["loss"][-1] < checkpoint.record["loss"][0]
    flows = METHOD.predict(checkpoint, data, made)["outflow"]
    assert r2(flows, targets.values["outflow"], parts.test) > 0.25


def test_neighbours_inform_where_the_graph_says_so(city: tuple) -> None:
    """A neighbour three borders away reaches a region through three blocks, not through two."""
    data, targets, parts = city
    chain = np.flatnonzero(parts.test)[:4]
    pairs = np.stack([chain[:-1], chain[1:]], axis=1)
    data = replace(data, neighbours=np.concatenate([pairs, pairs[:, ::-1]]))
    far = replace(data, poi_counts=data.poi_counts.copy())
    far.poi_counts[chain[3]] += 50
    for blocks, reaches in ((2, False), (3, True)):
        made = config(epochs=1, blocks=blocks, absent_rate=0.01)
        checkpoint = METHOD.fit(data, targets, parts, made, seed=0)
        one, other = (METHOD.embed(checkpoint, d, made)[chain[0]] for d in (data, far))
        assert (not np.allclose(one, other, rtol=1e-5, atol=1e-6)) == reaches
