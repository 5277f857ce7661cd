from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from model_code.demo.files import degrees, quads_wkb, wkb, write_parquet


def test_parts_make_one_file_and_no_part_is_lost(tmp_path: Path) -> None:
    parts = [pa.table({"a": list(range(start, start + 3))}) for start in (0, 3, 6)]
    assert write_parquet(tmp_path / "parts.parquet", iter(parts)) == 9
    assert write_parquet(tmp_path / "whole.parquet", pa.concat_tables(parts)) == 9
    read = pq.read_table(tmp_path / "parts.parquet")
    assert read.equals(pq.read_table(tmp_path / "whole.parquet"))
    assert pq.ParquetFile(tmp_path / "parts.parquet").num_row_groups == 3
    assert write_parquet(tmp_path / "none.parquet", []) == 0
    assert not (tmp_path / "none.parquet").exists()


def test_polygons_are_read_back_as_geoparquet_in_degrees(tmp_path: Path) -> None:
    boxes = shapely.box([0, 1], [0, 1], [1, 2], [1, 2])
    table = pa.table({"shape": wkb(boxes), "value": [1, 2]})
    write_parquet(tmp_path / "boxes.parquet", table, "shape")
    read = gpd.read_parquet(tmp_path / "boxes.parquet")
    assert read.geometry.name == "shape" and read.crs == "EPSG:4326"
    assert shapely.equals_exact(read.geometry.to_numpy(), boxes).all()


def test_quadrilaterals_are_what_shapely_makes_of_them() -> None:
    corners = np.random.default_rng(0).random((50, 4, 2)).cumsum(axis=0)
    made = shapely.from_wkb(quads_wkb(corners).to_numpy(zero_copy_only=False))
    assert (made == shapely.polygons(corners)).all()
    assert len(quads_wkb(np.empty((0, 4, 2)))) == 0


def test_degrees_are_kept_to_a_tenth_of_a_metre() -> None:
    values = np.random.default_rng(0).uniform(-180, 180, 1000)
    rounded = degrees(values)
    assert np.abs(rounded - values).max() <= 0.5e-6 + 1e-12
    assert {len(f"{v:.10f}".rstrip("0").split(".")[1]) for v in rounded} <= set(range(7))
