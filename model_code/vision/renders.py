"""Pictures made of other things: several on one sheet, and maps of heights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HIGHEST_M = 300.0


def sheet(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures [V, H, W, 3] of one size side by side, row by row, in about as many rows as columns; what
    is left over is black."""
    count, height, width, bands = pictures.shape
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    cells = np.zeros((rows * columns, height, width, bands), np.uint8)
    cells[:count] = pictures
    grid = cells.reshape(rows, columns, height, width, bands).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, bands)


def height_pictures(heights_m: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Maps of building heights in metres [N, H, W] as pictures [N, H, W, 3]: from black ground to white
    at 300 m, by the logarithm, on one scale for all; blue where no height is known."""
    level = np.log1p(np.clip(np.nan_to_num(heights_m), 0, _HIGHEST_M)) / np.log1p(_HIGHEST_M)
    grey = np.repeat(np.round(255 * level).astype(np.uint8)[..., None], 3, axis=-1)
    grey[np.isnan(heights_m)] = (0, 0, 255)
    return grey
