from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, UnidentifiedImageError

from model_code.demo.latents import Latents, draw_latents
from model_code.demo.place import Place
from model_code.demo.streets import draw_streets

from .reading import cells, counts


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
