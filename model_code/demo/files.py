"""Writers of the raw files: Parquet and GeoParquet in row groups, and GeoTIFF options."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely

from model_code.demo.fields import Doubles

GEOTIFF: dict[str, Any] = {
    "driver": "GTiff", "compress": "deflate", "tiled": True, "blockxsize": 512, "blockysize": 512,
}  # fmt: skip


def degrees(values: Doubles) -> Doubles:
    """To a millionth of a degree (0.1 m), as receivers give it."""
    return np.round(values, 6)


def write_parquet(path: Path, parts: pa.Table | Iterable[pa.Table], geometry: str = "") -> int:
    """Write one table, or its parts one after the other, and return the number of rows.

    `geometry` names the column of WKB polygons in EPSG:4326, which makes the file GeoParquet.
    """
    rows = 0
    writer: pq.ParquetWriter | None = None
    for part in [parts] if isinstance(parts, pa.Table) else parts:
        table = part.replace_schema_metadata({"geo": _geo(geometry)} if geometry else None)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
        rows += table.num_rows
    if writer:
        writer.close()
    return rows


def _geo(geometry: str) -> str:
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": pyproj.CRS("EPSG:4326").to_json_dict(),
    }
    geo = {"version": "1.0.0", "primary_column": geometry, "columns": {geometry: column}}
    return json.dumps(geo, sort_keys=True)


def wkb(polygons: Any) -> pa.Array:
    """Shapely polygons as WKB."""
    return pa.array(shapely.to_wkb(polygons), pa.binary())


_QUAD = np.dtype(
    [("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("ring", "<f8", (5, 2))]
)  # fmt: skip


def quads_wkb(corners: Doubles) -> pa.Array:
    """Quadrilaterals [M, 4, 2] as WKB polygons, without an object for each."""
    record = np.empty(len(corners), _QUAD)
    record["order"], record["type"], record["rings"], record["points"] = 1, 3, 1, 5
    record["ring"][:, :4] = corners
    record["ring"][:, 4] = corners[:, 0]
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(_QUAD.itemsize), len(corners), [None, pa.py_buffer(record.tobytes())]
    )
    return fixed.cast(pa.binary())
