import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from model_code.errors import DataError
from model_code.geo.vector import (
    Sieve,
    as_ids,
    expand,
    in_parts,
    numbers,
    polygonal,
    project,
    record_batches,
)
from model_code.rejections import Rejections


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


def test_a_csv_is_streamed_as_text_with_breaks_inside_quotes(tmp_path):
    lines = "".join(f'{i},"one\ntwo, {i}",\n' for i in range(5000))
    (tmp_path / "t.csv").write_text("a,b,c\n" + lines)
    batches = list(record_batches(str(tmp_path / "t.csv"), ["b", "a", "c"], "key", 100))
    assert len(batches) > 10
    table = pa.Table.from_batches(batches)
    assert table["a"].to_pylist() == [str(i) for i in range(5000)]
    assert table["b"][4999].as_py() == "one\ntwo, 4999"
    assert table["c"].null_count == 5000


def test_a_coded_column_has_the_texts_and_the_order_of_a_plain_one(tmp_path):
    texts = [f"kind {i % 7}" if i % 5 else None for i in range(1000)]
    pq.write_table(pa.table({"kind": texts, "i": range(1000)}), tmp_path / "t.parquet", 300)
    path = str(tmp_path / "t.parquet")
    coded = list(record_batches(path, ["i", "kind"], "key", 128, coded=["kind"]))
    assert all(isinstance(batch.column("kind"), pa.DictionaryArray) for batch in coded)
    assert [text for batch in coded for text in batch.column("kind").to_pylist()] == texts
    plain = pa.Table.from_batches(record_batches(path, ["kind"], "key", 128))
    assert plain["kind"].to_pylist() == texts


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
        "rows": [1, 1],
    }


def test_one_point_and_many_are_projected_alike():
    lon, lat = np.array([-74.0, -73.0]), np.array([40.7, 41.0])
    both = project(lon, lat, "EPSG:4326", "EPSG:32618")
    for i in range(2):
        one = project(lon[i : i + 1], lat[i : i + 1], "EPSG:4326", "EPSG:32618")
        assert [v[0] for v in one] == [v[i] for v in both]
