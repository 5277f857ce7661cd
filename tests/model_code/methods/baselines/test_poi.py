from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_code.methods import PoiConfig
from model_code.methods.base import RegionData
from model_code.methods.baselines import poi
from tests.model_code.methods.fake_city import fake_city, fit_embed


@pytest.fixture(scope="module")
def data() -> RegionData:
    return fake_city()[0]


def test_poi_transforms(data: RegionData) -> None:
    counts = data.poi_counts.copy()
    counts[3] = 0
    city = replace(data, poi_counts=counts)
    raw, log, share = (
        fit_embed(poi.METHOD, PoiConfig(transform=t), city) for t in ("raw", "log1p", "share")
    )
    np.testing.assert_array_equal(raw, counts)
    np.testing.assert_allclose(log, np.log1p(counts))
    np.testing.assert_allclose(np.delete(share.sum(axis=1), 3), 1, rtol=1e-6)
    np.testing.assert_array_equal(share[3], 0)


def test_poi_columns_go_by_name_and_not_by_place(data: RegionData) -> None:
    other = replace(
        data, poi_counts=data.poi_counts[:, [2, 0]], poi_categories=("shop", "bar")
    )  # another city: other order, no offices
    rows = fit_embed(poi.METHOD, PoiConfig(transform="raw"), data, other)
    np.testing.assert_array_equal(rows, data.poi_counts * [1, 0, 1])
