from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.decomposition import PCA

from model_code.errors import DataError
from model_code.methods import ChipPcaConfig
from model_code.methods.base import RegionData
from model_code.methods.baselines import chip_pca
from tests.model_code.methods.fake_city import fake_city, fit_embed


@pytest.fixture(scope="module")
def data() -> RegionData:
    return fake_city()[0]


def test_chips_are_averaged_down(data: RegionData) -> None:
    blocks = data.chips.reshape(60, 4, 4, 4, 4, 3).mean(axis=(2, 4)).reshape(60, -1) / 255
    np.testing.assert_allclose(chip_pca._pixels(data.chips, 4), blocks, rtol=1e-5)
    uneven = chip_pca._pixels(data.chips, 5)
    assert uneven.shape == (60, 75)
    np.testing.assert_allclose(
        uneven.mean(axis=1), data.chips.mean(axis=(1, 2, 3)) / 255, rtol=1e-5
    )
    assert chip_pca._pixels(data.chips, 64).shape == (60, 16 * 16 * 3)


def test_chip_pca_equals_scikit_learn(data: RegionData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chip_pca, "_BATCH", 7)
    rows = fit_embed(chip_pca.METHOD, ChipPcaConfig(components=3, size_px=4), data)
    there = data.chip_present
    expected = PCA(3, svd_solver="full").fit_transform(chip_pca._pixels(data.chips[there], 4))
    np.testing.assert_allclose(np.abs(rows[there, :3]), np.abs(expected), atol=1e-5)


def test_a_region_without_a_chip_is_marked_and_stands_at_the_mean(data: RegionData) -> None:
    rows = fit_embed(chip_pca.METHOD, ChipPcaConfig(components=3), data)
    absent = ~data.chip_present
    assert absent.any()
    np.testing.assert_array_equal(rows[:, -1], absent)
    np.testing.assert_array_equal(rows[absent, :-1], 0)
    np.testing.assert_allclose(rows[~absent, :-1].mean(axis=0), 0, atol=1e-5)
    nowhere = replace(data, chip_present=np.zeros(60, bool))
    with pytest.raises(DataError, match=r"sources\.imagery"):
        fit_embed(chip_pca.METHOD, ChipPcaConfig(), nowhere)
