"""Every method of the registry: its code fits its protocol, its config is read, its fit is honest."""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from model_code.methods import (
    HEAD_KEYS,
    METHODS,
    Probed,
    Tuned,
    Tuning,
    VitConfig,
    method_config,
    method_spec,
)
from model_code.methods import run as shared
from model_code.methods.base import Checkpoint, Floats, Pretrained, RegionData, Supervised, Tunable
from model_code.methods.run import Fit, fit_checkpoint, prediction_rows
from model_code.training import Settings
from tests.model_code.methods.fake_city import fake_city

TOWER = {
    "shrink": 1, "patch_px": 8, "image_width": 32, "image_layers": 1, "text_width": 32, "text_layers": 1,
    "embed_dim": 8,
}  # fmt: skip
TOWERS = {"chip_px": 16, "view_px": (16, 24), "width": 8, "tower": TOWER}
CONTRASTIVE = {**TOWERS, "epochs": 1, "batch": 32}
LMEMR = {
    "image_px": 16,
    "tower": TOWER,
    "width": 8,
    "heads": 2,
    "blocks": 1,
    "temporal_layers": 1,
    "epochs": 2,
}
HOURLY = {"image_px": 16, "tower": TOWER, "components": 4}
HOURLY_NET = {**HOURLY, "hidden": 8, "epochs": 2}
CHIPS = {"chip_px": 16, "width": 8, "epochs": 1, "batch": 32}
STREETS = {**CHIPS, "view_px": (16, 24), "hidden": 8}
SMALL = {
    "hrep": {"width": 8, "heads": 2, "layers": 2, "epochs": 2},
    "mvure": {"width": 8, "heads": 2, "feature_width": 8, "epochs": 2},
    "remvc": {"width": 4, "epochs": 2, "trip_negatives": 5},
    "mgfn": {"width": 8, "heads": 2, "patterns": 3, "epochs": 2},
    "vit": {"image_px": 16, "patch_px": 8, "width": 8, "heads": 2, "depth": 1, "epochs": 2},
    "urbanvlp": CONTRASTIVE,
    "urbanclip": CONTRASTIVE,
    "urbanclip_sv": CONTRASTIVE,
    "clip_probe": TOWERS,
    "urbanmmcl": {**CONTRASTIVE, "walks": 2, "walk_length": 6, "latent": 8},
    "urbanmoe": {
        "chip_px": 16, "tower": TOWER, "epochs": 2, "n_specific": 2, "n_pair": 1, "n_shared": 1, "hidden": 8,
        "width": 4, "head_hidden": 4,
    },
    "lmemr": LMEMR,
    "lmemr_clip": LMEMR,
    "hourly_linear": HOURLY,
    "hourly_forest": {**HOURLY, "trees": 5},
    "hourly_cnn": HOURLY_NET,
    "hourly_lstm": HOURLY_NET,
    "hourly_transformer": HOURLY_NET,
    "tile2vec": CHIPS,
    "pg_simclr": {"chip_px": 16, "projection": 8, "epochs": 1, "batch": 32},
    "urban2vec": {
        "backbone": "small", "view_px": (16, 24), "width": 8, "epochs": 1, "word_epochs": 1, "word_min_count": 1,
    },
    "autoencoder": {**CHIPS, "channels": 4},
    "read": {
        "chip_px": 32, "tiles": 2, "components": 3, "epochs": 1, "batch": 32, "built": ("house",),
    },
    "vision_lstm": STREETS,
    "structural_urban": {**STREETS, "projection": 8, "contrast_epochs": 1},
    "musecl": {
        "chip_px": 16, "view_px": (16, 24), "width": 8, "epochs": 1, "align_epochs": 1, "word_epochs": 1,
        "satellite_backbone": "small", "street_view_backbone": "small",
    },
}  # fmt: skip


def arguments(name: str) -> tuple:
    overrides = SMALL.get(name, {})
    if METHODS[name].kind == "pretrained":
        overrides = {**overrides, "inductive": True}
    return METHODS[name], method_config(name, overrides)


def fitted(name: str, city: tuple, seed: int = 0) -> Checkpoint:
    data, targets, parts = city
    return fit_checkpoint(*arguments(name), data, seed=seed, targets=targets, parts=parts)


def embedding(name: str, checkpoint: Checkpoint, data: RegionData) -> Floats:
    spec, config = arguments(name)
    return spec.load().embed(checkpoint, data, config)


def scrambled(data: RegionData, rows: np.ndarray) -> RegionData:
    """The same city with other inputs in `rows`, and other trips from and to them."""
    rng = np.random.default_rng(9)

    def changed(values: np.ndarray, new: np.ndarray) -> np.ndarray:
        return np.where(rows.reshape(-1, *[1] * (values.ndim - 1)), new, values).astype(
            values.dtype
        )

    touched = rows[data.flow_origin] | rows[data.flow_destination]
    hourly = data.hourly_flows
    moved = rows[hourly.origin] | rows[hourly.destination]
    views = rows[data.view_region]

    def viewed(values: np.ndarray, new: np.ndarray) -> np.ndarray:
        return np.where(views.reshape(-1, *[1] * (values.ndim - 1)), new, values).astype(
            values.dtype
        )

    return replace(
        data,
        chip_texts=np.where(rows, "another word", data.chip_texts),
        view_texts=np.where(views, "another word", data.view_texts),
        poi_names=np.where(rows[data.poi_name_region], "another word", data.poi_names),
        poi_comments=np.where(rows[data.poi_comment_region], "x", data.poi_comments),
        chip_shares=changed(data.chip_shares, rng.random(data.chip_shares.shape)),
        chip_features=changed(data.chip_features, rng.random(data.chip_features.shape)),
        view_features=viewed(data.view_features, rng.random(data.view_features.shape)),
        views=viewed(data.views, rng.integers(0, 255, data.views.shape)),
        view_shares=viewed(data.view_shares, rng.random(data.view_shares.shape)),
        view_location_features=viewed(
            data.view_location_features, rng.random(data.view_location_features.shape)
        ),
        xy_m=changed(data.xy_m, rng.random(data.xy_m.shape) * 1e7),
        chips=changed(data.chips, rng.integers(0, 255, data.chips.shape)),
        poi_counts=changed(data.poi_counts, rng.integers(0, 99, data.poi_counts.shape)),
        heights=changed(data.heights, 99 * rng.random(data.heights.shape)),
        descriptions={
            key: changed(told, rng.standard_normal(told.shape))
            for key, told in data.descriptions.items()
        },
        flow_count=np.where(touched, 1000 * rng.random(len(touched)), data.flow_count),
        hourly_flows=replace(
            hourly, count=np.where(moved, 1000 * rng.random(len(moved)), hourly.count)
        ),
    )


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_loads_and_satisfies_its_protocol(name: str) -> None:
    spec = METHODS[name]
    assert spec.name == name and spec.title and spec.about and spec.needs
    protocol = Pretrained if spec.kind == "pretrained" else Supervised
    method = spec.load()
    assert isinstance(method, protocol)
    for member in ("pretrain", "fit", "embed", "predict"):
        if hasattr(protocol, member):
            ours, theirs = (
                inspect.signature(getattr(owner, member)) for owner in (type(method), protocol)
            )
            assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
                (p.name, p.kind, p.default) for p in theirs.parameters.values()
            ]
    assert issubclass(spec.config, Probed) == (spec.kind == "pretrained")
    assert isinstance(method, Tunable) == issubclass(spec.config, Tuned)


@pytest.mark.parametrize("name", METHODS)
def test_every_config_key_is_read(name: str) -> None:
    spec = METHODS[name]
    modules = {c.__module__ for c in type(spec.load()).__mro__} - {"builtins"}
    source = "".join(inspect.getsource(sys.modules[m]) for m in (*modules, shared.__name__))
    if "Settings.of(config" in source:
        source += inspect.getsource(Settings.of)
    unread = [key for key in spec.config.model_fields if f"config.{key}" not in source]
    assert unread == []


def test_every_tuning_key_is_read() -> None:
    source = inspect.getsource(shared) + inspect.getsource(Settings.of).replace("config", "tuning")
    assert "Settings.of(tuning" in source
    assert [key for key in Tuning.model_fields if f"tuning.{key}" not in source] == []
    assert set(Probed.model_fields) - {"inductive"} <= HEAD_KEYS
    assert set(Tuned.model_fields) - {"inductive"} == HEAD_KEYS


def test_an_unknown_name_lists_the_choices() -> None:
    with pytest.raises(KeyError, match=r"unknown method 'vitt'; known: autoencoder, .*poi, .*vit"):
        method_spec("vitt")


def test_configs_refuse_what_cannot_work() -> None:
    with pytest.raises(ValidationError, match="multiple of patch_px"):
        VitConfig(image_px=60)
    with pytest.raises(ValidationError, match="multiple of heads"):
        VitConfig(width=66)
    with pytest.raises(ValidationError, match="epoch"):
        method_config("vit", {"epoch": 3})


@pytest.mark.parametrize("name", METHODS)
def test_embeddings_are_finite_float32_of_all_regions(name: str, city: tuple) -> None:
    rows = embedding(name, fitted(name, city), city[0])
    assert rows.dtype == np.float32 and rows.shape[0] == len(city[0]) and rows.shape[1] > 0
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_fit_is_repeatable(name: str, city: tuple) -> None:
    first, second = fitted(name, city, seed=3), fitted(name, city, seed=3)
    assert first.record == second.record and first.tensors.keys() == second.tensors.keys()
    for key, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, second.tensors[key])


@pytest.mark.parametrize("name", METHODS)
def test_regions_that_are_not_visible_change_nothing_in_the_checkpoint(
    name: str, city: tuple
) -> None:
    data, targets, parts = city
    changed = (scrambled(data, parts.test), targets, parts)
    first, second = fitted(name, city), fitted(name, changed)
    assert first.record == second.record and first.tensors.keys() == second.tensors.keys()
    for key, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, second.tensors[key])
    seen = fitted(name, (scrambled(data, parts.train), targets, parts))  # the test can fail
    same = first.record == seen.record and all(
        np.array_equal(tensor, seen.tensors[key]) for key, tensor in first.tensors.items()
    )
    # One keeps the categories alone, the other is not fitted to any region.
    assert not same or name in ("poi", "clip_probe")


@pytest.mark.parametrize("name", METHODS)
def test_an_embedding_does_not_depend_on_other_regions(name: str, city: tuple) -> None:
    data, _, parts = city
    checkpoint = fitted(name, city)
    others = parts.test.copy()
    others[np.flatnonzero(parts.test)[0]] = False
    first, second = (embedding(name, checkpoint, d) for d in (data, scrambled(data, others)))
    np.testing.assert_allclose(first[~others], second[~others], rtol=1e-4, atol=1e-5)
    assert not np.allclose(first[others], second[others])


@pytest.mark.parametrize("name", [n for n, s in METHODS.items() if s.kind == "supervised"])
def test_test_labels_change_nothing_in_a_supervised_fit(name: str, city: tuple) -> None:
    data, targets, parts = city
    values = {task: v.copy() for task, v in targets.values.items()}
    for v in values.values():
        v[parts.test] = 1.0
    first = fitted(name, city)
    second = fitted(name, (data, replace(targets, values=values), parts))
    for key, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, second.tensors[key])


@pytest.mark.parametrize("name", METHODS)
def test_predictions_of_every_task(name: str, city: tuple) -> None:
    data, targets, parts = city
    spec, config = arguments(name)
    checkpoint = fitted(name, city)
    rows = embedding(name, checkpoint, data)
    predictor = shared.fit_predictor(
        spec, config, checkpoint, rows, seed=0, targets=targets, parts=parts
    )
    predicted = shared.predict(spec, config, predictor, rows, data)
    assert {task: p.shape for task, p in predicted.items()} == {
        task.name: (len(data), task.slots) for task in targets.tasks if task.kind in spec.predicts
    }
    frame = prediction_rows(predicted, targets, parts, data.region_ids, Fit("default", "s", 0), 0)
    assert len(frame) == sum(np.isfinite(targets.values[t][parts.test]).sum() for t in predicted)
