"""Raw rows that cannot be used: counted, kept with the reason, never dropped silently."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TOLD = 10_000  # texts of millions of rows would fill the memory, and each is in its raw row
_BATCH_ROWS = 1 << 20


@dataclass
class _Sort:
    """All rows of one reason in one source, as they were noted: 8 bytes a row, and 8 more where each
    row stands for another number of items."""

    rows: list[NDArray[np.int64]] = field(default_factory=list)
    items: list[NDArray[np.float64]] = field(default_factory=list)
    details: list[str | Sequence[str]] = field(default_factory=list)
    told: int = 0  # details of their own

    def take(
        self, rows: NDArray[np.int64], detail: str | Sequence[str], items: NDArray[np.float64]
    ) -> None:
        if not isinstance(detail, str):
            detail = list(detail[: TOLD - self.told])
            self.told += len(detail)
        self.rows.append(rows)
        self.items.append(items)
        self.details.append(detail)

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    @property
    def total(self) -> float:
        return float(sum(items.sum() for items in self.items))


class Rejections:
    """Collects rejected rows of one stage, each with its reason; `batches` is the table `rejected`."""

    def __init__(self) -> None:
        self._sorts: dict[tuple[str, str], _Sort] = {}

    def add(
        self,
        source: str,
        rows: Iterable[int] | np.ndarray,
        reason: str,
        detail: str | Sequence[str] = "",
        items: float | np.ndarray = 1,
    ) -> None:
        """Note `rows` (positions in `source`) with one reason.

        Args:
            detail: one text for all rows or one a row; of the latter the first `TOLD` of a reason in a
                source are kept.
            items: how many things a row stands for (fractions where things are shared by area; 0
                for a note without a loss).
        """
        # Copies: a view would keep all that it is a part of.
        positions = np.array(list(rows) if not isinstance(rows, np.ndarray) else rows, np.int64)
        if not len(positions):
            return
        if not isinstance(detail, str) and len(detail) != len(positions):
            raise ValueError(f"{len(detail)} details for {len(positions)} rows of {source}")
        counts = np.broadcast_to(np.array(items, np.float64), positions.shape)
        self._sort(source, reason).take(positions, detail, counts)

    def extend(self, other: Rejections) -> None:
        """Take over what another one has collected."""
        for (source, reason), found in other._sorts.items():
            sort = self._sort(source, reason)
            for part in zip(found.rows, found.details, found.items, strict=True):
                sort.take(*part)

    def _sort(self, source: str, reason: str) -> _Sort:
        return self._sorts.setdefault((source, reason), _Sort())

    def __len__(self) -> int:
        """How many rows were noted."""
        return sum(map(len, self._sorts.values()))

    @property
    def items(self) -> float:
        """How many things the rejected rows stand for."""
        return sum(self.items_by_reason().values())

    def items_by_reason(self) -> dict[str, float]:
        """How many things the rows of each reason stand for, in the order of the reasons."""
        found: dict[str, float] = {}
        for (_, reason), sort in sorted(self._sorts.items(), key=lambda entry: entry[0][1]):
            found[reason] = found.get(reason, 0.0) + sort.total
        return found

    def batches(self, stage: str, batch_rows: int = _BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The table `rejected` of a stage, in the order of its key. A row that was noted more than once
        with one reason stands there once, with the sum of its items and its first detail. Some 70 bytes a
        row are needed while a source is put in order."""
        for source in sorted({source for source, _ in self._sorts}):
            sorts = {r: sort for (s, r), sort in sorted(self._sorts.items()) if s == source}
            yield from _of_source(stage, source, sorts, batch_rows)

    def frame(self) -> pd.DataFrame:
        """The table `rejected` in pandas, without `stage`."""
        import pyarrow as pa

        from model_code.contracts import arrow_schema
        from model_code.tables import contract

        table = pa.Table.from_batches(self.batches(""), arrow_schema(contract("rejected")))
        frame: pd.DataFrame = table.drop_columns("stage").to_pandas()
        return frame


def _of_source(
    stage: str, source: str, sorts: dict[str, _Sort], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Rows of one source; `sorts` in the order of their reasons."""
    import pyarrow as pa

    from model_code.contracts import arrow_schema
    from model_code.tables import contract

    row, items = (
        np.concatenate([part for sort in sorts.values() for part in getattr(sort, name)])
        for name in ("rows", "items")
    )
    reason = np.repeat(np.arange(len(sorts), dtype=np.int32), [len(s) for s in sorts.values()])
    texts, detail = _coded_details(sorts.values())
    order = np.lexsort((reason, row))  # stable: of a row's details the first is kept
    row, reason, detail, items = row[order], reason[order], detail[order], items[order]
    again = (row[1:] == row[:-1]) & (reason[1:] == reason[:-1])
    first = np.flatnonzero(np.append(True, ~again))
    items = np.add.reduceat(items, first)
    reasons, texts = pa.array(list(sorts), pa.string()), pa.array(texts, pa.string())
    for start in range(0, len(first), batch_rows):
        some = first[start : start + batch_rows]
        columns = {
            "stage": pa.repeat(stage, len(some)),
            "source": pa.repeat(source, len(some)),
            "row": pa.array(row[some]),
            "reason": reasons.take(pa.array(reason[some])),
            "detail": texts.take(pa.array(detail[some])),
            "items": pa.array(items[start : start + batch_rows]),
        }
        schema = arrow_schema(contract("rejected"))
        yield pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _coded_details(sorts: Iterable[_Sort]) -> tuple[list[str], NDArray[np.int32]]:
    """Texts, and which of them each row has: the empty one where its own was not kept."""
    texts, codes = [""], []
    for sort in sorts:
        for rows, detail in zip(sort.rows, sort.details, strict=True):
            code = np.zeros(len(rows), np.int32)
            if isinstance(detail, str):
                code[:] = len(texts)
                texts.append(detail)
            else:
                code[: len(detail)] = len(texts) + np.arange(len(detail))
                texts += detail
            codes.append(code)
    return texts, np.concatenate(codes)


def summary(batches: Iterable[pa.RecordBatch], examples: int = 3) -> pd.DataFrame:
    """A table `rejected` in short; it is read as a stream.

    Args:
        batches: with the contract `rejected`, in the order of its key.
        examples: rows of each reason that are told.

    Returns:
        Columns stage, source, reason, rows, items, examples (a list of texts), ordered by the first
        three.
    """
    import functools

    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = ["stage", "source", "reason"]
    found: dict[tuple[str, ...], list[Any]] = {}
    for batch in batches:
        sorts = (
            pa.Table.from_batches([batch])
            .group_by(keys, use_threads=False)
            .aggregate([("row", "count"), ("items", "sum")])
        )
        for sort in sorts.to_pylist():
            key = tuple(sort[name] for name in keys)
            entry = found.setdefault(key, [0, 0.0, []])
            entry[0] += sort["row_count"]
            entry[1] += sort["items_sum"]
            if wanted := examples - len(entry[2]):
                same = [pc.equal(batch[name], sort[name]) for name in keys]
                rows = batch.filter(functools.reduce(pc.and_, same)).slice(0, wanted).to_pylist()
                entry[2] += [
                    ": ".join(filter(None, (f"row {r['row']}", r["detail"]))) for r in rows
                ]
    columns = [*keys, "rows", "items", "examples"]
    return pd.DataFrame([[*key, *entry] for key, entry in sorted(found.items())], columns=columns)
