"""Indicators by region from each kind of source, and what is said of the regions without."""

import shutil

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from model_code.city import Indicator
from model_code.errors import DataError
from model_code.geo.targets import make_targets
from tests.model_code.geo.maps import write_bare
from tests.model_code.geo.rasters import (
    CRS,
    NORTH,
    WEST,
    Boxes,
    affine_3,
    checked,
    regions_of,
    squares,
    write_raster,
)

pytestmark = affine_3
# Four squares of 100 m in a row.
REGIONS = squares(1, 4, 100.0)


def make(root, indicators, regions=REGIONS, **tables):
    """Targets by (indicator) -> {region: value}, the catalogue, and the rejected rows."""
    indicators = {name: Indicator(**fields) for name, fields in indicators.items()}
    targets, catalogue, rejections = make_targets(
        indicators, regions, Boxes(regions), str(root), **tables
    )
    checked("indicators", [pa.Table.from_pandas(catalogue, preserve_index=False)])
    if len(targets):
        checked("targets", [pa.Table.from_pandas(targets, preserve_index=False)])
    values = {
        name: dict(zip(rows["region_id"], rows["value"], strict=True))
        for name, rows in targets.groupby("indicator")
    }
    rejected = rejections.frame()
    for name in indicators:  # labels and regions without add up
        without = rejected[rejected["source"] == f"indicators.{name}"]
        labels = targets[(targets["indicator"] == name) & (targets["slot"] == 0)]
        assert len(labels) + len(without) == len(regions)
    return values, catalogue.set_index("indicator"), rejected


def test_raster_and_its_coverage(tmp_path):
    pixels = np.full((1, 4, 16), 7.5, np.float32)
    pixels[0, :, 8:11] = -1  # three quarters of the third region
    pixels[0, :, 12:13] = -1  # one quarter of the fourth
    write_raster(tmp_path / "heat.tif", pixels, pixel_m=25.0, nodata=-1)
    source = {"kind": "raster", "path": "heat.tif"}
    values, catalogue, rejected = make(
        tmp_path, {"heat": {"source": source, "unit": "°C", "contained_in": ["imagery"]}}
    )
    assert values["heat"] == {"r000": 7.5, "r001": 7.5, "r003": 7.5}
    assert rejected["reason"].to_list() == ["coverage below min_coverage"]
    assert rejected["detail"].to_list() == ["r002: 0.250 < 0.5"]
    row = catalogue.loc["heat"]
    assert (row["regions"], row["region_share"], row["unit"]) == (3, 0.75, "°C")
    assert row["contained_in"] == ["imagery"] and row["classes"] == []
    values, *_ = make(tmp_path, {"heat": {"source": source, "min_coverage": 0}})
    assert len(values["heat"]) == 4


def test_raster_classes(tmp_path):
    pixels = np.repeat([[30, 11, 11, 4]], 4, axis=1).reshape(1, 1, 16).repeat(4, axis=1)
    write_raster(tmp_path / "use.tif", pixels.astype(np.uint8), pixel_m=25.0)
    source = {"kind": "raster", "path": "use.tif", "aggregate": "majority"}
    values, catalogue, _ = make(tmp_path, {"use": {"source": source, "kind": "classification"}})
    assert catalogue.loc["use", "classes"] == ["4", "11", "30"]
    assert values["use"] == {"r000": 2, "r001": 1, "r002": 1, "r003": 0}


NUMBERED = regions_of(REGIONS.geometry.to_numpy(), ["12", "7", "007", "x"])


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_format_and_crs_of_the_config_are_for_what_a_file_does_not_tell(tmp_path):
    """One value a region, from each kind of source, in files whose names say nothing."""
    value, ids = [1.0, 2.0, 3.0, 4.0], REGIONS["region_id"].tolist()
    shapes = gpd.GeoDataFrame({"v": value, "id": ids}, geometry=REGIONS.geometry, crs=CRS)
    write_bare(tmp_path / "shapes", shapes)
    write_bare(tmp_path / "points", shapes.set_geometry(shapes.centroid))
    pd.DataFrame({"id": ids, "v": value}).to_csv(tmp_path / "table", index=False)
    (tmp_path / "made").mkdir()
    shapes.set_crs(None, allow_override=True).to_file(tmp_path / "made" / "t.shp")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "made")
    (tmp_path / "packed.zip").rename(tmp_path / "packed")
    pixels = np.array(value, np.float32).repeat(4).reshape(1, 1, 16).repeat(4, axis=1)
    write_raster(tmp_path / "raster", pixels, pixel_m=25.0, crs=None)
    named = {"value": "v", "aggregate": "mean"}
    sources = {
        "raster": {"kind": "raster", "path": "raster", "format": "geotiff", "crs": CRS},
        "polygons": {"kind": "polygons", "path": "shapes", "format": "parquet", "crs": CRS} | named,
        "points": {"kind": "points", "path": "points", "format": "parquet", "crs": CRS} | named,
        "table": {"kind": "regions", "path": "table", "format": "csv", "id": "id", "value": "v"},
        # Nobody asks where rows with an id lie.
        "packed": {"kind": "regions", "path": "packed", "format": "shapefile", "id": "id",
                   "value": "v"},
    }  # fmt: skip
    values, *_ = make(tmp_path, {name: {"source": source} for name, source in sources.items()})
    for name in sources:
        assert values[name] == pytest.approx(dict(zip(ids, value, strict=True))), name
    for name in ("raster", "polygons", "points"):
        bare = {**sources[name], "crs": None}
        with pytest.raises(
            DataError, match=rf"says no CRS(.|\n)*`indicators\.{name}\.source\.crs`"
        ):
            make(tmp_path, {name: {"source": bare}})


@pytest.mark.parametrize("form", ["csv", "parquet", "geojson"])
def test_region_table(tmp_path, form):
    """Ids are texts: 12, 12.0 and "12" are one region, 7 and 007 are two."""
    table = pd.DataFrame(
        {"id": [12.0, 7.0, 99.0, np.nan, 12.0], "value": [1.5, np.nan, 3.0, 4.0, 1.5]}
    )
    path = tmp_path / f"t.{form}"
    if form == "csv":
        table.to_csv(path, index=False)
    elif form == "parquet":
        table.to_parquet(path)
    else:
        points = gpd.points_from_xy([-74.0] * 5, [40.7] * 5)
        gpd.GeoDataFrame(table, geometry=points, crs="EPSG:4326").to_file(path, engine="pyogrio")
    source = {"kind": "regions", "path": path.name, "id": "id", "value": "value"}
    values, _, rejected = make(tmp_path, {"t": {"source": source}}, NUMBERED)
    assert values["t"] == {"12": 1.5}
    reasons = rejected.groupby("reason")["row"].apply(list).to_dict()
    assert reasons == {
        "row without an id": [3],
        "no such region": [2],
        "same id and value as an earlier row": [4],
        "region without a value": [1, 2, 3],
    }


def test_region_classes_sort_as_numbers_or_as_texts(tmp_path):
    pd.DataFrame({"id": ["12", "7", "x"], "number": [10, 9, 10], "text": ["b", "a", None]}).to_csv(
        tmp_path / "t.csv", index=False
    )
    indicators = {
        name: {
            "source": {"kind": "regions", "path": "t.csv", "id": "id", "value": name},
            "kind": "classification",
        }
        for name in ("number", "text")
    }
    values, catalogue, _ = make(tmp_path, indicators, NUMBERED)
    assert catalogue["classes"].to_dict() == {"number": ["9", "10"], "text": ["a", "b"]}
    assert values["number"] == {"12": 1, "7": 0, "x": 1}
    assert values["text"] == {"12": 1, "7": 0}


def test_points(tmp_path):
    x = WEST + np.array([10, 20, 30, 110, 120, 210, 5000, np.nan])
    pd.DataFrame(
        {"e": x, "n": np.full(8, NORTH - 50), "price": [1, 2, 90, 5, None, None, 7, 8]}
    ).to_csv(tmp_path / "p.csv", index=False)
    base = {"kind": "points", "path": "p.csv", "crs": CRS, "lon": "e", "lat": "n"}
    valued = {
        name: {"source": {**base, "value": "price", "aggregate": name}}
        for name in ("sum", "mean", "median")
    }
    values, _, rejected = make(tmp_path, {"count": {"source": base}, **valued})
    assert values["count"] == {"r000": 3, "r001": 2, "r002": 1, "r003": 0}
    assert values["sum"] == {"r000": 93, "r001": 5, "r002": 0, "r003": 0}
    assert values["mean"] == {"r000": 31, "r001": 5}
    assert values["median"] == {"r000": 2, "r001": 5}
    rows = rejected[rejected["source"] == "indicators.mean.source.path"]
    assert dict(zip(rows["row"], rows["reason"], strict=True)) == {
        4: "no value",
        5: "no value",
        6: "outside all regions",
        7: "no coordinates",
    }


def test_absurd_values_are_left_out(tmp_path):
    """A bound is inclusive; what lies outside is told with its value."""
    price = [1_000.0, 10_000.0, 20_000.0, 2.1e9, np.nan]
    frame = pd.DataFrame({"e": WEST + 10, "n": NORTH - 50, "price": price})
    frame.to_csv(tmp_path / "p.csv", index=False)
    source = {"kind": "points", "path": "p.csv", "crs": CRS, "lon": "e", "lat": "n"}
    source |= {"value": "price", "aggregate": "mean", "min_value": 10_000, "max_value": 1e9}
    values, _, rejected = make(tmp_path, {"price": {"source": source}})
    assert values["price"] == {"r000": 15_000}
    rows = rejected[rejected["reason"] == "value out of range"]
    assert rows["row"].to_list() == [0, 3]
    assert rows["detail"].to_list() == ["value 1000.0", "value 2100000000.0"]


@given(x=st.lists(st.floats(-50, 450), min_size=1, max_size=30), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_points_in_regions_and_rejected_are_all_points(tmp_path_factory, x, seed):
    root = tmp_path_factory.mktemp("points")
    y = np.random.default_rng(seed).uniform(-20, 120, len(x))
    pd.DataFrame({"e": WEST + np.array(x), "n": NORTH - y}).to_parquet(root / "p.parquet")
    base = {"kind": "points", "path": "p.parquet", "crs": CRS, "lon": "e", "lat": "n"}
    values, _, rejected = make(root, {"count": {"source": base}})
    assert sum(values["count"].values()) + len(rejected) == len(x)


def polygons(tmp_path, rows):
    """Columns and shapes in metres right of and below (WEST, NORTH), as GeoParquet in degrees."""
    shapes = [shapely.box(WEST + w, NORTH - s, WEST + e, NORTH - n) for w, n, e, s in rows["box"]]
    frame = gpd.GeoDataFrame(
        {k: v for k, v in rows.items() if k != "box"}, geometry=shapes, crs=CRS
    )
    frame.to_crs("EPSG:4326").to_parquet(tmp_path / "z.parquet")
    return {"kind": "polygons", "path": "z.parquet", "value": "v"}


def test_polygons_by_area(tmp_path):
    source = polygons(
        tmp_path,
        {
            "v": [100.0, 40.0, np.nan, 6.0],
            "box": [(0, 0, 200, 100), (150, 0, 250, 100), (250, 0, 300, 100), (900, 0, 950, 50)],
        },
    )
    indicators = {
        name: {"source": {**source, "aggregate": name}, "min_coverage": 0}
        for name in ("mean", "sum")
    }
    values, _, rejected = make(tmp_path, indicators)
    approx = pytest.approx
    assert values["sum"] == {"r000": approx(50), "r001": approx(70), "r002": approx(20)}
    assert values["mean"] == {"r000": approx(100), "r001": approx(80), "r002": approx(40)}
    rows = rejected[rejected["source"] == "indicators.sum.source.path"]
    assert dict(zip(rows["row"], rows["reason"], strict=True)) == {
        2: "no value",
        3: "outside all regions",
    }


def test_the_part_of_a_total_outside_all_regions_is_told(tmp_path):
    """The regions are 400 m wide: the second zone loses three quarters, the first nothing."""
    source = polygons(tmp_path, {"v": [8.0, 40.0], "box": [(0, 0, 80, 100), (375, 0, 475, 100)]})
    indicator = {"source": {**source, "aggregate": "sum"}, "min_coverage": 0}
    values, _, rejected = make(tmp_path, {"v": indicator})
    assert values["v"] == {"r000": pytest.approx(8), "r003": pytest.approx(10)}
    [row] = rejected[rejected["source"] == "indicators.v.source.path"].to_dict("records")
    assert (row["row"], row["reason"]) == (1, "part outside all regions")
    assert (row["detail"], row["items"]) == ("75.00% of its area", pytest.approx(0.75))


def test_a_total_becomes_a_density_of_the_region_s_own_area(tmp_path):
    """Two squares of 0.01 km2, and one of twice that."""
    wide = regions_of(
        [*REGIONS.geometry[:2], shapely.union_all(REGIONS.geometry[2:])], ["a", "b", "c"]
    )
    pd.DataFrame({"id": ["a", "b", "c"], "homes": [3.0, 0.0, 5.0]}).to_csv(tmp_path / "homes.csv")
    source = {"kind": "regions", "path": "homes.csv", "id": "id", "value": "homes"}
    told = {"homes": {"source": source}, "per_km2": {"source": source, "per_km2": True}}
    values, *_ = make(tmp_path, told, wide.assign(area_km2=wide.area / 1e6))
    assert values["homes"] == {"a": 3, "b": 0, "c": 5}
    assert values["per_km2"] == pytest.approx({"a": 300, "b": 0, "c": 250})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": {"kind": "raster", "path": "a.tif"}}, "a mean is none"),
        ({"source": {"kind": "points", "path": "a.csv", "value": "v", "aggregate": "median"}},
         "a median is none"),
        ({"source": {"kind": "raster", "path": "a.tif", "aggregate": "majority"}}, "a majority is none"),
        ({"source": {"kind": "regions", "path": "a.csv", "id": "i", "value": "v"},
          "kind": "classification"}, "a class is none"),
    ],
)  # fmt: skip
def test_only_a_total_has_a_density(changes, words):
    with pytest.raises(ValidationError, match=f"per_km2 makes a density of a total, and {words}"):
        Indicator(**changes, per_km2=True)


def test_polygon_classes(tmp_path):
    boxes = [(0, 0, 60, 100), (60, 0, 100, 100), (100, 0, 150, 100), (150, 0, 200, 100)]
    source = polygons(tmp_path, {"v": ["park", "shops", "shops", "homes"], "box": boxes})
    values, catalogue, rejected = make(
        tmp_path,
        {"use": {"source": {**source, "aggregate": "majority"}, "kind": "classification"}},
    )
    assert catalogue.loc["use", "classes"] == ["homes", "park"]
    assert values["use"] == {"r000": 1, "r001": 0}  # of equals the first name
    assert rejected["reason"].to_list() == ["region without a value"] * 2


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_polygon_sums_are_kept(tmp_path_factory, seed):
    """Zones wholly inside the regions: what they hold is shared without loss."""
    root = tmp_path_factory.mktemp("zones")
    rng = np.random.default_rng(seed)
    west, north = rng.uniform(0, 300, 8), rng.uniform(0, 50, 8)
    boxes = list(zip(west, north, west + rng.uniform(1, 99, 8), north + 40, strict=True))
    value = rng.uniform(0, 100, 8)
    source = polygons(root, {"v": value, "box": boxes})
    values, *_ = make(root, {"v": {"source": {**source, "aggregate": "sum"}, "min_coverage": 0}})
    assert sum(values["v"].values()) == pytest.approx(value.sum(), rel=1e-6)


POIS = pd.DataFrame(
    {
        "poi_id": [0, 2, 3, 7, 8],
        "comments": [["a", "b"], None, np.array(["c"], object), ["d"], None],
    }
)
REGION_POIS = pd.DataFrame({"poi_id": [0, 2, 3, 8], "region_id": ["r000", "r000", "r001", "r002"]})
POI_COUNTS = pd.DataFrame(
    {"region_id": ["r000", "r000", "r001", "r002"], "category": ["a", "b", "a", "a"],
     "poi_count": 1}
)  # fmt: skip
MOBILITY = pd.DataFrame(
    {
        "source": ["od", "od", "trips", "trips", "trips"],
        "region_id": ["r000", "r001", "r000", "r000", "r003"],
        "hour": pd.array([None, None, 0, 23, 23], "Int8"),
        "outflow": [50.0, 0.0, 1.0, 2.5, 0.0],
        "inflow": [8.0, 3.0, 0.0, 0.0, 3.5],
    }
)


def count(what, **more):
    return {"source": {"kind": "city", "count": what}, **more}


def test_counts_of_the_citys_own_tables(tmp_path):
    indicators = {
        "pois": count("pois"),
        "comments": count("comments"),
        "out": count("trips_out"),
        "in": count("trips_in"),
    }
    tables = {"pois": POIS, "region_pois": REGION_POIS, "poi_counts": POI_COUNTS}
    values, catalogue, _ = make(tmp_path, indicators, **tables, mobility=MOBILITY)
    assert values["pois"] == {"r000": 2, "r001": 1, "r002": 1, "r003": 0}
    # The one POI of r002 comes from a source without comments, so nobody knows; r003 has no POI.
    assert values["comments"] == {"r000": 2, "r001": 1, "r003": 0}
    assert values["out"] == {"r000": 50, "r001": 0, "r002": 0, "r003": 0}  # the ready matrix wins
    assert values["in"] == {"r000": 8, "r001": 3, "r002": 0, "r003": 0}
    assert catalogue.loc["out", "contained_in"] == ["flows"]
    trips = MOBILITY[MOBILITY["source"] == "trips"]
    values, *_ = make(tmp_path, {"out": count("trips_out")}, mobility=trips)
    assert values["out"]["r000"] == 3.5


def test_hourly_outflow(tmp_path):
    indicator = {"hours": Indicator(**count("hourly_outflow", kind="hourly"))}
    targets, *_ = make_targets(indicator, REGIONS, Boxes(REGIONS), str(tmp_path), mobility=MOBILITY)
    checked("targets", [pa.Table.from_pandas(targets, preserve_index=False)])
    found = targets.pivot(index="region_id", columns="slot", values="value")
    assert found.shape == (4, 24)
    assert found.loc["r000"].to_list() == [1.0] + [0.0] * 22 + [2.5]
    assert found.loc["r001"].sum() == 0


@pytest.mark.parametrize(
    ("indicator", "words"),
    [
        (
            {"source": {"kind": "regions", "path": "t.csv", "id": "id", "value": "w"}},
            r"indicators\.t\.source\.value: no column 'w' .*\n.*id, v, word",
        ),
        (
            {"source": {"kind": "regions", "path": "t.csv", "id": "v", "value": "v"}},
            r"indicators\.t\.source\.id: no 'v' .* is the id of a region; it has 5, 6, 7.*r000",
        ),
        (
            {"source": {"kind": "regions", "path": "t.csv", "id": "id", "value": "v"}},
            r"indicators\.t\.source\.id: region 'r001' stands several times",
        ),
        (
            {"source": {"kind": "regions", "path": "t.csv", "id": "id", "value": "word"}},
            r"indicators\.t\.source\.value: 'low' is no number",
        ),
        (
            {"source": {"kind": "points", "path": "t.csv"}},
            r"indicators\.t\.source\.lon: no column 'lon'",
        ),
        (
            {"source": {"kind": "polygons", "path": "z.parquet", "value": "w"}},
            r"indicators\.t\.source\.value: no column 'w'",
        ),
        (
            {"source": {"kind": "polygons", "path": "none.parquet", "value": "v"}},
            r"indicators\.t\.source\.path: no such file",
        ),
        (
            {"source": {"kind": "raster", "path": "none.tif"}},
            r"indicators\.t\.source\.path: cannot read",
        ),
        (
            {"source": {"kind": "raster", "path": "none.tif"}, "kind": "classification"},
            r"indicators\.t\.source: a classification cannot come from mean",
        ),
        (
            {"source": {"kind": "polygons", "path": "z", "value": "v", "aggregate": "majority"}},
            r"indicators\.t\.source\.aggregate: majority gives classes",
        ),
        (
            {"source": {"kind": "polygons", "path": "z.parquet", "value": "v"},
             "transform": "log1p", "min_coverage": 0},
            r"indicators\.t\.transform: log1p of -4",
        ),
        *(
            (
                {"source": {"kind": kind, "path": "*.csv", **more}},
                r"indicators\.t\.source\.path: \*\.csv names 2 files",
            )
            for kind, more in (
                ("points", {}),
                ("regions", {"id": "id", "value": "v"}),
                ("polygons", {"value": "v"}),
            )
        ),
        (count("pois"), r"indicators\.t\.source\.count: pois needs POIs"),
        (count("trips_in"), r"indicators\.t\.source\.count: trips_in needs trips"),
    ],
)  # fmt: skip
def test_errors_name_the_key(tmp_path, indicator, words):
    pd.DataFrame(
        {"id": ["r000", "r001", "r001"], "v": [5, 6, 7], "word": ["low", "high", "high"]}
    ).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "u.csv").write_text("id,v\nr000,5\n")
    polygons(tmp_path, {"v": [-4.0], "box": [(0, 0, 100, 100)]})
    with pytest.raises(DataError, match=words):
        make(tmp_path, {"t": indicator})


def test_no_comments_is_not_zero_comments(tmp_path):
    pois = POIS.assign(comments=pd.Series([None] * 5, dtype=object))
    with pytest.raises(DataError, match=r"indicators\.c\.source\.count: no POI source has comm"):
        make(tmp_path, {"c": count("comments")}, pois=pois, region_pois=REGION_POIS)
