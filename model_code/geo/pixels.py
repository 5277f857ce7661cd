"""Pictures as columns of a table: one uint8 or float32 array a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BATCH_BYTES = 32 << 20


def binary_column(pictures: NDArray[Any]) -> pa.Array:
    """Pictures [N, ...] as N binary values, each its array in C order."""
    flat = np.ascontiguousarray(pictures)
    size = flat.nbytes // max(len(flat), 1)
    offsets = np.arange(len(flat) + 1, dtype=np.int32) * np.int32(size)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(flat)]
    return pa.Array.from_buffers(pa.binary(), len(flat), buffers)


def slices(rows: int, each: int, budget: int = BATCH_BYTES) -> Iterator[slice]:
    """Consecutive slices of `rows` things of size `each`, as many at a time as `budget` holds."""
    step = max(1, budget // max(each, 1))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
