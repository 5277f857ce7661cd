"""Principal components of a dense or sparse matrix: deterministic in seed and in sign."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Up to this many rows (or columns) an exact decomposition takes about a second.
_DENSE_LIMIT = 1024


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
