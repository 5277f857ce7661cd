from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from model_code import finetuning
from model_code.errors import DataError
from model_code.finetuning import embed_all
from model_code.graphs.multiview import ViewNet
from model_code.methods import METHODS, UrbanMmclConfig
from model_code.methods.base import Adaptable, Checkpoint, RegionData, Workspace
from model_code.methods.run import fit_checkpoint, fit_predictor, inputs_of, predict
from model_code.methods.urbanmmcl import METHOD, MmclRegions, Pretraining, _region_texts, _towers
from model_code.training import load_arrays, seeded
from tests.model_code.methods.fake_city import equal, fake_city, r2, with_towers

TOWER = {
    "shrink": 1, "patch_px": 8, "image_width": 32, "image_layers": 1, "text_width": 32, "text_layers": 1,
    "embed_dim": 16, "context": 12,
}  # fmt: skip
CONFIG = UrbanMmclConfig.model_validate(
    {
        "chip_px": 16, "view_px": (16, 24), "width": 16, "epochs": 2, "batch": 16, "tower": TOWER,
        "location_axes": 5, "neighbours": 4, "latent": 6, "graph_hidden": 8, "graph_width": 6,
        "walk_length": 5, "walks": 2, "shared_negatives": 3,
    }
)  # fmt: skip
REGIONS = 40
EVERYONE = np.ones(REGIONS, bool)
GRAPHLESS = {"function": False, "mobility": False, "distance": False}


def config(**changes: object) -> UrbanMmclConfig:
    return UrbanMmclConfig.model_validate(CONFIG.model_dump() | changes)


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city(REGIONS)


@pytest.fixture(scope="module")
def data(city: tuple) -> RegionData:
    return city[0]


@pytest.fixture(scope="module")
def checkpoint(data: RegionData) -> Checkpoint:
    return pretrained(data)


def pretrained(data: RegionData, changed: UrbanMmclConfig = CONFIG, **kwargs: object) -> Checkpoint:
    return METHOD.pretrain(data, changed, **{"seed": 0, "visible": EVERYONE, **kwargs})


def training(data: RegionData, changed: UrbanMmclConfig = CONFIG) -> Pretraining:
    with seeded(1):
        towers = _towers(data, changed, EVERYONE)
        regions = MmclRegions(data, changed, towers, EVERYONE)
        return Pretraining(regions, _region_texts(data, changed, towers), changed)


# --- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("absent_rate", [None, 0.3], ids=["evaluation", "training"])
def test_the_contrast_of_modalities_is_that_of_the_paper(
    data: RegionData, absent_rate: float | None
) -> None:
    """Equations 12 to 15, written out region by region, in value and gradient; in training, over those
    alone that hide neither side."""
    changed = config(absent_rate=absent_rate or 0.5)
    module, index = training(data, changed).train(absent_rate is not None), torch.arange(REGIONS)
    regions = module.regions
    hidden = {name: torch.zeros(REGIONS, dtype=torch.bool) for name in regions.projections}
    if absent_rate is not None:
        with seeded(3):
            hidden = {name: torch.rand(REGIONS) < absent_rate for name in regions.projections}
    assert module.terms == [
        ("satellite", "text"), ("satellite", "centre"), ("street_view", "text"), ("street_view", "view_places"),
    ]  # fmt: skip
    pairs = _towers(data, CONFIG, EVERYONE)
    load_arrays(pairs["satellite"].clip.visual, {
        name: value.numpy()
        for name, value in regions.towers["satellite"].visual.state_dict().items()
    })  # fmt: skip
    chips = F.normalize(pairs["satellite"].image(torch.from_numpy(data.chips))[0], dim=1).detach()
    torch.testing.assert_close(
        regions.values()["satellite"].numbers, chips * torch.from_numpy(data.chip_present)[:, None]
    )

    def nce(pairs: list[tuple[torch.Tensor, torch.Tensor]], scale: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(())
        for a, b in ((pairs, [(y, x) for x, y in pairs]),):
            for one_way in (a, b):
                for i, (left, _) in enumerate(one_way):
                    logits = torch.stack(
                        [scale * F.cosine_similarity(left, right, dim=0) for _, right in one_way]
                    )
                    total = total - (logits[i] - logits.logsumexp(0)) / len(one_way)
        return total

    values, twin = regions.values(), torch.zeros(())
    for (view, other), temperature in zip(module.terms, module.temperatures, strict=True):
        against = module.texts[view] if other == "text" else values[other]
        reader = module.readers[view] if other == "text" else regions.projections[other].linear
        shown = values[view].present & against.present & ~hidden[view]
        shown &= ~hidden.get(other, torch.zeros(REGIONS, dtype=torch.bool))
        both = shown.nonzero()[:, 0].tolist()
        assert 5 < len(both) < REGIONS  # some region lacks one of them
        linear = regions.projections[view].linear
        pairs_of = [(linear(values[view].numbers[i]), reader(against.numbers[i])) for i in both]
        twin = twin + nce(pairs_of, temperature())
    with seeded(3):
        ours = module.modality_loss(index)
    torch.testing.assert_close(ours, twin, rtol=1e-4, atol=1e-5)
    parameters = [p for p in module.parameters() if p.requires_grad]
    for a, b in zip(
        torch.autograd.grad(ours, parameters, allow_unused=True),
        torch.autograd.grad(twin, parameters, allow_unused=True),
        strict=True,
    ):
        if a is None or b is None:
            assert a is b or not (b if a is None else a).any()
        else:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_street_views_and_their_captions_are_means_over_a_region(data: RegionData) -> None:
    module = training(data)
    street = module.regions.values()["street_view"]
    texts, kept = module.texts["street_view"], (data.view_texts != "") & data.view_text_kept
    count = np.bincount(data.view_region, minlength=REGIONS)
    np.testing.assert_array_equal(street.present, count > 0)
    np.testing.assert_array_equal(
        texts.present, np.bincount(data.view_region[kept], minlength=REGIONS) > 0
    )
    tower = module.regions.towers["street_view"]
    many = int(count.argmax())
    own = torch.from_numpy(data.views[data.view_region == many])
    torch.testing.assert_close(street.numbers[many], tower(own)[0].mean(dim=0).detach())


def test_both_contrasts_are_weighed(data: RegionData) -> None:
    values = {}
    for alpha, beta in ((1.0, 0.0), (0.0, 1.0), (0.3, 0.7)):
        module = training(data, config(alpha=alpha, beta=beta)).eval()
        with seeded(0):
            values[alpha] = module.loss(torch.arange(REGIONS)).item()
    assert values[0.3] == pytest.approx(0.3 * values[1.0] + 0.7 * values[0.0], rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [{}, {"fusion": "concat"}, {"random_walk": False}, {"vgae": False}, {"decoder": "as_printed"}],
    ids=str,
)
def test_everything_but_towers_and_fusion_learns(data: RegionData, changes: dict) -> None:
    module = training(data, config(absent_rate=0.3, **changes))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1.0)
    module.loss(torch.arange(REGIONS)).backward()
    optimizer.step()
    still = {name for name, p in module.named_parameters() if torch.equal(p, before[name])}
    rest = {name for name in before if name.startswith(("regions.towers.", "regions.to_sum."))}
    assert still == rest


@pytest.mark.parametrize(
    "changes",
    [{"beta": 0}, GRAPHLESS, {"alpha": 0, "vgae": False, "graph_contrast": False}],
    ids=str,
)
def test_tokens_that_no_graph_teaches_stand_for_a_mean_region(
    data: RegionData, changes: dict
) -> None:
    """Of those alone that pretraining sees, by the projections that it ends with."""
    visible, changed = np.arange(REGIONS) % 3 > 0, config(absent_rate=0.3, **changes)
    regions = METHOD.encoder(data, changed, visible)
    load_arrays(regions, pretrained(data, changed, visible=visible).tensors)
    for name, values in regions.values().items():
        projection = regions.projections[name]
        seen = values.present & torch.from_numpy(visible)
        expected = projection.linear(values.numbers)[seen].mean(dim=0)
        torch.testing.assert_close(projection.absent, expected, rtol=1e-4, atol=1e-5)


def test_tokens_that_graphs_teach_start_there_too(data: RegionData) -> None:
    changed = config(epochs=1, learning_rate=1e-7)
    regions = METHOD.encoder(data, changed)
    load_arrays(regions, pretrained(data, changed).tensors)
    for name, values in regions.values().items():
        projection = regions.projections[name]
        expected = projection.linear(values.numbers[values.present].mean(dim=0))
        torch.testing.assert_close(projection.absent, expected, rtol=1e-3, atol=1e-5)


def test_propagated_features_are_the_graph_s_mean_of_features(data: RegionData) -> None:
    regions = training(data).regions.eval()
    index = torch.arange(REGIONS)
    own = regions.features(index)
    for name, graph in regions.graphs().items():
        edges = torch.zeros(REGIONS, REGIONS)
        edges[graph.row, graph.links.column] = graph.weight
        edges += torch.eye(REGIONS)
        root = edges.sum(dim=1) ** -0.5
        expected = (root[:, None] * edges * root) @ own
        torch.testing.assert_close(regions.features(index, name), expected, rtol=1e-4, atol=1e-5)


# --- pretraining ---------------------------------------------------------------------------------


def test_pretraining_is_deterministic_in_its_seed(data: RegionData, checkpoint: Checkpoint) -> None:
    assert equal(pretrained(data), checkpoint)
    assert not equal(pretrained(data, seed=1), checkpoint)
    assert checkpoint.record["graphs"] == ["function", "mobility", "distance"]
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
    assert equal(pretrained(data, workspace=Workspace(None, tmp_path)), checkpoint)


def test_pictures_and_captions_are_encoded_once(data: RegionData) -> None:
    fresh = replace(data)
    first = pretrained(fresh)
    kept = dict(fresh.memo)
    assert {key[0] for key in kept} == {"pictures", "texts", "centres"}
    second = pretrained(fresh, config(fusion="concat"))
    assert all(fresh.memo[key] is value for key, value in kept.items())
    assert not equal(first, second)


@pytest.fixture(scope="module")
def first_epoch(data: RegionData) -> tuple[Checkpoint, np.ndarray]:
    found = pretrained(data, config(epochs=1))
    return found, METHOD.embed(found, data, CONFIG)


ALL = ["satellite", "street_view", "centre", "view_places"]


@pytest.mark.parametrize(
    ("changes", "features", "graphs"),
    [
        ({"satellite": False}, ALL[1:], 3),
        ({"street_views": False, "location": False, "alpha": 0}, ALL[:1], 3),  # RSI-CLIP
        ({"satellite": False, "location": False, "alpha": 0}, ALL[1:2], 3),  # SVI-CLIP
        ({"location": False}, ALL[:2], 3),
        ({"satellite": False, "street_views": False}, ALL[2:], 3),
        ({"text": False}, ALL, 3),
        ({"calibrated": False}, ALL, 3),
        ({"function": False}, ALL, 2),
        ({"mobility": False}, ALL, 2),
        ({"distance": False, "function": False}, ALL, 1),
        (GRAPHLESS, ALL, 0),
        ({"vgae": False}, ALL, 3),
        ({"decoder": "as_printed"}, ALL, 3),
        ({"random_walk": False}, ALL, 3),
        ({"graph_contrast": False}, ALL, 3),
        ({"alpha": 0}, ALL, 3),
        ({"beta": 0}, ALL, 3),
        ({"alpha": 0.8, "beta": 0.2}, ALL, 3),
        ({"alpha": 0, "vgae": False, "graph_contrast": False}, ALL, 3),  # nothing is learned
        ({"alpha": 0, "vgae": False, "mobility": False, "distance": False}, ALL, 1),
        ({"fusion": "mlp"}, ALL, 3),
    ],
    ids=str,
)
def test_every_ablation_of_the_paper_is_a_switch(
    data: RegionData,
    first_epoch: tuple[Checkpoint, np.ndarray],
    changes: dict,
    features: list[str],
    graphs: int,
) -> None:
    """It trains on another loss than the default, and ends elsewhere."""
    changed = config(epochs=1, **changes)
    found = pretrained(data, changed)
    assert found.record["features"] == features
    assert len(found.record["graphs"]) == graphs
    rows = METHOD.embed(found, data, changed)
    assert rows.shape == (REGIONS, CONFIG.width) and np.isfinite(rows).all()
    default, embedding = first_epoch
    (loss,) = found.record["loss"] or [0.0]  # nothing is learned: no loss
    assert np.isfinite(loss) and loss != default.record["loss"][0]
    assert not np.allclose(rows, embedding, atol=1e-4)


def test_inputs_follow_the_switches() -> None:
    spec = METHODS["urbanmmcl"]
    everything = set(inputs_of(spec, CONFIG))
    assert everything == set(spec.needs) - {"towers"}
    for changes, gone in (
        ({"function": False}, {"pois"}),
        ({"mobility": False}, {"flows"}),
        ({"text": False}, {"chip_captions", "view_captions"}),
        ({"alpha": 0}, {"chip_captions", "view_captions"}),
        ({"location": False}, {"view_locations"}),
        ({"location": False, "distance": False}, {"view_locations", "location"}),
    ):
        assert everything - set(inputs_of(spec, config(**changes))) == gone
    with pytest.raises(ValidationError, match="at least one of satellite"):
        config(satellite=False, street_views=False, location=False)


@pytest.mark.parametrize(
    "gone",
    [
        {"flow_origin": None, "flow_destination": None, "flow_count": None},
        {"poi_counts": None},
        {"chips": None, "chip_present": None, "chip_texts": None},
        {"views": None, "view_region": None, "view_texts": None, "view_location_features": None},
        {"chip_texts": None, "view_texts": None},
    ],
    ids=lambda gone: next(iter(gone)),
)
def test_a_city_without_a_modality(data: RegionData, gone: dict) -> None:
    less = replace(data, **gone)
    found = pretrained(less, config(epochs=1))
    assert np.isfinite(METHOD.embed(found, less, CONFIG)).all()


def test_regions_without_pois_trips_or_pictures(data: RegionData) -> None:
    counts = data.poi_counts.copy()
    counts[:5] = 0
    moving = (data.flow_origin >= 5) & (data.flow_destination >= 5)
    present = data.chip_present.copy()
    present[:5] = False
    odd = replace(
        data,
        poi_counts=counts,
        flow_origin=data.flow_origin[moving],
        flow_destination=data.flow_destination[moving],
        flow_count=data.flow_count[moving],
        chip_present=present,
    )
    found = pretrained(odd)
    assert np.isfinite(METHOD.embed(found, odd, CONFIG)).all()


def test_test_regions_change_nothing_in_an_inductive_fit(city: tuple) -> None:
    data, targets, parts = city
    changed = config(inductive=True)
    spec = METHODS["urbanmmcl"]
    found = fit_checkpoint(spec, changed, data, seed=0, targets=targets, parts=parts)
    np.testing.assert_array_equal(found.tensors["visible"], parts.train | parts.val)
    rows = METHOD.embed(found, data, changed)
    one = np.flatnonzero(parts.test)[0]
    touched = (data.flow_origin == one) | (data.flow_destination == one)
    pois = data.poi_counts.copy()
    pois[one] = [50, 0, 1]
    place = data.xy_m.copy()
    place[one] += 5_000
    degrees = data.lonlat_deg.copy()
    degrees[one] += 0.5
    moved = replace(
        data,
        poi_counts=pois,
        xy_m=place,
        lonlat_deg=degrees,
        flow_count=np.where(touched, 99.0, data.flow_count),
    )
    other = METHOD.embed(found, moved, changed)
    differ = np.abs(other - rows).max(axis=1) > 1e-5
    assert differ[one] and not differ[np.arange(REGIONS) != one].any()


def test_test_regions_change_nothing_from_scratch(city: tuple) -> None:
    data, targets, parts = city
    changed = config(inductive=True, mode="scratch", tuning={"epochs": 1, "hidden": 8})
    spec = METHODS["urbanmmcl"]
    counts, degrees = data.poi_counts.copy(), data.lonlat_deg.copy()
    counts[parts.test], degrees[parts.test] = [50, 0, 1], [100.0, 40.0]
    other = replace(data, poi_counts=counts, lonlat_deg=degrees)
    rows = np.zeros((REGIONS, 1), np.float32)
    nothing = Checkpoint({})
    one, two = (
        fit_predictor(spec, changed, nothing, rows, seed=0, targets=targets, parts=parts, data=d)
        for d in (data, other)
    )
    np.testing.assert_array_equal(one.tensors["encoder.visible"], ~parts.test)
    assert equal(one, two)


def test_walks_are_drawn_once_an_epoch(data: RegionData, monkeypatch) -> None:
    regions = training(data).regions.train()
    drawn = []
    walks = regions.views.walks
    monkeypatch.setattr(
        regions.views, "walks", lambda *args: drawn.append(len(args[2])) or walks(*args)
    )
    for _ in range(3):
        for some in torch.randperm(REGIONS).split(7):
            regions.subgraph_vectors(some)
    assert drawn == [REGIONS] * 3


# --- embeddings ----------------------------------------------------------------------------------


def test_an_embedding_is_the_same_each_time_and_in_any_parts(
    data: RegionData, checkpoint: Checkpoint
) -> None:
    rows = METHOD.embed(checkpoint, data, CONFIG)
    with seeded(99):  # the caller's random numbers do not matter
        np.testing.assert_array_equal(METHOD.embed(checkpoint, data, CONFIG), rows)
    with seeded(0):
        regions = METHOD.encoder(data, CONFIG)
    load_arrays(regions, checkpoint.tensors)
    regions.eval()
    index = torch.tensor([5, 39, 0])
    with torch.no_grad():
        np.testing.assert_allclose(regions(index), rows[index], rtol=1e-4, atol=1e-5)


def test_more_walks_are_a_mean_that_settles(data: RegionData, checkpoint: Checkpoint) -> None:
    def spread(walks: int) -> float:
        rows = []
        for seed in range(6):
            with seeded(0):
                regions = METHOD.encoder(data, config(walks=walks))
            load_arrays(regions, checkpoint.tensors)
            regions.eval()
            generator = torch.Generator().manual_seed(seed)
            everyone = torch.arange(REGIONS)
            regions._kept["walks"] = [
                regions.views.walks(regions.graphs(), regions.features, everyone, generator)
                for _ in range(walks)
            ]
            with torch.no_grad():
                rows.append(regions.subgraph_vectors(everyone)["mobility"])
        return float(torch.stack(rows).std(dim=0).mean())

    assert spread(16) < 0.5 * spread(1)


def test_without_walks_the_whole_graph_is_passed_once(
    data: RegionData, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = config(random_walk=False)
    found = pretrained(data, config(random_walk=False, epochs=1))
    with seeded(0):
        regions = METHOD.encoder(data, changed)
    load_arrays(regions, found.tensors)
    regions.eval()
    with torch.no_grad():
        index = torch.arange(REGIONS)
        twin = {
            name: torch.cat([
                regions.views(regions.graphs(), regions.features, some, None)[0][name]
                for some in index.split(7)
            ])
            for name in regions.graphs()
        }  # fmt: skip
        expected = regions.fuse(regions.features(index), twin)
    passed: list[int] = []
    whole = ViewNet._whole
    monkeypatch.setattr(
        ViewNet, "_whole", lambda net, *args: passed.append(len(args[1])) or whole(net, *args)
    )
    monkeypatch.setattr(finetuning, "_CHUNK", 7)
    rows = METHOD.embed(found, data, changed)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
    assert passed == [REGIONS] * 3  # once in each view, for six parts of the city

    load_arrays(regions, pretrained(data, config(random_walk=False, epochs=1), seed=1).tensors)
    np.testing.assert_array_equal(embed_all(regions.train(), REGIONS) == rows, False)


def test_z_is_the_sum_of_nodes_and_views(data: RegionData, checkpoint: Checkpoint) -> None:
    with seeded(0):
        regions = METHOD.encoder(data, CONFIG)
    load_arrays(regions, checkpoint.tensors)
    regions.eval()
    everyone = torch.arange(REGIONS)
    with torch.no_grad():
        twin = regions.features(everyone)
        for name, values in regions.subgraph_vectors(everyone).items():
            unit = values / values.norm(dim=1, keepdim=True)
            twin = twin + unit @ regions.to_sum[name].weight.T
    np.testing.assert_allclose(METHOD.embed(checkpoint, data, CONFIG), twin, rtol=1e-4, atol=1e-5)


def test_labels_train_all_but_the_towers(city: tuple, checkpoint: Checkpoint) -> None:
    data, targets, parts = city
    spec = METHODS["urbanmmcl"]
    rows = METHOD.embed(checkpoint, data, CONFIG)
    tuning = {"epochs": 2, "batch": 16, "hidden": 8}
    for mode in ("finetune", "end_to_end", "scratch"):
        changed = config(mode=mode, tuning=tuning)
        predictor = fit_predictor(
            spec, changed, checkpoint, rows, seed=0, targets=targets, parts=parts, data=data
        )
        predicted = predict(spec, changed, predictor, rows, data)
        assert all(np.isfinite(p).all() for p in predicted.values())
        assert set(np.unique(predicted["use"])) <= {0, 1, 2}
        for name, value in checkpoint.tensors.items():
            rests = name.startswith(("towers.", "places.", "visible"))
            same = np.array_equal(predictor.tensors[f"encoder.{name}"], value)
            if mode == "scratch" or "log_variance" in name:
                continue
            assert same == rests, name


def test_embeddings_predict_what_the_modalities_show() -> None:
    data, targets, parts = fake_city(120)
    changed = config(epochs=20, width=32)
    found = METHOD.pretrain(data, changed, seed=0, visible=np.ones(120, bool))
    rows = METHOD.embed(found, data, changed)
    spec = METHODS["urbanmmcl"]
    head = fit_predictor(spec, changed, found, rows, seed=0, targets=targets, parts=parts)
    predicted = predict(spec, changed, head, rows, data)
    assert r2(predicted["income"], targets.values["income"], parts.test) > 0.5
    known = parts.test & np.isfinite(targets.values["use"][:, 0])
    assert (predicted["use"][known] == targets.values["use"][known]).mean() > 0.5


def test_a_checkpoint_does_not_hold_the_city_s_towers(city: tuple) -> None:
    data, targets, parts = city
    towered = with_towers(data, TOWER)
    found = pretrained(towered)
    held = [name for name in found.tensors if name.startswith("towers.")]
    assert sorted(held) == ["towers.satellite.digest", "towers.street_view.digest"]
    whole = dict(found.tensors)
    for view, given in towered.towers.items():
        for name, value in given.tensors.items():
            if name.startswith("clip.visual."):
                whole[f"towers.{view}.{name.removeprefix('clip.')}"] = value
    rows = METHOD.embed(found, towered, CONFIG)
    np.testing.assert_array_equal(
        rows, METHOD.embed(replace(found, tensors=whole), towered, CONFIG)
    )
    changed = config(mode="end_to_end", tuning={"epochs": 1, "batch": 16, "hidden": 8})
    spec = METHODS["urbanmmcl"]
    predictor = fit_predictor(
        spec, changed, found, rows, seed=0, targets=targets, parts=parts, data=towered
    )
    assert not any(".visual." in name for name in predictor.tensors)
    predicted = predict(spec, changed, predictor, rows, towered)
    assert np.isfinite(predicted["income"]).all()


def test_towers_of_another_model_are_refused(data: RegionData) -> None:
    found = pretrained(with_towers(data, TOWER), config(epochs=1))
    other = with_towers(data, TOWER, seed=6)
    with pytest.raises(DataError, match=r"(?s)other towers than those of this city.*captions.clip"):
        METHOD.embed(found, other, CONFIG)
    with pytest.raises(DataError, match="other towers"):
        METHOD.adapt(found, other, CONFIG, seed=0)


# --- transfer ------------------------------------------------------------------------------------


def test_a_transfer_keeps_encoders_and_makes_graphs_anew(checkpoint: Checkpoint) -> None:
    assert isinstance(METHOD, Adaptable)
    other, *_ = fake_city(30, seed=5)
    moved = METHOD.adapt(checkpoint, other, CONFIG, seed=7)
    for name, value in moved.tensors.items():
        carried = name.startswith(("towers.", "projections.")) or name.endswith(".axes")
        given = checkpoint.tensors[name]
        assert np.array_equal(given, value) == carried, name
    assert moved.tensors["visible"].shape == (30,) and len(moved.record["loss"]) == CONFIG.epochs
    assert np.isfinite(METHOD.embed(moved, other, CONFIG)).all()
    assert equal(METHOD.adapt(checkpoint, other, CONFIG, seed=7), moved)
    with pytest.raises(DataError, match="fitted on 40 regions and cannot embed 30"):
        METHOD.embed(checkpoint, other, CONFIG)


def test_places_of_a_far_city_stay_apart(checkpoint: Checkpoint) -> None:
    """Its own mean is taken off, and not that of the city that pretraining saw."""
    other, *_ = fake_city(30, seed=5)
    far = replace(
        other,
        lonlat_deg=other.lonlat_deg + np.array([70.0, -25.0]),
        view_location_features=other.view_location_features + 5,
    )
    moved = METHOD.adapt(checkpoint, far, config(epochs=1), seed=0)
    with seeded(0):
        regions = METHOD.encoder(far, CONFIG)
    load_arrays(regions, moved.tensors)
    for name in ("centre", "view_places"):
        values = regions.values()[name]
        numbers = values.numbers[values.present]
        assert numbers.mean(dim=0).norm() < 0.1 * numbers.std(dim=0).norm()


def test_an_encoder_that_does_not_fit_is_refused(data: RegionData, checkpoint: Checkpoint) -> None:
    with pytest.raises(DataError, match=r"(?s)no projections.*captions.clip"):
        METHOD.adapt(checkpoint, data, config(width=8), seed=0)
