from __future__ import annotations

import numpy as np
import pytest

from model_code.evaluation.expert_map import drawn_regions, expert_map

RNG = np.random.default_rng(0)


def test_regions_are_spread_and_as_many_as_the_points_allow() -> None:
    found = drawn_regions(2500, 15)
    assert len(found) == 50 and found[[0, -1]].tolist() == [0, 2499]
    assert np.diff(found).min() >= 50
    assert drawn_regions(3, 15).tolist() == [0, 1, 2]
    assert len(drawn_regions(100, 5000)) == 5


def test_figures_are_those_of_a_loop() -> None:
    experts, mixture = RNG.normal(size=(7, 4, 3)), RNG.normal(size=(7, 3))
    found = expert_map(experts, mixture).set_index(["region", "number"])
    assert len(found) == 7 * 5 and set(found["projection"]) == {"tsne"}
    assert found[["axis_1", "axis_2"]].notna().all().all()
    for b in range(7):
        assert found.loc[(b, 4), ["spread", "own_nearest"]].isna().all()
        for k in range(4):
            own = experts[b, k]
            away = ((own - experts[:, k].mean(axis=0)) ** 2).sum() / (own**2).sum()
            apart = {
                (c, e): ((own - experts[c, e]) ** 2).sum()
                for c in range(7)
                for e in range(4)
                if c != b
            }
            same = min(apart, key=lambda place: apart[place])[1] == k
            assert found.loc[(b, k), "spread"] == pytest.approx(away)
            assert found.loc[(b, k), "own_nearest"] == same


def test_experts_that_ignore_the_region_and_experts_that_are_one() -> None:
    alone = np.broadcast_to(RNG.normal(size=(1, 3, 5)), (6, 3, 5))
    told = expert_map(alone, alone.mean(axis=1))
    assert told["spread"].dropna().max() < 1e-12 and told["own_nearest"].dropna().eq(1).all()
    regions = np.repeat(RNG.normal(size=(200, 1, 5)), 3, axis=1)
    regions += 0.01 * RNG.normal(size=(200, 3, 5))
    found = expert_map(regions, regions.mean(axis=1))
    assert found["own_nearest"].mean() < 0.5 and found["spread"].mean() > 0.8


def test_one_region_and_equal_outputs_are_drawn_by_pca() -> None:
    single = expert_map(RNG.normal(size=(1, 2, 4)), RNG.normal(size=(1, 4)))
    assert set(single["projection"]) == {"pca"} and single["own_nearest"].isna().all()
    equal = expert_map(np.ones((6, 2, 4)), np.ones((6, 4)))
    assert set(equal["projection"]) == {"pca"} and equal["axis_1"].eq(0).all()
