from __future__ import annotations

import numpy as np
import pytest

from model_code.vision.renders import height_pictures, sheet


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (5, 2, 3)])
def test_a_sheet_shows_every_picture_in_its_order(count: int, rows: int, columns: int) -> None:
    pictures = np.random.default_rng(0).integers(1, 255, (count, 4, 6, 3), dtype=np.uint8)
    shown = sheet(pictures)
    assert shown.shape == (4 * rows, 6 * columns, 3)
    for i in range(rows * columns):
        row, column = divmod(i, columns)
        cell = shown[4 * row : 4 * (row + 1), 6 * column : 6 * (column + 1)]
        np.testing.assert_array_equal(cell, pictures[i] if i < count else 0)


def test_heights_are_shades_on_one_scale_and_unknown_ones_are_none() -> None:
    metres = np.array([[[0.0, 3.0], [30.0, 300.0]], [[900.0, np.nan], [0.0, 0.0]]], np.float32)
    shown = height_pictures(metres)
    assert shown.shape == (2, 2, 2, 3) and shown.dtype == np.uint8
    shade = shown[0, :, :, 0].ravel()
    assert shade[0] == 0 and (np.diff(shade.astype(int)) > 20).all() and shade[3] == 255
    assert (shown[0] == shown[0][..., :1]).all()  # grey
    assert shown[1, 0].tolist() == [[255, 255, 255], [0, 0, 255]]
