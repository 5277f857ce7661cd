"""Embeddings drawn in two dimensions and cut into clusters, for the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_code.errors import DataError

TSNE_MOST_REGIONS = 3000
TSNE_FEWEST_REGIONS = 5
_COMPONENTS = 50  # t-SNE and k-means see the leading components, as is usual


def embedding_map(
    embedding: NDArray[np.floating[Any]], seed: int = 0, clusters: int = 7
) -> pd.DataFrame:
    """Two principal components, two t-SNE axes and a cluster for each region.

    Shapes:
        embedding [N, D] -> N rows with row, pca_1, pca_2, tsne_1, tsne_2, cluster.

    A width of 1 gives pca_2 = 0. t-SNE is NaN below 5 regions and above 3,000. Cluster 0 is the
    largest; there are fewer clusters than asked for when there are fewer distinct rows. One thread,
    so that the same embedding gives the same bytes.

    Raises:
        DataError: a value is not finite.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    x = _finite(embedding)
    distinct = len(np.unique(x, axis=0))
    cluster = np.zeros(len(x), np.int64)
    with threadpool_limits(limits=1):
        scores = _components(x)
        if distinct > 1:
            means = KMeans(min(clusters, distinct), n_init=10, random_state=seed)
            cluster = _by_size(means.fit_predict(scores))
        tsne = _tsne(scores, seed)
    return pd.DataFrame(
        {
            "row": np.arange(len(x)),
            "pca_1": scores[:, 0],
            "pca_2": scores[:, 1],
            "tsne_1": tsne[:, 0],
            "tsne_2": tsne[:, 1],
            "cluster": cluster,
        }
    )


def two_axes(vectors: NDArray[np.floating[Any]], *, tsne: bool = True) -> tuple[Any, str]:
    """Rows [N, D] in two dimensions [N, 2], and by what: `tsne`, or `pca` where t-SNE is not asked for, or not
    to be had (as in `embedding_map`, and where all rows are equal).

    Raises:
        DataError: a value is not finite.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        scores = _components(_finite(vectors))
        if tsne:
            drawn = _tsne(scores, 0)
            if np.isfinite(drawn).all():
                return drawn, "tsne"
    return scores[:, :2], "pca"


def some_rows(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of `count` rows, ascending: drawn at random, the same each time, since an even stride
    falls in step with the rows of a grid."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def _finite(embedding: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    x = np.asarray(embedding, np.float64)
    if not np.isfinite(x).all():
        raise DataError("the embedding holds values that are not finite", fix="train it again")
    return x


def _components(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The leading principal components of rows [N, D], two at least; zeros where all are equal."""
    from sklearn.decomposition import PCA

    if len(np.unique(x, axis=0)) < 2:
        return np.zeros((len(x), 2))
    scores = PCA(min(_COMPONENTS, *x.shape), svd_solver="full").fit_transform(x)
    return np.pad(scores, ((0, 0), (0, max(0, 2 - scores.shape[1]))))


def _tsne(scores: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Two axes of t-SNE [N, 2], or NaN."""
    from sklearn.manifold import TSNE

    count = len(scores)
    if not (TSNE_FEWEST_REGIONS <= count <= TSNE_MOST_REGIONS and scores.any()):
        return np.full((count, 2), np.nan)
    start = scores[:, :2] / scores[:, 0].std() * 1e-4
    perplexity = min(30.0, (count - 1) / 3)
    drawn: NDArray[np.float64] = TSNE(
        perplexity=perplexity, init=start, random_state=seed, n_jobs=1
    ).fit_transform(scores)
    return drawn


def _by_size(cluster: NDArray[np.int32]) -> NDArray[np.int64]:
    """Clusters numbered by falling size, of equal ones by their first row."""
    _, first, code, sizes = np.unique(
        cluster, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(sizes), np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return rank[code]
