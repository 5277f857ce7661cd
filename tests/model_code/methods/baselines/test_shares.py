from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_code.errors import DataError
from model_code.methods import SharesConfig
from model_code.methods.base import RegionData
from model_code.methods.baselines.shares import METHOD
from tests.model_code.methods.fake_city import fake_city

CONFIG = SharesConfig()


@pytest.fixture
def data() -> RegionData:
    """Ten regions: the first has no chip shares, the second no view, the third one view that the
    segmenter could not judge, and another."""
    city = fake_city(10)[0]
    chips = city.chip_shares.copy()
    chips[0] = np.nan
    return replace(
        city,
        chip_shares=chips,
        view_region=np.array([2, 2, 0, 0, 0, 3]),
        view_shares=np.array(
            [[np.nan] * 2, [0.2, 0.8], [0.1, 0.9], [0.3, 0.7], [0.5, 0.5], [1, 0]], np.float32
        ),
    )


def embedded(data: RegionData, visible: np.ndarray | None = None) -> np.ndarray:
    everyone = np.ones(len(data), bool)
    found = METHOD.pretrain(data, CONFIG, seed=0, visible=everyone if visible is None else visible)
    return METHOD.embed(found, data, CONFIG)


def test_rows_are_the_chips_shares_and_the_mean_of_the_views(data: RegionData) -> None:
    rows = embedded(data)
    chip, no_chip, view, no_view = np.split(rows, [3, 4, 6], axis=1)
    np.testing.assert_allclose(chip[1:], data.chip_shares[1:])
    np.testing.assert_allclose(view[[0, 2, 3]], [[0.3, 0.7], [0.2, 0.8], [1, 0]], rtol=1e-6)
    np.testing.assert_array_equal(no_chip[:, 0], np.arange(10) == 0)
    np.testing.assert_array_equal(no_view[:, 0], ~np.isin(np.arange(10), [0, 2, 3]))


def test_what_is_absent_is_the_mean_of_the_visible_regions(data: RegionData) -> None:
    visible = np.isin(np.arange(10), [0, 1, 2])
    rows = embedded(data, visible)
    np.testing.assert_allclose(rows[0, :3], data.chip_shares[1:3].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(rows[1, 4:6], [0.25, 0.75], rtol=1e-6)


def test_one_view_is_enough_and_none_is_refused(data: RegionData) -> None:
    assert embedded(replace(data, view_shares=None)).shape == (10, 4)
    assert embedded(replace(data, chip_shares=None)).shape == (10, 3)
    with pytest.raises(DataError, match=r"no view"):
        embedded(replace(data, chip_shares=None, view_shares=None))
