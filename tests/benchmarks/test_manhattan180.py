"""What the benchmark computes, on a made-up city; its figures are taken by hand, never in a test."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from benchmarks import manhattan180
from benchmarks.manhattan180 import Manhattan


@pytest.fixture(scope="module")
def city() -> Manhattan:
    rng = np.random.default_rng(0)
    xy = rng.random((60, 2)) * 1e4
    trips = rng.poisson(rng.random((60, 1)) * rng.random(60) * 50).astype(float)
    patterns = np.stack([trips // 2, trips - trips // 2])
    names = (*manhattan180.TARGETS, *manhattan180.CHOSEN_BY)
    labels = dict.fromkeys(names, trips.sum(axis=1))
    district = (xy[:, 0] // 2500).astype(int)
    pois = rng.poisson(5, (60, 6)).astype(float)
    return Manhattan(trips, patterns, xy, pois, labels, district)


def test_five_blocks_are_held_out_in_order_and_negatives_are_zero(city: Manhattan) -> None:
    embedding, target = city.pois, city.targets["crime_count"] - 700
    found = np.empty(60)
    for train, test in KFold(5).split(embedding):
        assert (np.diff(test) == 1).all() and len(test) == 12
        model = Ridge(alpha=1.0).fit(embedding[train], target[train])
        found[test] = model.predict(embedding[test]).clip(min=0)
    assert (found == 0).any()
    scores = manhattan180.blocks_of_five(embedding, target)
    assert scores["rmse"] == pytest.approx(np.sqrt(((found - target) ** 2).mean()))
    left = ((found - target) ** 2).sum() / ((target - target.mean()) ** 2).sum()
    assert scores["r2"] == pytest.approx(1 - left)


def test_patterns_do_not_depend_on_volume(city: Manhattan) -> None:
    scale = np.linspace(1, 9, 60)
    more = city.trips * scale[:, None] * scale
    first, second = (manhattan180.ppmi_factors(t, 5) for t in (city.trips, np.outer(scale, scale)))
    assert first.shape == (60, 10) and np.abs(second).max() < 1e-6  # independent trips say nothing
    assert np.isfinite(manhattan180.ppmi_factors(more, 5)).all()
    own = manhattan180.block(first)
    assert (own**2).sum(axis=1).mean() == pytest.approx(1) and np.abs(own.mean(axis=0)).max() < 1e-9


def test_every_embedding_is_made_and_scored(city: Manhattan, monkeypatch) -> None:
    full = manhattan180.trained
    monkeypatch.setattr(manhattan180, "trained", lambda *a, **k: full(*a, **{**k, "epochs": 2}))
    whole = manhattan180.registered
    monkeypatch.setattr(manhattan180, "registered", lambda *a, **k: whole(*a, epochs=2, **k))
    for name, embedding in manhattan180.simple(city).items():
        assert embedding.shape[0] == 60 and np.isfinite(embedding).all(), name
    for name, make in manhattan180.embeddings(city).items():
        embedding = make(0)
        assert embedding.shape[0] == 60 and np.isfinite(embedding).all(), name
    row = manhattan180.scores(city, embedding, repeats=1, k_seeds=1)
    assert {key for keys in manhattan180.COLUMNS.values() for key in keys} == set(row)
