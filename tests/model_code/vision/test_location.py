from __future__ import annotations

import numpy as np
import pytest
import torch

from model_code.vision.location import WIDTH, _encoder, location_features

PLACES = np.array([[-73.99, 40.74], [-73.99, 40.75], [9.18, 48.78]])  # two in New York, Stuttgart


def test_near_places_are_alike_and_far_ones_are_not() -> None:
    found = location_features(PLACES)
    assert found.shape == (3, WIDTH) and found.dtype == np.float32
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    # As measured with the package's own loading of its weights: random weights give no such gap.
    assert unit[0] @ unit[1] > 0.9 and unit[0] @ unit[2] < 0.3


def test_a_place_does_not_depend_on_the_others() -> None:
    alone = location_features(PLACES[:1])
    np.testing.assert_allclose(alone[0], location_features(PLACES)[0], atol=1e-5)
    assert location_features(np.empty((0, 2))).shape == (0, WIDTH)


def test_a_place_without_coordinates_is_refused() -> None:
    with pytest.raises(ValueError, match="without coordinates"):
        location_features(np.array([[np.nan, 40.0]]))


def test_the_first_call_costs_no_random_numbers() -> None:
    """Else what a process fits first would differ from what it fits later."""
    _encoder.cache_clear()
    before = torch.get_rng_state()
    location_features(np.zeros((1, 2)))
    assert torch.equal(torch.get_rng_state(), before)
