"""What is rejected is counted, and keeps its reason."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.contracts import Checker, arrow_schema
from model_code.rejections import TOLD, Rejections, summary
from model_code.tables import contract
from resources.lake import read_arrow, table_writer

COLUMNS = ["source", "row", "reason", "detail", "items"]


def table_of(rejections, *stages):
    """The table `rejected` of some stages in Arrow; raises where it breaks its contract."""
    checker, parts = Checker(contract("rejected")), []
    for stage in stages:
        for batch in rejections.batches(stage, 3):
            parts.append(pa.Table.from_batches([batch]))
            checker.check(parts[-1])
    return pa.concat_tables(parts)


def test_nothing_is_an_empty_table():
    rejections = Rejections()
    rejections.add("pois.csv", [], "no place")
    rejections.add("pois.csv", np.empty(0, np.int64), "no place", [], np.empty(0))
    assert len(rejections) == 0 and rejections.items == 0 and not rejections.items_by_reason()
    frame = rejections.frame()
    assert list(frame.columns) == COLUMNS and frame.empty
    assert frame.dtypes.astype(str).tolist() == ["str", "int64", "str", "str", "float64"]


def test_rows_keep_their_reason_in_the_order_of_the_key():
    rejections = Rejections()
    rejections.add("b", np.array([0]), "no time", "hour 25")
    rejections.add("a", [3, 1], "outside")
    rejections.add("a", iter([7, 3]), "no place", ["x = nan", "y = inf"], np.array([2.0, 0.5]))
    assert rejections.frame().to_dict("list") == {
        "source": ["a", "a", "a", "a", "b"],
        "row": [1, 3, 3, 7, 0],
        "reason": ["outside", "no place", "outside", "no place", "no time"],
        "detail": ["", "y = inf", "", "x = nan", "hour 25"],
        "items": [1.0, 0.5, 1.0, 2.0, 1.0],
    }
    assert len(rejections) == 5 and rejections.items == 5.5
    found = rejections.items_by_reason()
    assert found == {"no place": 2.5, "no time": 1, "outside": 2} and list(found) == sorted(found)


def test_a_row_may_stand_for_many_things_or_none():
    rejections = Rejections()
    rejections.add("od.npy", [0], "outside", items=120)
    rejections.add("od.npy", [1, 2], "a note", items=0)
    assert rejections.items == 120 and rejections.frame()["items"].tolist() == [120, 0, 0]


def test_a_row_that_is_noted_again_stands_there_once():
    rejections = Rejections()
    rejections.add("zones", [2, 1], "outside", ["first", "other"], np.array([0.5, 4.0]))
    rejections.add("zones", [2], "outside", "second", 0.25)
    frame = rejections.frame()
    assert frame["row"].tolist() == [1, 2] and frame["items"].tolist() == [4, 0.75]
    assert frame["detail"].tolist() == ["other", "first"] and rejections.items == 4.75


def test_one_takes_over_what_another_has():
    one, other = Rejections(), Rejections()
    one.add("a", [1], "x")
    other.add("b", [2, 3], "y", items=2)
    other.add("a", [0], "x", "zero")
    told = other.frame()
    one.extend(other)
    assert len(one) == 4 and one.items == 6 and one.frame()["source"].tolist() == list("aabb")
    assert one.frame()["detail"].tolist() == ["zero", "", "", ""]
    pd.testing.assert_frame_equal(other.frame(), told)


def test_as_many_details_as_rows():
    with pytest.raises(ValueError, match=r"1 details for 2 rows of pois\.csv"):
        Rejections().add("pois.csv", [1, 2], "x", ["one"])


@pytest.mark.parametrize("items", [[1.0, 2.0], np.ones(3)])
def test_as_many_items_as_rows(items):
    with pytest.raises(ValueError, match="broadcast"):
        Rejections().add("a", [1], "x", items=np.asarray(items))


PARTS = st.lists(
    st.tuples(
        st.sampled_from(["a.csv", "b.csv", "é"]),
        st.lists(st.one_of(st.integers(0, 9), st.integers(0, 10**12)), max_size=5),
        st.sampled_from(["outside", "no place", "Zoo"]),
        st.floats(0, 1e6),
    ),
    max_size=6,
)


@given(PARTS)
@settings(max_examples=50, deadline=None)
def test_rows_and_items_are_conserved(parts):
    rejections = Rejections()
    wanted = {}
    for source, rows, reason, items in parts:
        rejections.add(source, rows, reason, items=items)
        for row in rows:
            key = (source, row, reason)
            wanted[key] = wanted.get(key, 0) + items
    frame = rejections.frame()
    found = frame.set_index(["source", "row", "reason"])["items"].to_dict()
    assert list(found) == sorted(wanted) and found == pytest.approx(wanted)
    assert len(rejections) == sum(len(rows) for _, rows, _, _ in parts)
    assert rejections.items == pytest.approx(sum(wanted.values()))
    assert sum(rejections.items_by_reason().values()) == pytest.approx(rejections.items)
    if parts and len(rejections):
        assert table_of(rejections, "pois", "trips").num_rows == 2 * len(frame)


@pytest.mark.parametrize("batch", [7, 400, 5 * TOLD])
def test_every_row_of_many_is_there_and_the_first_details(batch):
    n = 2 * TOLD + 5
    items = np.random.default_rng(0).integers(0, 9, n).astype(float)
    rejections = Rejections()
    rejections.add("a", [3], "no place", "x = nan")
    for rows in np.array_split(np.arange(n), range(batch, n, batch)):
        rejections.add("a", rows, "excluded by config", [f"at {r}" for r in rows], items[rows])
    many = rejections.frame().query("reason == 'excluded by config'")
    assert many["row"].tolist() == list(range(n)) and many["items"].tolist() == items.tolist()
    assert many["detail"].tolist()[:TOLD] == [f"at {r}" for r in range(TOLD)]
    assert set(many["detail"].iloc[TOLD:]) == {""}
    assert len(rejections) == n + 1 and rejections.items == items.sum() + 1


def test_what_is_taken_over_keeps_as_many_details():
    one, other = Rejections(), Rejections()
    rows = np.arange(TOLD)
    one.add("a", rows, "x", [f"at {r}" for r in rows])
    other.add("a", TOLD + rows, "x", [f"at {TOLD + r}" for r in rows])
    one.extend(other)
    assert (one.frame()["detail"] != "").sum() == TOLD and len(one) == 2 * TOLD


def test_millions_of_rows_cost_eight_bytes_each():
    rejections = Rejections()
    tracemalloc.start()
    for batch in range(50):
        rows = batch * TOLD + np.arange(TOLD)
        rejections.add("a source with a long name " * 50, rows, "a reason " * 50, "a detail " * 50)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 8.5 * 50 * TOLD and len(rejections) == 50 * TOLD


def test_the_table_keeps_the_contract(tmp_path):
    rejections = Rejections()
    rejections.add("b", [1, 0], "y", ["one", "none"])
    rejections.add("a", [5], "x", items=0.25)
    path = tmp_path / "rejected.parquet"
    table_writer(Checker(contract("rejected")), rejections.batches("pois"), {})(path)
    assert read_arrow(path).to_pandas()[["stage", "source", "row", "items"]].values.tolist() == [
        ["pois", "a", 5, 0.25], ["pois", "b", 0, 1.0], ["pois", "b", 1, 1.0],
    ]  # fmt: skip


def test_in_short_each_reason_has_its_rows_items_and_first_examples():
    rejections = Rejections()
    rejections.add(
        "trips", np.arange(9, 0, -1), "outside", [f"x = {r}" for r in range(9, 0, -1)], 2
    )
    rejections.add("trips", [4], "no time")
    rejections.add("od", [0], "outside", "to nowhere", 0.5)
    short = summary(table_of(rejections, "flows", "trips").to_batches())
    assert short["stage"].tolist() == ["flows"] * 3 + ["trips"] * 3
    one = short[short["stage"] == "trips"].drop(columns="stage").to_dict("records")
    assert one == [
        {"source": "od", "reason": "outside", "rows": 1, "items": 0.5,
         "examples": ["row 0: to nowhere"]},
        {"source": "trips", "reason": "no time", "rows": 1, "items": 1.0, "examples": ["row 4"]},
        {"source": "trips", "reason": "outside", "rows": 9, "items": 18.0,
         "examples": ["row 1: x = 1", "row 2: x = 2", "row 3: x = 3"]},
    ]  # fmt: skip


def test_in_short_nothing_is_nothing():
    short = summary(arrow_schema(contract("rejected")).empty_table().to_batches())
    assert short.empty
    assert list(short) == ["stage", "source", "reason", "rows", "items", "examples"]
