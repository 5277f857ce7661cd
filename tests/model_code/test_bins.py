from __future__ import annotations

import numpy as np
import pytest

from model_code.bins import Bins


def test_bins_of_equal_width() -> None:
    values = np.array([0.0, 1.0, 4.0, 9.0, 10.0, np.nan])
    bins = Bins.fit(values, 5)
    np.testing.assert_allclose(bins.edges, [2, 4, 6, 8])
    np.testing.assert_allclose(
        bins.centres, [0.5, 3, 5, 7, 9.5]
    )  # the ends: means of what is there
    assert bins.of(values[:5]).tolist() == [0, 0, 2, 4, 4]
    assert bins.of(np.array([-99.0, 99.0])).tolist() == [0, 4]


def test_bins_of_equal_number() -> None:
    values = np.random.default_rng(0).exponential(size=(50, 20))
    bins = Bins.fit(values, 10, "quantile")
    counts = np.bincount(bins.of(values).ravel(), minlength=10)
    assert counts.min() >= 99 and counts.max() <= 101
    assert (np.diff(bins.centres) > 0).all()


def test_many_equal_values_leave_bins_empty_and_every_centre_finite() -> None:
    bins = Bins.fit(np.array([0.0] * 90 + [1.0] * 10), 10, "quantile")
    assert np.isfinite(bins.centres).all() and (np.diff(bins.edges) >= 0).all()
    constant = Bins.fit(np.full(5, 3.0))
    np.testing.assert_allclose(constant.centres, 3.0)


def test_nothing_gives_no_bins() -> None:
    with pytest.raises(ValueError, match="no value"):
        Bins.fit(np.array([np.nan]))
