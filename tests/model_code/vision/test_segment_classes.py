from __future__ import annotations

import pytest

from model_code.errors import DataError
from model_code.vision.segment_classes import checked_length, class_list, element_shares
from model_code.vision.segmentation import LAND_COVER_CLASSES, STREET_CLASSES


def test_lists_are_those_of_the_benchmarks() -> None:
    from model_code.vision.segmenters import _mmseg

    _mmseg()
    from mmseg.datasets import ADE20KDataset, LoveDADataset

    for name, dataset, count in (("ade20k", ADE20KDataset, 150), ("loveda", LoveDADataset, 7)):
        listed = class_list(name)
        assert listed.names == tuple(c.strip() for c in dataset.METAINFO["classes"])
        assert len(listed.names) == len(listed.elements) == len(set(listed.names)) == count


def test_elements_are_what_captions_name() -> None:
    assert set(STREET_CLASSES) - set(class_list("ade20k").elements) == {"other"}
    land = set(class_list("loveda").elements)
    assert land - set(LAND_COVER_CLASSES) == {"farmland"}


def test_shares_of_one_element_are_added() -> None:
    names = class_list("ade20k").names
    shares = [0.0] * 150
    for name, share in (("tree", 0.1), ("palm", 0.2), ("sky", 0.25), ("bed", 0.4), ("wall", 0.05)):
        shares[names.index(name)] = share
    found = element_shares(names, shares)
    assert list(found) == ["tree", "sky", "building"]  # a bed is measured, and not named
    assert found == pytest.approx({"tree": 0.3, "sky": 0.25, "building": 0.05})


def test_names_of_ones_own_are_their_own_elements() -> None:
    assert element_shares(["kiosk", "sky"], [0.2, 0.8]) == {"sky": 0.8, "kiosk": 0.2}
    assert element_shares(STREET_CLASSES, [0.5, 0.5] + [0.0] * 9) == {"building": 0.5, "sky": 0.5}
    assert element_shares(class_list("loveda").names, []) == {}
    assert class_list(("kiosk", "sky")).elements == ("kiosk", "sky")


def test_a_list_of_another_length_is_refused() -> None:
    assert len(checked_length(class_list("loveda"), 7, "a model")) == 7
    with pytest.raises(DataError, match="tells 6 classes apart, and its list has 7"):
        checked_length(class_list("loveda"), 6, "a model")
