"""What a city's YAML names is what is opened."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from model_code.backends import View
from model_code.city import Captions
from model_code.errors import MissingTableError
from resources import backends
from resources.lake import Lake

VIEWS: tuple[View, ...] = ("satellite", "street_view")


def test_the_captioner_errs_as_often_as_the_config_says() -> None:
    right, wrong = (backends.captioner(Captions(wrong_share=share)) for share in (0.0, 0.5))
    assert right.identity.model == wrong.identity.model
    assert right.identity != wrong.identity  # so that no caption of one is taken for the other's


def test_each_view_has_a_segmenter_and_a_painter_of_its_own() -> None:
    config = Captions()
    satellite, street = (backends.segmenter(config, view) for view in VIEWS)
    assert satellite.classes != street.classes and satellite.identity != street.identity
    for view in VIEWS:
        painter = backends.painter(config, view, (64, 96))
        (picture,) = painter.paint(["a green park with trees"], [0])
        assert picture.shape == (64, 96, 3) and picture.dtype == np.uint8
        shares = backends.segmenter(config, view).segment([picture]).shares
        assert shares.sum() == pytest.approx(1) or np.isnan(shares).all()


def test_the_code_of_kept_rows_can_be_found() -> None:
    for modules in backends.CODE.values():
        for name in modules:
            spec = find_spec(name)
            assert spec is not None and spec.origin is not None and Path(spec.origin).exists()


def test_towers_that_were_never_trained_are_asked_for(tmp_path: Path) -> None:
    handle = Lake(str(tmp_path)).handle("town", "clip_checkpoint")
    with pytest.raises(MissingTableError, match=r"'clip_checkpoint' of city 'town'"):
        backends.clip(handle, "satellite")
