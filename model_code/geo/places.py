"""Rows with a place: tables with lon/lat columns, or files with a geometry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import shapely

from model_code.geo.vector import (
    check_columns,
    is_table,
    numbers,
    one_file,
    project,
    read_columns,
    read_geo,
    table_columns,
)


def read_places(
    path: str,
    root: str,
    key: str,
    *,
    lon: tuple[str, str],
    lat: tuple[str, str],
    columns: Mapping[str, str | None],
    crs: str | None,
    city_crs: Any,
    given: str | None = None,
) -> pd.DataFrame:
    """The rows of one file, each with its place, in the order of the file.

    A geometry column wins over lon/lat, and the CRS that it states over `crs`; a line or polygon
    stands at a point on it.

    Args:
        path: path of the config.
        root: data root.
        key: config key of the path, for errors.
        lon: config key and column of the longitude (easting, where `crs` is projected).
        lat: config key and column of the latitude.
        columns: config key -> further column (None: not asked for).
        crs: CRS of the lon/lat columns (None: EPSG:4326), and of geometries whose file states none.
        city_crs: CRS of `x_m`, `y_m`.
        given: `format` of the config.

    Returns:
        [N] the further columns under their own names (CSV: text), `lon`, `lat` in EPSG:4326 and
        `x_m`, `y_m`; all four are NaN where a row has no usable place.

    Raises:
        DataError: no such file, unreadable, or a column that it lacks, by config key.
    """
    url = one_file(path, root, key)
    wanted = [name for name in columns.values() if name]
    if not is_table(url, given):
        geo = read_geo(url, key, given, crs, own_wins=True)
        check_columns([str(c) for c in geo.columns], columns, url)
        crs = geo.crs
        points = shapely.point_on_surface(geo.geometry.to_numpy())
        x, y = shapely.get_x(points), shapely.get_y(points)
        rows = pd.DataFrame(geo[list(dict.fromkeys(wanted))]).reset_index(drop=True)
    else:
        have = table_columns(url, key, given)
        check_columns(have, {lon[0]: lon[1], lat[0]: lat[1], **columns}, url)
        table = read_columns(url, list(dict.fromkeys([lon[1], lat[1], *wanted])), key, given)
        crs = crs or "EPSG:4326"
        x, y = numbers(table.column(lon[1])), numbers(table.column(lat[1]))
        rows = table.select(list(dict.fromkeys(wanted))).to_pandas()
    place = np.array([*project(x, y, crs, "EPSG:4326"), *project(x, y, crs, city_crs)])
    on_earth = (np.abs(place[0]) <= 180) & (np.abs(place[1]) <= 90)
    place[:, ~(on_earth & np.isfinite(place).all(axis=0))] = np.nan
    return rows.assign(**dict(zip(("lon", "lat", "x_m", "y_m"), place, strict=True)))
