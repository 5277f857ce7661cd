"""The readers on Manhattan's real files; skipped where they are not."""

import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest

from model_code.city import BuildingSource, Chips, ImagerySource, Indicator, StreetViewSource
from model_code.geo.buildings import height_maps, read_buildings
from model_code.geo.raster import cut_chips, describe_imagery
from model_code.geo.street_views import read_street_views
from model_code.geo.targets import make_targets
from model_code.rejections import Rejections
from tests.model_code.geo.rasters import CRS, affine_3, checked

ROOT = Path(os.environ.get("CITYLOOM_DATA", "")) / "nyc"
pytestmark = [
    affine_3,
    pytest.mark.skipif(
        not os.environ.get("CITYLOOM_DATA") or not ROOT.is_dir(),
        reason="needs Manhattan's files: set CITYLOOM_DATA to the folder that holds nyc/",
    ),
]


@pytest.fixture(scope="module")
def regions():
    frame = gpd.read_file(ROOT / "regions/mh180.geojson").to_crs(CRS)
    frame["region_id"] = frame["region_id"].astype(str)
    return frame.sort_values("region_id", ignore_index=True)


class ByTree:
    def __init__(self, regions):
        self.tree = regions.sindex

    def locate(self, x_m, y_m):
        point, region = self.tree.query(gpd.points_from_xy(x_m, y_m), predicate="intersects")
        found = np.full(len(x_m), -1)
        found[point[::-1]] = region[::-1]
        return found


def test_every_region_has_a_chip(regions):
    source = ImagerySource(path="satellite/landsat8_manhattan_3band_30m.tif")
    imagery = describe_imagery(source, str(ROOT), CRS)
    rejections = Rejections()
    table = checked(
        "region_chips", cut_chips(regions, imagery, source, Chips(), str(ROOT), rejections)
    )
    assert len(table) == 180 and len(rejections) == 0
    assert min(table["valid_share"].to_pylist()) == 1


def test_street_views_lie_where_the_metadata_say(regions):
    views, rejections = read_street_views(
        StreetViewSource(path="streetview/metadata.csv", images="streetview/images"),
        str(ROOT),
        CRS,
    )
    assert len(views) == 229 and len(rejections) == 0
    found = ByTree(regions).locate(views["x_m"].to_numpy(), views["y_m"].to_numpy())
    said = pd.read_csv(ROOT / "streetview/metadata.csv").set_index("file")["mh180_region_id"]
    ids = regions["region_id"].to_numpy()[found].astype(int)
    np.testing.assert_array_equal(ids, said.loc[views["view_id"]])


def test_buildings(regions):
    sources = [
        BuildingSource(
            path="buildings/west_village_footprints_heights.parquet", height_m="height_m"
        ),
        BuildingSource(path="buildings/uptown_bronx_footprints_noheight.parquet"),
    ]
    buildings, rejections = read_buildings(sources, str(ROOT), CRS)
    assert len(buildings) + len(rejections) == 292 + 9436
    table = checked("heights", height_maps(buildings, regions, Rejections())).to_pandas()
    assert (table["with_height_share"] > 0).sum() == 3
    assert (table["with_height_share"] == 0).sum() == 113


def test_indicators_agree_with_those_made_by_others(regions):
    raster = {"kind": "raster", "path": "satellite/landsat_lst_celsius_30m.tif"}
    zones = {
        "kind": "polygons",
        "path": "regions/census_tracts_2020.parquet",
        "value": "worldpop2020_population_est",
        "aggregate": "sum",
    }
    prices = {
        "kind": "points",
        "path": "indicators/house_listings_nyc_2024.parquet",
        "value": "price_usd",
        "aggregate": "median",
    }
    indicators = {
        "heat": Indicator(source=raster, min_coverage=0),
        "population": Indicator(source=zones),
        "price": Indicator(source=prices),
    }
    targets, catalogue, _ = make_targets(indicators, regions, ByTree(regions), str(ROOT))
    assert catalogue["regions"].to_list() == [153, 180, 153]
    table = pd.read_parquet(ROOT / "indicators/mh180_indicators.parquet")
    given = table.set_index(table["region_id"].astype(str))["population_worldpop2020_areal"]
    own = targets[targets["indicator"] == "population"].set_index("region_id")["value"]
    np.testing.assert_allclose(own, given.loc[own.index], rtol=1e-3, atol=1)
