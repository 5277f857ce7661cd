"""What street views alone can tell; what it shares with UrbanCLIP stands in `test_urbanclip`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_code.methods.base import Checkpoint, RegionData
from model_code.methods.baselines.urbanclip_sv import METHOD
from tests.model_code.methods.baselines.test_urbanclip import CONFIG, pretrained
from tests.model_code.methods.fake_city import fake_city


@pytest.fixture(scope="module")
def data() -> RegionData:
    return fake_city(40)[0]


@pytest.fixture(scope="module")
def checkpoint(data: RegionData) -> Checkpoint:
    return pretrained(METHOD, data)


def test_regions_without_a_street_view_are_one_point_apart_from_the_others(
    data: RegionData, checkpoint: Checkpoint
) -> None:
    rows = METHOD.embed(checkpoint, data, CONFIG)
    seen = np.isin(np.arange(40), data.view_region)
    assert 0 < (~seen).sum() < 40
    np.testing.assert_array_equal(rows[~seen], np.broadcast_to(rows[~seen][0], rows[~seen].shape))
    away = np.linalg.norm(rows[seen] - rows[~seen][0], axis=1)
    assert (away > 0.1).all()


def test_a_region_is_all_its_street_views_in_any_order(
    data: RegionData, checkpoint: Checkpoint
) -> None:
    rows = METHOD.embed(checkpoint, data, CONFIG)
    order = np.random.default_rng(0).permutation(len(data.views))
    shuffled = replace(data, views=data.views[order], view_region=data.view_region[order])
    np.testing.assert_allclose(METHOD.embed(checkpoint, shuffled, CONFIG), rows, atol=1e-5)
    several = np.bincount(data.view_region, minlength=40) > 1
    first = np.array([np.flatnonzero(data.view_region == r)[0] for r in np.flatnonzero(several)])
    views = data.views.copy()
    views[first] = 255 - views[first]
    changed = METHOD.embed(checkpoint, replace(data, views=views), CONFIG)
    moved = np.linalg.norm(changed - rows, axis=1) > 1e-4
    np.testing.assert_array_equal(moved, several)
