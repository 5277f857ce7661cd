import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from model_code.report.captions import (
    calibration_summary,
    caption_views,
    data_url,
    histogram,
    score_summary,
)
from tests.model_code.report.sample import captions


def test_figures_of_a_view_are_those_of_the_tries_that_were_taken() -> None:
    data = captions()
    again = data.scores.assign(attempt=np.int32(1), clip_score=0.0)  # a try that was not taken
    satellite, streets = caption_views(
        dataclasses.replace(data, scores=data.scores.merge(again, how="outer"))
    )
    assert satellite["means"]["clip_score"] == pytest.approx((0.85 + 0.5) / 2)
    assert (satellite["pictures"], satellite["kept"], satellite["declined"]) == (2, 2, 0)
    assert (streets["pictures"], streets["kept"], streets["declined"]) == (3, 2, 1)
    assert streets["tried"] == [(1, 1), (2, 1), (3, 1)]
    assert [(rank, len(cards)) for rank, cards in streets["ranks"]] == [("best", 1), ("worst", 2)]


def test_a_view_that_a_city_lacks_is_left_out() -> None:
    data = captions()
    tables = {
        name: getattr(data, name).query("view == 'street_view'")
        for name in ("calibrated", "scores", "image_shares", "examples")
    }
    assert [view["view"] for view in caption_views(dataclasses.replace(data, **tables))] == [
        "street_view"
    ]


def test_histograms_count_every_score_once() -> None:
    data = captions()
    found = histogram("clip_score", data.scores["clip_score"], data.limits.of("satellite"))
    assert found["most"] == 2 and sorted(found["bars"])[-5:] == [0, 50, 50, 50, 100]
    assert found["marks"] == {}
    marked = histogram(
        "perception_score", data.scores["perception_score"], data.limits.of("satellite")
    )
    assert marked["marks"] == {"floor": 0.45, "threshold": 0.6}


def test_a_picture_keeps_its_shape_and_gets_no_larger_than_it_shows() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    for picture, size in ((noise, (320, 240)), (noise[:36, :48], (48, 36))):
        url = data_url(picture)
        code = url.removeprefix("data:image/jpeg;base64,")
        assert Image.open(io.BytesIO(base64.b64decode(code))).size == size
        assert url == data_url(picture)


def test_what_the_ui_is_told_is_what_the_tables_hold() -> None:
    data = captions()
    told = score_summary(data.scores)["satellite"]
    own = data.scores.query("view == 'satellite'")
    assert told["clip_score"]["count"] == len(own)
    assert told["clip_score"]["p50"] == pytest.approx(own["clip_score"].median(), abs=1e-4)
    assert all(v["p05"] <= v["p25"] <= v["p75"] <= v["p95"] for v in told.values())
    streets = calibration_summary(data.calibrated)["street_view"]
    assert streets["pictures_by_tries"] == {"1": 1, "2": 1, "3": 1} and streets["mean_tries"] == 2
    assert (streets["pictures"], streets["kept"], streets["kept_share"]) == (3, 2, 0.6667)
