"""A table's contract put to work: the Arrow schema, and the check that runs before a rename."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from model_code.errors import ContractError
from model_code.tables import Column, Table

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_schema(table: Table) -> pa.Schema:
    """Arrow schema of a contract; geometry is WKB, a vector a list of float32."""
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "int8": pa.int8(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float32": pa.float32(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "binary": pa.binary(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "geometry": pa.binary(),
        "vector": pa.list_(pa.float32()),
        "strings": pa.list_(pa.string()),
    }
    # Nullability is checked by `problems`, with a better message than Arrow's.
    return pa.schema([pa.field(c.name, types[c.kind]) for c in table.columns])


def conform(table: Table, data: pa.Table | pa.RecordBatch) -> pa.Table:
    """The data with the contract's columns in their order and types.

    Raises:
        ContractError: a column is missing, not declared, or of a type that cannot be converted.
    """
    import pyarrow as pa

    data = pa.Table.from_batches([data]) if isinstance(data, pa.RecordBatch) else data
    missing = [n for n in table.names() if n not in data.column_names]
    extra = [n for n in data.column_names if n not in table.names()]
    twice = sorted({n for n in data.column_names if data.column_names.count(n) > 1})
    if missing or extra or twice:
        raise ContractError(
            f"table {table.name!r}: missing columns {missing}, undeclared columns {extra}, "
            f"columns given twice {twice}",
            fix="make the stage return the columns of model_code/tables.py",
        )
    if not data.num_rows:  # whatever the types of no values are
        return arrow_schema(table).empty_table()
    columns = []
    for field in arrow_schema(table):
        have = data.column(field.name).type
        try:
            if not _fits(have, field.type):
                raise pa.ArrowInvalid("it is another sort of value")
            columns.append(data.column(field.name).cast(field.type))
        except pa.ArrowException as error:
            raise ContractError(
                f"table {table.name!r}, column {field.name!r}: {have} does not fit {field.type} "
                f"({error})",
                fix="make the stage return the type of model_code/tables.py",
            ) from error
    return pa.table(columns, schema=arrow_schema(table))


def _fits(have: pa.DataType, want: pa.DataType) -> bool:
    """Whether a cast keeps what values mean. Arrow would also parse texts, print numbers and take a
    clock without a zone for UTC."""
    import pyarrow.types as t

    if t.is_null(have):
        return True
    if t.is_dictionary(have):
        return _fits(have.value_type, want)
    if t.is_string(want):
        return bool(t.is_string(have) or t.is_large_string(have) or t.is_string_view(have))
    if t.is_integer(want) or t.is_floating(want):
        return bool(t.is_integer(have) or t.is_floating(have))
    if t.is_timestamp(want):
        return bool(t.is_timestamp(have)) and have.tz is not None
    if t.is_list(want):
        listed = t.is_list(have) or t.is_large_list(have) or t.is_fixed_size_list(have)
        return bool(listed) and _fits(have.value_type, want.value_type)
    if t.is_binary(want):
        return bool(t.is_binary(have) or t.is_large_binary(have) or t.is_fixed_size_binary(have))
    return bool(have == want)


def problems(table: Table, data: pa.Table) -> list[str]:
    """What in (a part of) a conforming table breaks its contract, in words; empty if nothing.

    Plain columns go through pandera; vectors, lists and geometries through Arrow.
    """
    import pandera.pandas as pandera
    import pyarrow.compute as pc

    found: list[str] = []
    plain: dict[str, Any] = {}
    for column in table.columns:
        values = data.column(column.name)
        if values.null_count and not column.nullable:
            found.append(f"{column.name}: {values.null_count} missing values")
        numbers = pc.list_flatten(values) if column.kind == "vector" else values
        if column.kind == "vector" and numbers.null_count:
            found.append(f"{column.name}: {numbers.null_count} missing numbers within vectors")
        if (
            column.kind in ("vector", "float32", "float64")
            and not pc.all(pc.is_finite(pc.drop_null(numbers)), min_count=0).as_py()
        ):
            found.append(f"{column.name}: values that are not finite (missing is null, not NaN)")
        if column.kind not in ("vector", "strings", "geometry", "binary"):
            plain[column.name] = _pandera_column(column)
    frame = data.select(list(plain)).to_pandas(types_mapper=_nullable)
    try:
        pandera.DataFrameSchema(plain).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases.groupby(["column", "check"], sort=True, dropna=False)
        for (name, check), rows in cases:
            sample = ", ".join(map(str, rows["failure_case"].head(3)))
            found.append(f"{name}: {len(rows)} values fail {check} (such as {sample})")
    return found


def _nullable(kind: pa.DataType) -> Any:
    """Integers with missing values stay integers in pandas."""
    import pandas as pd
    import pyarrow.types as t

    sizes = {8: pd.Int8Dtype, 32: pd.Int32Dtype, 64: pd.Int64Dtype}
    return sizes[kind.bit_width]() if t.is_integer(kind) else None


def _pandera_column(column: Column) -> Any:
    import pandera.pandas as pandera

    checks = []
    if column.low is not None:
        checks.append(pandera.Check.ge(column.low))
    if column.high is not None:
        checks.append(pandera.Check.le(column.high))
    if column.choices:
        checks.append(pandera.Check.isin(column.choices))
    return pandera.Column(None, checks=checks, nullable=True)  # missing values: counted above


class Checker:
    """Checks a table part by part, in the order in which it is written.

    Rows must be ordered by the key and unique in it, across parts too.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.rows = 0
        self.missing = dict.fromkeys(table.names(), 0)
        self._last: tuple[Any, ...] | None = None

    def check(self, part: pa.Table) -> None:
        """Raises ContractError with everything that is wrong in this part."""
        found = problems(self.table, part)
        found += self._order(part)
        if found:
            raise ContractError(
                f"table {self.table.name!r} breaks its contract:\n    " + "\n    ".join(found),
                fix="mend the raw data or the stage; the table that stood before is kept",
            )
        self.rows += part.num_rows
        for name in self.missing:
            self.missing[name] += part.column(name).null_count

    def _order(self, part: pa.Table) -> Iterator[str]:
        if not part.num_rows:
            return
        keys = part.select(list(self.table.key))
        first, last = keys.slice(0, 1).to_pylist()[0], keys.slice(part.num_rows - 1).to_pylist()[0]
        head = tuple((first[k] is None, first[k]) for k in self.table.key)
        if self._last is not None and not self._last < head:
            yield f"rows are not ordered by {self.table.key} across parts (at row {self.rows})"
        self._last = tuple((last[k] is None, last[k]) for k in self.table.key)
        ordered = keys.sort_by([(k, "ascending") for k in self.table.key])
        if not ordered.equals(keys):
            yield f"rows are not ordered by the key {self.table.key}"
        repeated = int(keys.to_pandas(types_mapper=_nullable).duplicated().sum())
        if repeated:
            yield f"{repeated} rows repeat a key {self.table.key}"
