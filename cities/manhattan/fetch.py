"""Where each raw file of `cities/manhattan.yaml` comes from: gets, converts and checks them.

    python cities/manhattan/fetch.py                all three, below $CITYLOOM_DATA
    python cities/manhattan/fetch.py --list         the table of files (FILES.md)
    python cities/manhattan/fetch.py --check        what is there, and whether it is in order
    python cities/manhattan/fetch.py --download     originals only
    python cities/manhattan/fetch.py --convert      originals that are there to what the YAML names

Originals are files of public GitHub repositories, each at one commit, with its digest in
`originals.sha256`; they go to `<data>/originals/<owner>/<name>/<path>`. What cannot be fetched or
converted by a script is said, with what to do. A file that is there already is left alone.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import rasterio
import shapely
import typer

from model_code.city import data_root
from model_code.errors import DataError

RAW = "https://raw.githubusercontent.com"
WGS84 = "EPSG:4326"
FOOT_M = 0.3048

# Commit of each repository, and what the repository states of its own licence.
REPOSITORIES = {
    "wushangbin/MGFN": ("a829871522f6ebe3bb2854d6dcfa568c25fdb529", "none stated"),
    "MiRuacle24/HAFusion": ("73fbe911901ada71bb40129e19d86dedb9b9602c", "none stated"),
    "CDS-AU-DK/cds-spatial": ("e13a0ce78764f1c62ea47431be77fe1bcd4c2818", "MIT"),
    "javaids33/nyc-traffic-cam": ("96693a0794090060e0281cc20daa65d5926f9821", "MIT"),
    "Liyue-Chen/STContext": ("30615d4ffcf804cb1d8e5399ba64e2d1385b668b", "none stated"),
    "songchaocn/iPCM": ("56f6a51284493cafced494039fbbd12535e2a33a", "MIT"),
    "great-expectations/great_expectations": (
        "ce78204d6d659caf676ccdcaec0a3184bb95445f",
        "Apache-2.0",
    ),
    "databrickslabs/geobrix": ("d4173f2bee9cff33a2204b0724685cbfe69e5532", "Databricks License"),
    "WeiSiangLai/EY-Data-Science": ("f36569a2f6ed0002e53d2630e9daee7281386d76", "none stated"),
    "LightChaser666/RegionDCL": ("20cbba84de6cb30d23f3b2f6d7087095f9ee7683", "none stated"),
    "biananino/Urban-Heat-Island": ("72c43b503f7bcef0bfa2945d1cc76f0c849018f7", "none stated"),
    "mariemhadjkacem/UHI": ("6cc52029947b72fcd438e1e0e20dd9df7f2c9573", "none stated"),
    "Tiago-Riscado/Real-Estate-Market": (
        "f5377345efac4df5c53789bf14fa22b6d341e2fc",
        "none stated",
    ),
}


class ByHand(DataError):
    """A step that a person must do; says which."""


# --- conversions: (folder of originals, file to write) -------------------------------------------


def _one(originals: Path, path: str) -> Path:
    """An original that must be there.

    Raises:
        ByHand: it is not.
    """
    found = originals / path
    if not found.exists():
        raise ByHand(f"no {found}", fix="run with --download, or put the file there")
    return found


def copy(path: str) -> Callable[[Path, Path], None]:
    """The file as it is."""

    def convert(originals: Path, target: Path) -> None:
        shutil.copyfile(_one(originals, path), target)

    return convert


def masked_raster(path: str, low: float, high: float) -> Callable[[Path, Path], None]:
    """A band as float32, with values outside [low, high] as nodata."""

    def convert(originals: Path, target: Path) -> None:
        with rasterio.open(_one(originals, path)) as raster:
            values, valid = raster.read(1).astype("float32"), raster.read_masks(1) > 0
            profile = raster.profile | {
                "dtype": "float32",
                "nodata": -9999.0,
                "compress": "deflate",
            }
        values[~valid | ~((values >= low) & (values <= high))] = -9999.0
        with rasterio.open(target, "w", **profile) as raster:
            raster.write(values, 1)

    return convert


def regions(originals: Path, target: Path) -> None:
    """The polygons in the order of the shapefile, which is that of the matrices."""
    frame = gpd.read_file(_one(originals, "wushangbin/MGFN/Data/mh-180/mh-180.shp"))
    frame[["region_id", "geometry"]].to_crs(WGS84).to_file(
        target, driver="GeoJSON", COORDINATE_PRECISION=15
    )


def indicators(originals: Path, target: Path) -> None:
    """Counts and district of region 0, 1, ... as columns."""
    folder = "MiRuacle24/HAFusion/data_NY"
    counts = {
        "crime_count": "crime_counts",
        "checkin_count": "check_counts",
        "service_call_count_311": "serviceCall_counts",
    }
    columns = {
        column: np.load(_one(originals, f"{folder}/{name}.npy"), allow_pickle=False).ravel()
        for column, name in counts.items()
    }
    labels = json.loads(_one(originals, "wushangbin/MGFN/Data/mh_cd.json").read_text())
    columns["district_label_mh_cd"] = [labels[str(region)] for region in range(len(labels))]
    frame = pd.DataFrame(columns).astype("int64")
    frame.insert(0, "region_id", np.arange(len(frame)))
    frame.to_parquet(target, index=False)


_TAX_PHOTOS = "javaids33/nyc-traffic-cam/nyc-traffic-cam/public"


def _lots(originals: Path) -> gpd.GeoDataFrame:
    """Buildings of the tax lots, heights in feet."""
    listed = json.loads(_one(originals, f"{_TAX_PHOTOS}/data-1940s.json").read_text())["buildings"]
    shapes = [shapely.geometry.shape(lot["geom"]) for lot in listed]
    return gpd.GeoDataFrame(pd.DataFrame(listed).drop(columns="geom"), geometry=shapes, crs=WGS84)


def _photographs(lots: gpd.GeoDataFrame) -> list[str]:
    return [photo["url"].rsplit("/", 1)[-1] for photo in lots["photo"]]


def street_view_table(originals: Path, target: Path) -> None:
    """One row a photograph, at the centroid of the first building that it is given for."""
    lots = _lots(originals).dropna(subset="photo")
    place = shapely.centroid(lots.geometry.to_numpy())
    table = pd.DataFrame(
        {
            "file": _photographs(lots),
            "lon": shapely.get_x(place),
            "lat": shapely.get_y(place),
            "bbl": lots["bbl"].to_numpy(),
            "year_built": lots["year"].to_numpy(),
        }
    )
    table.drop_duplicates("file").sort_values("file").to_csv(target, index=False)


def street_view_images(originals: Path, target: Path) -> None:
    """The photographs that the list names, in one folder."""
    target.mkdir()
    for name in _photographs(_lots(originals).dropna(subset="photo")):
        shutil.copyfile(_one(originals, f"{_TAX_PHOTOS}/photos_1940s/{name}"), target / name)


def lot_buildings(originals: Path, target: Path) -> None:
    """Footprints with roof heights in metres."""
    lots = _lots(originals)
    lots["height_m"] = (lots["h_roof"] * FOOT_M).round(2)
    columns = {"bin": "bin", "bbl": "bbl", "year": "year_built", "height_m": "height_m"}
    lots.rename(columns=columns)[[*columns.values(), "geometry"]].to_parquet(target)


def uptown_buildings(originals: Path, target: Path) -> None:
    """Corners in a CSV to polygons."""
    corners = pd.read_csv(
        _one(originals, "WeiSiangLai/EY-Data-Science/Building_Footprint/polygon_coordinates.csv")
    )
    number, ring = np.unique(corners["Polygon Number"].to_numpy(), return_inverse=True)
    order = np.argsort(ring, kind="stable")
    lonlat = corners[["Longitude", "Latitude"]].to_numpy()[order]
    shapes = shapely.polygons(shapely.linearrings(lonlat, indices=ring[order]))
    gpd.GeoDataFrame({"polygon_no": number}, geometry=shapes, crs=WGS84).to_parquet(target)


def osm_pois(originals: Path, target: Path) -> None:
    """The sheet, from a CSV that was saved of it or with xlrd, as points."""
    sheet = originals / "Liyue-Chen/STContext/Data/POI/POI_NYC-2017.xls"
    if sheet.with_suffix(".csv").exists():
        table = pd.read_csv(sheet.with_suffix(".csv"))
    else:
        try:
            table = pd.read_excel(_one(originals, str(sheet.relative_to(originals))))
        except ImportError as error:
            raise ByHand(
                f"{sheet} is an old Excel file, and xlrd is not installed",
                fix=f"save the sheet as {sheet.with_suffix('.csv')}, or run this script with "
                "`uv run --with xlrd python cities/manhattan/fetch.py`",
            ) from error
    lon, lat = (pd.to_numeric(table[name]) for name in ("lon", "lat"))
    columns = table[["osm_id", "name", "fclass"]]
    gpd.GeoDataFrame(columns, geometry=gpd.points_from_xy(lon, lat), crs=WGS84).to_parquet(
        target, index=False
    )


def foursquare(originals: Path, target: Path) -> None:
    """Venues with the name of their category, which only the check-ins tell."""
    folder = "songchaocn/iPCM/data/NYC"
    venues = pd.read_csv(_one(originals, f"{folder}/poi_info.csv"))
    checkins = pd.concat(
        [pd.read_csv(_one(originals, f"{folder}/NYC_{part}.csv")) for part in ("val", "test")]
    )
    others = checkins.rename(columns={"POI_id": "poi_id", "POI_catid": "poi_catid"})
    venues = pd.concat([venues, others[venues.columns]]).drop_duplicates("poi_id")
    names = checkins.drop_duplicates("POI_catid").set_index("POI_catid")["POI_catname"]
    gpd.GeoDataFrame(
        {
            "venue_id": venues["poi_id"].to_numpy(),
            "category_id": venues["poi_catid"].to_numpy(),
            "category": venues["poi_catid"].map(names).to_numpy(),
        },
        geometry=gpd.points_from_xy(venues["longitude"], venues["latitude"]),
        crs=WGS84,
    ).to_parquet(target)


_TAXI = (
    "great-expectations/great_expectations/tests/test_sets/taxi_yellow_tripdata_samples/"
    "yellow_tripdata_sample_{}.csv"
)
_MONTHS = [f"{year}-{month:02d}" for year in (2018, 2019, 2020) for month in range(1, 13)]


def taxi_trips(originals: Path, target: Path) -> None:
    """The monthly files as one table, in their order."""
    columns = {
        "pickup_datetime": "pickup_datetime",
        "dropoff_datetime": "dropoff_datetime",
        "pickup_location_id": "pickup_location_id",
        "dropoff_location_id": "dropoff_location_id",
        "trip_distance": "trip_distance_miles",
    }
    months = [
        pd.read_csv(
            _one(originals, _TAXI.format(month)),
            usecols=list(columns),
            parse_dates=["pickup_datetime", "dropoff_datetime"],
        ).assign(file_month=month)
        for month in _MONTHS
    ]
    table = pd.concat(months, ignore_index=True).rename(columns=columns)
    table[[*columns.values(), "file_month"]].to_parquet(target, index=False)


def taxi_zones(originals: Path, target: Path) -> None:
    """Zones with their number as a number."""
    path = "databrickslabs/geobrix/notebooks/data/NYC_Taxi_Zones.geojson"
    zones = gpd.read_file(_one(originals, path))
    zones["location_id"] = zones["location_id"].astype("int64")
    zones[["location_id", "zone", "borough", "geometry"]].to_parquet(target)


def census_tracts(originals: Path, target: Path) -> None:
    """Tracts with residents: what the origin calls population is a density by km2.

    Raises:
        ByHand: always, unless somebody has written the CSV; a pickle is never loaded.
    """
    pickle = originals / "LightChaser666/RegionDCL/data/processed/NYC/downstream_region.pkl"
    if not pickle.with_suffix(".csv").exists():
        raise ByHand("the original is a pickle, which runs what is in it", fix=_NO_PICKLE)
    table = pd.read_csv(pickle.with_suffix(".csv"), dtype={"name": str})
    shapes = gpd.GeoSeries.from_wkt(table["shape"], crs="EPSG:32118")
    area_km2 = shapes.area / 1e6
    gpd.GeoDataFrame(
        {
            "boroct2020": table["name"],
            "worldpop2020_density_per_km2": table["population"],
            "worldpop2020_population_est": table["population"] * area_km2,
            "area_km2": area_km2,
        },
        geometry=shapes.to_crs(WGS84),
    ).to_parquet(target)


_NO_PICKLE = (
    "read it with an unpickler that allows shapely's polygons and numpy's arrays only, and write "
    "downstream_region.csv beside it with the columns name, shape (WKT, EPSG:32118) and "
    "population; or take WorldPop's own raster of 2020 and give indicators.population the source "
    "{kind: raster, path: ..., aggregate: sum}"
)


def listings(originals: Path, target: Path) -> None:
    """Listings as points: no brokers, no addresses, no listing twice."""
    table = pd.read_csv(
        _one(originals, "Tiago-Riscado/Real-Estate-Market/data/NY-House-Dataset.csv")
    )
    place = ["LONGITUDE", "LATITUDE"]
    columns = ["TYPE", "PRICE", "BEDS", "BATH", "PROPERTYSQFT"]
    table = table[columns + place].drop_duplicates(ignore_index=True)
    points = gpd.points_from_xy(*(table[name] for name in place))
    kept = table[columns].rename(columns=str.lower).rename(columns={"price": "price_usd"})
    gpd.GeoDataFrame(kept, geometry=points, crs=WGS84).to_parquet(target)


# --- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """What a file that is in order holds; `values` bounds the valid pixels or the entries."""

    rows: int | None = None
    columns: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None
    crs: str | None = None
    values: tuple[float, float] | None = None


@dataclass(frozen=True)
class File:
    """A file (or folder) that the YAML names, below the data root.

    `originals` are patterns of `<owner>/<name>/<path>`; `by_hand` says what a person must do first.
    """

    path: str
    originals: tuple[str, ...]
    licence: str
    how: str
    convert: Callable[[Path, Path], None]
    expected: Expected
    by_hand: str = ""

    @property
    def repositories(self) -> dict[str, None]:
        """Its repositories, in order."""
        return dict.fromkeys("/".join(o.split("/")[:2]) for o in self.originals)


_HA = "MiRuacle24/HAFusion/data_NY"
FILES = (
    File(
        "nyc/regions/mh180.geojson",
        ("wushangbin/MGFN/Data/mh-180/mh-180.*",),
        "none stated",
        "shapefile to GeoJSON; the order of the rows is kept",
        regions,
        Expected(180, ("region_id",), crs=WGS84),
    ),
    File(
        "nyc/satellite/landsat8_manhattan_3band_30m.tif",
        ("CDS-AU-DK/cds-spatial/Week02/data/manhattan.tif",),
        "public domain (Landsat, USGS)",
        "none",
        copy("CDS-AU-DK/cds-spatial/Week02/data/manhattan.tif"),
        Expected(shape=(3, 773, 801), crs="EPSG:32618", values=(0, 255)),
    ),
    File(
        "nyc/streetview/metadata.csv",
        (f"{_TAX_PHOTOS}/data-1940s.json",),
        "NYC Municipal Archives: keep the credit, assume no licence",
        "one row a photograph, at the centroid of its building",
        street_view_table,
        Expected(229, ("file", "lon", "lat")),
    ),
    File(
        "nyc/streetview/images",
        (f"{_TAX_PHOTOS}/photos_1940s/*.jpg",),
        "NYC Municipal Archives: keep the credit, assume no licence",
        "none",
        street_view_images,
        Expected(229),
    ),
    File(
        "nyc/poi/osm_poi_nyc_2017.parquet",
        ("Liyue-Chen/STContext/Data/POI/POI_NYC-2017.xls",),
        "ODbL, OpenStreetMap contributors",
        "sheet to points",
        osm_pois,
        Expected(16_838, ("fclass", "name"), crs=WGS84),
        by_hand="An old Excel file: save the sheet as POI_NYC-2017.csv beside it, or run with "
        "`uv run --with xlrd python cities/manhattan/fetch.py`.",
    ),
    File(
        "nyc/poi/foursquare_venues_nyc.parquet",
        ("songchaocn/iPCM/data/NYC/*.csv",),
        "research use (TSMC2014, Yang et al.)",
        "venues to points; the category's name comes from the check-ins",
        foursquare,
        Expected(5_071, ("venue_id", "category"), crs=WGS84),
    ),
    File(
        "nyc/mobility/mh180_od_trips_total.npy",
        (f"{_HA}/mob-adj.npy",),
        "none stated; derived from TLC open data",
        "none",
        copy(f"{_HA}/mob-adj.npy"),
        Expected(shape=(180, 180), values=(0, 1e6)),
    ),
    File(
        "nyc/mobility/yellow_taxi_sample_2018_2020.parquet",
        (_TAXI.format("20??-??"),),
        "TLC open data",
        "36 monthly files of 10,000 rows to one table",
        taxi_trips,
        Expected(360_000, ("pickup_datetime", "pickup_location_id", "dropoff_location_id")),
    ),
    File(
        "nyc/regions/taxi_zones.parquet",
        ("databrickslabs/geobrix/notebooks/data/NYC_Taxi_Zones.geojson",),
        "NYC Open Data (TLC)",
        "to GeoParquet, number of the zone as a number",
        taxi_zones,
        Expected(263, ("location_id",), crs=WGS84),
    ),
    File(
        "nyc/buildings/west_village_footprints_heights.parquet",
        (f"{_TAX_PHOTOS}/data-1940s.json",),
        "NYC Open Data (5zhs-2jue)",
        "to GeoParquet, feet to metres",
        lot_buildings,
        Expected(292, ("height_m",), crs=WGS84),
    ),
    File(
        "nyc/buildings/uptown_bronx_footprints_noheight.parquet",
        ("WeiSiangLai/EY-Data-Science/Building_Footprint/polygon_coordinates.csv",),
        "none stated (file of the EY challenge 2025)",
        "corners to polygons",
        uptown_buildings,
        Expected(9_436, ("polygon_no",), crs=WGS84),
    ),
    File(
        "nyc/indicators/mh180_indicators.parquet",
        (
            f"{_HA}/c*_counts.npy",
            f"{_HA}/serviceCall_counts.npy",
            "wushangbin/MGFN/Data/mh_cd.json",
        ),
        "none stated (crime and check-ins: HREP, MIT)",
        "vectors in the order of the regions to columns",
        indicators,
        Expected(
            180,
            (
                "region_id",
                "crime_count",
                "checkin_count",
                "service_call_count_311",
                "district_label_mh_cd",
            ),
        ),
    ),
    File(
        "nyc/regions/census_tracts_2020.parquet",
        ("LightChaser666/RegionDCL/data/processed/NYC/downstream_region.pkl",),
        "WorldPop CC BY 4.0; tracts: NYC Open Data",
        "residents = density by km2 (which the origin calls population) times area",
        census_tracts,
        Expected(2_325, ("worldpop2020_population_est",), crs=WGS84),
        by_hand=f"A pickle runs what is in it, so this script does not load it: {_NO_PICKLE}.",
    ),
    File(
        "nyc/satellite/landsat_lst_celsius_30m.tif",
        ("biananino/Urban-Heat-Island/data/Landsat_LST.tiff",),
        "none stated; derived from Landsat (public domain)",
        "none",
        copy("biananino/Urban-Heat-Island/data/Landsat_LST.tiff"),
        Expected(shape=(1, 595, 706), crs=WGS84, values=(0, 70)),
    ),
    File(
        "nyc/satellite/ndvi_30m.tif",
        ("mariemhadjkacem/UHI/NDVI.tiff",),
        "none stated",
        "values outside -1 to 1 (2.5 %) become nodata",
        masked_raster("mariemhadjkacem/UHI/NDVI.tiff", -1, 1),
        Expected(shape=(1, 484, 558), crs=WGS84, values=(-1, 1)),
    ),
    File(
        "nyc/satellite/nlcd_canopy_pct_300m.tif",
        ("CDS-AU-DK/cds-spatial/Week02/data/canopy.tif",),
        "public domain (NLCD)",
        "values outside 0 to 100 become nodata",
        masked_raster("CDS-AU-DK/cds-spatial/Week02/data/canopy.tif", 0, 100),
        Expected(shape=(1, 230, 253), crs="EPSG:5070", values=(0, 100)),
    ),
    File(
        "nyc/indicators/house_listings_nyc_2024.parquet",
        ("Tiago-Riscado/Real-Estate-Market/data/NY-House-Dataset.csv",),
        "none stated (Kaggle)",
        "to points; repeated listings, brokers and addresses are left out",
        listings,
        Expected(4_586, ("price_usd",), crs=WGS84),
    ),
)


def markdown() -> str:
    """The table as `FILES.md`."""
    lines = [
        "# Raw files of Manhattan",
        "",
        "Made by `python cities/manhattan/fetch.py --list > cities/manhattan/FILES.md`. Paths are "
        "below `$CITYLOOM_DATA`. The licence of a repository need not cover data that it repeats.",
        "",
        "| file | origin | commit | licence of the data | of the repository | conversion |",
        "|---|---|---|---|---|---|",
    ]
    for file in FILES:
        names = "<br>".join(f"[{n}](https://github.com/{n})" for n in file.repositories)
        paths = "<br>".join(f"`{o.split('/', 2)[2]}`" for o in file.originals)
        commits = "<br>".join(f"`{REPOSITORIES[n][0][:7]}`" for n in file.repositories)
        own = "<br>".join(REPOSITORIES[n][1] for n in file.repositories)
        cells = (f"`{file.path}`", f"{names}<br>{paths}", commits, file.licence, own, file.how)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "What a script cannot do:", ""]
    lines += [f"- `{file.path}`: {file.by_hand}" for file in FILES if file.by_hand]
    return "\n".join(lines) + "\n"


# --- downloads -----------------------------------------------------------------------------------


def pins() -> dict[str, str]:
    """SHA-256 of each original by `<owner>/<name>/<path>`."""
    text = Path(__file__).with_name("originals.sha256").read_text(encoding="utf-8")
    return {path: digest for digest, path in (line.split("  ", 1) for line in text.splitlines())}


def url(original: str, base: str = RAW) -> str:
    """Where an original is, at its pinned commit."""
    owner, name, path = original.split("/", 2)
    commit, _ = REPOSITORIES[f"{owner}/{name}"]
    return f"{base.rstrip('/')}/{owner}/{name}/{commit}/{urllib.parse.quote(path)}"


def download(original: str, sha256: str, originals: Path, base: str = RAW) -> Path:
    """Fetch one original to a temporary file, compare its digest, and only then move it in place.

    Raises:
        DataError: it cannot be reached, or is not the file that was pinned.
    """
    target, source = originals / original, url(original, base)
    if target.exists() and _sha256(target) == sha256:
        return target
    if not source.startswith(("https://", "http://")):
        raise DataError(f"{source} is no http(s) URL", fix="mend --base-url")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    try:
        with urllib.request.urlopen(source, timeout=60) as answer, part.open("wb") as file:  # noqa: S310
            shutil.copyfileobj(answer, file)
            file.flush()
            os.fsync(file.fileno())
        if (found := _sha256(part)) != sha256:
            raise DataError(
                f"{source} is not the file that was pinned (sha256 {found}, not {sha256})",
                fix=f"get it elsewhere and put it at {target}",
            )
        part.replace(target)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        raise DataError(
            f"{source} cannot be fetched: {error}", fix=f"get it elsewhere and put it at {target}"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def wanted(file: File) -> dict[str, str]:
    """The originals of a file that are fetched, with their digests."""
    return {
        original: sha256
        for original, sha256 in pins().items()
        if any(fnmatchcase(original, pattern) for pattern in file.originals)
    }


# --- steps ---------------------------------------------------------------------------------------


def convert(file: File, originals: Path, data: Path) -> None:
    """Write one file (or folder) whole or not at all; one that is there is left alone.

    Raises:
        DataError: an original is not there, or a person must do something first.
    """
    target = data / file.path
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{uuid.uuid4().hex}-{target.name}")
    try:
        file.convert(originals, part)
        part.replace(target)
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        part.unlink(missing_ok=True)


def problems(path: Path, expected: Expected) -> Iterator[str]:
    """What is wrong with a file, if anything."""
    if not path.exists():
        yield "missing"
    elif path.is_dir():
        yield from _compare("files", len(list(path.glob("*.jpg"))), expected.rows)
    elif path.suffix == ".tif":
        yield from _raster_problems(path, expected)
    elif path.suffix == ".npy":
        matrix = np.load(path, allow_pickle=False)
        yield from _compare("shape", matrix.shape, expected.shape)
        yield from _out_of_range(matrix, expected)
    else:
        yield from _table_problems(path, expected)


def _compare(what: str, found: object, wanted: object) -> Iterator[str]:
    if wanted is not None and found != wanted:
        yield f"{what} {found}, not {wanted}"


def _out_of_range(values: np.ndarray, expected: Expected) -> Iterator[str]:
    if expected.values and values.size:
        low, high = expected.values
        if not (low <= values.min() and values.max() <= high):
            yield f"values {values.min():g} to {values.max():g}, not {low:g} to {high:g}"


def _raster_problems(path: Path, expected: Expected) -> Iterator[str]:
    with rasterio.open(path) as raster:
        pixels = raster.read(masked=True)
        yield from _compare("shape", pixels.shape, expected.shape)
        if expected.crs and raster.crs != rasterio.crs.CRS.from_string(expected.crs):
            yield f"CRS {raster.crs}, not {expected.crs}"
        yield from _out_of_range(pixels.compressed(), expected)


def _table_problems(path: Path, expected: Expected) -> Iterator[str]:
    if path.suffix == ".parquet" and b"geo" not in (pq.read_schema(path).metadata or {}):
        table = pd.read_parquet(path)
    elif path.suffix == ".csv":
        table = pd.read_csv(path)
    else:
        table = gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path)
    yield from _compare("rows", len(table), expected.rows)
    if lacking := [name for name in expected.columns if name not in table]:
        yield f"no column {', '.join(lacking)}"
    if expected.crs and not (isinstance(table, gpd.GeoDataFrame) and table.crs == expected.crs):
        yield f"CRS {getattr(getattr(table, 'crs', None), 'name', None)}, not {expected.crs}"


def check(data: Path) -> bool:
    """Say of each file whether it is there and in order; True when all are."""
    good = True
    for file in FILES:
        found = "; ".join(problems(data / file.path, file.expected))
        good &= not found
        state = "ok" if not found else "missing" if found == "missing" else "wrong"
        typer.echo(f"{state:<8} {file.path}" + (f": {found}" if state == "wrong" else ""))
    return good


def _tried(step: Callable[[], object]) -> bool:
    try:
        step()
    except DataError as error:
        typer.echo(f"  {error}", err=True)
        return False
    return True


def main(
    listing: Annotated[bool, typer.Option("--list", help="print FILES.md")] = False,
    only_check: Annotated[bool, typer.Option("--check", help="check, change nothing")] = False,
    only_download: Annotated[bool, typer.Option("--download", help="get originals only")] = False,
    only_convert: Annotated[bool, typer.Option("--convert", help="convert originals only")] = False,
    base_url: Annotated[str, typer.Option(help="a mirror of raw.githubusercontent.com")] = RAW,
) -> None:
    """Get, convert and check the raw files of Manhattan, below $CITYLOOM_DATA."""
    if listing:
        typer.echo(markdown(), nl=False)
        return
    data = Path(data_root())
    originals, everything = data / "originals", not (only_check or only_download or only_convert)
    todo = [file for file in FILES if only_download or not (data / file.path).exists()]
    good = True
    if everything or only_download:
        for file in todo:
            typer.echo(f"get      {file.path}")
            for original, sha256 in wanted(file).items():
                good &= _tried(lambda o=original, s=sha256: download(o, s, originals, base_url))
    if everything or only_convert:
        for file in todo:
            typer.echo(f"convert  {file.path}")
            good &= _tried(lambda f=file: convert(f, originals, data))
    if everything or only_check:
        good = check(data)
    raise typer.Exit(not good)


if __name__ == "__main__":
    typer.run(main)
