from __future__ import annotations

from dataclasses import replace

import numpy as np

from model_code.methods import FeaturesConfig
from model_code.methods.baselines.features import METHOD
from tests.model_code.methods.fake_city import fake_city


def test_a_region_is_its_chips_features_and_the_mean_of_its_views() -> None:
    data = fake_city(12)[0]
    everyone, config = np.ones(12, bool), FeaturesConfig()
    rows = METHOD.embed(METHOD.pretrain(data, config, seed=0, visible=everyone), data, config)
    width = data.chip_features.shape[1]
    np.testing.assert_allclose(rows[:, :width], data.chip_features, rtol=1e-6)
    for region in range(12):
        own = data.view_features[data.view_region == region]
        if len(own):
            found = rows[region, width + 1 : 2 * width + 1]
            np.testing.assert_allclose(found, own.mean(axis=0), rtol=1e-5, atol=1e-6)
        assert rows[region, -1] == (len(own) == 0)
    only = replace(data, view_features=None)
    assert METHOD.embed(
        METHOD.pretrain(only, config, seed=0, visible=everyone), only, config
    ).shape == (12, width + 1)
