"""Tiny originals in the formats of Manhattan's public files, and a server for them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely

# A house in the West Village, and one beside it.
LOTS = [shapely.box(-74.0062, 40.7321, -74.006, 40.7323), shapely.box(-74.006, 40.7321, -74.0058, 40.7323)]  # fmt: skip
SHEET = pd.DataFrame(
    {
        "FID": ["0", "1"],
        "osm_id": ["103266323", "166878947"],
        "name": [None, "Pier 11"],
        "fclass": ["fast_food", "ferry_terminal"],
        "lon": ["-74.01", "-74.0"],
        "lat": ["40.7", "40.71"],
    }
)


def write_originals(root: Path) -> None:
    """Every original that can be fetched, as `<owner>/<name>/<path>`."""

    def at(path: str) -> Path:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        return root / path

    squares = gpd.GeoDataFrame({"region_id": [0, 1]}, geometry=LOTS, crs="EPSG:4326")
    squares.to_file(at("wushangbin/MGFN/Data/mh-180/mh-180.shp"))
    at("wushangbin/MGFN/Data/mh_cd.json").write_text('{"1": 8, "0": 2}')
    for name, values in (
        ("crime_counts", [178.0, 258.0]),
        ("check_counts", [1269, 579]),
        ("serviceCall_counts", [1314, 3947]),
        ("mob-adj", [[1.0, 2.0], [3.0, 4.0]]),
    ):
        np.save(at(f"MiRuacle24/HAFusion/data_NY/{name}.npy"), np.array(values))

    def raster(path: str, values: Any, nodata: float | None = None) -> None:
        pixels = np.atleast_3d(np.asarray(values)).transpose(2, 0, 1)
        bands, height, width = pixels.shape
        place = rasterio.Affine(0.001, 0, -74.04, 0, -0.001, 40.89)
        with rasterio.open(at(path), "w", driver="GTiff", count=bands, height=height, width=width,
                           dtype=pixels.dtype, crs="EPSG:4326", transform=place, nodata=nodata) as file:  # fmt: skip
            file.write(pixels)

    raster("CDS-AU-DK/cds-spatial/Week02/data/manhattan.tif", np.full((2, 2, 3), 7, np.uint8))
    canopy = np.array([[0, 99.5], [255, -3.4e38]], np.float32)
    raster("CDS-AU-DK/cds-spatial/Week02/data/canopy.tif", canopy, nodata=-3.4e38)
    raster("biananino/Urban-Heat-Island/data/Landsat_LST.tiff", np.array([[30.5, 41.0]]))
    raster("mariemhadjkacem/UHI/NDVI.tiff", np.array([[0.5, -847.0], [961.4, -1.0]]))

    public = "javaids33/nyc-traffic-cam/nyc-traffic-cam/public"
    photo = {"url": "/photos_1940s/lot.jpg", "w": 682, "h": 1024}
    lots = [
        {"bin": "1", "bbl": "10", "year": 1938, "h_roof": 100.0, "h_ground": 20.0, "photo": given,
         "geom": shapely.geometry.mapping(shape)}
        for shape, given in zip(LOTS, (None, photo), strict=True)
    ]  # fmt: skip
    lots.append(lots[1])  # one photograph for two buildings
    at(f"{public}/data-1940s.json").write_text(json.dumps({"buildings": lots}))
    at(f"{public}/photos_1940s/lot.jpg").write_bytes(b"a picture")

    at("Liyue-Chen/STContext/Data/POI/POI_NYC-2017.xls").write_bytes(
        bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600)
    )
    folder = "songchaocn/iPCM/data/NYC"
    at(f"{folder}/poi_info.csv").write_text(
        "poi_id,poi_catid,latitude,longitude\nv1,c1,40.7,-74.0\nv2,c9,40.8,-73.9\n"
    )
    head = "user_id,POI_id,POI_catid,POI_catname,latitude,longitude,timezone,UTC_time\n"
    for part, line in (("val", "1,v1,c1,Bar,40.7,-74.0"), ("test", "2,v3,c2,Park,40.9,-73.8")):
        at(f"{folder}/NYC_{part}.csv").write_text(
            f"{head}{line},-240,Sat Jun 16 21:29:30 +0000 2012\n"
        )
    for year in (2018, 2019, 2020):
        for month in range(1, 13):
            path = "great-expectations/great_expectations/tests/test_sets/"
            path += f"taxi_yellow_tripdata_samples/yellow_tripdata_sample_{year}-{month:02d}.csv"
            at(path).write_text(
                "vendor_id,pickup_datetime,dropoff_datetime,trip_distance,"
                "pickup_location_id,dropoff_location_id\n"
                f"1,{year}-{month:02d}-03 08:05:00,{year}-{month:02d}-03 08:15:00,1.5,161,236\n"
            )
    zones = gpd.GeoDataFrame(
        {"location_id": ["4", "12"], "zone": ["a", "b"], "borough": "Manhattan"},
        geometry=LOTS,
        crs="EPSG:4326",
    )
    zones.to_file(at("databrickslabs/geobrix/notebooks/data/NYC_Taxi_Zones.geojson"))
    corners = [
        f"{number},{x},{y}"
        for number, shape in zip((1, 3), LOTS, strict=True)
        for x, y in shape.exterior.coords
    ]
    at("WeiSiangLai/EY-Data-Science/Building_Footprint/polygon_coordinates.csv").write_text(
        "\n".join(["Polygon Number,Longitude,Latitude", *corners])
    )
    listing = "Broker,Condo,315000,2,2,1400,1 Street,40.76,-73.97"
    at("Tiago-Riscado/Real-Estate-Market/data/NY-House-Dataset.csv").write_text(
        "BROKERTITLE,TYPE,PRICE,BEDS,BATH,PROPERTYSQFT,ADDRESS,LATITUDE,LONGITUDE\n"
        f"{listing}\n{listing.replace('Broker', 'Another broker')}\n"
    )


def write_pins(root: Path, target: Path) -> None:
    """Digests of all originals, in the form of `originals.sha256`."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root).as_posix()}\n"
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]
    target.write_text("".join(lines))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server on a folder: its address, and the paths that it was asked for."""
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server.asked  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()
