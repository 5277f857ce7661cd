from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from model_code.errors import DataError
from model_code.finetuning import embed_all
from model_code.fusion import Aggregate
from model_code.methods import METHODS, UrbanVlpConfig
from model_code.methods.base import Checkpoint, RegionData, Workspace
from model_code.methods.run import fit_predictor, predict
from model_code.methods.urbanvlp import METHOD, Alignment, PicturedRegions, make_towers
from model_code.training import seeded, state_arrays
from model_code.vision.pictures import resized
from tests.model_code.methods.fake_city import equal, fake_city, r2

TOWER = {
    "shrink": 1, "patch_px": 8, "image_width": 32, "image_layers": 1, "text_width": 32, "text_layers": 1,
    "embed_dim": 16, "context": 12,
}  # fmt: skip
CONFIG = UrbanVlpConfig.model_validate(
    {"chip_px": 16, "view_px": (16, 24), "width": 16, "epochs": 2, "batch": 16, "tower": TOWER}
)
REGIONS = 40
EVERYONE = np.ones(REGIONS, bool)


def config(**changes: object) -> UrbanVlpConfig:
    return UrbanVlpConfig.model_validate(CONFIG.model_dump() | changes)


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city(REGIONS)


@pytest.fixture(scope="module")
def data(city: tuple) -> RegionData:
    return city[0]


@pytest.fixture(scope="module")
def checkpoint(data: RegionData) -> Checkpoint:
    return pretrained(data)


def pretrained(data: RegionData, changed: UrbanVlpConfig = CONFIG, **kwargs: object) -> Checkpoint:
    return METHOD.pretrain(data, changed, **{"seed": 0, "visible": EVERYONE, **kwargs})


def alignment(data: RegionData, changed: UrbanVlpConfig = CONFIG) -> Alignment:
    with seeded(1):
        towers = make_towers(data, changed, EVERYONE)
        regions = PicturedRegions(data, changed, towers, EVERYONE)
        return Alignment(regions, data, changed, towers)


def loss(module: Alignment, index: list[int], seed: int = 0) -> torch.Tensor:
    with seeded(seed):
        return module.loss(torch.tensor(index))


def model_of(pair: object) -> dict:
    """What `Towers` of this test's sizes are made from."""
    size = {"image_size": list(pair.size_px), "patch_size": 8, "width": 32, "layers": 1}
    text = {"context_length": 12, "width": 32, "heads": 1, "layers": 1}
    return {"embed_dim": 16, "vision_cfg": {**size, "head_width": 32}, "text_cfg": text}


def pretrained_towers(data: RegionData) -> dict[str, Checkpoint]:
    return {
        view: Checkpoint(state_arrays(pair), {"model": model_of(pair)})
        for view, pair in make_towers(data, CONFIG, EVERYONE).items()
    }


# --- the loss ------------------------------------------------------------------------------------


def whole(data: RegionData) -> RegionData:
    """The city with a chip, captions and exactly one street view in every region."""
    _, first = np.unique(data.view_region, return_index=True)
    rows = np.resize(first, REGIONS)
    return replace(
        data,
        chip_present=EVERYONE,
        chip_texts=np.where(data.chip_texts == "", "grey", data.chip_texts),
        chip_text_kept=EVERYONE,
        views=data.views[rows],
        view_region=np.arange(REGIONS),
        view_texts=np.resize(data.view_texts[data.view_texts != ""], REGIONS),
        view_text_kept=EVERYONE,
        view_location_features=data.view_location_features[rows],
    )


@pytest.mark.parametrize("local", ["tokens", "both"])
def test_the_loss_is_that_of_the_paper_region_by_region(data: RegionData, local: str) -> None:
    """Equations 4 to 9, written out for a batch of regions with one view each; and with `both` the
    contrast of whole street views and whole captions."""
    data = whole(data)
    changed = config(absent_rate=1e-9, alpha=0.3, beta=0.7, local=local)
    module, index = alignment(data, changed), [3, 8, 21]
    regions, pairs = module.regions, module.towers
    fused, words, patches, tokens, views, captions = [], [], [], [], [], []
    for i in index:
        chip, view = (torch.from_numpy(x[i : i + 1]) for x in (data.chips, data.views))
        seen, _ = pairs["satellite"].image(chip)
        street, grid = pairs["street_view"].image(view)
        place = torch.from_numpy(data.view_location_features[i])
        place = (place - regions.location_mean) / regions.location_scale / 512**0.5
        parts = {"satellite": F.normalize(seen[0], dim=0), "location": place}
        parts["street_view"] = F.normalize(street[0], dim=0)
        fused.append(
            F.normalize(sum(regions.projections[k].linear(v) for k, v in parts.items()), dim=0)
        )
        ids = pairs["satellite"].tokenize([str(data.chip_texts[i])])
        text = F.normalize(pairs["satellite"].text(ids)[0][0], dim=0)
        words.append(F.normalize(module.to_fused(text), dim=0))
        clip = pairs["street_view"].clip
        patches.append(F.normalize(grid[0] @ clip.visual.proj, dim=1))
        ids = pairs["street_view"].tokenize([str(data.view_texts[i])])
        pooled, read = (x[0] for x in pairs["street_view"].text(ids)[:2])  # alone: no padding
        views.append(parts["street_view"])
        captions.append(F.normalize(pooled, dim=0))
        tokens.append(F.normalize(read @ clip.text_projection, dim=1))

    def nce(logits: torch.Tensor) -> torch.Tensor:
        return -torch.stack([logits[i, i] - logits[i].logsumexp(0) for i in range(3)]).mean()

    scale, finer = module.temperature(), module.token_temperature()
    region = torch.stack([torch.stack([f @ w for w in words]) for f in fused]) * scale
    ahead, back = (
        torch.stack([torch.stack([(p @ t.T).amax(d).mean() for t in tokens]) for p in patches])
        for d in (1, 0)
    )
    twin = 0.3 * (nce(region) + nce(region.T)) + 0.7 * (nce(finer * ahead) + nce(finer * back.T))
    if local == "both":
        whole_views = torch.stack([torch.stack([v @ c for c in captions]) for v in views])
        whole_views = whole_views * module.view_temperature()
        twin = twin + 0.7 * (nce(whole_views) + nce(whole_views.T))
    ours = loss(module, index)
    torch.testing.assert_close(ours, twin, rtol=1e-4, atol=1e-5)
    parameters = [p for p in module.parameters() if p.requires_grad]
    for a, b in zip(
        torch.autograd.grad(ours, parameters, allow_unused=True),
        torch.autograd.grad(twin, parameters, allow_unused=True),
        strict=True,
    ):
        if a is None or b is None:  # the tokens for absent modalities
            assert a is b or not (b if a is None else a).any()
        else:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"aggregate": "attention", "fusion": "gate"},
        {"aggregate": "linear", "fusion": "concat", "slots": 3},
        {"satellite": False},
        {"street_views": False},
        {"location": False},
        {"alpha": 0.0},
        {"beta": 0.0},
    ],
    ids=str,
)
def test_every_parameter_that_can_learn_does(data: RegionData, changes: dict) -> None:
    module = alignment(data, config(absent_rate=0.3, views_per_step=3, **changes))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1.0)
    loss(module, list(np.flatnonzero(module.usable))).backward()
    optimizer.step()
    still = [name for name, p in module.named_parameters() if torch.equal(p, before[name])]
    expected = {f"towers.{view}.clip.logit_scale" for view in module.towers}
    if "alpha" in changes:  # the fused vector has no loss: what stands behind the towers rests
        expected |= {name for name in before if name.split(".")[1] in ("aggregates", "projections")}
        expected |= {name for name in before if name.startswith("regions.towers.satellite.")}
    assert set(still) == expected


def test_temperatures_learn_and_location_features_do_not(data: RegionData) -> None:
    module = alignment(data)
    names = {name for name, p in module.named_parameters() if p.requires_grad}
    assert {"temperature.log_scale", "token_temperature.log_scale"} <= names
    assert not any("location_" in name for name in names)
    assert "location_mean" in module.regions.state_dict()


def test_a_budget_changes_memory_and_not_the_loss(data: RegionData) -> None:
    module, index = alignment(data), list(range(REGIONS))
    first = loss(module, index)
    module.budget_bytes = 4 * 6 * 12
    torch.testing.assert_close(loss(module, index), first)


# --- which views and captions --------------------------------------------------------------------


def test_one_captioned_view_of_each_region_is_drawn_and_read(data: RegionData) -> None:
    module = alignment(data, config(views_per_step=1))
    regions, captioned = module.regions, module.kept["street_view"]
    index, times = torch.arange(REGIONS), np.zeros(len(data.view_region))
    views_by_region = np.bincount(data.view_region, minlength=REGIONS)
    for step in range(200):
        with seeded(step):
            view, owner, drawn = regions.views_of(index, captioned)
        assert (np.bincount(owner, minlength=REGIONS) == np.minimum(views_by_region, 1)).all()
        assert (owner.diff() > 0).all()
        assert captioned[view[drawn]].all() and not captioned[view[~drawn]].any()
        times[view] += 1
    own = data.view_region[regions.view_order]
    able = np.array([captioned[own == r].sum() for r in own])
    chosen = captioned.numpy()
    np.testing.assert_allclose(times[chosen], 200 / able[chosen], atol=35)  # uniform among them


def test_training_reads_a_few_views_and_embedding_all(data: RegionData) -> None:
    regions = alignment(data, config(views_per_step=2)).regions
    count = np.bincount(data.view_region, minlength=REGIONS)
    index = torch.tensor([np.flatnonzero(count == n)[0] for n in (1, 2, 3)])
    with seeded(0):
        view, owner, _ = regions.views_of(index)
    own = torch.from_numpy(data.view_region[regions.view_order])
    assert torch.equal(own[view], index[owner])
    assert (np.bincount(owner, minlength=3) == [1, 2, 2]).all()
    view, owner, drawn = regions.eval().views_of(index)
    assert [sorted(view[owner == b].tolist()) for b in range(3)] == [
        (own == i).nonzero()[:, 0].tolist() for i in index
    ]
    assert not drawn.any()


def test_without_calibration_first_tries_are_read_else_captions_that_are_kept(
    data: RegionData,
) -> None:
    off = config(calibrated=False)
    there = (data.chip_texts != "") & data.chip_text_kept
    np.testing.assert_array_equal(alignment(data).kept["satellite"], there)
    first = data.chip_first_texts != ""
    np.testing.assert_array_equal(alignment(data, off).kept["satellite"], first)
    data = replace(data, towers=pretrained_towers(data))  # words then depend on no caption
    unread = {
        "chip_texts": np.where(data.chip_text_kept, data.chip_texts, "a lie"),
        "view_texts": np.where(data.view_text_kept, data.view_texts, "a lie"),
        "chip_first_texts": np.full_like(data.chip_first_texts, "grey"),
    }
    assert equal(pretrained(data), pretrained(replace(data, **unread)))
    late = {
        "chip_texts": np.full_like(data.chip_texts, "grey"),
        "chip_text_kept": ~EVERYONE,
        "view_texts": np.full_like(data.view_texts, "grey"),
    }
    assert equal(pretrained(data, off), pretrained(replace(data, **late), off))
    assert not equal(pretrained(data), pretrained(data, off))


def test_captions_that_are_empty_blank_or_long(data: RegionData) -> None:
    texts = np.array(["", "   ", "red " * 200, *["grey"] * (REGIONS - 3)])
    odd = replace(data, chip_texts=texts, chip_text_kept=EVERYONE)
    module = alignment(odd)
    np.testing.assert_array_equal(module.kept["satellite"][:4], [False, False, True, True])
    assert module.ids["satellite"].shape == (REGIONS, 12)
    assert (module.ids["satellite"][2] > 0).all()  # cut at the context, with its end
    assert loss(module, [0, 1, 2, 3]).isfinite()


@pytest.mark.parametrize("index", [[7], [0, 1, 2]], ids=["one", "few"])
def test_a_small_batch_has_a_loss(data: RegionData, index: list[int]) -> None:
    module = alignment(whole(data))
    value = loss(module, index)
    value.backward()
    assert value.isfinite() and (value.item() == 0) == (len(index) == 1)
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


def test_an_uneven_last_batch_even_of_one(data: RegionData) -> None:
    for batch in (13, REGIONS - 1, 200):
        found = pretrained(whole(data), config(batch=batch, epochs=1))
        assert all(np.isfinite(value).all() for value in found.tensors.values())


def test_batches_without_any_view_or_any_satellite_caption(data: RegionData) -> None:
    module = alignment(data)
    regions = module.regions
    satellite = module.kept["satellite"]
    bare = [int(i) for i in np.flatnonzero((regions.view_count.numpy() == 0) & satellite.numpy())]
    assert bare and loss(module, bare).isfinite()
    own = data.view_region[regions.view_order]
    street = np.isin(np.arange(REGIONS), own[module.kept["street_view"]])
    only_street = [int(i) for i in np.flatnonzero(street & ~satellite.numpy())]
    assert only_street and loss(module, only_street).isfinite()


def test_no_caption_that_is_kept_is_an_error(data: RegionData) -> None:
    none = replace(
        data, chip_text_kept=~EVERYONE, view_text_kept=np.zeros_like(data.view_text_kept)
    )
    with pytest.raises(DataError, match=r"(?s)caption that is kept.*calibrated: false"):
        pretrained(none)
    assert pretrained(none, config(calibrated=False)).record["loss"]


# --- pretraining ---------------------------------------------------------------------------------


def test_pretraining_is_deterministic_in_its_seed(data: RegionData, checkpoint: Checkpoint) -> None:
    assert equal(pretrained(data), checkpoint)
    assert not equal(pretrained(data, seed=1), checkpoint)
    assert len(checkpoint.record["loss"]) == CONFIG.epochs


def test_goes_on_after_a_kill(data: RegionData, checkpoint: Checkpoint, tmp_path) -> None:
    class PowerCut(BaseException):
        pass

    def cut(line: str) -> None:
        if " 2 of " in line:  # the state of the first is kept
            raise PowerCut

    with pytest.raises(PowerCut):
        pretrained(data, workspace=Workspace(cut, tmp_path))
    assert list(tmp_path.glob("*.ckpt"))
    resumed = pretrained(data, workspace=Workspace(None, tmp_path))
    assert equal(resumed, checkpoint) and resumed.record == checkpoint.record


def test_the_loss_falls_and_the_captions_are_learned(data: RegionData) -> None:
    found = pretrained(data, config(epochs=30, learning_rate=2e-3))
    first, last = found.record["loss"][0], found.record["loss"][-1]
    assert last < 0.75 * first


def test_what_hidden_regions_hold_changes_nothing(city: tuple) -> None:
    data, _, parts = city
    visible = ~parts.test
    views = parts.test[data.view_region]
    rng = np.random.default_rng(5)
    changed = replace(
        data,
        chips=np.where(parts.test[:, None, None, None], rng.integers(0, 255, data.chips.shape), data.chips).astype(np.uint8),
        views=np.where(views[:, None, None, None], 0, data.views).astype(np.uint8),
        chip_texts=np.where(parts.test, "an unheard word", data.chip_texts),
        view_texts=np.where(views, "an unheard word", data.view_texts),
        chip_text_kept=data.chip_text_kept | parts.test,
        view_location_features=np.where(views[:, None], 9, data.view_location_features),
    )  # fmt: skip
    inductive = config(inductive=True)
    first = pretrained(data, inductive, visible=visible)
    assert equal(first, pretrained(changed, inductive, visible=visible))
    assert not equal(pretrained(data), pretrained(changed))  # the test can fail


@pytest.mark.parametrize(
    ("changes", "fields", "features"),
    [
        ({"street_views": False}, {}, ["satellite", "location"]),
        ({"satellite": False}, {}, ["street_view", "location"]),
        ({"location": False}, {}, ["satellite", "street_view"]),
        ({"satellite": False, "street_views": False}, {}, ["location"]),
        ({}, {"views": None}, ["satellite", "location"]),
        (
            {},
            {"chips": None, "chip_present": None, "chip_texts": None},
            ["street_view", "location"],
        ),
        ({}, {"view_location_features": None}, ["satellite", "street_view"]),
        ({}, {"chip_texts": None}, ["satellite", "street_view", "location"]),
        ({}, {"view_texts": None}, ["satellite", "street_view", "location"]),
        (
            {},
            {
                "views": None,
                "view_region": None,
                "view_texts": None,
                "view_location_features": None,
            },
            ["satellite"],
        ),
    ],
    ids=str,
)
def test_a_branch_is_off_by_config_or_where_the_city_has_none(
    data: RegionData, changes: dict, fields: dict, features: list[str]
) -> None:
    less, changed = replace(data, **fields), config(**changes)
    found = pretrained(less, changed)
    assert found.record["features"] == features
    rows = METHOD.embed(found, less, changed)
    assert rows.shape == (REGIONS, len(features) * CONFIG.width) and np.isfinite(rows).all()
    has_text = features != ["location"]
    assert bool(found.record["loss"]) == has_text


@pytest.fixture(scope="module")
def towers(data: RegionData) -> dict[str, Checkpoint]:
    return pretrained_towers(data)


CAPTIONS = {"chip_captions", "view_captions"}


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({}, CAPTIONS),
        ({"beta": 0}, {"chip_captions"}),
        ({"alpha": 0}, {"view_captions"}),
        ({"satellite": False}, {"view_captions"}),
        ({"satellite": False, "beta": 0}, {"view_captions"}),
        ({"satellite": False, "alpha": 0}, {"view_captions"}),
        ({"street_views": False}, {"chip_captions"}),
        ({"text": False}, set()),
        ({"text": False, "alpha": 0, "beta": 0}, set()),
        ({"satellite": False, "street_views": False}, set()),
    ],
)
def test_captions_are_inputs_where_a_contrast_reads_them(
    data: RegionData, towers: dict[str, Checkpoint], changes: dict, read: set
) -> None:
    chosen = config(**changes)
    assert CAPTIONS - chosen.switched_off() == read
    # What is read is what pretraining needs: without the others it is the same.
    unread = {
        field: None
        for modality, fields in (
            ("chip_captions", ("chip_texts", "chip_text_kept")),
            ("view_captions", ("view_texts", "view_text_kept")),
        )
        for field in fields
        if modality not in read
    }
    given = replace(data, towers=towers)
    whole, less = (pretrained(d, chosen) for d in (given, replace(given, **unread)))
    assert bool(read) == bool(whole.record["loss"])
    for name, value in whole.tensors.items():
        np.testing.assert_array_equal(value, less.tensors[name])


@pytest.mark.parametrize("changes", [{"alpha": 0, "beta": 0}, {"alpha": 0, "street_views": False}])
def test_text_that_nothing_is_contrasted_with_is_refused(changes: dict) -> None:
    with pytest.raises(ValidationError, match="leaves nothing to contrast captions with"):
        config(**changes)


def test_without_text_the_towers_stay_as_they_come(data: RegionData) -> None:
    towers = pretrained_towers(data)
    found = pretrained(replace(data, towers=towers), config(text=False))
    assert found.record["loss"] == []
    for name, value in found.tensors.items():
        if name.startswith("towers."):
            view, rest = name.removeprefix("towers.").split(".", 1)
            np.testing.assert_array_equal(value, towers[view].tensors[f"clip.{rest}"])
    both_none = replace(data, chip_texts=None, view_texts=None)
    assert pretrained(both_none).record["loss"] == []


def test_nothing_to_look_at_is_refused(data: RegionData) -> None:
    with pytest.raises(ValidationError, match="at least one of satellite"):
        config(satellite=False, street_views=False, location=False)
    with pytest.raises(DataError, match="neither satellite chips"):
        pretrained(replace(data, chips=None), config(street_views=False, location=False))
    only = {"satellite": pretrained_towers(data)["satellite"]}
    with pytest.raises(DataError, match="no pretrained towers of the view street_view"):
        pretrained(replace(data, towers=only))


# --- embeddings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregate", ["mean", "attention", "linear"])
def test_a_row_does_not_depend_on_who_else_is_embedded(data: RegionData, aggregate: str) -> None:
    changed = config(aggregate=aggregate, text=False)
    found = pretrained(data, changed)
    rows = METHOD.embed(found, data, changed)
    some = np.array([2, 17, 30])
    of_some = np.isin(data.view_region, some)
    position = np.full(REGIONS, -1)
    position[some] = np.arange(3)
    part = replace(
        data,
        region_ids=data.region_ids[some],
        chips=data.chips[some],
        chip_present=data.chip_present[some],
        views=data.views[of_some],
        view_region=position[data.view_region[of_some]],
        view_location_features=data.view_location_features[of_some],
        chip_texts=None,
        view_texts=None,
    )
    np.testing.assert_allclose(METHOD.embed(found, part, changed), rows[some], atol=1e-5)
    shuffled = np.random.default_rng(0).permutation(len(data.view_region))
    if aggregate != "linear":  # which goes by the order of the views
        other = replace(
            data,
            views=data.views[shuffled],
            view_region=data.view_region[shuffled],
            view_location_features=data.view_location_features[shuffled],
        )
        np.testing.assert_allclose(METHOD.embed(found, other, changed), rows, atol=1e-5)


def test_absent_modalities_are_their_tokens(data: RegionData, checkpoint: Checkpoint) -> None:
    unplaced = data.view_location_features.copy()
    unplaced[data.view_region == 3] = np.nan
    rows = METHOD.embed(checkpoint, replace(data, view_location_features=unplaced), CONFIG)
    chip, view, place = np.split(rows, 3, axis=1)
    none = np.bincount(data.view_region, minlength=REGIONS) == 0
    tokens = {
        name: checkpoint.tensors[f"projections.{name}.absent"]
        for name in ("satellite", "street_view", "location")
    }
    for part, name, gone in (
        (chip, "satellite", ~data.chip_present),
        (view, "street_view", none),
        (place, "location", none | (np.arange(REGIONS) == 3)),
    ):
        np.testing.assert_array_equal((part == tokens[name]).all(axis=1), gone)
        assert gone.any()


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


def test_the_encoder_takes_the_checkpoint_and_is_tuned(city: tuple, checkpoint: Checkpoint) -> None:
    data, targets, parts = city
    spec = METHODS["urbanvlp"]
    rows = METHOD.embed(checkpoint, data, CONFIG)
    tuning = {"epochs": 2, "batch": 16, "hidden": 8}
    for mode in ("finetune", "end_to_end", "scratch"):
        changed = config(mode=mode, tuning=tuning)
        predictor = fit_predictor(
            spec, changed, checkpoint, rows, seed=0, targets=targets, parts=parts, data=data
        )
        predicted = predict(spec, changed, predictor, rows, data)
        assert all(np.isfinite(p).all() for p in predicted.values())
        moved = {
            name: not np.array_equal(predictor.tensors[f"encoder.{name}"], value)
            for name, value in checkpoint.tensors.items()
            if not name.startswith("location_")
        }
        assert all(moved.values()), [name for name, there in moved.items() if not there]


def test_embeddings_predict_what_the_pictures_show() -> None:
    data, targets, parts = fake_city(120)
    everyone = np.ones(120, bool)
    found = METHOD.pretrain(data, config(epochs=4), seed=0, visible=everyone)
    rows = METHOD.embed(found, data, CONFIG)
    spec = METHODS["urbanvlp"]
    head = fit_predictor(spec, CONFIG, found, rows, seed=0, targets=targets, parts=parts)
    predicted = predict(spec, CONFIG, head, rows, data)
    assert r2(predicted["income"], targets.values["income"], parts.test) > 0.5


def test_a_linear_aggregate_of_one_view_is_scaled_by_all_slots() -> None:
    aggregate = Aggregate("linear", 4, 3)
    with torch.no_grad():
        aggregate.slot_weight.copy_(torch.tensor([0.5, 0.25, 0.125]))
    view = torch.ones(1, 4)
    torch.testing.assert_close(aggregate(view, torch.tensor([0]), 1), 0.875 * view)


def test_pictures_are_brought_to_the_size_of_the_tower(data: RegionData) -> None:
    same = resized(data.chips, (16, 16))
    np.testing.assert_array_equal(same.numpy(), data.chips)
    order = np.array([3, 1])
    small = resized(data.views, (8, 12), order)
    assert small.shape == (2, 8, 12, 3) and small.dtype == torch.uint8
    np.testing.assert_allclose(small.float().mean((1, 2)), data.views[order].mean((1, 2)), atol=1.5)
    assert resized(data.chips[..., :1], (16, 16)).shape == (REGIONS, 16, 16, 3)
    four = np.concatenate([data.chips, data.chips[..., :1]], axis=3)
    assert torch.equal(resized(four, (16, 16)), same)


def test_a_chunk_of_pictures_changes_no_embedding(data, checkpoint, monkeypatch) -> None:
    rows = METHOD.embed(checkpoint, data, CONFIG)
    monkeypatch.setattr("model_code.vision.pictures.PICTURES", 7)
    np.testing.assert_allclose(METHOD.embed(checkpoint, data, CONFIG), rows, atol=1e-5)
    with seeded(0):
        regions = METHOD.encoder(data, CONFIG)
    assert embed_all(regions, REGIONS).shape == (REGIONS, regions.width)
