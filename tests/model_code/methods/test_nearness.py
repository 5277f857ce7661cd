from __future__ import annotations

import numpy as np
import pytest
import torch

from model_code.errors import DataError
from model_code.methods.nearness import NearSampler, first_of, on_sphere
from model_code.training import seeded

RNG = np.random.default_rng(4)
POINTS = RNG.random((30, 2)) * 1000
USABLE = RNG.random(30) < 0.8
FEW = np.flatnonzero(USABLE)


def distance(i: int, j: int) -> float:
    return float(np.linalg.norm(POINTS[i] - POINTS[j]))


def near(i: int, neighbours: int, radius: float | None) -> list[int]:
    """Point by point, who is near point i."""
    others = sorted((distance(i, j), j) for j in FEW if j != i)[:neighbours]
    return [j for d, j in others if radius is None or d <= radius]


def drawn(sampler: NearSampler, steps: int = 60) -> np.ndarray:
    found = []
    for step in range(steps):
        with seeded(step):
            found.append(sampler.triplets(torch.arange(30)))
    return torch.cat(found).numpy()


@pytest.mark.parametrize(("neighbours", "radius"), [(3, None), (6, 150.0), (100, None)])
def test_near_ones_and_distant_ones_are_what_they_are_called(
    neighbours: int, radius: float | None
) -> None:
    sampler = NearSampler(POINTS, USABLE, neighbours=neighbours, radius=radius)
    triplets = drawn(sampler)
    if neighbours > len(FEW):  # everyone is near, no one distant
        assert len(triplets) == 0
        return
    lonely = {i for i in FEW.tolist() if not near(i, neighbours, radius)}
    assert set(triplets[:, 0].tolist()) == set(FEW.tolist()) - lonely
    for i in FEW:
        own = triplets[triplets[:, 0] == i]
        mine = near(i, neighbours, radius)
        assert set(own[:, 1].tolist()) == set(mine)  # each of them is drawn
        limit = radius if radius is not None else max(distance(i, j) for j in mine)
        far = {j for j in FEW.tolist() if distance(i, j) > limit}
        assert set(own[:, 2].tolist()) <= far
        assert len(own) == 0 or len(set(own[:, 2].tolist())) > len(far) / 2
    assert bool(lonely) is (radius is not None)  # the test sees both


def test_pairs_are_near_and_only_of_who_is_asked_for() -> None:
    sampler = NearSampler(POINTS, USABLE, neighbours=2)
    asked = torch.tensor([FEW[4], int(np.flatnonzero(~USABLE)[0]), FEW[4]])
    seen: set[int] = set()
    for step in range(20):
        with seeded(step):
            pairs = sampler.pairs(asked)
        assert pairs[:, 0].tolist() == [FEW[4]] * 2
        seen |= set(pairs[:, 1].tolist())
    assert seen == set(near(int(FEW[4]), 2, None))
    assert sampler.pairs(asked[1:2]).shape == (0, 2)


def test_points_that_are_not_usable_change_nothing() -> None:
    moved = np.where(USABLE[:, None], POINTS, np.nan)
    first, second = (NearSampler(p, USABLE, neighbours=3) for p in (POINTS, moved))
    np.testing.assert_array_equal(drawn(first, 5), drawn(second, 5))


def test_equal_points_are_near_and_never_their_own_neighbours() -> None:
    sampler = NearSampler(np.zeros((6, 2)), np.ones(6, bool), neighbours=2)
    with seeded(0):
        pairs = sampler.pairs(torch.arange(6))
        assert sampler.triplets(torch.arange(6)).shape == (0, 3)
    assert (pairs[:, 0] != pairs[:, 1]).all() and len(pairs) == 6


def test_two_points_are_a_pair_and_no_triplet() -> None:
    sampler = NearSampler(POINTS[:2], np.ones(2, bool), neighbours=5)
    assert sampler.pairs(torch.arange(2)).tolist() == [[0, 1], [1, 0]]
    assert sampler.triplets(torch.arange(2)).shape == (0, 3)


def test_places_on_the_sphere_are_as_far_apart_as_on_the_ground() -> None:
    places = on_sphere(np.array([[-73.9857, 40.7484], [-73.9857, 40.7574], [-73.9739, 40.7484]]))
    north, east = np.linalg.norm(places[1:] - places[0], axis=1)
    assert north == pytest.approx(1000.8, abs=0.5)  # 0.009 degrees of latitude
    assert east == pytest.approx(0.0118 * 111_195 * np.cos(np.radians(40.7484)), rel=1e-4)


@pytest.mark.parametrize(
    ("neighbours", "radius", "told"),
    [
        (len(FEW) - 1, None, r"another that is distant[\s\S]*lower the method's `neighbours`"),
        (3, 0.01, r"another that is near[\s\S]*raise the method's `radius_m`"),
        (3, 2000.0, r"another that is distant[\s\S]*lower the method's `radius_m`"),
    ],
)
def test_where_no_triplet_can_be_drawn_the_setting_is_named(
    neighbours: int, radius: float | None, told: str
) -> None:
    sampler = NearSampler(POINTS, USABLE, neighbours=neighbours, radius=radius)
    assert len(drawn(sampler, 5)) == 0
    with pytest.raises(DataError, match=told):
        sampler.check_triplets("m")


def test_the_first_draw_that_fits_is_taken() -> None:
    drawn = torch.tensor([[5, 6, 7], [8, 9, 4], [1, 2, 3]])
    fits = torch.tensor([[False, True, True], [False] * 3, [True, False, True]])
    found, value = first_of(drawn, fits)
    assert found.tolist() == [True, False, True] and value.tolist() == [6, 1]
    assert [part.shape for part in first_of(drawn[:0], fits[:0])] == [(0,), (0,)]


def test_one_point_with_both_is_enough() -> None:
    line = np.array([[0.0, 0], [1, 0], [9, 0]])
    NearSampler(line, np.ones(3, bool), neighbours=1).check_triplets("m")
    NearSampler(line, np.ones(3, bool), neighbours=2, radius=1.0).check_triplets("m")
