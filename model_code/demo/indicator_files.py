"""Files from which the pipeline takes the indicators: rasters, points and polygons whose values by
region are those of `indicators`, and `truth.parquet`.

Where a file cannot give a region's value exactly (the median of some listings, pixels under a
cloud), what is left is measured here and stated as the nugget.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import rasterio
from rasterio import Affine

from model_code.demo.fields import Doubles, Floats, gaussian_field, stream
from model_code.demo.files import GEOTIFF, degrees, wkb, write_parquet
from model_code.demo.indicators import LAND_USE, Target, land_use, scalar
from model_code.demo.latents import Latents
from model_code.demo.place import EPSG, Place

NODATA = -9999.0
LISTINGS_A_CELL = 14.0
_LISTING_SPREAD = 0.25  # of the logarithm of prices within a cell
_NIGHT_LIGHT_PIXELS, _PM25_PIXELS = 8, 4  # along a cell's side


def write_census(folder: Path, latents: Latents) -> dict[str, Target]:
    """`census.parquet`: one polygon a cell with population, carbon, gdp, co."""
    targets = {name: scalar(name, latents) for name in ("population", "carbon", "gdp", "co")}
    place = latents.place
    polygons = wkb(place.squares(place.corner, place.cell_m))
    columns = {name: target.noisy[:, 0] for name, target in targets.items()}
    table = pa.table({"geometry": polygons, **columns})
    write_parquet(folder / "census.parquet", table, "geometry")
    return targets


def write_land_use(folder: Path, latents: Latents) -> dict[str, Target]:
    """`land_use.parquet`: four parcels a cell, three of them of the cell's class."""
    target, place = land_use(latents), latents.place
    assert target.labels is not None
    rng = stream(latents.seed, "land_use/parcels")
    parcels = np.repeat(target.labels[:, None], 4, axis=1)
    other = np.array(sorted(LAND_USE), object)[rng.integers(0, len(LAND_USE), place.regions)]
    parcels[np.arange(place.regions), rng.integers(0, 4, place.regions)] = other
    half = place.cell_m / 2
    quarter = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * half
    corners = (place.corner[:, None] + quarter).reshape(-1, 2)
    table = pa.table(
        {
            "geometry": wkb(place.squares(corners, half)),
            "land_use": pa.array(parcels.ravel().tolist(), pa.string()),
        }
    )
    write_parquet(folder / "land_use.parquet", table, "geometry")
    return {"land_use": target}


def write_night_light(folder: Path, latents: Latents) -> dict[str, Target]:
    """`night_light.tif`: pixels that vary within a cell about the cell's value, which is their mean."""
    target = scalar("night_light", latents)
    pattern = np.exp(0.6 * _pattern(latents, "night_light", _NIGHT_LIGHT_PIXELS))
    pattern /= _cell_mean(pattern)
    pixels = pattern * _on_grid(latents.place, target.noisy[:, 0], np.nan)
    _write_raster(folder / "night_light.tif", latents.place, pixels, _NIGHT_LIGHT_PIXELS)
    return {"night_light": target}


def write_pm25(folder: Path, latents: Latents) -> dict[str, Target]:
    """`pm25.tif`: as `night_light.tif`, with no data under a few clouds."""
    target, place = scalar("pm25", latents), latents.place
    pattern = _pattern(latents, "pm25", _PM25_PIXELS)
    pattern -= _cell_mean(pattern)
    values = _on_grid(place, target.noisy[:, 0], np.nan)
    pixels = values + 0.5 * pattern
    rng = stream(latents.seed, "pm25/clouds")
    cloud = gaussian_field(rng, (pixels.shape[0] * _PM25_PIXELS, pixels.shape[2] * _PM25_PIXELS),
                           place.cell_m / _PM25_PIXELS, 1.3 * place.cell_m)  # fmt: skip
    covered = cloud > np.quantile(cloud, 0.98)
    pixels[covered.reshape(pixels.shape)] = np.nan
    _write_raster(folder / "pm25.tif", place, pixels, _PM25_PIXELS)
    # Half-covered cells lose part of a pattern that averages out only over the whole cell.
    clear = ~np.isnan(pixels)
    seen = np.where(clear, pixels, 0).sum(axis=(1, 3)) / np.maximum(clear.sum(axis=(1, 3)), 1)
    usable = clear.mean(axis=(1, 3)) >= 0.5
    left = (seen - values[:, 0, :, 0])[usable]
    nugget = np.full_like(target.nugget_variance, np.nanmean(left**2))
    return {"pm25": replace(target, nugget_variance=nugget)}


def write_house_listings(folder: Path, latents: Latents) -> dict[str, Target]:
    """`house_listings.parquet`: listings around each cell's price; a few prices are absurd."""
    target, place = scalar("house_price", latents), latents.place
    rng = stream(latents.seed, "house_listings")
    n = np.where(rng.random(place.regions) < 0.03, 0, rng.poisson(LISTINGS_A_CELL, place.regions))
    cell = np.repeat(np.arange(place.regions), n)
    x, y = place.scatter(rng, cell)
    scatter = np.exp(_LISTING_SPREAD * rng.standard_normal(len(cell)))
    price = np.round(target.noisy[cell, 0] * scatter, 2)
    absurd = rng.random(len(cell)) < 0.002
    absurd[:2] = True
    price[absurd] = np.resize([1.0, 999_999_999.0], absurd.sum())
    bad_x = np.array([-2500.0, 500.0, 500.0])  # one outside, two without a price
    x, y = np.append(x, bad_x), np.append(y, [500.0] * 3)
    lon, lat = place.lonlat(x, y)
    missing = np.r_[np.zeros(len(price), bool), [False, True, True]]
    table = pa.table(
        {
            "listing_id": np.arange(len(x)),
            "price_usd": pa.array(np.append(price, [1000.0, 0.0, 0.0]), mask=missing),
            "lon": degrees(lon),
            "lat": degrees(lat),
        }
    )
    write_parquet(folder / "house_listings.parquet", table)
    medians = _medians(cell, np.log1p(price), place.regions)
    left = medians - np.log1p(target.noisy[:, 0])
    nugget = np.full_like(target.nugget_variance, np.nanmean(left**2))
    return {"house_price": replace(target, nugget_variance=nugget)}


def write_crimes(folder: Path, latents: Latents) -> dict[str, Target]:
    """`crimes.csv`: one row a crime; two rows lie outside the city."""
    target, place = scalar("crime", latents), latents.place
    rng = stream(latents.seed, "crimes")
    cell = np.repeat(np.arange(place.regions), rng.poisson(target.noisy[:, 0]))
    x, y = place.scatter(rng, cell)
    x, y = np.append(x, [-2000.0, -6000.0]), np.append(y, [700.0, 900.0])
    lon, lat = place.lonlat(x, y)
    kinds = pa.array(["burglary", "robbery", "theft", "vandalism"])
    table = pa.table(
        {
            "kind": kinds.take(pa.array(rng.integers(0, len(kinds), len(x)))),
            "lon": degrees(lon),
            "lat": degrees(lat),
        }
    )
    pacsv.write_csv(table, folder / "crimes.csv")
    return {"crime": target}


def write_truth(folder: Path, place: Place, targets: dict[str, Target]) -> None:
    """`truth.parquet`: what the simulator knows, one row an indicator, cell and slot.

    Columns: indicator; lon, lat (the cell's centre); slot; value (noise-free, original scale; for
    a class the position in the sorted labels); label (noise-free class, else null);
    value_transformed, noise_variance, nugget_variance (transformed scale); noise_range_m (of the
    exponential covariance of the noise).
    """
    lon, lat = place.lonlat(*place.centre.T)
    parts = []
    for name in sorted(targets):
        target = targets[name]
        n, slots = target.clean.shape
        labels: list[str | None] = [None] * (n * slots)
        if target.labels is not None:
            known = sorted(LAND_USE)
            labels = [known[int(code)] for code in target.clean.ravel()]
        parts.append(
            pa.table(
                {
                    "indicator": pa.array([name]).take(pa.array(np.zeros(n * slots, int))),
                    "lon": np.repeat(lon, slots),
                    "lat": np.repeat(lat, slots),
                    "slot": pa.array(np.tile(np.arange(slots), n), pa.int32()),
                    "value": target.clean.ravel(),
                    "label": pa.array(labels, pa.string()),
                    "value_transformed": target.clean_transformed.ravel(),
                    "noise_variance": target.noise_variance.ravel(),
                    "noise_range_m": np.full(n * slots, float(target.noise_range_m)),
                    "nugget_variance": target.nugget_variance.ravel(),
                }
            )
        )
    write_parquet(folder / "truth.parquet", parts)


def _pattern(latents: Latents, name: str, pixels: int) -> Floats:
    """Smooth variation at pixel size, [rows, pixels, columns, pixels]."""
    place = latents.place
    shape = (place.rows * pixels, place.columns * pixels)
    rng = stream(latents.seed, f"pattern/{name}")
    field = gaussian_field(rng, shape, place.cell_m / pixels, 0.3 * place.cell_m)
    return field.reshape(place.rows, pixels, place.columns, pixels)


def _cell_mean(pixels: Floats) -> Floats:
    mean: Floats = pixels.mean(axis=(1, 3), keepdims=True)
    return mean


def _on_grid(place: Place, values: Doubles, outside: float) -> Doubles:
    """Values by cell [N] as [rows, 1, columns, 1]."""
    grid = np.full(place.rows * place.columns, outside)
    grid[: place.regions] = values
    return grid.reshape(place.rows, 1, place.columns, 1)


def _write_raster(path: Path, place: Place, pixels: np.ndarray, per_cell: int) -> None:
    """Pixels [rows, per_cell, columns, per_cell], south row first, as float32 GeoTIFF."""
    values = pixels.reshape(place.rows * per_cell, place.columns * per_cell)[::-1]
    size = place.cell_m / per_cell
    north = place.northing_m + place.height_m
    with rasterio.open(
        path, "w", width=values.shape[1], height=values.shape[0], count=1, dtype="float32",
        crs=f"EPSG:{EPSG}", transform=Affine(size, 0, place.easting_m, 0, -size, north),
        nodata=NODATA, **GEOTIFF,
    ) as file:  # fmt: skip
        file.write(np.where(np.isnan(values), NODATA, values).astype(np.float32), 1)


def _medians(cell: np.ndarray, values: Doubles, cells: int) -> Doubles:
    """Median of the values of each cell; NaN where a cell has none. `cell` is sorted."""
    order = np.lexsort((values, cell))
    counts = np.bincount(cell, minlength=cells)
    first = np.cumsum(counts) - counts
    ranked = np.append(values[order], np.nan)
    low = np.where(counts > 0, first + (counts - 1) // 2, -1)
    high = np.where(counts > 0, first + counts // 2, -1)
    return np.asarray((ranked[low] + ranked[high]) / 2)
