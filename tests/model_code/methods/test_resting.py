from __future__ import annotations

import numpy as np
import pytest
import torch

from model_code.errors import DataError
from model_code.methods.base import Checkpoint, RegionData
from model_code.methods.resting import CityTower
from model_code.training import load_arrays, seeded, state_arrays
from model_code.vision.clip import Towers
from tests.model_code.methods.fake_city import fake_city, with_towers

TOWER = {
    "shrink": 1, "patch_px": 8, "image_width": 32, "image_layers": 1, "text_width": 32, "text_layers": 1,
    "embed_dim": 16, "context": 12,
}  # fmt: skip


@pytest.fixture(scope="module")
def given() -> Checkpoint:
    return towers_of(with_towers(fake_city(10)[0], TOWER))


def towers_of(data: RegionData) -> Checkpoint:
    assert data.towers is not None
    return data.towers["satellite"]


def tower(given: Checkpoint, seed: int = 1, *, known: bool = True) -> CityTower:
    with seeded(seed):
        towers = Towers(given.record["model"], given.tensors["vocabulary"])
        return CityTower(towers, given if known else None)


def same(one: CityTower, other: CityTower) -> bool:
    pairs = zip(one.visual.parameters(), other.visual.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_it_starts_from_the_city_and_is_left_out_while_it_rests(given: Checkpoint) -> None:
    one = tower(given)
    fresh = {name for name in state_arrays(one) if name.startswith("visual.")}
    assert fresh
    one.start()
    for name, value in state_arrays(one.visual).items():
        np.testing.assert_array_equal(value, given.tensors[f"clip.visual.{name}"])
    one.requires_grad_(False)
    assert one.rests and set(state_arrays(one)) == {"digest"}


def test_a_state_without_weights_takes_the_city_s(given: Checkpoint) -> None:
    one, other = tower(given), tower(given, seed=2)
    one.start()
    one.requires_grad_(False)
    assert not same(one, other)
    load_arrays(other, state_arrays(one))
    assert same(one, other) and not other.rests


def test_a_trained_tower_is_kept(given: Checkpoint) -> None:
    one, other = tower(given), tower(given, seed=2)
    load_arrays(other, state_arrays(one))
    assert same(one, other)
    for name, value in state_arrays(other.visual).items():
        assert value.shape == given.tensors[f"clip.visual.{name}"].shape
    other.start()
    assert not same(one, other)


def test_another_city_s_weights_are_refused(given: Checkpoint) -> None:
    strange = towers_of(with_towers(fake_city(10)[0], TOWER, seed=6))
    one = tower(given)
    one.requires_grad_(False)
    with pytest.raises(DataError, match=r"(?s)other towers.*captions\.clip"):
        load_arrays(tower(strange), state_arrays(one))


def test_without_a_city_s_weights_all_are_its_own(given: Checkpoint) -> None:
    one = tower(given, known=False)
    before = [parameter.clone() for parameter in one.visual.parameters()]
    one.start()
    assert all(map(torch.equal, before, one.visual.parameters()))
    one.requires_grad_(False)
    assert any(name.startswith("visual.") for name in state_arrays(one))
    with pytest.raises(RuntimeError, match="Missing key"):
        load_arrays(one, {"digest": np.zeros(32, np.uint8)})
