from __future__ import annotations

import numpy as np
import pytest

from model_code.errors import DataError
from model_code.evaluation.expert_map import drawn_regions, expert_map

RNG = np.random.default_rng(0)


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_regions_are_candidates_and_as_many_as_the_points_allow() -> None:
    candidates = np.arange(7, 2507)
    found = drawn_regions(candidates, 15)
    assert len(found) == 50 and np.isin(found, candidates).all() and (np.diff(found) > 0).all()
    assert drawn_regions(candidates[:3], 15).tolist() == [7, 8, 9]
    assert len(drawn_regions(candidates, 5000)) == 5


def test_figures_are_those_of_a_loop() -> None:
    experts, mixture = RNG.normal(size=(7, 4, 3)), RNG.normal(size=(7, 3))
    gates = RNG.random((7, 4))
    found = expert_map(experts, mixture, gates).set_index(["region", "number"])
    assert len(found) == 7 * 5 and set(found["projection"]) == {"tsne"}
    assert found[["axis_1", "axis_2"]].notna().all().all()
    unit_length = unit(experts)
    for b in range(7):
        assert found.loc[(b, 4), ["weight", "spread", "own_nearest"]].isna().all()
        for k in range(4):
            own = unit_length[b, k]
            away = ((own - unit_length[:, k].mean(axis=0)) ** 2).sum() * 7 / 6
            alike = {(c, e): own @ unit_length[c, e] for c in range(7) for e in range(4) if c != b}
            same = max(alike, key=lambda place: alike[place])[1] == k
            row = found.loc[(b, k)]
            assert row["spread"] == pytest.approx(away) and row["own_nearest"] == same
            assert row["weight"] == gates[b, k]


@pytest.mark.parametrize("regions", [5, 40])
def test_experts_that_ignore_the_region_and_outputs_that_have_nothing_in_common(
    regions: int,
) -> None:
    alone = np.broadcast_to(RNG.normal(size=(1, 3, 40)), (regions, 3, 40))
    gates = np.full((regions, 3), 1 / 3)
    told = expert_map(alone, alone.mean(axis=1), gates)
    assert told["spread"].dropna().max() < 1e-12 and told["own_nearest"].dropna().eq(1).all()
    apart = np.repeat(np.eye(40)[:regions, None], 3, axis=1)
    found = expert_map(apart, apart[:, 0], gates)
    assert found.groupby("number")["spread"].mean()[:3].tolist() == pytest.approx([1, 1, 1])


def test_experts_that_cannot_be_told_apart_are_not_the_nearest_more_often_than_by_chance() -> None:
    outputs = RNG.normal(size=(200, 4, 5))
    found = expert_map(outputs, outputs[:, 0], np.full((200, 4), 0.25))
    assert abs(found["own_nearest"].mean() - 0.25) < 0.08


def test_one_region_equal_outputs_and_numbers_that_are_none() -> None:
    gates = np.full((6, 2), 0.5)
    single = expert_map(RNG.normal(size=(1, 2, 4)), RNG.normal(size=(1, 4)), gates[:1])
    assert set(single["projection"]) == {"pca"}
    assert single[["spread", "own_nearest"]].isna().all().all()
    equal = expert_map(np.ones((6, 2, 4)), np.ones((6, 4)), gates)
    assert set(equal["projection"]) == {"pca"} and equal["axis_1"].eq(0).all()
    with pytest.raises(DataError, match="not finite"):
        expert_map(np.full((6, 2, 4), np.nan), np.ones((6, 4)), gates)
