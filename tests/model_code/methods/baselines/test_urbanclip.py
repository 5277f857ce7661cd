from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_code.methods import METHODS, UrbanClipConfig
from model_code.methods.base import Checkpoint, RegionData
from model_code.methods.baselines import clip_probe, urbanclip, urbanclip_sv
from model_code.methods.run import fit_predictor, predict
from model_code.methods.urbanvlp import UrbanVlp
from tests.model_code.methods.fake_city import fake_city, r2
from tests.model_code.methods.test_urbanvlp import TOWER, alignment, equal

EVERYONE = np.ones(40, bool)
SIZES = {"chip_px": 16, "view_px": (16, 24), "width": 16, "tower": TOWER}
CONFIG = UrbanClipConfig.model_validate({**SIZES, "epochs": 2, "batch": 16})
BOTH = [urbanclip.METHOD, urbanclip_sv.METHOD]


@pytest.fixture(scope="module")
def city() -> tuple:
    return fake_city(40)


def pretrained(method: UrbanVlp, data: RegionData, config=CONFIG, seed: int = 0) -> Checkpoint:
    return method.pretrain(data, config, seed=seed, visible=np.ones(len(data), bool))


@pytest.mark.parametrize("method", BOTH)
def test_one_view_and_one_contrast(method: UrbanVlp, city: tuple) -> None:
    module = alignment(city[0], method.settings(CONFIG))
    view = "satellite" if method is urbanclip.METHOD else "street_view"
    assert module.region_text == view and not module.tokens
    assert list(module.regions.towers) == list(module.towers) == [view]
    assert list(module.regions.projections) == [view]


@pytest.mark.parametrize(
    ("method", "unread"),
    [
        (
            urbanclip.METHOD,
            {
                "views": None,
                "view_region": None,
                "view_texts": None,
                "view_location_features": None,
            },
        ),
        (urbanclip_sv.METHOD, {"chips": None, "chip_texts": None, "view_location_features": None}),
    ],
)
def test_reads_nothing_else(method: UrbanVlp, unread: dict, city: tuple) -> None:
    data = city[0]
    less = replace(data, **unread)
    first, second = pretrained(method, data), pretrained(method, less)
    assert equal(first, second)
    np.testing.assert_array_equal(
        method.embed(first, data, CONFIG), method.embed(second, less, CONFIG)
    )


@pytest.mark.parametrize("method", BOTH)
def test_calibration_is_a_switch(method: UrbanVlp, city: tuple) -> None:
    every = CONFIG.model_copy(update={"calibrated": False})
    assert not equal(pretrained(method, city[0]), pretrained(method, city[0], every))


def test_a_config_of_another_method_is_refused() -> None:
    for method in (*BOTH, clip_probe.METHOD):
        with pytest.raises(AssertionError):
            method.settings(METHODS["urbanvlp"].config())


def test_embeddings_predict_what_the_pictures_show() -> None:
    data, targets, parts = fake_city(120)
    method, spec = urbanclip.METHOD, METHODS["urbanclip"]
    found = pretrained(method, data)
    rows = method.embed(found, data, CONFIG)
    head = fit_predictor(spec, CONFIG, found, rows, seed=0, targets=targets, parts=parts)
    predicted = predict(spec, CONFIG, head, rows, data)
    seen = parts.test & data.chip_present
    assert r2(predicted["income"], targets.values["income"], seen) > 0.5
