"""Independent readers: files of an embedded city as numbers by cell."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyproj

from model_code.demo.place import EPSG, Place

_FROM_LONLAT = pyproj.Transformer.from_crs(4326, EPSG, always_xy=True)


def cells(place: Place, lon, lat) -> np.ndarray:
    """Cell of each point by plain division; -1 outside or without coordinates."""
    lon, lat = np.asarray(lon, float), np.asarray(lat, float)
    known = np.isfinite(lon) & np.isfinite(lat)
    found = np.full(len(lon), -1)
    east, north = _FROM_LONLAT.transform(lon[known], lat[known])
    column = np.floor(east / place.cell_m) - place.easting_m / place.cell_m
    row = np.floor(north / place.cell_m) - place.northing_m / place.cell_m
    number = (row * place.columns + column).astype(int)
    inside = (column >= 0) & (column < place.columns) & (row >= 0) & (number < place.regions)
    found[known] = np.where(inside, number, -1)
    return found


def counts(cell: np.ndarray, place: Place) -> np.ndarray:
    return np.bincount(cell[cell >= 0], minlength=place.regions)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
