"""Features are kept as they come: a killed run goes on where it was, and equal pictures are one row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.features import kept_features
from assets.inputs import picture_batches
from model_code.backends import Identity, Picture
from resources.lake import Lake
from resources.rows import RowStore


class Means:
    """The mean colour, and how many pictures were asked for."""

    def __init__(self, revision: str = "1", fails_after: int | None = None) -> None:
        self.identity = Identity("means", revision)
        self.asked, self.fails_after = 0, fails_after

    def encode_images(self, pictures: Sequence[Picture]) -> np.ndarray:
        if self.fails_after is not None and self.asked >= self.fails_after:
            raise KeyboardInterrupt
        self.asked += len(pictures)
        return np.stack([p.mean(axis=(0, 1)) for p in pictures]).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> RowStore:
    return RowStore(
        Lake(str(tmp_path / "lake")), "tiny", "image_features", "features", print, tidies=True
    )


def pictures(count: int = 10) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def batches(pixels: np.ndarray, size: int = 3) -> Iterator[tuple[np.ndarray, ...]]:
    ids = np.array([f"v{9 - i}" for i in range(len(pixels))], object)
    for start in range(0, len(pixels), size):
        part = slice(start, start + size)
        yield ids[part], np.array(["r"] * len(ids[part]), object), pixels[part]


def test_rows_are_ordered_by_picture_and_hold_its_features(store: RowStore) -> None:
    rows = kept_features(store, batches(pictures()), Means())
    assert rows["image_id"].tolist() == sorted(rows["image_id"])
    for name, feature in zip(rows["image_id"], rows["feature"], strict=True):
        expected = pictures()[9 - int(name[1:])].mean(axis=(0, 1))
        np.testing.assert_allclose(feature, expected, rtol=1e-5)
    assert set(rows["encoder"]) == {"means 1"} and rows["sha256"].nunique() == 10


def test_a_killed_run_goes_on_where_it_was(store: RowStore, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        kept_features(store, batches(pictures()), Means(fails_after=6))
    other = RowStore(
        Lake(str(tmp_path / "lake")), "tiny", "image_features", "features", print, tidies=True
    )
    encoder = Means()
    assert len(kept_features(other, batches(pictures()), encoder)) == 10
    assert encoder.asked == 4
    again, newer = Means(), Means(revision="2")
    kept_features(other, batches(pictures()), again)
    kept_features(other, batches(pictures()), newer)
    assert (again.asked, newer.asked) == (0, 10)


def test_a_picture_that_is_there_twice_is_encoded_once(store: RowStore) -> None:
    twice = np.concatenate([pictures(3)[:1], pictures(3), pictures(3)[1:2]])
    encoder = Means()
    rows = kept_features(store, batches(twice), encoder)
    assert encoder.asked == 3 and len(rows) == 5 and rows["sha256"].nunique() == 3
    assert kept_features(store, iter(()), encoder).empty


def test_pictures_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    """Grey chips of one band, of which some are hidden by clouds."""
    path, chips = tmp_path / "chips.parquet", pictures(10)[..., :1]
    table = {
        "region_id": [f"r{i}" for i in range(10)],
        "pixels": [chip.tobytes() for chip in chips],
        "height_px": pa.array([8] * 10, pa.int32()),
        "width_px": pa.array([8] * 10, pa.int32()),
        "bands": pa.array([1] * 10, pa.int32()),
        "valid_share": [1.0, 0.2] * 5,
    }
    pq.write_table(pa.table(table), path)

    class Handle:
        def path(self) -> Path:
            return path

    read = list(picture_batches(Handle(), "satellite", 0.5, rows=4))
    assert [len(ids) for ids, _, _ in read] == [2, 2, 1]
    assert np.concatenate([ids for ids, _, _ in read]).tolist() == ["r0", "r2", "r4", "r6", "r8"]
    pixels = np.concatenate([pixels for _, _, pixels in read])
    np.testing.assert_array_equal(pixels, chips[::2].repeat(3, axis=3))
