from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_code.methods import ClipProbeConfig
from model_code.methods.base import Checkpoint, RegionData
from model_code.methods.baselines.clip_probe import METHOD
from tests.model_code.methods.fake_city import fake_city
from tests.model_code.methods.test_urbanvlp import TOWER, equal, pretrained_towers

CONFIG = ClipProbeConfig.model_validate(
    {"chip_px": 16, "view_px": (16, 24), "width": 16, "tower": TOWER}
)


@pytest.fixture(scope="module")
def data() -> RegionData:
    return fake_city(40)[0]


def pretrained(data: RegionData, config: ClipProbeConfig = CONFIG, seed: int = 0) -> Checkpoint:
    return METHOD.pretrain(data, config, seed=seed, visible=np.ones(len(data), bool))


def test_the_probe_is_what_the_towers_see(data: RegionData) -> None:
    given = replace(data, towers=pretrained_towers(data))
    first = pretrained(given)
    assert equal(first, pretrained(given, seed=5))
    silent = replace(given, chip_texts=None, view_texts=None)
    assert equal(first, pretrained(silent))  # captions are not read
    chip, street = np.split(METHOD.embed(first, given, CONFIG), 2, axis=1)
    seen = data.chip_present
    np.testing.assert_allclose(np.linalg.norm(chip[seen], axis=1), 1, atol=1e-5)
    one = np.bincount(data.view_region, minlength=40) == 1
    np.testing.assert_allclose(np.linalg.norm(street[one], axis=1), 1, atol=1e-5)


def test_the_probe_of_one_view(data: RegionData) -> None:
    for off in ({"satellite": False}, {"street_views": False}):
        config = CONFIG.model_copy(update=off)
        found = pretrained(data, config)
        assert METHOD.embed(found, data, config).shape == (40, 16)
