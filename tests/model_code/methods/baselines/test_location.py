from __future__ import annotations

import numpy as np
import pytest

from model_code.methods import LocationConfig
from model_code.methods.base import RegionData
from model_code.methods.baselines import location
from tests.model_code.methods.fake_city import fake_city, fit_embed


@pytest.fixture
def data() -> RegionData:
    return fake_city()[0]


def test_location_features(data: RegionData) -> None:
    rows = fit_embed(location.METHOD, LocationConfig(frequencies=2), data)
    xy = (data.xy_m - data.xy_m.mean(axis=0)) / data.xy_m.std(axis=0)
    x, y = xy.T
    expected = [x, y]
    for wave in (np.sin, np.cos):
        expected += [wave(f * np.pi / 2 * axis) for axis in (x, y) for f in (1, 2)]
    np.testing.assert_allclose(rows, np.stack(expected, axis=1), rtol=1e-4, atol=1e-5)
    assert fit_embed(location.METHOD, LocationConfig(frequencies=0), data).shape[1] == 2
