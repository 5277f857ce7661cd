from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from model_code.errors import DataError
from model_code.methods.base import (
    Checkpoint,
    Parts,
    Pretrained,
    RegionData,
    Supervised,
    Tunable,
    must_be_of_regions,
    of_regions,
)
from tests.model_code.methods.fake_city import fake_city


@pytest.fixture
def data() -> RegionData:
    return fake_city(12)[0]


def test_a_city_is_as_long_as_it_has_regions(data: RegionData) -> None:
    assert len(data) == len(data.region_ids) == 12


def test_what_was_computed_of_one_city_is_not_taken_for_another(data: RegionData) -> None:
    """Features of the same pictures are kept; with other pictures they start anew."""
    data.memo["features"] = np.ones(12)
    changed = replace(data, chips=255 - data.chips)
    assert changed.memo == {} and "features" in data.memo
    with pytest.raises(ValueError, match="memo"):
        replace(data, memo=data.memo)


def test_inputs_and_results_cannot_be_rebound(data: RegionData) -> None:
    for thing, name in (
        (data, "chips"),
        (Checkpoint({}), "record"),
        (Parts(*[data.chip_present] * 3), "val"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, name, None)
    assert Checkpoint({}).record is not Checkpoint({}).record


def test_a_method_is_of_the_kind_that_its_functions_make_it() -> None:
    class Half:
        def pretrain(self) -> None: ...

    class Whole(Half):
        def embed(self) -> None: ...

    assert not isinstance(Half(), Pretrained) and isinstance(Whole(), Pretrained)
    assert not isinstance(Whole(), Tunable) and not isinstance(Whole(), Supervised)


def test_a_checkpoint_that_knows_regions_one_by_one_is_of_these_alone(data: RegionData) -> None:
    """Another city of as many regions is another city."""
    checkpoint = Checkpoint({}, {**of_regions(data), "loss": []})
    must_be_of_regions(checkpoint, replace(data, chips=None), "trips", "why")
    fewer, others = data.region_ids[:5], np.roll(data.region_ids, 1)
    with pytest.raises(DataError, match="trips was fitted on 12 regions and cannot embed 5: why"):
        must_be_of_regions(checkpoint, replace(data, region_ids=fewer), "trips", "why")
    with pytest.raises(DataError, match="fitted on 12 regions and cannot embed 12 others: why"):
        must_be_of_regions(checkpoint, replace(data, region_ids=others), "trips", "why")
    with pytest.raises(DataError, match="fitted on other regions and cannot embed 12: why"):
        must_be_of_regions(Checkpoint({}), data, "trips", "why")
