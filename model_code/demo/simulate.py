"""Write all raw files of an embedded city."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from model_code.demo.files import write_parquet
from model_code.demo.indicator_files import (
    write_census,
    write_crimes,
    write_house_listings,
    write_land_use,
    write_night_light,
    write_pm25,
    write_truth,
)
from model_code.demo.latents import Latents, draw_latents
from model_code.demo.orthophoto import write_orthophoto
from model_code.demo.place import Place
from model_code.demo.pois import expected_pois, poi_parts
from model_code.demo.street_views import write_street_views
from model_code.demo.streets import building_parts, draw_lots, draw_streets
from model_code.demo.trips import outflow, trip_parts
from model_code.errors import DataError

MARKER = "simulated.json"


def simulate(
    folder: Path,
    *,
    regions: int,
    seed: int,
    cell_m: float = 1000.0,
    images: bool = True,
    north_km: float = 0.0,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Write the raw files of an embedded city into `folder`; same arguments, same bytes.

    The files are written beside `folder` and moved there when all are complete; an earlier
    simulation in it is replaced. `simulated.json` holds the settings.

    Args:
        folder: where the files go; may be absent, empty, or an earlier simulation.
        regions: square cells, 10 to 100,000.
        seed: of all random streams.
        cell_m: side of a cell in metres.
        images: also make the orthophoto and the street views.
        north_km: how far north of the usual place it lies, 0 to 4000.
        progress: is told what is being made.

    Raises:
        DataError: the size is out of bounds, or `folder` holds something else.
    """
    place = Place(regions, cell_m, north_km)
    if seed < 0:
        raise DataError(f"a seed of {seed} cannot be used", fix="choose 0 or more")
    folder = folder.absolute()
    if folder.exists() and not (folder / MARKER).exists() and any(_entries(folder)):
        raise DataError(
            f"{folder} holds files that no simulation wrote",
            fix="choose another folder, or empty this one",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    beside.mkdir()
    try:
        write_files(beside, draw_latents(place, seed), images, progress or (lambda _: None))
        settings = {
            "regions": regions,
            "seed": seed,
            "cell_m": float(cell_m),
            "images": images,
            "north_km": float(north_km),
        }
        (beside / MARKER).write_text(json.dumps(settings, sort_keys=True) + "\n", encoding="utf-8")
        _move_into_place(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_files(
    folder: Path, latents: Latents, images: bool, progress: Callable[[str], None]
) -> None:
    """Write every raw file of given latents into an existing folder."""
    place = latents.place
    progress("boundary, streets and buildings")
    boundary = {"type": "Feature", "properties": {}, "geometry": place.boundary().__geo_interface__}
    collection = {"type": "FeatureCollection", "features": [boundary]}
    (folder / "boundary.geojson").write_text(json.dumps(collection) + "\n", encoding="utf-8")
    streets = draw_streets(latents)
    lots = draw_lots(streets)
    write_parquet(folder / "buildings.parquet", building_parts(lots), "geometry")
    if images:
        write_orthophoto(folder / "orthophoto.tif", lots, progress)
        write_street_views(folder / "street_views", streets, progress)
    progress("points of interest")
    expected, pois, comments = expected_pois(streets)
    parts = poi_parts(streets, expected, comments.noisy[:, 0])
    write_parquet(folder / "pois.parquet", parts)
    progress("trips")
    hourly, trips = outflow(latents)
    write_parquet(folder / "trips.parquet", trip_parts(latents, hourly.noisy))
    progress("indicators")
    targets = {
        "poi_count": pois,
        "comment_count": comments,
        "trips_out": trips,
        "hourly_outflow": hourly,
        **write_census(folder, latents),
        **write_land_use(folder, latents),
        **write_night_light(folder, latents),
        **write_pm25(folder, latents),
        **write_house_listings(folder, latents),
        **write_crimes(folder, latents),
    }
    write_truth(folder, place, targets)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else [folder]


def _move_into_place(source: Path, target: Path) -> None:
    """Put `source` where `target` is; two renames, so `target` is whole whenever it is there."""
    old = target.parent / f".{target.name}.{uuid.uuid4().hex}.old"
    if target.exists():
        target.rename(old)
    try:
        source.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
