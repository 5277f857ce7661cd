"""The baselines without a network: poi, location, chip_pca, od_pca."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict

from model_code.errors import DataError
from model_code.methods import ChipPcaConfig, LocationConfig, OdPcaConfig, PoiConfig
from model_code.methods.base import RegionData
from model_code.methods.baselines import chip_pca, location, od_pca, poi
from tests.model_code.methods.fake_city import fake_city


@pytest.fixture(scope="module")
def data() -> RegionData:
    return fake_city()[0]


def fit_embed(method, config, data: RegionData, other: RegionData | None = None) -> np.ndarray:
    everyone = np.ones(len(data), bool)
    checkpoint = method.pretrain(data, config, seed=0, visible=everyone)
    return method.embed(checkpoint, other or data, config)


# --- poi -----------------------------------------------------------------------------------------


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


# --- location ------------------------------------------------------------------------------------


def test_location_features(data: RegionData) -> None:
    rows = fit_embed(location.METHOD, LocationConfig(frequencies=2), data)
    xy = (data.xy_m - data.xy_m.mean(axis=0)) / data.xy_m.std(axis=0)
    x, y = xy.T
    expected = [x, y]
    for wave in (np.sin, np.cos):
        expected += [wave(f * np.pi / 2 * axis) for axis in (x, y) for f in (1, 2)]
    np.testing.assert_allclose(rows, np.stack(expected, axis=1), rtol=1e-4, atol=1e-5)
    assert fit_embed(location.METHOD, LocationConfig(frequencies=0), data).shape[1] == 2


# --- chip_pca ------------------------------------------------------------------------------------


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


# --- od_pca --------------------------------------------------------------------------------------


def od_city(od: np.ndarray) -> RegionData:
    origin, destination = np.nonzero(od)
    n = len(od)
    return RegionData(
        region_ids=np.array([f"r{i:04}" for i in range(n)]),
        lonlat_deg=np.zeros((n, 2)),
        xy_m=np.zeros((n, 2)),
        area_km2=np.ones(n),
        flow_origin=origin,
        flow_destination=destination,
        flow_count=od[origin, destination],
    )


def naive_od_pca(od: np.ndarray, components: int) -> np.ndarray:
    scores = PCA(components, svd_solver="full").fit_transform(np.log1p(np.hstack([od, od.T])))
    volumes = np.stack([od.sum(axis=1), od.sum(axis=0)], axis=1)
    return np.hstack([scores, volumes / volumes.mean(axis=0)])


def test_od_pca_equals_the_naive_one() -> None:
    od = np.random.default_rng(0).poisson(2.0, (40, 40)).astype(float)
    city = od_city(od)
    twice = replace(  # a pair may come in several rows
        city,
        flow_origin=np.tile(city.flow_origin, 2),
        flow_destination=np.tile(city.flow_destination, 2),
        flow_count=np.tile(city.flow_count / 2, 2),
    )
    for data in (city, twice):
        rows = fit_embed(od_pca.METHOD, OdPcaConfig(components=5), data)
        np.testing.assert_allclose(np.abs(rows), np.abs(naive_od_pca(od, 5)), atol=1e-4)


def test_od_pca_of_many_regions_stays_sparse() -> None:
    rng, n, pairs = np.random.default_rng(0), 20_000, 50_000
    data = RegionData(
        region_ids=np.arange(n).astype(str),
        lonlat_deg=np.zeros((n, 2)),
        xy_m=np.zeros((n, 2)),
        area_km2=np.ones(n),
        flow_origin=rng.integers(0, n, pairs),
        flow_destination=rng.integers(0, n, pairs),
        flow_count=rng.random(pairs),
    )
    rows = fit_embed(od_pca.METHOD, OdPcaConfig(components=3), data)
    assert rows.shape == (n, 5) and np.isfinite(rows).all()


def test_od_pca_knows_its_own_city_only() -> None:
    city = od_city(np.ones((9, 9)))
    with pytest.raises(DataError, match="9 regions"):
        fit_embed(od_pca.METHOD, OdPcaConfig(), city, od_city(np.ones((8, 8))))


def test_od_pca_on_manhattan_reaches_the_measured_figures() -> None:
    """PCA-32 of the log OD matrix and both volumes, Ridge(1), five unshuffled folds."""
    root = Path(os.environ.get("CITYLOOM_DATA", "data")) / "nyc"
    if not root.exists():
        pytest.skip("the files of New York are not in $CITYLOOM_DATA")
    od = np.load(root / "mobility" / "mh180_od_trips_total.npy").astype(float)
    truth = pd.read_parquet(root / "indicators" / "mh180_indicators.parquet")
    rows = fit_embed(od_pca.METHOD, OdPcaConfig(components=32), od_city(od))
    for column, reached in (("checkin_count", 0.823), ("crime_count", 0.734)):
        values = truth[column].to_numpy(float)
        predicted = cross_val_predict(Ridge(1.0), rows, values, cv=KFold(5)).clip(min=0)
        assert r2_score(values, predicted) == pytest.approx(reached, abs=0.001)
