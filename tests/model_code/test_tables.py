import re
from typing import get_args

import pytest

from model_code.city import Indicator
from model_code.contracts import arrow_schema
from model_code.methods import Modality
from model_code.tables import TABLES, TIMINGS, Column, Kind, Table, contract, markdown

TABLE = pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
NUMBERS = ("int8", "int32", "int64", "float32", "float64")

# A name that ends so is a quantity, and its unit is in the name, or it is a count or a share.
UNITS = ("_s", "_m", "_m2", "_km2", "_px", "_deg", "_share", "_count", "bytes")
# Numbers without a unit: coordinates in degrees, codes, positions, counts by their plural, and
# values whose unit stands in another column or is that of the target.
WITHOUT_UNIT = {
    "lon", "lat", "hour", "slot", "fold", "seed", "row", "cluster", "poi_id", "trip_id",
    "building_id", "bands", "nodata", "regions", "items", "n_train", "n_test", "left_out",
    "value", "triplet", "similarity", "weight", "number", "own_nearest", "spread",
    "coverage", "inflow", "outflow", "y_true", "y_pred", "y_true_original", "y_pred_original",
    "difference", "low", "high", "true_function", "with_kriging", "pca_1", "pca_2", "axis_1", "axis_2", "tsne_1",
    "tsne_2", "attempt", "tries", "requests", "temperature", "tokens_in", "tokens_out", "clip_cosine",
    "activity", "clip_score", "cycle_paper", "cycle_present", "cycle_score", "perception_score",
}  # fmt: skip


@TABLE
def test_names_are_unique_and_plain(table):
    names = table.names()
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in [table.name, *names])


@TABLE
def test_keys_are_columns_that_can_order_rows(table):
    assert table.key
    assert len(table.key) == len(set(table.key))
    kinds = {column.name: column.kind for column in table.columns}
    assert set(table.key) <= set(kinds)
    assert all(kinds[k] not in ("geometry", "vector", "strings", "binary") for k in table.key)


@TABLE
def test_columns_say_what_they_are(table):
    assert table.about.endswith(".")
    for column in table.columns:
        assert column.about, column.name
        assert column.kind in get_args(Kind), column.name


@TABLE
def test_bounds_fit_their_kinds(table):
    for column in table.columns:
        if column.low is not None or column.high is not None:
            assert column.kind in NUMBERS, column.name
        if column.low is not None and column.high is not None:
            assert column.low < column.high, column.name
        if column.choices:
            assert column.kind == "string", column.name
            assert len(set(column.choices)) == len(column.choices), column.name


@TABLE
def test_units_stand_in_names(table):
    for column in table.columns:
        if column.kind in NUMBERS:
            assert column.name in WITHOUT_UNIT or column.name.endswith(UNITS), column.name


def test_no_unit_is_excused_in_vain():
    assert {c.name for t in TABLES.values() for c in t.columns} >= WITHOUT_UNIT


@TABLE
def test_one_geometry_at_most(table):
    geometries = [c.name for c in table.columns if c.kind == "geometry"]
    assert len(geometries) <= 1
    assert table.geometry == (geometries[0] if geometries else None)


@TABLE
def test_becomes_an_arrow_schema(table):
    assert arrow_schema(table).names == table.names()


def test_a_name_means_one_sort_of_thing_everywhere():
    sorts = {}
    for table in TABLES.values():
        for column in table.columns:
            sort = "number" if column.kind in NUMBERS else column.kind
            sorts.setdefault(column.name, set()).add(sort)
    assert {name: found for name, found in sorts.items() if len(found) > 1} == {}


def test_what_identifies_a_fit_is_the_same_in_every_table_of_fits():
    for name in ("embeddings", "predictions", "leaderboard"):
        fit = [c for c in contract(name).columns if c.name in ("variant", "split", "fold", "seed")]
        assert [c.name for c in fit] == ["variant", "split", "fold", "seed"], name
        assert {c.name for c in fit} <= set(contract(name).key), name


def test_choices_are_those_of_the_config():
    def choices(table, column):
        return next(c.choices for c in contract(table).columns if c.name == column)

    for field in ("kind", "transform"):
        assert choices("indicators", field) == get_args(Indicator.model_fields[field].annotation)
    held = get_args(get_args(Indicator.model_fields["contained_in"].annotation)[0])
    assert set(held) < set(get_args(Modality))  # so that `target_in_inputs` can compare them


def test_an_unknown_table_lists_the_known_ones():
    assert contract("splits") is TABLES["splits"]
    with pytest.raises(KeyError, match=r"'split'; known: .*splits"):
        contract("split")


def test_a_key_that_is_no_column_is_refused():
    from model_code.tables import _table

    with pytest.raises(ValueError, match="t: key columns"):
        _table("t", "A table.", ["b"], Column("a", "string", "a"))


def test_the_page_names_every_table_and_column():
    page = markdown()
    for table in (*TABLES.values(), TIMINGS):
        section = page.split(f"\n## {table.name}\n")[1].split("\n## ")[0]
        for column in table.columns:
            assert f"| `{column.name}` | {column.kind} |" in section
    assert "one of `train`, `val`, `test`" in page


def test_contracts_do_not_change_after_loading():
    with pytest.raises(AttributeError):
        Table("t", "A table.", (), ()).name = "other"
