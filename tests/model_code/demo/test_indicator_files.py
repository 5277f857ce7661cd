"""The files of indicators give the values that the simulator says."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio

from model_code.demo.indicator_files import NODATA, _medians, write_crimes, write_house_listings
from model_code.demo.indicators import FORMULAS, land_use, scalar
from model_code.demo.latents import Latents, draw_latents
from model_code.demo.place import Place

from .reading import cells, counts


@pytest.fixture(scope="module")
def wide() -> Latents:
    return draw_latents(Place(900), 4)


def test_crimes_scatter_around_their_expectation(wide: Latents, tmp_path: Path) -> None:
    target = write_crimes(tmp_path, wide)["crime"]
    crimes = pd.read_csv(tmp_path / "crimes.csv")
    cell = cells(wide.place, crimes["lon"], crimes["lat"])
    assert (cell == -1).sum() == 2
    found = np.log1p(counts(cell, wide.place))
    left = (found - target.clean_transformed[:, 0]).var()
    stated = (target.noise_variance + target.nugget_variance).mean()
    assert left == pytest.approx(stated, rel=0.2)
    assert 0.1 < stated / found.var() < 0.25


def test_prices_are_robust_to_the_absurd(wide: Latents, tmp_path: Path) -> None:
    target = write_house_listings(tmp_path, wide)["house_price"]
    listings = pd.read_parquet(tmp_path / "house_listings.parquet")
    assert (listings["price_usd"] > 1e8).any() and (listings["price_usd"] == 1).any()
    assert listings["price_usd"].isna().sum() == 2
    listings = listings.dropna()
    cell = cells(wide.place, listings["lon"], listings["lat"])
    assert (cell == -1).sum() == 1
    medians = listings[cell >= 0].groupby(cell[cell >= 0])["price_usd"].median()
    left = np.log1p(medians) - np.log1p(target.noisy[medians.index, 0])
    assert (left**2).mean() == pytest.approx(target.nugget_variance[0, 0], rel=0.02)
    assert target.nugget_variance[0, 0] < 0.1 * target.clean_transformed.var()


def test_medians_agree_with_numpy() -> None:
    rng = np.random.default_rng(0)
    cell = np.sort(rng.integers(0, 12, 60))
    cell = cell[cell != 5]
    values = rng.random(len(cell))
    want = [np.median(values[cell == k]) if (cell == k).any() else np.nan for k in range(12)]
    assert np.allclose(_medians(cell, values, 12), want, equal_nan=True)


def test_rasters_average_to_the_stated_value(city: Path, latents: Latents) -> None:
    place = latents.place
    for name, per_cell in (("night_light", 8), ("pm25", 4)):
        with rasterio.open(city / f"{name}.tif") as file:
            assert file.nodata == NODATA
            pixels = np.ma.filled(file.read(1, masked=True).astype(float), np.nan)[::-1]
        blocks = pixels.reshape(place.rows, per_cell, place.columns, per_cell)
        means = blocks.mean(axis=(1, 3)).ravel()[: place.regions]
        assert np.isnan(means).any() == (name == "pm25")
        whole = np.isfinite(means)
        assert np.allclose(means[whole], scalar(name, latents).noisy[whole, 0], rtol=1e-5)


def test_land_use_is_the_class_of_most_parcels(city: Path, latents: Latents) -> None:
    parcels = gpd.read_parquet(city / "land_use.parquet")
    target = land_use(latents)
    assert target.labels is not None
    by_cell = parcels["land_use"].to_numpy().reshape(-1, 4)
    assert ((by_cell == target.labels[:, None]).sum(axis=1) >= 3).all()
    centre = parcels.geometry.to_crs(32625).centroid.to_crs(4326)
    assert np.array_equal(cells(latents.place, centre.x, centre.y), np.repeat(np.arange(23), 4))


def test_truth(city: Path, place: Place) -> None:
    truth = pd.read_parquet(city / "truth.parquet")
    names = {*FORMULAS, "land_use", "poi_count", "comment_count", "trips_out", "hourly_outflow"}
    assert set(truth["indicator"]) == names
    assert not truth.duplicated(["indicator", "lon", "lat", "slot"]).any()
    sizes = truth.groupby("indicator").size()
    assert (sizes.drop("hourly_outflow") == place.regions).all()
    assert sizes["hourly_outflow"] == 24 * place.regions
    cell = cells(place, truth["lon"], truth["lat"])
    assert (cell >= 0).all()
    assert truth["label"].notna().eq(truth["indicator"] == "land_use").all()
    assert (truth[["noise_variance", "nugget_variance"]] >= 0).all().all()
    assert truth.groupby(["indicator", "slot"])["noise_variance"].nunique().max() == 1


def test_truth_explains_what_the_files_hold(city: Path, place: Place) -> None:
    truth = pd.read_parquet(city / "truth.parquet")
    census = gpd.read_parquet(city / "census.parquet")
    centre = census.geometry.to_crs(32625).centroid.to_crs(4326)
    assert cells(place, centre.x, centre.y).tolist() == list(range(place.regions))
    known = truth[truth["indicator"] == "population"]
    order = np.argsort(cells(place, known["lon"], known["lat"]))
    value = known["value_transformed"].to_numpy()[order]
    left = np.log1p(census["population"]) - value
    assert left.var() / np.log1p(census["population"]).var() < 0.35
    assert np.allclose(np.log1p(known["value"].to_numpy()[order]), value)
