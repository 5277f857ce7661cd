from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from model_code.report import day_tree, figures, hours

N = 49


@pytest.fixture
def regions() -> gpd.GeoDataFrame:
    row, column = np.divmod(np.arange(N), 7)
    squares = shapely.box(500.0 * column, 500.0 * row, 500.0 * (column + 1), 500.0 * (row + 1))
    return gpd.GeoDataFrame(
        {"region_id": [f"r{i:02}" for i in range(N)]}, geometry=squares, crs="EPSG:32625"
    )


@pytest.fixture
def flows(regions: gpd.GeoDataFrame) -> pd.DataFrame:
    """Seven kinds of day: peaks at as many hours, a row of the city each."""
    peak = 2 + 3 * (np.arange(N) // 7)
    size = np.random.default_rng(0).uniform(50, 60, N)
    values = size[:, None] * np.exp(-0.5 * ((np.arange(24) - peak[:, None]) / 2) ** 2)
    return pd.DataFrame(values, index=pd.Index(regions["region_id"], name="region_id"))


def test_kinds_are_nested_and_keep_their_number(flows: pd.DataFrame) -> None:
    kinds = day_tree.nested_kinds(flows)
    assert list(kinds) == [2, 3, 4, 5, 6, 7]
    for count, own in kinds.items():
        assert own.nunique() == count and (own.index == flows.index).all()
    for count in range(3, 8):
        finer, coarser = kinds[count], kinds[count - 1]
        assert (coarser.groupby(finer).nunique() == 1).all()  # a kind never mixes two
        assert set(coarser) < set(finer)  # one more number, and the others stay
    assert (kinds[7].groupby(np.arange(N) // 7).nunique() == 1).all()


def test_a_tree_needs_days_that_differ_and_not_too_many(
    flows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert day_tree.has_tree(flows)
    assert not day_tree.has_tree(flows.iloc[:7])
    assert not day_tree.has_tree(0 * flows)
    monkeypatch.setattr(day_tree, "WARD_REGIONS", N - 1)
    assert not day_tree.has_tree(flows)


def test_the_picture_shows_its_flows(regions: gpd.GeoDataFrame, flows: pd.DataFrame) -> None:
    drawn = day_tree.tree_with_maps(regions, flows)
    assert drawn.startswith(b"\x89PNG") and len(drawn) <= figures.MAX_BYTES
    assert drawn == day_tree.tree_with_maps(regions, flows)
    turned = flows.iloc[::-1].set_axis(flows.index)
    assert drawn != day_tree.tree_with_maps(regions, turned)
    assert hours.KINDS == 7
