from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from model_code.demo.latents import draw_latents
from model_code.demo.place import Place
from model_code.demo.trips import outflow, trip_parts

from .reading import cells


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
