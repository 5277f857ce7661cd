"""Pictures of which a test sees how many are held at once."""

from __future__ import annotations

import weakref

import numpy as np


class HeldPictures:
    """Makes pictures.

    Attributes:
        most: that were held at once.
    """

    def __init__(self) -> None:
        self._alive: set[int] = set()
        self.most = 0

    def picture(self, value: int) -> np.ndarray:
        """A small picture of one value, uint8 [8, 8, 3]."""
        made = np.full((8, 8, 3), value, np.uint8)
        self._alive.add(id(made))
        self.most = max(self.most, len(self._alive))
        weakref.finalize(made, self._alive.discard, id(made))
        return made
