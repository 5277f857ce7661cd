from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from model_code.report import attention, figures
from model_code.tables import contract

SIDE = 5
N = SIDE**2


@pytest.fixture
def regions() -> gpd.GeoDataFrame:
    row, column = np.divmod(np.arange(N), SIDE)
    squares = shapely.box(500.0 * column, 500.0 * row, 500.0 * (column + 1), 500.0 * (row + 1))
    return gpd.GeoDataFrame(
        {"region_id": [f"r{i:02}" for i in range(N)],
         "x_m": 500.0 * column + 250, "y_m": 500.0 * row + 250},
        geometry=squares, crs="EPSG:32625",
    )  # fmt: skip


@pytest.fixture
def given() -> pd.DataFrame:
    """All look at the middle column twice as much as at others in one modality, evenly in the other."""
    rows = []
    for modality, favour in (("satellite", 2.0), ("pois", 1.0)):
        for i in range(N - 1):  # the last has no neighbour
            near = [j for j in (i - SIDE, i + SIDE) if 0 <= j < N - 1]
            near += [j for j in (i - 1, i + 1) if 0 <= j < N - 1 and j // SIDE == i // SIDE]
            weight = np.array([favour if j % SIDE == 2 else 1.0 for j in near])
            rows += [
                (modality, f"r{i:02}", f"r{j:02}", w)
                for j, w in zip(near, weight / weight.sum(), strict=True)
            ]
    return pd.DataFrame(rows, columns=contract("lmemr_attention").names())


@pytest.fixture
def states() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame(
            {"contrast": contrast, "modality": modality, "region_id": [f"r{i:02}" for i in range(N)],
             "axis_1": rng.normal(size=N), "axis_2": rng.normal(size=N), "projection": "tsne",
             "match_share": own}
        )
        for contrast, own in (("with", 0.5), ("without", 0.25))
        for modality in ("satellite", "pois")
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)[contract("lmemr_states").names()]


def test_received_attention_is_a_multiple_of_an_even_share(given: pd.DataFrame) -> None:
    favoured = attention.received(given[given["modality"] == "satellite"])
    middle = favoured.index.str[1:].astype(int) % SIDE == 2
    assert favoured[middle].min() > 1 > favoured[~middle].max()
    # r01 is looked at by r00 (2 neighbours), r06 (4, one of them favoured) and r02 (3, likewise).
    even = 1 / 2 + 1 / 4 + 1 / 3
    assert favoured["r01"] == pytest.approx((1 / 2 + 1 / 5 + 1 / 4) / even)
    evenly = attention.received(given[given["modality"] == "pois"])
    np.testing.assert_allclose(evenly, 1)
    assert "r24" not in evenly


def test_the_mean_is_over_modalities(given: pd.DataFrame) -> None:
    pairs = attention.mean_over_modalities(given).set_index(["region_id", "neighbour_id"])["weight"]
    assert pairs["r01", "r02"] == pytest.approx((2 / 4 + 1 / 3) / 2)
    np.testing.assert_allclose(pairs.groupby("region_id").sum(), 1)


def test_sentences_tell_matches_and_chance(states: pd.DataFrame) -> None:
    one, other = attention.match_sentences(states)
    assert one.startswith("With the contrast: of 25 regions") and "50% of cases" in one
    assert other.startswith("Without it") and "25% of cases (by chance: 4.0%)" in other
    assert attention.match_sentences(states.assign(match_share=np.nan)) == []


def test_pictures_show_what_they_are_given(
    regions: gpd.GeoDataFrame, given: pd.DataFrame, states: pd.DataFrame
) -> None:
    less = given[given["modality"] == "pois"]
    drawn = {
        "maps": attention.attention_maps(given, regions),
        "one": attention.attention_maps(less, regions),
        "none": attention.attention_maps(given.iloc[:0], regions),
        "of": attention.attention_of(given, regions, ["r00", "r07"]),
        "even": attention.attention_of(less, regions, ["r00", "r07"]),
        "lone": attention.attention_of(given, regions, ["r24"]),
        "states": attention.modality_scatter(states),
        "with": attention.modality_scatter(states[states["contrast"] == "with"]),
        "pca": attention.modality_scatter(states.assign(projection="pca")),
    }
    assert all(png.startswith(b"\x89PNG") for png in drawn.values())
    assert max(map(len, drawn.values())) <= figures.MAX_BYTES
    assert len(set(drawn.values())) == len(drawn)
    assert attention.modality_scatter(states) == drawn["states"]
