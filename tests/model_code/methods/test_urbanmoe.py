from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from model_code.errors import DataError
from model_code.finetuning import LabelledModel, embed_all
from model_code.methods import METHODS, UrbanMoeConfig, urbanmoe
from model_code.methods.base import Checkpoint, RegionData, Targets, Workspace
from model_code.methods.run import fit_checkpoint, inputs_of
from model_code.methods.urbanmoe import (
    METHOD,
    Branch,
    ExpertHeads,
    ExpertRegions,
    Inputs,
    Pool,
    _encoded,
    _routing,
    _rows,
    _towers,
    fit_experts,
    predict_experts,
    read,
)
from model_code.training import seeded, state_arrays
from tests.model_code.methods.fake_city import TASKS, fake_city, r2

TOWER = {
    "shrink": 1, "patch_px": 8, "image_width": 32, "image_layers": 1, "text_width": 32, "text_layers": 1,
    "embed_dim": 16, "context": 12,
}  # fmt: skip
CONFIG = UrbanMoeConfig.model_validate(
    {
        "chip_px": 16, "tower": TOWER, "n_specific": 2, "n_pair": 1, "n_shared": 2, "hidden": 16, "width": 8,
        "head_hidden": 8, "epochs": 3, "batch": 16, "threshold": 0.05, "learning_rate": 3e-3,
    }
)  # fmt: skip
REGIONS = 60
POOLS = [Pool(1, 3, 2, 2), Pool(2, 2, 3, 0), Pool(3, 8, 2, 4), Pool(5, 0, 1, 2), Pool(4, 1, 0, 0)]


def config(**changes: object) -> UrbanMoeConfig:
    return UrbanMoeConfig.model_validate(CONFIG.model_dump() | changes)


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city(REGIONS)


@pytest.fixture(scope="module")
def data(city: tuple) -> RegionData:
    return city[0]


@pytest.fixture(scope="module")
def checkpoint(city: tuple) -> Checkpoint:
    return fitted(city)


def fitted(city: tuple, changed: UrbanMoeConfig = CONFIG, **kwargs: object) -> Checkpoint:
    data, targets, parts = city
    return METHOD.fit(data, targets, parts, changed, **{"seed": 0, **kwargs})


def model(
    city: tuple, changed: UrbanMoeConfig = CONFIG, tasks: tuple = TASKS, **inputs: object
) -> LabelledModel:
    data, targets, parts = city
    pool = Pool(len(tasks), changed.n_specific, changed.n_pair, changed.n_shared)
    known = data.region_ids[parts.train].tolist()
    with seeded(1):
        of_city = replace(read(data, changed), **inputs)
        encoder = ExpertRegions(of_city, changed, pool, known, parts.train)
        made = LabelledModel(encoder, ExpertHeads(tasks, encoder.width, changed.head_hidden))
    targets = replace(targets, tasks=tasks)
    made.heads.set_scales(targets, parts.train)
    made.labels = made.heads.encode(targets)
    return made


def same(first: dict, second: dict, rows: object = slice(None)) -> bool:
    assert first.keys() == second.keys()
    return all(np.array_equal(first[k][rows], second[k][rows]) for k in first)


# --- experts and routers -------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_may_use_its_own_experts_those_of_its_pairs_and_the_shared_ones(pool: Pool) -> None:
    owners = [{t} for t in range(pool.tasks) for _ in range(pool.specific)]
    for i in range(pool.tasks):
        for j in range(i + 1, pool.tasks):
            owners += [{i, j}] * pool.pair
    owners += [set(range(pool.tasks))] * pool.shared
    assert len(owners) == pool.experts
    allowed = pool.allowed()
    assert allowed.shape == (pool.tasks, pool.each)
    for task, own in enumerate(allowed):
        assert sorted(own) == [m for m, who in enumerate(owners) if task in who]
        pairs = own[pool.specific : pool.each - pool.shared]
        others = [min(owners[m] - {task}) for m in pairs]
        assert others == sorted(others)  # in the order of the other tasks


def test_the_papers_pool_has_34_experts_of_which_a_task_uses_16() -> None:
    assert (Pool(3, 8, 2, 4).experts, Pool(3, 8, 2, 4).each) == (34, 16)


def branch(pool: Pool, threshold: float, context: int = 3) -> Branch:
    with seeded(0):
        return Branch(pool, features=5, context=context, hidden=7, width=6, threshold=threshold)


def naive(part: Branch, features: torch.Tensor, present: torch.Tensor, context: torch.Tensor):
    """Equations 1 to 6, region by region, task by task, expert by expert."""
    pool, hidden = part.pool, part.hidden
    weight = torch.cat([part.of_features, part.of_context])
    mixtures, all_gates = [], []
    for b in range(len(features)):
        z = torch.cat([features[b] if present[b] else part.absent, context[b]])
        for task, allowed in enumerate(pool.allowed()):
            start = pool.experts * hidden + task * pool.each
            own = slice(start, start + pool.each)
            gates = torch.softmax(z @ weight[:, own] + part.first_bias[own], dim=0)
            gates = [g if g > part.threshold else 0 * g for g in gates]
            total = torch.zeros(part.width)
            for gate, m in zip(gates, allowed, strict=True):
                mine = slice(m * hidden, (m + 1) * hidden)
                inner = torch.relu(z @ weight[:, mine] + part.first_bias[mine])
                out = inner @ part.second[m] + part.second_bias.view(-1, part.width)[m]
                out = (out - out.mean()) / (out.var(correction=0) + 1e-5).sqrt()
                total = total + gate * out
            mixtures.append(total)
            all_gates.append(torch.stack(gates))
    shape = (len(features), pool.tasks, -1)
    return torch.stack(mixtures).view(shape), torch.stack(all_gates).view(shape)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_branch_is_the_papers_equations_with_their_gradients(pool: Pool, batch: int) -> None:
    part = branch(pool, threshold=0.99 / pool.each)
    with seeded(2):
        features, context = torch.randn(batch, 5), torch.randn(batch, 3, requires_grad=True)
    present = torch.arange(batch) != 1
    features = features * present[:, None]
    mixtures, gates = naive(part, features, present, context)
    assert (gates == 0).any() or pool.each == 1
    torch.testing.assert_close(part(features, present, context), mixtures, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(part.gates(features, present, context), gates)
    inputs = [context, *part.parameters()]
    with seeded(3):
        slope = torch.randn_like(mixtures)
    slow = torch.autograd.grad((mixtures * slope).sum(), inputs, allow_unused=True)
    fast = torch.autograd.grad((part(features, present, context) * slope).sum(), inputs)
    for expected, found in zip(slow, fast, strict=True):
        expected = torch.zeros_like(found) if expected is None else expected
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_a_branch_without_context_and_without_a_threshold() -> None:
    part = branch(Pool(2, 1, 1, 1), threshold=0.0, context=0)
    context = torch.zeros(3, 0)
    features, present = torch.ones(3, 5), torch.ones(3, dtype=torch.bool)
    gates = part.gates(features, present, context)
    assert (gates > 0).all()
    torch.testing.assert_close(gates.sum(dim=2), torch.ones(3, 2))
    assert part(features, present, context).shape == (3, 2, 6)


def test_a_weight_at_the_threshold_is_shut_off_and_the_rest_is_not_brought_to_one() -> None:
    part = branch(Pool(1, 4, 0, 0), threshold=0.25, context=0)
    with torch.no_grad():
        for parameter in (part.of_features, part.first_bias):
            parameter.zero_()
    features, present = torch.ones(1, 5), torch.ones(1, dtype=torch.bool)
    assert not part.gates(features, present, torch.zeros(1, 0)).any()  # all are 0.25
    with torch.no_grad():
        part.first_bias[-4:] = torch.tensor([1.0, 0, 0, 0])
    gates = part.gates(features, present, torch.zeros(1, 0))
    torch.testing.assert_close(gates, F.one_hot(torch.tensor([[0]]), 4) * gates.sum())
    assert 0.25 < gates.sum() < 1


def test_heads_read_their_own_tasks_mixtures_alone(city: tuple) -> None:
    """Equation 7, head by head, with the gradients."""
    with seeded(0):
        heads = ExpertHeads(TASKS, 4 * 6, 5)
        mixtures = torch.randn(3, 24, requires_grad=True)
    columns, task_of = [], [0, 1, 2, 2, 2, *[3] * 24]
    for column, task in enumerate(task_of):
        own = mixtures[:, task * 6 : (task + 1) * 6]
        bias = heads.inner_bias[task * 5 : (task + 1) * 5]
        hidden = F.gelu(own @ heads.inner[task] + bias)
        columns.append(hidden @ heads.outer[column] + heads.outer_bias[column])
    expected, found = torch.stack(columns, dim=1), heads(mixtures)
    torch.testing.assert_close(found, expected)
    inputs = [mixtures, *heads.parameters()]
    slow, fast = (torch.autograd.grad(x.square().sum(), inputs) for x in (expected, found))
    for a, b in zip(slow, fast, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_loss_weighs_the_tasks(city: tuple) -> None:
    """Equation 8, with labels that are missing."""
    whole = model(city)
    index = torch.arange(REGIONS)
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    whole.eval()
    output, labels = whole(index), whole.labels
    assert labels.isnan().any()
    losses = []
    for task, span in zip(TASKS, whole.heads.spans, strict=True):
        known = ~labels[:, span].isnan().any(dim=1)
        got, true = output[known, span], labels[known, span]
        if task.kind == "classification":
            losses.append(F.cross_entropy(got, true[:, 0].long()))
        else:
            losses.append((got - true).square().mean())
    whole.heads.weights.copy_(weights)
    expected = (torch.stack(losses) * weights).sum() / 4
    torch.testing.assert_close(whole.loss(index), expected)
    parameters = list(whole.parameters())
    slow, fast = (torch.autograd.grad(x, parameters) for x in (expected, whole.loss(index)))
    for a, b in zip(slow, fast, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


# --- learning ------------------------------------------------------------------------------------


def test_every_parameter_moves_in_a_step_and_nothing_of_the_towers_is_one(city: tuple) -> None:
    data, _, parts = city
    changed = config(unknown_rate=0.2, absent_rate=0.2, threshold=0.0)
    whole = model((replace(data, chip_present=np.ones(REGIONS, bool)), *city[1:]), changed)
    features = [f.values.clone() for f in whole.encoder.features.values()]
    before = {name: p.detach().clone() for name, p in whole.named_parameters()}
    optimiser = torch.optim.SGD(whole.parameters(), lr=0.1)
    with seeded(3):
        whole.loss(torch.from_numpy(np.flatnonzero(parts.train))).backward()
    optimiser.step()
    assert [n for n, p in whole.named_parameters() if torch.equal(p, before[n])] == []
    rows = (whole.encoder.table != before["encoder.table"]).any(dim=1)
    assert rows[0] and rows.float().mean() > 0.6  # those whose id was not dropped
    for feature, old in zip(whole.encoder.features.values(), features, strict=True):
        torch.testing.assert_close(feature.values, old, equal_nan=True)
    assert not any("clip" in name or "visual" in name for name in whole.state_dict())


def test_learns_every_kind_of_target() -> None:
    city = fake_city(120)
    data, targets, parts = city
    changed = config(epochs=60, patience=20)
    done = fit_checkpoint(METHODS["urbanmoe"], changed, data, seed=0, targets=targets, parts=parts)
    predicted = METHOD.predict(done, data, changed)
    assert r2(predicted["income"], targets.values["income"], parts.test) > 0.5
    assert r2(predicted["outflow"], targets.values["outflow"], parts.test) > 0.5
    known = parts.test & np.isfinite(targets.values["use"][:, 0])
    assert (predicted["use"] == targets.values["use"])[known].mean() > 0.6
    losses = done.record["validation"]
    assert done.record["nets"][0]["best_epoch"] == int(np.argmin(losses))


def test_goes_on_after_a_kill(city: tuple, tmp_path) -> None:
    class PowerCut(BaseException):
        pass

    for single in (False, True):
        changed = config(epochs=5, single_task=single)
        folder, said = tmp_path / str(single), []

        def cut(line: str, said: list = said) -> None:
            said.append(line)
            if len(said) == 8:  # in the second net, where there is one a task
                raise PowerCut

        if not single:
            said.extend(["", "", "", ""])
        with pytest.raises(PowerCut):
            fitted(city, changed, workspace=Workspace(cut, folder))
        assert list(folder.rglob("*.ckpt"))
        whole, resumed = (
            fitted(city, changed),
            fitted(city, changed, workspace=Workspace(None, folder)),
        )
        assert whole.record == resumed.record and same(whole.tensors, resumed.tensors)


def test_an_uneven_last_batch_and_a_batch_of_one(city: tuple) -> None:
    count = int(city[2].train.sum())
    for size in (count - 1, 1):
        done = fitted(city, config(batch=size, epochs=1))
        assert np.isfinite(done.record["loss"]).all()


# --- regions that were not seen ------------------------------------------------------------------


def test_rows_of_ids_that_are_known_and_of_those_that_are_not() -> None:
    ids = np.array(["r2", "r0", "new", "r1", "zzz", "a"])
    assert _rows(ids, ["r1", "r2", "r0"]).tolist() == [2, 3, 0, 1, 0, 0]


def test_unseen_regions_are_predicted_without_their_labels_and_ids(
    city: tuple, checkpoint: Checkpoint
) -> None:
    data, targets, parts = city
    unseen = ~parts.train
    first = METHOD.predict(checkpoint, data, CONFIG)

    values = {k: np.where(parts.test[:, None], 1.0, v) for k, v in targets.values.items()}
    relabelled = METHOD.fit(data, Targets(targets.tasks, values), parts, CONFIG, seed=0)
    assert same(first, METHOD.predict(relabelled, data, CONFIG))

    ids = data.region_ids.copy()
    ids[unseen] = np.array([f"x{i}" for i in range(unseen.sum())])[::-1]
    renamed = METHOD.predict(checkpoint, replace(data, region_ids=ids), CONFIG)
    assert same(first, renamed)
    refitted = METHOD.fit(replace(data, region_ids=ids), targets, parts, CONFIG, seed=0)
    assert same(refitted.tensors, checkpoint.tensors)

    ids = data.region_ids.copy()  # the id of a training region does matter
    ids[parts.train] = ids[parts.train][::-1]
    swapped = METHOD.predict(checkpoint, replace(data, region_ids=ids), CONFIG)
    assert same(first, swapped, unseen) and not same(first, swapped, parts.train)


def test_ids_are_dropped_in_training_alone(city: tuple) -> None:
    whole = model(city, config(unknown_rate=0.5, absent_rate=1e-9))
    with torch.no_grad():
        whole.encoder.table[0] = 1e3
    index = torch.from_numpy(np.flatnonzero(city[2].train))
    known = whole.eval().encoder(index)
    with seeded(0):
        trained = whole.train().encoder(index)
    dropped = (known - trained).abs().amax(dim=1) > 1e-3
    assert 0.2 < dropped.float().mean() < 0.8
    assert torch.equal(whole.eval().encoder(index), known)


# --- what is missing -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["image", "text"])
def test_what_is_absent_is_a_token_whatever_stands_there(city: tuple, name: str) -> None:
    data = city[0]
    whole = model(city).eval()
    feature, part = whole.encoder.features[name], whole.encoder.branches[name]
    absent = ~feature.present
    assert absent.any() and not absent.all()
    if name == "image":
        assert (absent.numpy() == ~data.chip_present).all()
        chips = np.where(data.chip_present[:, None, None, None], data.chips, 200).astype(np.uint8)
        other = model((replace(data, chips=chips), *city[1:])).eval()
        index = torch.arange(REGIONS)
        assert torch.equal(other(index), whole(index))
    else:
        told = np.union1d(data.poi_name_region, data.poi_comment_region)
        assert np.array_equal(np.flatnonzero(~absent), told)
    row = absent.nonzero()[0]
    read_ = dict(whole.encoder._read(row))[name]
    seen = part(part.absent[None], torch.tensor([True]), read_[2])
    torch.testing.assert_close(part(*read_), seen)


def test_a_region_without_comments_has_its_names_and_texts_weigh_equally(data: RegionData) -> None:
    towers = _towers(data, CONFIG)
    found = read(data, CONFIG).features["text"]
    for region in (0, 5, int(np.setdiff1d(data.poi_name_region, data.poi_comment_region)[0])):
        total = np.zeros(16)
        for texts, owner in (
            (data.poi_names, data.poi_name_region), (data.poi_comments, data.poi_comment_region),
        ):  # fmt: skip
            own = texts[owner == region].tolist()
            if own:
                pooled = [towers.text(towers.tokenize([t]))[0][0].detach().numpy() for t in own]
                mean = np.mean([p / np.linalg.norm(p) for p in pooled], axis=0)
                total += mean / np.linalg.norm(mean)
        np.testing.assert_allclose(np.nan_to_num(found[region]), total, rtol=1e-3, atol=1e-5)


def test_descriptions_stand_in_for_names_sentence_by_sentence(data: RegionData) -> None:
    told = ["Offices and bars.", "", "A quiet street. Few shops! Is it a park?"] * (
        len(data) // 3 + 1
    )
    described = replace(data, poi_descriptions=np.array(told[: len(data)]))
    settings = config(text_from="descriptions")
    towers, found = _towers(data, settings), read(described, settings).features["text"]
    assert np.isnan(found[1::3]).all() and not np.isnan(found[2::3]).any()
    parts = ["A quiet street.", "Few shops!", "Is it a park?"]
    pooled = [towers.text(towers.tokenize([t]))[0][0].detach().numpy() for t in parts]
    mean = np.mean([p / np.linalg.norm(p) for p in pooled], axis=0)
    np.testing.assert_allclose(found[2], mean / np.linalg.norm(mean), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(found[5], found[2])
    # Names are read by default, even where there are descriptions.
    by_name = read(described, CONFIG).features["text"]
    np.testing.assert_array_equal(by_name, read(data, CONFIG).features["text"])


def test_a_texts_vector_does_not_depend_on_the_other_texts(data: RegionData) -> None:
    towers = _towers(data, CONFIG)
    texts = [f"{'very ' * (i % 7)}busy place {i}" for i in range(150)]
    together = _encoded(towers, texts)
    np.testing.assert_array_equal(_encoded(towers, texts[3:90:4]), together[3:90:4])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)


def test_a_city_without_pois_and_one_without_chips(city: tuple) -> None:
    data, targets, parts = city
    nothing = {"poi_counts": None, "poi_names": None, "poi_name_region": None}
    silent = replace(data, **nothing, poi_comments=None, poi_comment_region=None)
    assert list(read(silent, CONFIG).features) == ["image"]
    done = METHOD.fit(silent, targets, parts, CONFIG, seed=0)
    assert METHOD.embed(done, silent, CONFIG).shape == (REGIONS, 4 * 8)
    unseen = replace(data, chips=None, chip_present=None)
    done = METHOD.fit(unseen, targets, parts, CONFIG, seed=0)
    assert set(done.record["nets"][0]["routing"]) == {"text"}
    with pytest.raises(DataError, match="neither satellite chips nor texts"):
        read(replace(silent, chips=None), CONFIG)


def test_an_embedding_does_not_depend_on_its_batch(city: tuple) -> None:
    encoder = model(city).encoder.eval()
    whole = embed_all(encoder, REGIONS)
    with torch.no_grad():
        for index in ([7], [3, 7, 59]):
            alone = encoder(torch.tensor(index)).numpy()
            np.testing.assert_allclose(alone, whole[index], rtol=1e-4, atol=1e-5)


# --- switches ------------------------------------------------------------------------------------


def test_switches_leave_out_what_they_say(city: tuple) -> None:
    def shapes(**changes: object) -> dict[str, tuple[int, ...]]:
        state = model(city, config(**changes)).encoder.state_dict()
        return {name: tuple(value.shape) for name, value in state.items()}

    full = shapes()
    assert full["branches.image.of_context"][0] == 6 + 15
    assert full["table"] == (1 + city[2].train.sum(), 6)
    assert full["poi.weight"] == (15, 3)
    for changes, context, gone in (
        ({"region": False}, 15, ["table"]), ({"poi": False}, 6, ["poi.", "counts."]),
        ({"region": False, "poi": False}, 0, ["table", "poi.", "counts."]),
    ):  # fmt: skip
        found = shapes(**changes)
        assert found["branches.text.of_context"][0] == context
        assert {n for n in full if n not in found} == {n for n in full if n.startswith(tuple(gone))}
    assert not any(".text." in name for name in shapes(text=False))
    assert not any(".image." in name for name in shapes(image=False))


@pytest.mark.parametrize(
    "kinds",
    [{"n_pair": 0, "n_shared": 0}, {"n_specific": 0, "n_pair": 0}, {"n_specific": 0, "n_shared": 0},
     {"n_pair": 0}, {"n_shared": 0}, {"n_specific": 0}],
)  # fmt: skip
def test_every_mix_of_kinds_is_fitted(city: tuple, kinds: dict) -> None:
    changed = config(**kinds, epochs=1)
    done = fitted(city, changed)
    pool = Pool(**done.record["nets"][0]["pool"])
    assert pool == Pool(4, changed.n_specific, changed.n_pair, changed.n_shared)
    weights = np.array(done.record["nets"][0]["routing"]["text"]["weight"])
    assert weights.shape == (4, pool.each)
    assert np.isfinite(METHOD.embed(done, city[0], changed)).all()


def test_single_task_nets_know_nothing_of_each_other(city: tuple) -> None:
    data, targets, parts = city
    values = {**targets.values, "income": -targets.values["income"]}
    other = (data, Targets(targets.tasks, values), parts)

    def predictions(of: tuple, single: bool) -> dict:
        changed = config(single_task=single)
        return METHOD.predict(fitted(of, changed), data, changed)

    for single in (True, False):
        first, second = predictions(city, single), predictions(other, single)
        assert np.array_equal(first["outflow"], second["outflow"]) == single
        assert not np.array_equal(first["income"], second["income"])
    done = fitted(city, config(single_task=True))
    assert [Pool(**net["pool"]) for net in done.record["nets"]] == [Pool(1, 5, 0, 2)] * 4
    assert METHOD.embed(done, data, config(single_task=True)).shape == (REGIONS, 4 * 2 * 8)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_city_with_one_task(city: tuple, task: object) -> None:
    data, targets, parts = city
    targets = replace(targets, tasks=(task,))
    done = METHOD.fit(data, targets, parts, CONFIG, seed=0)
    assert METHOD.predict(done, data, CONFIG)[task.name].shape == (REGIONS, task.slots)
    with pytest.raises(DataError, match="no expert at all"):
        METHOD.fit(data, targets, parts, config(n_specific=0, n_shared=0), seed=0)


def test_without_validation_regions_the_last_epoch_stays(city: tuple) -> None:
    data, targets, parts = city
    bare = replace(parts, train=parts.train | parts.val, val=np.zeros(REGIONS, bool))
    done = METHOD.fit(data, targets, bare, CONFIG, seed=0)
    assert done.record["validation"] == [] and done.record["nets"][0]["best_epoch"] == 2


def test_task_weights_reach_the_loss(city: tuple) -> None:
    plain, weighted = fitted(city), fitted(city, config(task_weights={"income": 9.0}))
    assert not same(plain.tensors, weighted.tensors)
    assert same(plain.tensors, fitted(city, config(task_weights={"income": 1.0})).tensors)
    with pytest.raises(DataError, match=r"names wealth.*\n.*takes income, population"):
        fitted(city, config(task_weights={"wealth": 2.0}))


def test_settings_that_cannot_work(city: tuple) -> None:
    with pytest.raises(ValidationError, match="image and text"):
        config(image=False, text=False)
    with pytest.raises(ValidationError, match="above 0"):
        config(n_specific=0, n_pair=0, n_shared=0)
    with pytest.raises(DataError, match=r"threshold.*below 0.143"):
        fitted(city, config(threshold=0.15))
    with pytest.raises(DataError, match="no pretrained towers of the view satellite"):
        read(replace(city[0], towers={"street_view": Checkpoint({})}), CONFIG)


def test_inputs_say_what_a_variant_reads() -> None:
    spec = METHODS["urbanmoe"]
    assert inputs_of(spec, CONFIG) == ("imagery", "pois", "poi_texts")
    assert inputs_of(spec, config(text=False, poi=False)) == ("imagery",)
    assert inputs_of(spec, config(image=False)) == ("pois", "poi_texts")
    told = config(image=False, text_from="descriptions")
    assert inputs_of(spec, told) == ("pois", "poi_descriptions")


# --- where features come from, and what is noted -------------------------------------------------


def test_given_towers_are_used_and_read_once(data: RegionData) -> None:
    with seeded(5):
        towers = _towers(replace(data), config(chip_px=24))
    for parameter in towers.parameters():
        parameter.data.mul_(1.5)
    model_ = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": [24, 24], "patch_size": 8, "width": 32, "layers": 1, "head_width": 32},
        "text_cfg": {"context_length": 12, "width": 32, "heads": 1, "layers": 1},
    }  # fmt: skip
    given = replace(data, towers={"satellite": Checkpoint(state_arrays(towers), {"model": model_})})
    random, pretrained = read(data, CONFIG), read(given, CONFIG)
    for name in ("image", "text"):
        there = np.isfinite(pretrained.features[name]).all(axis=1)
        assert (there == np.isfinite(random.features[name]).all(axis=1)).all()
        assert not np.allclose(random.features[name][there], pretrained.features[name][there])
    assert read(given, config(threshold=0.0)).features["text"] is pretrained.features["text"]
    assert replace(given).memo == {}


def test_the_record_holds_what_validation_regions_route(
    city: tuple, checkpoint: Checkpoint
) -> None:
    parts, whole = city[2], model(city)
    own = {n.removeprefix("0."): torch.from_numpy(v) for n, v in checkpoint.tensors.items()}
    whole.load_state_dict(own)
    with torch.no_grad():
        gates = whole.eval().encoder.gates(torch.from_numpy(np.flatnonzero(parts.val)))
    (net,) = checkpoint.record["nets"]
    assert [task["name"] for task in net["tasks"]] == [task.name for task in TASKS]
    for name in ("image", "text"):
        noted = net["routing"][name]
        np.testing.assert_allclose(noted["weight"], gates[name].mean(dim=0), atol=1e-6)
        np.testing.assert_allclose(noted["active"], (gates[name] > 0).float().mean(0), atol=1e-6)


def test_routing_is_the_same_whole_or_by_parts(
    city: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone, found = torch.arange(REGIONS), []
    for chunk in (REGIONS, 7):
        monkeypatch.setattr(urbanmoe, "_CHUNK", chunk)
        found.append(_routing(model(city), everyone))
    whole, parted = found
    assert whole.keys() == parted.keys() == {"image", "text"}
    for name in whole:
        for key in ("weight", "active"):
            np.testing.assert_allclose(whole[name][key], parted[name][key], atol=2e-6)


def test_gates_are_made_without_the_experts(city: tuple) -> None:
    encoder = model(city).eval().encoder
    index = torch.arange(REGIONS)
    with torch.no_grad():
        before = encoder.gates(index)
        for part in encoder.branches.values():
            part.of_features[:, : part.sizes[0]] = torch.nan
        after = encoder.gates(index)
    for name, gates in before.items():
        torch.testing.assert_close(after[name], gates)


def test_tables_of_numbers_can_stand_for_pictures_and_texts(city: tuple) -> None:
    data, targets, parts = city
    inputs = Inputs(data.region_ids, {"shares": data.chip_shares}, None)
    done = fit_experts(inputs, targets, parts, config(epochs=20), seed=0)
    predicted = predict_experts(done, inputs, CONFIG)
    assert r2(predicted["income"], targets.values["income"], parts.train) > 0.3
