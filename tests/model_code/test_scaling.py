from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model_code.errors import DataError
from model_code.methods.base import Task
from model_code.scaling import Scaler, inverse, transform

LOG = Task("crime", "regression", transform="log1p")
PLAIN = Task("heat", "regression")


@given(hnp.arrays(np.float64, (5, 1), elements=st.floats(0, 1e12)))
def test_inverse_undoes_transform(values: np.ndarray) -> None:
    np.testing.assert_allclose(inverse(transform(values, LOG), LOG), values, rtol=1e-9, atol=1e-9)
    assert inverse(transform(values, PLAIN), PLAIN) is values


def test_log1p_keeps_missing_labels_and_refuses_negative_ones() -> None:
    assert np.isnan(transform(np.array([[np.nan]]), LOG)).all()
    with pytest.raises(DataError, match=r"indicators\.crime\.transform"):
        transform(np.array([[1.0], [-0.5], [np.nan]]), LOG)


def test_predictions_below_zero_become_zero_and_huge_ones_stay_finite() -> None:
    np.testing.assert_array_equal(inverse(np.array([-3.0]), LOG), [0.0])
    huge = inverse(np.array([1e6]), LOG)
    assert np.isfinite(huge**2).all()


def test_scaler_sees_the_training_rows_alone() -> None:
    rng = np.random.default_rng(0)
    values, train = rng.normal(5, 3, (40, 2)), np.arange(40) < 25
    values[3, 0] = np.nan
    scaler = Scaler.fit(values, train)
    changed = values.copy()
    changed[~train] = 1e9
    again = Scaler.fit(changed, train)
    np.testing.assert_array_equal(scaler.mean, again.mean)
    np.testing.assert_array_equal(scaler.scale, again.scale)
    inside = scaler.apply(values)[train]
    np.testing.assert_allclose(np.nanmean(inside, axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(inside, axis=0), 1)
    np.testing.assert_allclose(scaler.undo(scaler.apply(values)), values)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 + 0.1])
def test_a_constant_column_keeps_its_scale(constant: float) -> None:
    scaler = Scaler.fit(np.full((7, 1), constant), np.ones(7, bool))
    np.testing.assert_array_equal(scaler.scale, [1.0])
    np.testing.assert_allclose(scaler.mean, [constant])
