from __future__ import annotations

import numpy as np
import pytest

from model_code.evaluation import modality_map as module
from model_code.evaluation.modality_map import modality_map, own_match


def test_states_of_regions_that_have_the_modality_are_drawn() -> None:
    rng = np.random.default_rng(0)
    states, present = rng.normal(size=(40, 3, 6)), rng.random((40, 3)) < 0.8
    names = ("satellite", "heights", "pois")
    rows = modality_map(states, present, names)
    assert len(rows) == present.sum() < present.size
    for number, name in enumerate(names):
        own = rows[rows["modality"] == name]["region"]
        np.testing.assert_array_equal(np.sort(own), np.flatnonzero(present[:, number]))
    assert set(rows["projection"]) == {"tsne"}
    few = modality_map(states[:29], present[:29], names)
    assert set(few["projection"]) == {"pca"}
    for found in (rows, few):
        assert np.isfinite(found[["axis_1", "axis_2"]].to_numpy()).all()
    longer = modality_map(4 * states, present, names)  # directions alone count
    np.testing.assert_allclose(longer["axis_1"], rows["axis_1"], atol=1e-3)


def test_many_regions_are_drawn_by_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TSNE_MOST_REGIONS", 40)
    states = np.random.default_rng(0).normal(size=(100, 2, 6))
    rows = modality_map(states, np.ones((100, 2), bool), ("satellite", "pois"))
    assert len(rows) == 40 and rows["region"].nunique() == 20


def test_a_match_is_the_nearest_state_of_another_modality() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(12, 3, 4))
    vectors[:, 1] = vectors[:, 0] + 0.3 * rng.normal(size=(12, 4))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    present = rng.random((12, 3)) < 0.8
    present[0] = [True, False, False]
    found = own_match(vectors, present)
    for region in range(12):
        for one in range(3):
            hits = []
            for other in set(range(3)) - {one}:
                if present[region, one] and present[region, other]:
                    alike = [
                        vectors[region, one] @ vectors[i, other] if present[i, other] else -2.0
                        for i in range(12)
                    ]
                    hits.append(int(np.argmax(alike)) == region)
            np.testing.assert_equal(found[region, one], np.mean(hits) if hits else np.nan)
    assert np.nanmean(found[:, :2]) > np.nanmean(found[:, 2])
