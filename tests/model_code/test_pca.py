from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from model_code import pca
from model_code.pca import principal_axes


def naive_axes(matrix: np.ndarray, components: int) -> np.ndarray:
    """Eigenvectors of the covariance, strongest first, the largest entry positive."""
    _, vectors = np.linalg.eigh(np.cov(matrix.T))
    axes = vectors[:, ::-1].T[:components]
    return np.array([axis * np.sign(axis[np.abs(axis).argmax()]) for axis in axes])


@pytest.fixture
def matrix() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.poisson(rng.gamma(1.0, 2.0, (30, 12))).astype(float)


def test_axes_are_those_of_the_covariance(matrix: np.ndarray) -> None:
    mean, axes = principal_axes(matrix, 5)
    np.testing.assert_allclose(mean, matrix.mean(axis=0))
    np.testing.assert_allclose(axes, naive_axes(matrix, 5), atol=1e-10)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("make", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("gram_limit", [4, 100])
def test_the_large_paths_agree_with_the_exact_one(
    matrix: np.ndarray, make: type, wide: bool, gram_limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = matrix.T if wide else matrix
    exact = principal_axes(matrix, 5)
    monkeypatch.setattr(pca, "_DENSE_LIMIT", 4)
    monkeypatch.setattr(pca, "_GRAM_LIMIT", gram_limit)
    large = principal_axes(make(matrix), 5)
    for ours, theirs in zip(large, exact, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-8)


@pytest.mark.parametrize("dense_limit", [4, 1024])
def test_no_more_axes_than_the_rank(dense_limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pca, "_DENSE_LIMIT", dense_limit)
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(20, 2)) @ rng.normal(size=(2, 9))
    assert principal_axes(flat, 6)[1].shape == (2, 9)
    assert principal_axes(np.ones((20, 9)), 6)[1].shape == (0, 9)
    assert principal_axes(np.ones((1, 9)), 6)[1].shape == (0, 9)
