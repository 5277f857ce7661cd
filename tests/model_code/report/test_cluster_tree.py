from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from model_code.report import cluster_tree, figures

N = 49


@pytest.fixture
def regions() -> gpd.GeoDataFrame:
    row, column = np.divmod(np.arange(N), 7)
    squares = shapely.box(500.0 * column, 500.0 * row, 500.0 * (column + 1), 500.0 * (row + 1))
    return gpd.GeoDataFrame(
        {"region_id": [f"r{i:02}" for i in range(N)]}, geometry=squares, crs="EPSG:32625"
    )


@pytest.fixture
def vectors(regions: gpd.GeoDataFrame) -> pd.DataFrame:
    """Seven kinds of day: peaks at as many hours, a row of the city each."""
    peak = 2 + 3 * (np.arange(N) // 7)
    size = np.random.default_rng(0).uniform(50, 60, N)
    values = size[:, None] * np.exp(-0.5 * ((np.arange(24) - peak[:, None]) / 2) ** 2)
    return pd.DataFrame(values, index=pd.Index(regions["region_id"], name="region_id"))


def test_clusters_are_nested_and_keep_their_number(vectors: pd.DataFrame) -> None:
    found = cluster_tree.nested(cluster_tree.tree(vectors.to_numpy()))
    assert list(found) == [2, 3, 4, 5, 6, 7]
    for count, own in found.items():
        assert own.shape == (N,) and len(np.unique(own)) == count
    for count in range(3, 8):
        finer, coarser = found[count], found[count - 1]
        for number in np.unique(finer):
            assert len(np.unique(coarser[finer == number])) == 1  # a cluster never mixes two
        assert set(coarser) < set(finer)  # one more number, and the others stay
    assert all(len(np.unique(row)) == 1 for row in found[7].reshape(7, 7))


def test_the_largest_cluster_comes_first() -> None:
    place = np.repeat([5.0, 0.0, 9.0], [2, 4, 3])[:, None]
    assert cluster_tree.clusters(place, 3).tolist() == [2] * 2 + [0] * 4 + [1] * 3
    assert cluster_tree.clusters(place, 7).max() == 2  # no more than differ
    assert cluster_tree.clusters(place[:1]).tolist() == [0]
    assert cluster_tree.clusters(place[:0]).tolist() == []


def test_a_typical_region_is_near_the_mean_of_its_cluster() -> None:
    vectors = pd.DataFrame({"x": [0.0, 1.0, 3.0, 9.0, 9.5, 11.0]}, index=list("abcdef"))
    codes = np.array([0, 0, 0, 1, 1, 1])
    assert cluster_tree.typical_regions(codes, vectors, vectors.index) == ["b", "e"]
    assert cluster_tree.typical_regions(codes, vectors, pd.Index(["a", "c", "d"])) == ["a", "d"]
    assert cluster_tree.typical_regions(codes, vectors, pd.Index(["f"])) == ["f"]


def test_many_regions_are_clustered_without_a_tree_of_all_pairs(
    vectors: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = vectors.to_numpy()[: N - 7 : 2]  # of six sorts, some larger than others
    tree = cluster_tree.clusters(rows, 6)
    monkeypatch.setattr(cluster_tree, "WARD_REGIONS", 10)
    monkeypatch.delattr(cluster_tree, "tree")
    means = cluster_tree.clusters(rows, 6)
    assert len({*zip(tree, means, strict=True)}) == len(set(means)) == 6


def test_a_tree_needs_regions_that_differ_and_not_too_many(
    vectors: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = vectors.to_numpy()
    assert cluster_tree.has_tree(rows)
    assert not cluster_tree.has_tree(rows[:7])
    assert not cluster_tree.has_tree(0 * rows)
    monkeypatch.setattr(cluster_tree, "WARD_REGIONS", N - 1)
    assert not cluster_tree.has_tree(rows)


def test_the_picture_shows_its_vectors(regions: gpd.GeoDataFrame, vectors: pd.DataFrame) -> None:
    def drawn(rows: pd.DataFrame) -> bytes:
        return cluster_tree.tree_with_maps(regions, rows, title="Kinds", noun="kinds")

    png = drawn(vectors)
    assert png.startswith(b"\x89PNG") and len(png) <= figures.MAX_BYTES
    assert png == drawn(vectors)
    assert png != drawn(vectors.iloc[::-1].set_axis(vectors.index))
    assert png != drawn(vectors.iloc[:-1])  # the last region is hatched
