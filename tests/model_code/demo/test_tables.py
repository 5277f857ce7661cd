"""POIs, trips, street views' metadata and the deliberate bad rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image, UnidentifiedImageError

from model_code.demo.latents import Latents, draw_latents
from model_code.demo.place import Place
from model_code.demo.pois import CATEGORIES, expected_pois, poi_parts
from model_code.demo.streets import draw_streets
from model_code.demo.trips import outflow, trip_parts

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


def test_trips(city: Path, place: Place) -> None:
    trips = pq.read_table(city / "trips.parquet").to_pandas()
    origin = cells(place, trips["origin_lon"], trips["origin_lat"])
    destination = cells(place, trips["destination_lon"], trips["destination_lat"])
    good = (origin >= 0) & (destination >= 0)
    assert good[:-10].all()
    assert not good[-10:].any()
    assert trips["destination_lon"].isna().sum() == 3
    assert trips["started_at"].dt.tz is None
    assert trips["started_at"].dt.day_of_week.max() <= 4


def test_trips_follow_the_expected_outflow() -> None:
    latents = draw_latents(Place(60), 1)
    hourly, total = outflow(latents)
    assert np.allclose(hourly.noisy.sum(axis=1), total.noisy[:, 0])
    trips = pd.concat([part.to_pandas() for part in trip_parts(latents, hourly.noisy)][:-1])
    origin = cells(latents.place, trips["origin_lon"], trips["origin_lat"])
    hour = trips["started_at"].dt.hour.to_numpy()
    found = np.bincount(origin * 24 + hour, minlength=60 * 24).reshape(60, 24)
    z = (found - hourly.noisy) / np.sqrt(hourly.noisy)
    assert abs(z.mean()) < 0.1
    assert z.std() == pytest.approx(1, abs=0.05)
    # Gravity: near places are visited more often than far ones.
    away = (
        latents.place.centre[
            cells(latents.place, trips["destination_lon"], trips["destination_lat"])
        ]
        - latents.place.centre[origin]
    )
    at_random = latents.place.centre[np.random.default_rng(0).permutation(origin)]
    far = np.hypot(*(at_random - latents.place.centre[origin]).T).mean()
    assert np.hypot(*away.T).mean() < 0.9 * far


def test_trips_go_to_work_in_the_morning_and_home_in_the_evening() -> None:
    latents = draw_latents(Place(100), 3)
    hourly, _ = outflow(latents)
    trips = pd.concat([part.to_pandas() for part in trip_parts(latents, hourly.noisy)][:-1])
    work = latents.region("employment")
    goal = work[cells(latents.place, trips["destination_lon"], trips["destination_lat"])]
    hour = trips["started_at"].dt.hour
    assert goal[hour == 8].mean() > goal[hour == 18].mean() + 0.05


def test_street_views(city: Path, place: Place, latents: Latents) -> None:
    views = pd.read_csv(city / "street_views" / "metadata.csv")
    images = city / "street_views" / "images"
    assert sorted(views["file"]) == sorted(p.name for p in images.iterdir())
    cell = cells(place, views["lon"], views["lat"])
    assert (cell[:-2] >= 0).all()
    assert (cell[-2:] == -1).all()
    assert views["lon"].isna().sum() == 1
    per_cell = counts(cell[:-3], place)
    assert per_cell.max() <= 6
    assert 3 <= np.median(per_cell) <= 6
    taken = pd.to_datetime(views["taken_at"])
    assert taken.dt.tz is None
    assert taken.dt.hour.between(7, 20).all()
    with Image.open(images / views["file"][0]) as picture:
        assert picture.size == (128, 96)
    with pytest.raises((UnidentifiedImageError, OSError)):
        np.asarray(Image.open(images / "unreadable.jpg"))


def test_some_cells_have_no_street_view(tmp_path: Path) -> None:
    latents = draw_latents(Place(40, 100.0), 0)
    from model_code.demo.street_views import write_street_views

    write_street_views(tmp_path / "views", draw_streets(latents), lambda _: None)
    views = pd.read_csv(tmp_path / "views" / "metadata.csv").iloc[:-3]
    without = (counts(cells(latents.place, views["lon"], views["lat"]), latents.place) == 0).mean()
    assert 0 < without < 0.6
