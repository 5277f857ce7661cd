from __future__ import annotations

import numpy as np
import pytest

from model_code.demo.fields import gaussian_field, stream


def test_streams_depend_on_seed_and_name_alone() -> None:
    first = stream(3, "trips").random(4)
    stream(3, "pois").random(100)
    assert np.array_equal(stream(3, "trips").random(4), first)
    assert not np.array_equal(stream(3, "pois").random(4), first)
    assert not np.array_equal(stream(4, "trips").random(4), first)
    assert stream(0, "trips").random() != stream(1, "trips").random()  # seed 0 is a seed


@pytest.mark.parametrize(
    ("kind", "at_length"), [("smooth", np.exp(-0.5)), ("exponential", np.exp(-1))]
)
def test_covariance(kind, at_length: float) -> None:
    draws = np.stack(
        [gaussian_field(np.random.default_rng(i), (48, 40), 100, 400, kind) for i in range(150)]
    )
    lag = 4  # nodes: one length scale
    assert draws.mean() == pytest.approx(0, abs=0.05)
    assert (draws**2).mean() == pytest.approx(1, abs=0.05)
    for a, b in ((draws[:, lag:], draws[:, :-lag]), (draws[:, :, lag:], draws[:, :, :-lag])):
        assert (a * b).mean() == pytest.approx(at_length, abs=0.05)


def test_a_periodic_field_has_no_seam() -> None:
    tile = gaussian_field(np.random.default_rng(0), (64, 64), 10, 60, periodic=True)
    inside = np.abs(np.diff(tile, axis=1)).max()
    assert np.abs(tile[:, 0] - tile[:, -1]).max() < 1.5 * inside
    open_ended = gaussian_field(np.random.default_rng(0), (64, 64), 10, 60)
    assert np.abs(open_ended[:, 0] - open_ended[:, -1]).max() > 3 * inside
