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
from model_code.methods import OdPcaConfig
from model_code.methods.base import RegionData
from model_code.methods.baselines import od_pca
from tests.model_code.methods.fake_city import fit_embed


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
