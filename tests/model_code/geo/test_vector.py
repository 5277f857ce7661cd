import bz2
import gzip
import lzma
import shutil

import fsspec
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely

from model_code.errors import DataError
from model_code.geo.vector import (
    Sieve,
    as_ids,
    expand,
    format_of,
    in_parts,
    is_table,
    numbers,
    polygonal,
    project,
    read_columns,
    read_geo,
    record_batches,
    table_columns,
)
from model_code.rejections import Rejections
from tests.cities.originals import served
from tests.model_code.geo.maps import CRS


def test_only_what_has_an_area_remains():
    square, line = shapely.box(0, 0, 2, 2), shapely.LineString([(5, 5), (6, 6)])
    bow_tie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    mixed = shapely.GeometryCollection(
        [line, square, shapely.MultiPolygon([shapely.box(3, 3, 4, 4)])]
    )
    made = polygonal(
        np.array([line, square, None, bow_tie, line, mixed, shapely.Polygon()], object)
    )
    assert [m if m is None else m.area for m in made] == [0, 4, None, 2, 0, 5, 0]
    assert set(shapely.get_type_id(made[[0, 1, 3, 4, 5, 6]])) <= {3, 6}
    assert shapely.is_valid(made[[0, 1, 3, 4, 5, 6]]).all()
    assert polygonal(np.array([line], object))[0].is_empty


@pytest.mark.parametrize(
    "column",
    [
        [7, 8],
        [7.0, 8.0],
        ["7", "8"],
        np.array([7, 8], np.int16),
        pd.Series([7, 8], dtype="Int64"),
        np.array([7, 8.0], object),
        pa.array([7.0, 8.0]),
        pa.chunked_array([["7"], ["8"]]),
    ],
)
def test_an_id_is_the_same_whatever_its_type(column):
    assert as_ids(column).tolist() == ["7", "8"]


def test_ids_keep_what_is_missing_and_what_is_no_whole_number():
    assert as_ids([7.0, None]).isna().tolist() == [False, True]
    assert as_ids([7.0, None])[0] == "7"
    assert as_ids([7.5, 8.0]).tolist() == ["7.5", "8.0"]
    assert as_ids(["007", None])[0] == "007"


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, None], pa.int16()), [1, np.nan]),
        (pa.array([" 1.5 ", None]), [1.5, np.nan]),
        (pa.array(["1e3", "many"]), [1000, np.nan]),
        (pa.chunked_array([[1.0], [np.inf]]), [1, np.inf]),
    ],
)
def test_numbers_are_nan_where_there_is_none(column, expected):
    np.testing.assert_array_equal(numbers(column), expected)


def test_paths_expand_in_order_and_name_their_key(tmp_path):
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).touch()
    assert expand("*.csv", str(tmp_path), "key") == [str(tmp_path / n) for n in ("a.csv", "b.csv")]
    for path in ("c.csv", "*.parquet"):
        with pytest.raises(DataError, match=r"sources\.x\.path"):
            expand(path, str(tmp_path), "sources.x.path")


# --- what a file is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "given", "form"),
    [
        ("a/trips.CSV", None, "csv"),
        ("s3://b/trips.csv.gz", None, "csv"),
        ("trips.parquet.d/part", None, ""),
        ("trips.GeoParquet", None, "parquet"),
        ("od.npy.xz", None, "npy"),
        ("zones.shp", None, "shapefile"),
        ("zones.kml", None, ""),
        ("trips.txt", "csv", "csv"),
        ("https://host/export?as=csv", "parquet", "parquet"),
        ("https://host/trips.csv.gz?sig=a.b%2Fc.json", None, "csv"),
        ("simplecache::http://host/zones.geojson?sig=a/b.c", None, "geojson"),
        (
            "s3://bucket/what?.csv",
            None,
            "csv",
        ),  # no web address: a question mark is one of the name
        ("trips.csv", "parquet", "parquet"),  # the config knows better
    ],
)
def test_the_config_tells_a_format_else_the_suffix(url, given, form):
    assert format_of(url, given) == form


PACKERS = {"t.csv.gz": gzip.compress, "t.csv.bz2": bz2.compress, "t.csv.xz": lzma.compress}


@pytest.mark.parametrize("name", PACKERS)
def test_a_compressed_table_is_read_as_a_plain_one(name, tmp_path):
    content = PACKERS[name](b"a,b\n" + b"".join(b"%d,x\n" % i for i in range(3000)))
    (tmp_path / name).write_bytes(content)
    fsspec.filesystem("memory").pipe_file(f"/packed/{name}", content)
    for url in (str(tmp_path / name), f"memory://packed/{name}"):
        assert is_table(url, None) and table_columns(url, "key") == ["a", "b"]
        found = read_columns(url, ["a"], "key")
        assert found["a"].to_pylist() == [str(i) for i in range(3000)]
    (tmp_path / f"cut_{name}").write_bytes(content[:-20])
    with pytest.raises(DataError, match=r"sources\.x\.path: cannot read .*cut_t"):
        read_columns(str(tmp_path / f"cut_{name}"), ["a"], "sources.x.path")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_whose_name_does_not_tell_is_read_by_its_format(form, tmp_path):
    url = str(tmp_path / "table.txt")
    frame = pd.DataFrame({"a": ["1", "2"], "b": ["x", None]})
    frame.to_csv(url, index=False) if form == "csv" else frame.to_parquet(url)
    assert is_table(url, form) and table_columns(url, "key", form) == ["a", "b"]
    assert read_columns(url, ["b", "a"], "key", form).to_pydict() == {
        "b": ["x", None],
        "a": ["1", "2"],
    }
    with pytest.raises(DataError, match="neither Parquet nor CSV") as error:
        table_columns(url, "sources.trips.path")
    assert "`sources.trips.format: csv`" in error.value.fix


def test_a_wrong_format_is_told_with_its_key(tmp_path):
    (tmp_path / "t.txt").write_text("a,b\n1,x\n")
    for read in (table_columns, lambda *args: read_columns(args[0], ["a"], *args[1:])):
        with pytest.raises(DataError, match=r"sources\.trips\.path: cannot read") as error:
            read(str(tmp_path / "t.txt"), "sources.trips.path", "parquet")
        assert "change sources.trips.format" in error.value.fix


SHAPES = gpd.GeoDataFrame(
    {"name": ["a", "b"]}, geometry=[shapely.box(0, 0, 9, 9), shapely.box(9, 0, 20, 9)], crs=CRS
)


def shape_file(path, form, frame=SHAPES):
    """The frame in a file of this format, whatever its name."""
    made = path.parent / "made"
    made.mkdir()
    if form == "parquet":
        frame.to_parquet(path)
    elif form == "shapefile":
        frame.to_file(made / "s.shp")
        shutil.move(shutil.make_archive(str(path.parent / "s"), "zip", made), path)
    else:
        frame.to_file(made / ("s.geojson" if form == "geojson" else "s.gpkg"))
        shutil.move(next(made.iterdir()), path)
    return str(path)


@pytest.mark.parametrize("form", ["parquet", "geojson", "geopackage", "shapefile"])
@pytest.mark.parametrize("name", ["file", "file.txt", "file.bin.gz"])
def test_shapes_whose_name_does_not_tell_are_read_by_their_format(form, name, tmp_path):
    url = shape_file(tmp_path / name, form)
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    fsspec.filesystem("memory").put(url, f"/shapes/{form}/{name}")
    for where in (url, f"memory://shapes/{form}/{name}"):
        assert not is_table(where, form)
        found = read_geo(where, "key.path", form)
        assert found["name"].tolist() == ["a", "b"] and found.crs.to_epsg() == 32618
        assert found.geometry.geom_equals(SHAPES.geometry).all()


def test_compressed_shapes_and_those_behind_a_url_keep_the_name_that_gdal_wants(tmp_path):
    """A GeoPackage by another name would make GDAL warn, and a zip would not be looked into."""
    for name, form in (
        ("s.geojson.gz", "geojson"),
        ("s.gpkg", "geopackage"),
        ("s.zip", "shapefile"),
    ):
        (folder := tmp_path / form).mkdir()
        url = shape_file(folder / name, form)
        if name.endswith(".gz"):
            (folder / name).write_bytes(gzip.compress((folder / name).read_bytes()))
        fsspec.filesystem("memory").put(url, f"/named/{name}")
        for where in (url, f"memory://named/{name}"):
            assert read_geo(where, "key.path")["name"].tolist() == ["a", "b"]


@pytest.fixture
def signed(tmp_path):
    """The address of a file on a web server, with a signature as object stores give."""
    with served(tmp_path) as (host, _):
        yield lambda name: f"{host}/{name}?X-Amz-Signature={'a1b2' * 100}"


@pytest.mark.parametrize("name", ["s.geojson", "s.geojson.gz", "s.gpkg", "s.zip", "s.parquet"])
def test_shapes_behind_a_signed_address_are_read(name, signed, tmp_path):
    forms = {"gpkg": "geopackage", "zip": "shapefile", "parquet": "parquet"}
    url = shape_file(tmp_path / name, forms.get(name.split(".")[1], "geojson"))
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    assert expand(signed(name), str(tmp_path), "key.path") == [signed(name)]
    for where in (url, signed(name)):
        found = read_geo(where, "key.path")
        assert found["name"].tolist() == ["a", "b"]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
def test_tables_behind_a_signed_address_are_read(name, signed, tmp_path):
    frame = pd.DataFrame({"a": ["1", "2"], "b": ["x", "y"]})
    path = tmp_path / name
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
    url = signed(name)
    assert is_table(url, None) and table_columns(url, "key") == ["a", "b"]
    assert read_columns(url, ["b"], "key").to_pydict() == {"b": ["x", "y"]}


# --- which CRS it has ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize("form", ["parquet", "geopackage", "shapefile"])
def test_the_crs_of_the_config_is_for_a_file_that_states_none(form, tmp_path):
    url = shape_file(tmp_path / "file", form, SHAPES.set_crs(None, allow_override=True))
    with pytest.raises(DataError, match=r"sources\.buildings\.0\.path: .* says no CRS") as error:
        read_geo(url, "sources.buildings.0.path", form)
    assert "`sources.buildings.0.crs`" in error.value.fix
    for own_wins in (False, True):
        found = read_geo(url, "sources.buildings.0.path", form, CRS, own_wins=own_wins)
        assert found.crs == CRS
        assert found.total_bounds.tolist() == [0, 0, 20, 9]


@pytest.mark.parametrize("form", ["parquet", "geopackage", "shapefile"])
def test_a_crs_that_is_not_that_of_the_file_is_an_error(form, tmp_path):
    """The same CRS is none, though a shapefile writes it in other words."""
    url = shape_file(tmp_path / "file", form)
    assert read_geo(url, "key.path", form, CRS).crs.to_epsg() == 32618
    with pytest.raises(DataError, match=r"sources\.x\.crs: EPSG:2263 .*(32618|UTM)") as error:
        read_geo(url, "sources.x.path", form, "EPSG:2263")
    assert "take sources.x.crs out" in error.value.fix
    assert read_geo(url, "key.path", form, "EPSG:2263", own_wins=True).crs.to_epsg() == 32618


def test_degrees_are_one_crs_by_both_names(tmp_path):
    frame = SHAPES.set_crs("OGC:CRS84", allow_override=True)
    url = shape_file(tmp_path / "file", "parquet", frame)
    assert read_geo(url, "key.path", "parquet", "EPSG:4326").crs == "OGC:CRS84"


# --- tables --------------------------------------------------------------------------------------


def test_a_csv_is_streamed_as_text_with_breaks_inside_quotes(tmp_path):
    lines = "".join(f'{i},"one\ntwo, {i}",\n' for i in range(5000))
    (tmp_path / "t.csv").write_text("a,b,c\n" + lines)
    batches = list(record_batches(str(tmp_path / "t.csv"), ["b", "a", "c"], "key", 100))
    assert len(batches) > 10
    table = pa.Table.from_batches(batches)
    assert table["a"].to_pylist() == [str(i) for i in range(5000)]
    assert table["b"][4999].as_py() == "one\ntwo, 4999"
    assert table["c"].null_count == 5000


@pytest.mark.parametrize("sizes", [[5, 0, 9, 1], [3], [6], [0], []])
def test_parts_have_one_size_whatever_the_batches(sizes):
    starts = np.cumsum([0, *sizes])
    batches = [
        pa.record_batch({"i": pa.array(range(start, start + size), pa.int64())})
        for start, size in zip(starts[:-1], sizes, strict=True)
    ]
    parts = list(in_parts(iter(batches), 3))
    assert [row for part in parts for row in part["i"].to_pylist()] == list(range(sum(sizes)))
    assert all(part.num_rows == 3 for part in parts[:-1])
    assert bool(parts) == bool(sizes) and (not parts or parts[-1].num_rows <= 3)


def test_a_row_is_rejected_once_with_its_first_reason():
    rejections = Rejections()
    sieve = Sieve(rejections, "file", np.array([10, 11, 12]))
    sieve.reject([True, False, False], "first", value=[1, 2, 3])
    sieve.items = np.array([1.0, 5.0, 7.0])
    sieve.reject([True, True, False], "second")
    assert sieve.good.tolist() == [False, False, True]
    assert rejections.frame().to_dict("list") == {
        "source": ["file"] * 2,
        "row": [10, 11],
        "reason": ["first", "second"],
        "detail": ["value 1", ""],
        "items": [1.0, 5.0],
    }


def test_one_point_and_many_are_projected_alike():
    lon, lat = np.array([-74.0, -73.0]), np.array([40.7, 41.0])
    both = project(lon, lat, "EPSG:4326", "EPSG:32618")
    for i in range(2):
        one = project(lon[i : i + 1], lat[i : i + 1], "EPSG:4326", "EPSG:32618")
        assert [v[0] for v in one] == [v[i] for v in both]
