"""The files that docs/bring-your-own-city.md speaks of, for a made-up city."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from PIL import Image

WEST, SOUTH, EAST, NORTH = -8.68, 40.60, -8.60, 40.66


def write_files(folder: Path, seed: int = 0) -> None:
    """Every file, with what it shall hold and nothing to learn."""
    rng = np.random.default_rng(seed)

    def places(n: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.uniform(WEST, EAST, n).round(6), rng.uniform(SOUTH, NORTH, n).round(6)

    def table(name: str, /, **columns: object) -> None:
        pd.DataFrame(columns).to_csv(folder / name, index=False)

    def raster(name: str, pixels: np.ndarray) -> None:
        bands, height, width = pixels.shape
        place = rasterio.Affine((EAST - WEST) / width, 0, WEST, 0, (SOUTH - NORTH) / height, NORTH)
        with rasterio.open(folder / name, "w", driver="GTiff", count=bands, height=height,
                           width=width, dtype=pixels.dtype, crs="EPSG:4326", transform=place) as file:  # fmt: skip
            file.write(pixels)

    def shapes(name: str, geometry: list[shapely.Geometry], /, **columns: object) -> None:
        gpd.GeoDataFrame(columns, geometry=geometry, crs="EPSG:4326").to_file(folder / name)

    def grid(columns: int, rows: int) -> list[shapely.Geometry]:
        x, y = np.linspace(WEST, EAST, columns + 1), np.linspace(SOUTH, NORTH, rows + 1)
        return [
            shapely.box(x[i], y[j], x[i + 1], y[j + 1]) for j in range(rows) for i in range(columns)
        ]

    folder.mkdir(parents=True, exist_ok=True)
    raster("satellite.tif", rng.integers(0, 255, (3, 120, 160), dtype=np.uint8))
    raster("satellite_16bit.tif", rng.integers(1, 4000, (4, 120, 160), dtype=np.uint16))
    raster("night_light.tif", rng.gamma(2, 9, (1, 60, 80)).astype(np.float32))

    lon, lat = places(600)
    kinds = rng.choice(["cafe", "shop", "school", "bench"], 600)
    table("pois.csv", lon=lon, lat=lat, category=kinds, name=[f"place {i}" for i in range(600)])
    shapes("pois.geojson", list(shapely.points(lon, lat)), kind=kinds, label="a place")

    n = 3000
    minutes = pd.to_timedelta(rng.integers(0, 7 * 24 * 60, n), unit="min")
    times = (pd.Timestamp("2024-05-06") + minutes).strftime("%Y-%m-%d %H:%M:%S")
    (a, b), (c, d) = places(n), places(n)
    table("trips.csv", time=times, from_lon=a, from_lat=b, to_lon=c, to_lat=d)
    zones = [f"z{i}" for i in range(20)]
    shapes("zones.geojson", grid(5, 4), zone=zones)
    table("trips_by_zone.csv", start=times, from_zone=rng.choice(zones, n),
          to_zone=rng.choice(zones, n), people=rng.integers(1, 4, n))  # fmt: skip

    codes = [f"d{i:02d}" for i in range(36)]
    shapes("districts.geojson", grid(6, 6), code=codes)
    table("permits.csv", district=codes, permits=rng.poisson(9, 36))
    table("od.csv", home=rng.choice(codes, 400), work=rng.choice(codes, 400),
          commuters=rng.integers(1, 50, 400))  # fmt: skip
    shapes("outline.geojson", [shapely.box(WEST, SOUTH, EAST, NORTH)])

    blocks = grid(8, 6)
    shapes("census.geojson", blocks, residents=rng.integers(0, 900, 48))
    shapes("land_use.geojson", blocks, use=rng.choice(["homes", "work", "green"], 48))
    houses = shapely.box(lon[:200], lat[:200], lon[:200] + 2e-4, lat[:200] + 2e-4)
    shapes("buildings.geojson", list(houses), height=rng.uniform(3, 40, 200))

    bare = gpd.GeoSeries(list(houses), crs="EPSG:4326").to_crs("EPSG:3763")
    with tempfile.TemporaryDirectory() as made, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        frame = gpd.GeoDataFrame({"height": rng.uniform(3, 40, 200)}, geometry=bare)
        frame.set_crs(None, allow_override=True).to_file(Path(made) / "houses.shp")
        packed = shutil.make_archive(str(folder / "footprints"), "zip", made)
    Path(packed).rename(folder / "footprints")
    shutil.copy(folder / "od.csv", folder / "od.txt")

    lon, lat = places(400)
    price = rng.lognormal(12.3, 0.4, 400).round()
    price[:2] = 1.0, 2.1e9
    table("listings.csv", lon=lon, lat=lat, price=price)

    (folder / "street_views").mkdir()
    photos = [f"{i:02d}.jpg" for i in range(12)]
    for photo in photos:
        pixels = rng.integers(0, 255, (24, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "street_views" / photo)
    table("street_views.csv", photo=photos, lon=lon[:12], lat=lat[:12], heading=range(0, 360, 30),
          taken="2024-05-06 12:00:00")  # fmt: skip
