from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model_code.methods import StructuralUrbanConfig
from model_code.methods.base import NOWHERE, RegionData
from model_code.methods.baselines.structural_urban import (
    METHOD,
    GraphLayer,
    NearPictures,
    nearest_within,
)
from model_code.methods.nearness import NearSampler, on_sphere
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

CONFIG = StructuralUrbanConfig.model_validate(
    {**SMALL, "neighbours": 1, "projection": 6, "contrast_epochs": 2}
)
EVERYONE = np.ones(40, bool)


def config(**changes: object) -> StructuralUrbanConfig:
    return StructuralUrbanConfig.model_validate(CONFIG.model_dump() | changes)


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city(40)


@pytest.fixture(scope="module")
def data(city: tuple) -> RegionData:
    return city[0]


@pytest.mark.parametrize("neighbours", [1, 3, 20])
def test_the_nearest_are_those_of_the_group(neighbours: int) -> None:
    rng = np.random.default_rng(0)
    points, group = rng.random((14, 2)), rng.permutation([0] * 7 + [1] * 5 + [2] + [4])
    found = nearest_within(points, group, neighbours).numpy()
    assert found.shape == (14, min(neighbours, 13))
    for i, row in enumerate(found):
        others = np.flatnonzero((group == group[i]) & (np.arange(14) != i))
        distance = np.linalg.norm(points[others] - points[i], axis=1)
        twin = others[np.argsort(distance)][:neighbours]
        assert row[row >= 0].tolist() == twin.tolist()
        assert (row[len(twin) :] == -1).all()


def test_who_stands_at_one_place_is_linked_to_others_and_not_to_itself() -> None:
    group = np.repeat([0, 1], 20)
    found = nearest_within(np.ones((40, 3)), group, 3).numpy()
    assert (found != np.arange(40)[:, None]).all()
    kept = found >= 0
    assert kept.any() and (group[found] == group[:, None])[kept].all()
    assert nearest_within(np.ones((1, 3)), np.zeros(1, int), 4).shape == (1, 0)


def test_a_layer_is_the_equation_node_by_node() -> None:
    with seeded(0):
        layer, nodes = GraphLayer(6), torch.randn(5, 6, requires_grad=True)
        back = torch.randn(5, 6)
    near = [[1, 4], [0], [], [2, 0], [3]]
    table = torch.tensor([row + [-1] * (2 - len(row)) for row in near])
    found, rows = layer(nodes, table), []
    for own, others in zip(nodes, near, strict=True):
        mean = sum((nodes[j] for j in others), torch.zeros(6)) / max(len(others), 1)
        mapped = own @ layer.own.weight.T + layer.own.bias + mean @ layer.near.weight.T
        rows.append(own + layer.norm(mapped).relu())
    twin = torch.stack(rows)
    torch.testing.assert_close(found, twin)
    inputs = [nodes, *layer.parameters()]
    both = (torch.autograd.grad((out * back).sum(), inputs) for out in (found, twin))
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other)
    assert layer(nodes, torch.empty(5, 0, dtype=torch.int64)).shape == (5, 6)


def test_an_embedding_is_that_of_the_region_s_own_graph(data: RegionData) -> None:
    regions = regions_of(METHOD, data, CONFIG).eval()
    rows = regions(torch.arange(40))
    order = regions.view_order
    for region in (*np.flatnonzero(silent(data))[:2], 0, 5, 11):
        views = np.flatnonzero(data.view_region[order] == region)
        token = regions.tokens["street_view"]
        nodes = [regions.pictured("street_view", torch.tensor([v]))[0] for v in views] or [token]
        chip = regions.tokens["satellite"]
        if data.chip_present[region]:
            chip = regions.pictured("satellite", torch.tensor([region]))[0]
        fused = torch.cat([regions.fusion([node[None], chip[None]]) for node in nodes])
        places = on_sphere(data.view_lonlat[order][views])
        near = torch.full((len(nodes), 1), -1)
        for k in range(len(views)):
            others = [j for j in range(len(views)) if j != k]
            if others:
                near[k] = min(others, key=lambda j: np.linalg.norm(places[j] - places[k]))
        for layer in regions.layers:
            fused = layer(fused, near)
        score = regions.readout.score(torch.tanh(regions.readout.hidden(F.layer_norm(fused, (8,)))))
        twin = (score.softmax(dim=0) * fused).sum(dim=0)
        torch.testing.assert_close(rows[region], twin, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"readout": "mean"}, {"satellite": False}], ids=str)
def test_a_row_does_not_depend_on_its_batch(data: RegionData, changes: dict) -> None:
    regions = regions_of(METHOD, data, config(**changes))
    rows_do_not_depend_on_the_batch(regions, 40, [int(np.flatnonzero(silent(data))[0]), 7, 39])


def test_in_training_the_nearest_of_those_that_are_shown_are_linked(data: RegionData) -> None:
    few = np.flatnonzero(~silent(data))[:2]
    in_two = few[np.arange(len(data.view_region)) % 2]  # some 30 street views each
    crowded = replace(data, view_region=in_two)
    changed = config(neighbours=2, views_per_step=4, absent_rate=1e-9)
    regions = regions_of(METHOD, crowded, changed).train()
    with seeded(0):
        shown, owner = regions.streets(torch.from_numpy(few))
    assert torch.bincount(owner).tolist() == [4, 4]
    view, owner = torch.cat([shown, torch.tensor([-1])]), torch.cat([owner, torch.tensor([2])])
    places = on_sphere(data.view_lonlat[regions.view_order])

    def twin(node: int) -> list[int]:
        others = [k for k in range(len(view) - 1) if k != node and owner[k] == owner[node]]
        apart = [np.linalg.norm(places[view[k]] - places[view[node]]) for k in others]
        return [others[k] for k in np.argsort(apart)[:2]]

    found = regions.links(view, owner)
    assert found.tolist() == [*map(twin, range(8)), [-1, -1]]
    everyone, owner = regions.eval().streets(torch.arange(40))
    view, owner = torch.cat([everyone, torch.tensor([-1])]), torch.cat([owner, torch.tensor([40])])
    found = regions.links(view, owner)
    assert found.tolist() == [*map(twin, range(len(everyone))), [-1, -1]]
    alone = torch.tensor([3]), torch.tensor([0])
    assert (regions.links(*alone) < 0).all() and (regions.train().links(*alone) < 0).all()
    regions.eval()
    nobody = torch.tensor([-1, -1]), torch.tensor([0, 1])
    assert (regions.links(*nobody) < 0).all() and (regions.train().links(*nobody) < 0).all()


@pytest.mark.parametrize("changes", [{}, {"satellite": False}, {"street_views": False}], ids=str)
def test_every_parameter_learns(data: RegionData, changes: dict) -> None:
    everywhere = replace(data, chip_present=EVERYONE)
    regions = regions_of(METHOD, everywhere, config(absent_rate=0.2, augment=True, **changes))
    assert unlearned(regions, 40) == []


def contrast_of(data: RegionData, changed: StructuralUrbanConfig = CONFIG) -> NearPictures:
    regions = regions_of(METHOD, data, changed)
    owner = data.view_region[regions.view_order]
    samplers = {
        "satellite": NearSampler(data.xy_m, data.chip_present, neighbours=changed.near),
        "street_view": NearSampler(
            on_sphere(data.view_lonlat[regions.view_order]),
            EVERYONE[owner],
            neighbours=changed.near,
        ),
    }
    with seeded(2):
        return NearPictures(regions, samplers, changed)


def test_the_contrast_is_nt_xent_picture_by_picture(data: RegionData) -> None:
    module, index = contrast_of(data), torch.tensor([0, 3, 8, 21, 30])
    with seeded(3):
        ours = module.loss(index)
    with seeded(3):  # the same draws
        pairs = {k: s.pairs(module.drawn(k, index)) for k, s in module.samplers.items()}
    assert sum(map(len, pairs.values())) >= 5
    terms = []
    for kind, drawn in pairs.items():
        seen = drawn.T.flatten().tolist()
        vectors = [
            module.projections[kind](module.pictured(kind, torch.tensor([i])))[0] for i in seen
        ]
        unit = [v / v.norm() for v in vectors]
        half, losses = len(seen) // 2, []
        for i in range(len(seen)):
            partner = (i + half) % len(seen)
            others = [
                j for j in range(len(seen))
                if j == partner or seen[j] not in (seen[i], seen[partner])
            ]  # fmt: skip
            logits = torch.stack([unit[i] @ unit[j] / CONFIG.temperature for j in others])
            losses.append(logits.logsumexp(0) - logits[others.index(partner)])
        terms.append(torch.stack(losses).mean())
    twin = torch.stack(terms).sum()
    torch.testing.assert_close(ours, twin, rtol=1e-4, atol=1e-5)
    parameters = list(module.parameters())
    both = (torch.autograd.grad(loss, parameters) for loss in (ours, twin))
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_contrast_of_one_region_without_pictures_has_a_loss(data: RegionData) -> None:
    module = contrast_of(data)
    nobody = np.flatnonzero(silent(data) & ~data.chip_present)
    gone = replace(data, chip_present=data.chip_present & (np.arange(40) != 0))
    for index in (nobody.tolist(), [7]):
        value = module.loss(torch.tensor(index, dtype=torch.int64))
        value.backward()
        assert value.isfinite()
    assert contrast_of(gone).samplers["satellite"].position[0] == -1


def test_preparing_teaches_backbones_of_the_seen_regions(city: tuple) -> None:
    data, _, parts = city

    def prepared(changed: StructuralUrbanConfig, own: RegionData) -> tuple:
        regions = regions_of(METHOD, own, changed)
        record = METHOD.prepare(regions, own, changed, ~parts.test, seed=0, workspace=NOWHERE)
        return record["contrast_loss"], regions.state_dict()

    fresh = regions_of(METHOD, data, CONFIG).state_dict()
    losses, state = prepared(CONFIG, data)
    assert len(losses) == 2
    moved = {n.split(".")[0] for n in state if not torch.equal(state[n], fresh[n])}
    assert moved == {"encoders", "heads"}
    hidden = np.where(parts.test[data.view_region, None], 0.5, data.view_lonlat)
    _, other = prepared(CONFIG, replace(data, view_lonlat=hidden))
    assert all(torch.equal(value, other[name]) for name, value in state.items())
    none, same = prepared(config(contrast_epochs=0), data)
    assert none == [] and all(torch.equal(value, same[n]) for n, value in fresh.items())


def test_learns_from_labels() -> None:
    changed = config(epochs=15, contrast_epochs=1, batch=32, learning_rate=5e-3, absent_rate=0.02)
    found, checkpoint = score("structural_urban", changed, fake_city(100))
    assert found > 0.3
    assert len(checkpoint.record["contrast_loss"]) == 1
    assert checkpoint.record["loss"][-1] < 0.7 * checkpoint.record["loss"][0]


@pytest.mark.parametrize("killed_in", [2, 4])
def test_goes_on_after_a_kill_in_either_training(city: tuple, tmp_path, killed_in: int) -> None:
    supervised_fit_goes_on_after_a_kill(METHOD, CONFIG, city, tmp_path, killed_in=killed_in)
