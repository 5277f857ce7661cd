from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from model_code.demo.latents import draw_latents
from model_code.demo.place import Place
from model_code.demo.pois import CATEGORIES, expected_pois, poi_parts
from model_code.demo.streets import draw_streets

from .reading import cells, counts


def test_pois(city: Path, place: Place) -> None:
    pois = pq.read_table(city / "pois.parquet").to_pandas()
    assert set(pois["category"]) <= set(CATEGORIES)
    assert pois["name"].notna().all()
    cell = cells(place, pois["lon"], pois["lat"])
    assert (cell[:-5] >= 0).all()
    assert (cell[-5:] == -1).all()
    assert pois["lon"].isna().sum() == 2
    assert all(isinstance(text, str) for said in pois["comments"] for text in said)


def test_pois_and_comments_scatter_around_their_expectation() -> None:
    latents = draw_latents(Place(400), 1)
    streets = draw_streets(latents)
    expected, pois, comments = expected_pois(streets)
    assert np.allclose(expected.sum(axis=1), pois.noisy[:, 0])
    table = next(iter(poi_parts(streets, expected, comments.noisy[:, 0])))
    cell = cells(latents.place, table["lon"].to_numpy(), table["lat"].to_numpy())
    found = counts(cell, latents.place)
    z = (found - pois.noisy[:, 0]) / np.sqrt(pois.noisy[:, 0])
    assert abs(z.mean()) < 0.2
    assert z.std() == pytest.approx(1, abs=0.12)
    said = np.bincount(cell, weights=table["comments"].combine_chunks().value_lengths().to_numpy())
    z = (said - comments.noisy[:, 0]) / np.sqrt(comments.noisy[:, 0])
    assert abs(z.mean()) < 0.2
    assert z.std() == pytest.approx(1, abs=0.12)
    category = np.array(sorted(CATEGORIES))
    share = pd.Series(table["category"].to_numpy()).value_counts(normalize=True)
    wanted = pd.Series(expected.sum(axis=0) / expected.sum(), category)
    assert np.allclose(share.reindex(category), wanted, atol=0.01)
