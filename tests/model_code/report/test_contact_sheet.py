from __future__ import annotations

import io

import numpy as np
from PIL import Image

from model_code.report.contact_sheet import sheet, small


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full((*size, 3), colour, np.uint8)


def test_each_painting_stands_beside_its_source() -> None:
    reds, blues = [plain((250, 0, 0))] * 7, [small(plain((0, 0, 250)))] * 7
    page = np.asarray(Image.open(io.BytesIO(sheet(reds, blues, [f"v{i}" for i in range(7)]))))
    row = page[40]
    red, blue = row[:, 0] > 200, row[:, 2] > 200
    for own, other in ((red, blue), (blue, red)):
        assert abs((own & ~other).sum() - 5 * 64) <= 20  # five pairs a row, but for JPEG's edges
    assert (page[:, 20, 0] > 200).mean() > 0.9 and page.shape[0] == 2 * (48 + 12 + 6)


def test_large_ones_are_kept_small() -> None:
    image = Image.open(io.BytesIO(small(plain((9, 9, 9), (600, 1200)))))
    assert image.size == (256, 128)
