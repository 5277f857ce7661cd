from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model_code.errors import DataError
from model_code.methods import Encoded, method_config
from model_code.methods.base import RegionData
from model_code.methods.modalities import MODALITIES, encode, fit_encoding, modality_features
from tests.model_code.methods.fake_city import fake_city


def config(**changes: Any) -> Encoded:
    made = method_config("hourly_linear", {"encoder": "small", "image_px": 16, **changes})
    assert isinstance(made, Encoded)
    return made


@pytest.fixture(scope="module")
def data() -> RegionData:
    return fake_city(30)[0]


def test_features_are_missing_where_a_region_has_nothing(data: RegionData) -> None:
    found = modality_features(data, config())
    assert tuple(found) == MODALITIES
    known = data.height_present & np.isfinite(data.heights).any(axis=(1, 2))
    there = {
        "satellite": data.chip_present,
        "heights": known,
        "street_view": np.bincount(data.view_region, minlength=30) > 0,
        "pois": data.poi_counts.sum(axis=1) > 0,
    }
    for name, rows in found.items():
        np.testing.assert_array_equal(np.isfinite(rows).all(axis=1), there[name])
        np.testing.assert_array_equal(np.isnan(rows).all(axis=1), ~there[name])


def test_what_is_switched_off_or_absent_is_left_out(data: RegionData) -> None:
    assert tuple(modality_features(data, config(buildings=False))) == (
        "satellite", "street_view", "pois",
    )  # fmt: skip
    assert "pois" not in modality_features(replace(data, poi_counts=None), config())
    with pytest.raises(DataError, match="no modality is left"):
        modality_features(
            replace(data, poi_counts=None),
            config(satellite=False, buildings=False, street_views=False),
        )


def test_street_views_are_a_mean_over_at_most_so_many(data: RegionData) -> None:
    one = modality_features(data, config(views=1))["street_view"]
    many = modality_features(data, config())["street_view"]
    count = np.bincount(data.view_region, minlength=30)
    assert (count == 1).any() and (count > 1).any()
    same = np.isclose(one, many, atol=1e-5).all(axis=1)
    assert same[count == 1].all() and not same[count > 1].any()


def test_features_are_computed_once(data: RegionData) -> None:
    first, again = modality_features(data, config()), modality_features(data, config())
    assert all(first[name] is again[name] for name in first)
    other = modality_features(data, config(image_px=32))
    assert not np.array_equal(first["satellite"], other["satellite"], equal_nan=True)


# --- raw encodings -------------------------------------------------------------------------------


def test_encodings_are_whitened_principal_components() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((200, 6)) * [1, 1, 1, 9, 9, 9] @ rng.standard_normal((6, 6))
    seen = np.arange(200) < 150
    rows = encode({"a": values}, fit_encoding({"a": values}, seen, 6))[seen, :6]
    np.testing.assert_allclose(np.cov(rows.T, ddof=0), np.eye(6), atol=1e-4)
    few = encode({"a": values}, fit_encoding({"a": values}, seen, 2))
    np.testing.assert_allclose(few[seen, :2], rows[:, :2], atol=1e-4)


def test_components_that_are_rounding_alone_are_left_out() -> None:
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((50, 2)) @ rng.standard_normal((2, 5))
    values = (plane + 1e-7 * rng.standard_normal((50, 5))).astype(np.float32)
    rows = encode({"a": values}, fit_encoding({"a": values}, np.ones(50, bool), 5))
    assert rows.shape == (50, 2 + 1) and np.abs(rows).max() < 10
