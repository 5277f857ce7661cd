"""The baselines of the hourly outflow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from sklearn.ensemble import RandomForestRegressor
from torch.nn import functional as F

from model_code.geo.regions import make_adjacency
from model_code.methods import HourlyForestConfig, method_config, method_spec
from model_code.methods.base import Parts, RegionData, Targets
from model_code.methods.baselines.hourly_cnn import MapConvolution, directions
from model_code.methods.baselines.hourly_forest import fit_trees, predict_trees
from model_code.methods.baselines.lmemr_clip import METHOD as CLIP
from model_code.methods.baselines.lmemr_clip import poi_sentences
from model_code.methods.modalities import encode, fit_encoding, modality_features
from model_code.training import seeded
from tests.model_code.geo.maps import frame_of
from tests.model_code.methods.fake_city import fake_city, r2

SIZE: dict[str, Any] = {"encoder": "small", "image_px": 16, "components": 8}
NETS = {"hidden": 16, "epochs": 60, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def city() -> tuple[RegionData, Targets, Parts]:
    data, targets, parts = fake_city(120)
    task = next(task for task in targets.tasks if task.kind == "hourly")
    return data, Targets((task,), {task.name: targets.values[task.name]}), parts


# --- raw encodings -------------------------------------------------------------------------------


def test_encodings_stand_on_training_regions_and_say_what_is_absent(city: tuple) -> None:
    data, _, parts = city
    features = modality_features(data, method_config("hourly_linear", SIZE))
    tensors = fit_encoding(features, parts.train, 8)
    rows = encode(features, tensors)
    assert rows.shape == (120, 8 + 1 + 8 + 1 + 8 + 1 + 3 + 1) and np.isfinite(rows).all()
    seen = parts.train & data.chip_present
    np.testing.assert_allclose(rows[seen, :8].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(rows[seen, :8].std(axis=0), 1, rtol=1e-4)
    assert (rows[~data.chip_present, :9] == 0).all() and (rows[data.chip_present, 8] == 1).all()
    for name, values in features.items():  # the others change nothing
        features[name] = np.where(parts.train[:, None], values, 9.0)
    again = fit_encoding(features, parts.train, 8)
    assert all(np.array_equal(tensors[key], again[key]) for key in tensors)


def test_a_modality_that_no_training_region_has_is_left_at_nothing(city: tuple) -> None:
    data, _, parts = city
    features = {"pois": np.where(parts.train[:, None], np.nan, data.poi_counts)}
    rows = encode(features, fit_encoding(features, parts.train, 4))
    assert np.isfinite(rows).all() and rows.shape == (120, 1)


# --- the methods ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "least"),
    [
        ("hourly_linear", {"components": 2}, 0.3),
        ("hourly_forest", {"trees": 60}, 0.5),
        ("hourly_lstm", NETS, 0.25),
        ("hourly_transformer", NETS, 0.25),
        ("hourly_cnn", NETS, 0.2),
    ],
)
def test_each_learns_the_day_of_each_region(
    city: tuple, name: str, changes: dict[str, Any], least: float
) -> None:
    data, targets, parts = city
    config, method = method_config(name, {**SIZE, **changes}), method_spec(name).load()
    checkpoint = method.fit(data, targets, parts, config, seed=0)
    flows = method.predict(checkpoint, data, config)["outflow"]
    assert flows.shape == (120, 24)
    assert r2(flows, targets.values["outflow"], parts.test) > least


def test_trees_as_arrays_are_the_forest() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 5)).astype(np.float32)
    values = np.column_stack([rows[:, 0] > 0, rows[:, 1] * rows[:, 2], rng.random(60)])
    config = HourlyForestConfig(trees=20)
    forest = RandomForestRegressor(20, max_features=1 / 3, random_state=4).fit(rows, values)
    new = rng.standard_normal((200, 5)).astype(np.float32)
    mine = predict_trees(new, fit_trees(rows, values, config, 4))
    np.testing.assert_allclose(mine, forest.predict(new), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("corners", [True, False])
def test_the_convolution_on_squares(corners: bool) -> None:
    """On a map of 4 x 5: an ordinary one with all eight neighbours, a plus of five taps with those that
    share a border."""
    height, width = 4, 5
    row, column = np.divmod(np.arange(height * width), width)
    xy = np.column_stack([column, -row]) * 500.0
    apart = np.abs(xy[:, None] - xy[None]).max(axis=2)
    pairs = np.argwhere(apart == 500)
    if not corners:
        squares = frame_of([shapely.box(x, y, x + 500, y + 500) for x, y in xy])
        bordering = make_adjacency(squares)
        pairs = bordering[["region_id", "neighbour_id"]].to_numpy().astype(np.int64)
    slot = directions(xy, pairs)
    with seeded(0):
        layer = MapConvolution(3, 2)
        state = torch.randn(height * width, 3)
    out = layer(
        state,
        torch.from_numpy(pairs.T.copy()),
        torch.from_numpy(slot),
        torch.ones(len(pairs)),
    )
    kernel = torch.zeros(2, 3, 3, 3)
    kernel[:, :, 1, 1] = layer.own.weight
    around = layer.around.weight.view(8, 2, 3)
    places = [(1, 2), (0, 2), (0, 1), (0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]  # east, then round
    for direction, (y, x) in enumerate(places):
        if corners or 1 in (y, x):
            kernel[:, :, y, x] = around[direction]
    image = state.T.reshape(1, 3, height, width)
    expected = F.conv2d(image, kernel, layer.own.bias, padding=1)[0].flatten(1).T
    torch.testing.assert_close(out, expected)


def test_clip_reads_the_list_of_pois(city: tuple) -> None:
    data = city[0]
    lists = poi_sentences(data)
    assert sorted(lists[0].split()[1::2])[0].strip(",") in data.poi_categories
    none = replace(data, poi_counts=np.zeros_like(data.poi_counts))
    assert set(poi_sentences(none)) == {""}
    config = method_config("lmemr_clip", {"image_px": 32, "width": 8})
    features = CLIP.features(data, config)
    lengths = np.linalg.norm(features["pois"], axis=1)
    told = data.poi_counts.sum(axis=1) > 0
    np.testing.assert_allclose(lengths[told], 1, rtol=1e-5)
    assert np.isnan(lengths[~told]).all()
    checkpoint = CLIP.fit(*city, method_config("lmemr_clip", {"epochs": 1, "width": 8}), seed=0)
    assert not any("semantic" in name for name in checkpoint.tensors)
