"""Features are kept as they come: a killed run goes on where it was, and equal pictures are one row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from assets import features
from assets.features import kept_features
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


class Held(Sequence[Picture]):
    """Pictures that are there, under ids that fall."""

    def __init__(self, pixels: np.ndarray, ids: np.ndarray | None = None) -> None:
        self.pixels = pixels
        self.image_id = np.array([f"v{9 - i}" for i in range(len(pixels))]) if ids is None else ids
        self.region_id = np.array(["r"] * len(pixels), object)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i):
        return Held(self.pixels[i], self.image_id[i]) if isinstance(i, slice) else self.pixels[i]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_BATCH", 3)


def test_rows_are_ordered_by_picture_and_hold_its_features(store: RowStore) -> None:
    rows = kept_features(store, Held(pictures()), Means())
    assert rows["image_id"].tolist() == sorted(rows["image_id"])
    for name, feature in zip(rows["image_id"], rows["feature"], strict=True):
        expected = pictures()[9 - int(name[1:])].mean(axis=(0, 1))
        np.testing.assert_allclose(feature, expected, rtol=1e-5)
    assert set(rows["encoder"]) == {"means 1"} and rows["sha256"].nunique() == 10


def test_a_killed_run_goes_on_where_it_was(store: RowStore, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        kept_features(store, Held(pictures()), Means(fails_after=6))
    other = RowStore(
        Lake(str(tmp_path / "lake")), "tiny", "image_features", "features", print, tidies=True
    )
    encoder = Means()
    assert len(kept_features(other, Held(pictures()), encoder)) == 10
    assert encoder.asked == 4
    again, newer = Means(), Means(revision="2")
    kept_features(other, Held(pictures()), again)
    kept_features(other, Held(pictures()), newer)
    assert (again.asked, newer.asked) == (0, 10)


def test_a_picture_that_is_there_twice_is_encoded_once(store: RowStore) -> None:
    twice = np.concatenate([pictures(3)[:1], pictures(3), pictures(3)[1:2]])
    encoder = Means()
    rows = kept_features(store, Held(twice), encoder)
    assert encoder.asked == 3 and len(rows) == 5 and rows["sha256"].nunique() == 3
    assert kept_features(store, Held(pictures(0)), encoder).empty
