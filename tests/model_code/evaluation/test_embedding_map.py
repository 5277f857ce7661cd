import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from model_code.errors import DataError
from model_code.evaluation.embedding_map import embedding_map, some_rows, two_axes

AXES = ["pca_1", "pca_2", "tsne_1", "tsne_2"]


def blobs(count=90, width=8, groups=3):
    generator = np.random.default_rng(0)
    group = np.arange(count) % groups
    centres = 10 * generator.normal(size=(groups, width))
    return (centres[group] + generator.normal(size=(count, width))).astype(np.float32), group


def test_finds_the_groups_and_keeps_them_together():
    embedding, group = blobs()
    table = embedding_map(embedding, clusters=3)
    assert list(table) == ["row", *AXES, "cluster"]
    assert table["row"].tolist() == list(range(90))
    assert adjusted_rand_score(group, table["cluster"]) == 1
    tsne = table[["tsne_1", "tsne_2"]].to_numpy()
    distance = np.linalg.norm(tsne[:, None] - tsne[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (group[distance.argmin(axis=1)] == group).all()
    centred = embedding - embedding.mean(axis=0)
    first = np.linalg.svd(centred, compute_uv=False)[:2]
    np.testing.assert_allclose(np.linalg.norm(table[["pca_1", "pca_2"]], axis=0), first, rtol=1e-5)


def test_repeats_itself():
    embedding, _ = blobs()
    pd.testing.assert_frame_equal(embedding_map(embedding), embedding_map(embedding))


def test_clusters_are_numbered_by_size():
    embedding, _ = blobs()
    sizes = embedding_map(embedding[: 90 - 31], clusters=4)["cluster"].value_counts()
    assert sizes.sort_index().is_monotonic_decreasing
    assert sizes.index.sort_values().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("count", "width"), [(1, 4), (2, 4), (4, 1), (5, 1), (6, 2), (20, 1)])
def test_small_cities_and_narrow_embeddings(count, width):
    embedding = np.random.default_rng(0).normal(size=(count, width))
    table = embedding_map(embedding)
    assert len(table) == count
    assert np.isfinite(table[["pca_1", "pca_2"]]).all(axis=None)
    assert table["tsne_1"].notna().all() == (count >= 5)
    assert table["cluster"].nunique() == min(7, count)
    if width == 1:
        assert (table["pca_2"] == 0).all()


def test_rows_that_are_all_alike_are_one_cluster():
    table = embedding_map(np.ones((10, 3)))
    assert set(table["cluster"]) == {0}
    assert (table[["pca_1", "pca_2"]] == 0).all(axis=None)
    assert embedding_map(np.arange(20)[:, None] % 2 * np.ones(3))["cluster"].nunique() == 2


def test_large_cities_have_no_tsne():
    table = embedding_map(np.random.default_rng(0).normal(size=(3001, 4)), clusters=2)
    assert table[["tsne_1", "tsne_2"]].isna().all(axis=None)
    assert table["pca_1"].notna().all()


def test_values_that_are_not_finite_are_errors():
    with pytest.raises(DataError, match="not finite"):
        embedding_map(np.array([[1.0, np.nan], [0.0, 1.0]]))


def test_some_rows_of_a_grid_lie_in_many_of_its_rows_and_columns() -> None:
    for most in (20, 50):
        found = some_rows(2500, most)
        assert len(found) == most and (np.diff(found) > 0).all()
        assert min(len(np.unique(found // 50)), len(np.unique(found % 50))) > most / 2
        np.testing.assert_array_equal(found, some_rows(2500, most))
    assert some_rows(4, 9).tolist() == [0, 1, 2, 3]


def test_two_axes_are_those_of_the_map() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 6))
    whole = embedding_map(rows)
    for tsne, name in ((True, "tsne"), (False, "pca")):
        axes, drawn_by = two_axes(rows, tsne=tsne)
        assert drawn_by == name
        np.testing.assert_array_equal(axes, whole[[f"{name}_1", f"{name}_2"]])
    assert two_axes(rows[:4])[1] == two_axes(np.ones((9, 3)))[1] == "pca"
    with pytest.raises(DataError, match="not finite"):
        two_axes(np.full((3, 2), np.inf))
