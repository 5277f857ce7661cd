"""Principal components of a dense or sparse matrix: deterministic in seed and in sign."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Up to this many rows (or columns) an exact decomposition takes about a second.
_DENSE_LIMIT = 1024
# Up to this many, a dense matrix is quickest by the eigenvectors of its smaller Gram matrix.
_GRAM_LIMIT = 6000


def principal_axes(matrix: Any, components: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean [F] and axes [K, F] of `matrix` [N, F] (numpy, or scipy sparse), strongest first.

    K is `components`, or fewer when the centred matrix has a lower rank. A sparse matrix is centred
    implicitly and never made dense above a thousand rows. The sign of an axis makes its largest
    entry positive.
    """
    import scipy.sparse as sp
    from scipy.sparse.linalg import LinearOperator, svds

    rows, columns = matrix.shape
    mean = np.asarray(matrix.mean(axis=0), np.float64).ravel()
    wanted = min(components, rows - 1, columns)
    if wanted < 1:
        return mean, np.empty((0, columns))
    if min(rows, columns) <= _DENSE_LIMIT or wanted > min(rows, columns) // 2:
        dense = matrix.toarray() if sp.issparse(matrix) else np.asarray(matrix, np.float64)
        _, strength, axes = np.linalg.svd(dense - mean, full_matrices=False)
    elif not sp.issparse(matrix) and min(rows, columns) <= _GRAM_LIMIT:
        strength, axes = _by_gram(np.asarray(matrix, np.float64) - mean, wanted)
    else:

        def forward(v: NDArray[Any]) -> Any:  # centred @ v, for a vector or a matrix
            return matrix @ v - mean @ v

        def backward(v: NDArray[Any]) -> Any:  # centred.T @ v
            return matrix.T @ v - np.multiply.outer(mean, v.sum(axis=0))

        centred = LinearOperator(
            matrix.shape,
            matvec=forward,
            matmat=forward,
            rmatvec=backward,
            rmatmat=backward,
            dtype=np.float64,
        )
        start = np.random.default_rng(0).standard_normal(min(rows, columns))
        _, strength, axes = svds(centred, k=wanted, v0=start, solver="arpack")
        strength, axes = strength[::-1], axes[::-1]
    floor = strength[0] * max(rows, columns) * np.finfo(np.float64).eps
    axes = axes[:wanted][strength[:wanted] > floor]
    largest = np.abs(axes).argmax(axis=1)
    return mean, axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]


def _by_gram(centred: NDArray[Any], wanted: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The strongest singular values [K] and right singular vectors [K, F]; those whose square is
    within rounding of zero have strength 0."""
    from scipy.linalg import eigh

    rows, columns = centred.shape
    gram = centred @ centred.T if rows < columns else centred.T @ centred
    last = len(gram) - 1
    power, vectors = eigh(gram, subset_by_index=(last - wanted + 1, last), driver="evr")
    power, vectors = power[::-1], vectors[:, ::-1]
    strength = np.sqrt(np.where(power > power[0] * len(gram) * np.finfo(np.float64).eps, power, 0))
    if rows < columns:
        return strength, vectors.T @ centred / np.maximum(strength, 1e-300)[:, None]
    return strength, vectors.T
