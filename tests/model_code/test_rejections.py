"""What is rejected is counted, and keeps its reason."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.contracts import Checker
from model_code.rejections import EXAMPLES, LISTED, Rejections
from model_code.tables import contract
from resources.lake import read_arrow, table_writer

COLUMNS = ["source", "row", "reason", "detail", "rows", "items"]


def test_nothing_is_an_empty_table():
    rejections = Rejections()
    rejections.add("pois.csv", [], "no place")
    rejections.add("pois.csv", np.empty(0, np.int64), "no place", [], np.empty(0))
    assert len(rejections) == 0 and rejections.items == 0
    frame = rejections.frame()
    assert list(frame.columns) == COLUMNS and frame.empty
    assert frame.dtypes.astype(str).tolist() == ["str", "int64", "str", "str", "int64", "float64"]


def test_rows_keep_their_reason_in_the_order_of_noting():
    rejections = Rejections()
    rejections.add("a", [3, 1], "outside")
    rejections.add("b", np.array([0]), "no time", "hour 25")
    rejections.add("a", iter([7, 8]), "no place", ["x = nan", "y = inf"], np.array([2.0, 0.5]))
    frame = rejections.frame()
    assert frame.to_dict("list") == {
        "source": ["a", "a", "b", "a", "a"],
        "row": [3, 1, 0, 7, 8],
        "reason": ["outside", "outside", "no time", "no place", "no place"],
        "detail": ["", "", "hour 25", "x = nan", "y = inf"],
        "rows": [1, 1, 1, 1, 1],
        "items": [1.0, 1.0, 1.0, 2.0, 0.5],
    }
    assert len(rejections) == 5 and rejections.items == 5.5


def test_a_row_may_stand_for_many_things_or_none():
    rejections = Rejections()
    rejections.add("od.npy", [0], "outside", items=120)
    rejections.add("od.npy", [1, 2], "a note", items=0)
    assert rejections.items == 120 and rejections.frame()["items"].tolist() == [120, 0, 0]


def test_one_takes_over_what_another_has():
    one, other = Rejections(), Rejections()
    one.add("a", [1], "x")
    other.add("b", [2, 3], "y", items=2)
    one.extend(other)
    assert len(one) == 3 and one.items == 5 and one.frame()["source"].tolist() == ["a", "b", "b"]
    assert len(other) == 2


def test_as_many_details_as_rows():
    with pytest.raises(ValueError, match=r"1 details for 2 rows of pois\.csv"):
        Rejections().add("pois.csv", [1, 2], "x", ["one"])


@pytest.mark.parametrize("items", [[1.0, 2.0], np.ones(3)])
def test_as_many_items_as_rows(items):
    with pytest.raises(ValueError, match="broadcast"):
        Rejections().add("a", [1], "x", items=np.asarray(items))


PARTS = st.lists(
    st.tuples(
        st.sampled_from(["a.csv", "b.csv"]),
        st.lists(st.integers(0, 10**12), max_size=5),
        st.sampled_from(["outside", "no place"]),
        st.floats(0, 1e6),
    ),
    max_size=6,
)


@given(PARTS)
@settings(max_examples=50, deadline=None)
def test_rows_and_items_are_conserved(parts):
    rejections = Rejections()
    for source, rows, reason, items in parts:
        rejections.add(source, rows, reason, items=items)
    frame = rejections.frame()
    assert len(frame) == frame["rows"].sum() == len(rejections)
    assert len(rejections) == sum(len(rows) for _, rows, _, _ in parts)
    assert rejections.items == pytest.approx(sum(len(rows) * n for _, rows, _, n in parts))
    assert frame["items"].sum() == pytest.approx(rejections.items)


@pytest.mark.parametrize("batch", [1, 7, 400, 5 * LISTED])
def test_many_rows_of_a_reason_are_ten_and_one_that_stands_for_the_others(batch):
    n = 2 * LISTED + 5
    items = np.random.default_rng(0).integers(0, 9, n).astype(float)
    rejections = Rejections()
    rejections.add("a", [3], "no place", "x = nan")
    for rows in np.array_split(np.arange(n), range(batch, n, batch) if batch > 1 else 3):
        rejections.add("a", rows, "excluded by config", [f"at {r}" for r in rows], items[rows])
    frame = rejections.frame()
    assert len(rejections) == frame["rows"].sum() == n + 1
    assert rejections.items == frame["items"].sum() == items.sum() + 1
    many = frame[frame["reason"] == "excluded by config"]
    assert many["row"].tolist() == list(range(EXAMPLES + 1))
    assert many["rows"].tolist() == [1] * EXAMPLES + [n - EXAMPLES]
    assert many["items"].tolist() == [*items[:EXAMPLES], items[EXAMPLES:].sum()]
    assert many["detail"].tolist()[:-1] == [f"at {r}" for r in range(EXAMPLES)]
    assert many["detail"].iloc[-1] == f"this row and {n - EXAMPLES - 1:,} others, not listed"


def test_as_many_as_are_listed_stand_for_themselves():
    rejections = Rejections()
    rejections.add("a", np.arange(LISTED), "outside")
    rejections.add("b", np.arange(LISTED), "outside")
    assert len(rejections.frame()) == 2 * LISTED


@pytest.mark.parametrize(("ours", "theirs"), [(1, LISTED), (LISTED, 1), (LISTED + 1, LISTED + 1)])
def test_what_is_taken_over_is_summed_up_too(ours, theirs):
    one, other = Rejections(), Rejections()
    one.add("a", np.arange(ours), "x", items=2)
    other.add("a", ours + np.arange(theirs), "x", items=3)
    told = other.frame()
    one.extend(other)
    frame = one.frame()
    assert len(frame) == EXAMPLES + 1 and frame["row"].is_unique
    assert len(one) == frame["rows"].sum() == ours + theirs
    assert one.items == frame["items"].sum() == 2 * ours + 3 * theirs
    pd.testing.assert_frame_equal(other.frame(), told)


def test_memory_does_not_grow_with_the_rows_of_a_reason():
    rejections = Rejections()
    tracemalloc.start()
    for batch in range(50):
        rejections.add("a", batch * LISTED + np.arange(LISTED), "excluded by config")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 20_000 and len(rejections) == 50 * LISTED


def test_the_table_keeps_the_contract(tmp_path):
    rejections = Rejections()
    rejections.add("b", [1, 0], "y", ["one", "none"])
    rejections.add("a", [5], "x", items=0.25)
    path = tmp_path / "rejected.parquet"
    checker = Checker(contract("rejected"))
    table_writer(checker, rejections.frame().assign(stage="pois"), {})(path)
    assert read_arrow(path).to_pandas()[["source", "row", "items"]].values.tolist() == [
        ["a", 5, 0.25], ["b", 0, 1.0], ["b", 1, 1.0],
    ]  # fmt: skip


def test_a_text_for_many_rows_stands_once_in_memory():
    rows = np.arange(LISTED)
    tracemalloc.start()
    rejections = Rejections()
    rejections.add("a source with a long name " * 50, rows, "a reason " * 50, "a detail " * 50)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 10 * len(rows)
    assert isinstance(rejections.frame(), pd.DataFrame) and len(rejections.frame()) == len(rows)
