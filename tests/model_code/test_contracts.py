"""Every kind of violation is found and worded, in whole tables and across streamed parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.contracts import Checker, arrow_schema, conform, problems
from model_code.errors import ContractError
from model_code.tables import TABLES, Column, Table
from resources.lake import plain_table_writer, read_arrow, table_writer

EVERY = Table(
    "every",
    "A column of each kind.",
    (
        Column("name", "string", "first of the key"),
        Column("hour", "int8", "second of the key", nullable=True, low=0, high=23),
        Column("kind", "string", "a choice", choices=("a", "b")),
        Column("small", "int32", "a number", low=-5),
        Column("large", "int64", "a number", nullable=True),
        Column("share", "float64", "a share", low=0, high=1),
        Column("score", "float32", "a number", nullable=True),
        Column("flag", "bool", "yes or no"),
        Column("at", "timestamp", "a time", nullable=True),
        Column("raw", "binary", "bytes", nullable=True),
        Column("vector", "vector", "numbers"),
        Column("words", "strings", "words", nullable=True),
    ),
    ("name", "hour"),
)


def rows(count: int = 4) -> dict[str, list[Any]]:
    """Valid rows in the order of the key."""
    return {
        "name": [f"n{n // 2}" for n in range(count)],
        "hour": [3 if n % 2 == 0 else None for n in range(count)],
        "kind": ["a"] * count,
        "small": list(range(count)),
        "large": [2**60 + n if n else None for n in range(count)],
        "share": [0.5] * count,
        "score": [None] * count,
        "flag": [True] * count,
        "at": [pd.Timestamp("2024-01-01", tz="UTC")] * count,
        "raw": [b"\x00"] * count,
        "vector": [[1.0, 2.0]] * count,
        "words": [["a", "b"], None, [], ["c"]][:count] + [None] * (count - 4),
    }


def table(**columns: list[Any]) -> pa.Table:
    schema = arrow_schema(EVERY)
    data = {**rows(), **columns}
    return pa.table({f.name: pa.array(data[f.name], f.type) for f in schema}, schema=schema)


def said(part: pa.Table, checker: Checker | None = None) -> list[str]:
    """Each problem that the check tells of."""
    with pytest.raises(ContractError) as error:
        (checker or Checker(EVERY)).check(part)
    assert "table 'every' breaks its contract" in error.value.what
    assert "the table that stood before is kept" in error.value.fix
    return [line.strip() for line in error.value.what.splitlines()[1:]]


# --- content -------------------------------------------------------------------------------------


def test_a_valid_table_passes_and_is_counted():
    checker = Checker(EVERY)
    checker.check(table())
    assert checker.rows == 4
    assert {k: v for k, v in checker.missing.items() if v} == {
        "hour": 2, "large": 1, "score": 4, "words": 1,
    }  # fmt: skip
    assert problems(EVERY, table()) == []


VIOLATIONS = [
    ({"share": [0.5, None, 0.5, None]}, ["share: 2 missing values"]),
    ({"kind": ["a", None, "b", "a"]}, ["kind: 1 missing values"]),
    ({"flag": [None, True, False, True]}, ["flag: 1 missing values"]),
    ({"vector": [[1.0], None, [1.0], [1.0]]}, ["vector: 1 missing values"]),
    ({"vector": [[1.0, None], [None], [1.0], []]}, ["vector: 2 missing numbers within vectors"]),
    ({"share": [np.nan, 0.5, 0.5, 0.5]}, ["share: values that are not finite"]),
    ({"score": [np.inf, 0.5, None, -np.inf]}, ["score: values that are not finite"]),
    ({"vector": [[1.0], [2.0, np.nan], [1.0], []]}, ["vector: values that are not finite"]),
    ({"share": [-0.1, 0.5, 0.5, 1.0]}, ["share: 1 values fail", "(0)", "-0.1"]),
    ({"share": [0.0, 1.5, 2.5, 1.0]}, ["share: 2 values fail", "(1)", "1.5, 2.5"]),
    ({"small": [-6, -5, 0, 1]}, ["small: 1 values fail", "(-5)", "-6"]),
    ({"hour": [24, None, -1, None]}, ["hour: 1 values fail", "hour: 1 values fail", "24", "-1"]),
    ({"kind": ["a", "c", "b", "d"]}, ["kind: 2 values fail isin", "c, d"]),
    ({"name": ["n1", "n1", "n0", "n0"]}, ["not ordered by the key"]),
    ({"hour": [None, 3, 3, None]}, ["not ordered by the key"]),
    ({"hour": [3, 3, 3, None]}, ["1 rows repeat a key"]),
    ({"hour": [None, None, 3, None]}, ["1 rows repeat a key"]),
]


@pytest.mark.parametrize(("columns", "words"), VIOLATIONS)
def test_each_violation_is_found_and_worded(columns, words):
    found = said(table(**columns))
    assert len(found) >= 1
    for word in words:
        assert any(word in line for line in found), found
    named = next(iter(columns))
    assert all(line.startswith(f"{named}:") or "key" in line for line in found), found


def test_everything_wrong_is_told_together():
    found = said(
        table(share=[2.0] * 4, kind=["x"] * 4, small=[None] * 4, vector=[[np.nan]] * 4,
              name=["b", "b", "a", "a"])
    )  # fmt: skip
    assert [line.split(":")[0] for line in found[:-1]] == ["small", "vector", "kind", "share"]
    assert "not ordered" in found[-1]


def test_large_integers_beside_missing_ones_stay_integers():
    near = Table("near", "", (Column("id", "int64", "", nullable=True, low=2**60),), ("id",))
    good = pa.table({"id": pa.array([2**60, 2**60 + 1, None], pa.int64())})
    Checker(near).check(good)
    low = pa.table({"id": pa.array([2**60 - 1, 2**60 + 1, None], pa.int64())})
    with pytest.raises(ContractError, match=str(2**60 - 1)):
        Checker(near).check(low)


# --- streams -------------------------------------------------------------------------------------


def test_order_and_repeats_are_seen_across_parts():
    def after(*names: str) -> pa.Table:
        return table(name=list(names))

    checker = Checker(EVERY)
    checker.check(table())  # ends with ("n1", missing)
    checker.check(after("n2", "n2", "n3", "n3"))
    assert checker.rows == 8
    first = after("n3", "n3", "n4", "n4")
    assert any("across parts (at row 8)" in line for line in said(first, checker))

    for late in (after("n1", "n1", "n4", "n4"), after("n0", "n0", "n4", "n4")):
        checker = Checker(EVERY)
        checker.check(table())
        assert said(late, checker) == [
            "rows are not ordered by ('name', 'hour') across parts (at row 4)"
        ]


def test_a_missing_key_comes_last():
    checker = Checker(EVERY)
    checker.check(table().slice(0, 1))  # ("n0", 3)
    checker.check(table().slice(1, 1))  # ("n0", missing)
    repeated = said(table().slice(1, 1), checker)
    assert repeated == ["rows are not ordered by ('name', 'hour') across parts (at row 2)"]


def test_empty_parts_change_nothing():
    checker = Checker(EVERY)
    for part in (table().slice(0, 0), table().slice(0, 2), table().slice(0, 0), table().slice(2)):
        checker.check(part)
    assert checker.rows == 4


# --- columns and types ---------------------------------------------------------------------------


def test_columns_are_put_in_the_order_of_the_contract():
    mixed = table().select(list(reversed(EVERY.names())))
    assert conform(EVERY, mixed).equals(table())
    assert conform(EVERY, mixed.to_batches()[0]).equals(table())


def test_missing_extra_and_repeated_columns():
    wrong = table().drop_columns(["flag"]).append_column("more", pa.nulls(4))
    with pytest.raises(
        ContractError, match=r"missing columns \['flag'\], undeclared columns \['more'\]"
    ):
        conform(EVERY, wrong)
    with pytest.raises(ContractError, match=r"given twice \['flag'\]"):
        conform(EVERY, table().append_column("flag", table().column("flag")))


FITTING = [
    ("name", pa.large_string(), ["x", None]),
    ("name", pa.dictionary(pa.int8(), pa.string()), ["x", "y"]),
    ("small", pa.int64(), [1, 2]),
    ("small", pa.float64(), [1.0, None]),
    ("share", pa.float32(), [0.25, 0.5]),
    ("share", pa.int8(), [0, 1]),
    ("score", pa.float64(), [0.1, 0.2]),
    ("at", pa.timestamp("ns", "America/New_York"), [pd.Timestamp(0, tz="UTC")] * 2),
    ("at", pa.timestamp("s", "UTC"), [pd.Timestamp(0, tz="UTC")] * 2),
    ("raw", pa.large_binary(), [b"a", None]),
    ("raw", pa.binary(2), [b"ab", b"cd"]),
    ("vector", pa.large_list(pa.float64()), [[1.0], []]),
    ("vector", pa.list_(pa.float32(), 2), [[1.0, 2.0], [3.0, 4.0]]),
    ("vector", pa.list_(pa.int64()), [[1], [2, 3]]),
    ("words", pa.list_(pa.null()), [[], []]),
    ("words", pa.null(), [None, None]),
]
UNFITTING = [
    ("name", pa.int64(), [1, 2]),  # Arrow would print them
    ("name", pa.binary(), [b"a", b"b"]),
    ("small", pa.string(), ["1", "2"]),  # and parse these
    ("small", pa.float64(), [1.5, 2.0]),
    ("small", pa.int64(), [2**40, 1]),
    ("small", pa.bool_(), [True, False]),
    ("share", pa.string(), ["0.5", "0.1"]),
    ("share", pa.timestamp("s", "UTC"), [1, 2]),
    ("flag", pa.int8(), [0, 1]),
    ("flag", pa.string(), ["true", "false"]),
    ("at", pa.timestamp("us"), [0, 1]),  # a clock without a zone is no time
    ("at", pa.string(), ["2024-01-01", "2024-01-02"]),
    ("at", pa.int64(), [0, 1]),
    ("at", pa.timestamp("ns", "UTC"), [1, 2]),  # below a microsecond
    ("raw", pa.string(), ["a", "b"]),
    ("vector", pa.list_(pa.string()), [["1"], ["2"]]),
    ("vector", pa.float64(), [1.0, 2.0]),
    ("words", pa.list_(pa.int64()), [[1], [2]]),
    ("words", pa.string(), ["a", "b"]),
]


def replaced(name: str, kind: pa.DataType, values: list[Any]) -> pa.Table:
    whole = table().slice(0, 2)
    return whole.set_column(whole.column_names.index(name), name, pa.array(values, kind))


@pytest.mark.parametrize(("name", "kind", "values"), FITTING)
def test_types_that_mean_the_same_are_taken(name, kind, values):
    found = conform(EVERY, replaced(name, kind, values))
    assert found.schema.equals(arrow_schema(EVERY))
    want = pa.array(values, kind).cast(arrow_schema(EVERY).field(name).type).to_pylist()
    assert found.column(name).to_pylist() == want


@pytest.mark.parametrize(("name", "kind", "values"), UNFITTING)
def test_other_types_break_the_contract(name, kind, values):
    with pytest.raises(ContractError, match=rf"column '{name}': .* does not fit"):
        conform(EVERY, replaced(name, kind, values))


def test_an_empty_table_has_no_types_to_speak_of():
    empty = pd.DataFrame({name: [] for name in EVERY.names()})
    found = conform(EVERY, pa.Table.from_pandas(empty))
    assert found.schema.equals(arrow_schema(EVERY)) and found.num_rows == 0


@pytest.mark.parametrize("declared", TABLES.values(), ids=list(TABLES))
def test_every_contract_has_a_schema(declared):
    assert arrow_schema(declared).names == declared.names()


# --- there and back ------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXT,
    "int8": st.integers(-128, 127),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "float64": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "binary": st.binary(max_size=8),
    "timestamp": st.datetimes(pd.Timestamp("1900-01-01"), pd.Timestamp("2200-01-01")).map(
        lambda at: pd.Timestamp(at, tz="UTC")
    ),
    "vector": st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=4),
    "strings": st.lists(TEXT, max_size=3),
}


def valid(column: Column) -> st.SearchStrategy[Any]:
    """Values that a column may hold."""
    low, high = column.low, column.high
    if column.choices:
        values: st.SearchStrategy[Any] = st.sampled_from(column.choices)
    elif low is None and high is None:
        values = VALUES[column.kind]
    elif column.kind.startswith("int"):
        bits = 2 ** (int(column.kind[3:]) - 1)
        least, most = -bits if low is None else int(low), bits - 1 if high is None else int(high)
        values = st.integers(least, most)
    else:
        values = st.floats(low, high, allow_nan=False, allow_infinity=False)
    return values | st.none() if column.nullable else values


def frames(declared: Table) -> st.SearchStrategy[pd.DataFrame]:
    """Valid rows of a contract, in any order."""
    row = st.fixed_dictionaries({c.name: valid(c) for c in declared.columns})
    unique = st.lists(row, max_size=6, unique_by=lambda r: tuple(r[k] for k in declared.key))
    return unique.map(lambda rows: pd.DataFrame(rows, columns=declared.names(), dtype=object))


def expected(declared: Table, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows in the order of the key; a missing value comes last."""

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple((row[k] is None, row[k]) for k in declared.key)

    kinds = {c.name: c.kind for c in declared.columns}
    shrink: dict[str, Callable[[Any], Any]] = {
        "float32": np.float32, "timestamp": lambda at: at.floor("us"),
    }  # fmt: skip
    found = sorted(frame.to_dict("records"), key=order)
    return [
        {k: v if v is None else shrink.get(kinds[k], lambda x: x)(v) for k, v in row.items()}
        for row in found
    ]


@given(frames(EVERY))
@settings(max_examples=25, deadline=None)
def test_a_valid_frame_comes_back_unchanged_and_in_order(tmp_path_factory, frame):
    path = tmp_path_factory.getbasetemp() / "every.parquet"
    checker = Checker(EVERY)
    table_writer(checker, frame, {})(path)
    found = read_arrow(path)
    assert found.schema.equals(arrow_schema(EVERY), check_metadata=False)
    assert found.to_pylist() == expected(EVERY, frame)
    assert checker.rows == len(frame)
    assert checker.missing == {name: int(frame[name].isna().sum()) for name in EVERY.names()}
    Checker(EVERY).check(found)  # what was written keeps the contract

    again = tmp_path_factory.getbasetemp() / "again.parquet"
    shuffled = frame.sample(frac=1, random_state=0)
    plain_table_writer(EVERY, shuffled)(again)
    assert read_arrow(again).equals(found)


PLAIN = [t for t in TABLES.values() if not t.geometry]


@pytest.mark.parametrize("declared", PLAIN, ids=[t.name for t in PLAIN])
@given(data=st.data())
@settings(max_examples=2, deadline=None)
def test_valid_rows_of_every_contract_come_back(tmp_path_factory, declared, data):
    frame = data.draw(frames(declared))
    path = tmp_path_factory.getbasetemp() / "plain.parquet"
    plain_table_writer(declared, frame)(path)
    assert read_arrow(path).to_pylist() == expected(declared, frame)


BOUNDED = [
    (declared, column)
    for declared in TABLES.values()
    for column in declared.columns
    if column.low is not None or column.high is not None or column.choices
]


@pytest.mark.parametrize(
    ("declared", "column"), BOUNDED, ids=[f"{t.name}.{c.name}" for t, c in BOUNDED]
)
def test_every_bound_of_every_contract_is_checked(declared, column):
    """One value on each side of a bound."""
    inside = column.choices[:1] or [b for b in (column.low, column.high) if b is not None]
    step = 1 if column.kind.startswith("int") else 1e-3
    outside = ["no such choice"] if column.choices else [
        *([column.low - step] if column.low is not None else []),
        *([column.high + step] if column.high is not None else []),
    ]  # fmt: skip
    one = Table(declared.name, "", (column,), (column.name,))
    schema = arrow_schema(one)
    kind = schema.field(column.name).type

    def part(value: Any) -> pa.Table:
        cast = int if column.kind.startswith("int") else (lambda x: x)
        return pa.table({column.name: pa.array([cast(value)], kind)}, schema=schema)

    for value in inside:
        Checker(one).check(part(value))
    for value in outside:
        with pytest.raises(ContractError, match=f"{column.name}: 1 values fail"):
            Checker(one).check(part(value))


@pytest.mark.parametrize("declared", TABLES.values(), ids=list(TABLES))
def test_missing_values_of_every_contract_are_checked(declared):
    schema = arrow_schema(declared)
    empty = pa.table({f.name: pa.nulls(1, f.type) for f in schema}, schema=schema)
    needed = {c.name for c in declared.columns if not c.nullable}
    found = {line.split(":")[0] for line in problems(declared, empty)}
    assert found == needed


def test_geometries_are_bytes_and_may_not_be_missing(tmp_path: Path):
    shapes = Table(
        "shapes", "", (Column("id", "int64", ""), Column("geometry", "geometry", "")), ("id",)
    )
    wkb = shapely.to_wkb(shapely.box(0, 0, 1, 1))
    good = pa.table({"id": [1, 2], "geometry": [wkb, wkb]})
    Checker(shapes).check(conform(shapes, good))
    with pytest.raises(ContractError, match="geometry: 1 missing values"):
        Checker(shapes).check(conform(shapes, pa.table({"id": [1, 2], "geometry": [wkb, None]})))
    with pytest.raises(ContractError, match="does not fit"):
        conform(shapes, pa.table({"id": [1], "geometry": ["POINT (0 0)"]}))
