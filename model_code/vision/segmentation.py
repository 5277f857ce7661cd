"""Segments pictures by colour and position: each pixel takes the class of its nearest prototype.

Near in brightness and tint (of the pixel and of two neighbourhoods), in contrast and, on streets,
in place and in what stands above it. The prototypes, a handful a class, were fitted once by learning
vector quantisation to labelled pictures of rendered streets and chips that belong to no city; the
spread of each cue says how much it counts. A segmenter reads nothing but pixels. B pictures of
H x W pixels, C cues, P prototypes, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model_code.backends import Identity, Picture, Segmentation
from model_code.fingerprint import code_digests, digest

Floats = NDArray[np.float32]

MIN_SIDE_PX = 16
_BATCH = 64
_LEAST_TINT = 0.02  # spread of tint over brightness; grey and toned photographs have less
_LEAST_CONTRAST = 2.0

STREET_CLASSES = (
    "sky", "building", "road", "sidewalk", "tree", "grass", "car", "person", "signboard", "water",
    "other",
)  # fmt: skip
LAND_COVER_CLASSES = (
    "background", "building", "industrial", "road", "water", "barren", "forest", "grass",
)  # fmt: skip


@dataclass(frozen=True)
class Prototypes:
    """`cues` [P, C] of the class `labels` [P], each with a handicap `cost` [P]; `spread` [C] is the
    unit of each cue. A pixel further than `reach` (squared) from all of them is `unlike`."""

    labels: tuple[str, ...]
    cues: Floats
    cost: Floats
    spread: Floats
    reach: float
    unlike: str


class _ByColour:
    """What both views share."""

    classes: tuple[str, ...]
    size: tuple[int, int]  # height and width at which pictures are looked at
    prototypes: Prototypes

    def __init__(self) -> None:
        self.identity = Identity(type(self).__name__, digest(code_digests([__name__]))[:12])

    def segment(self, pictures: Sequence[Picture]) -> Segmentation:
        """Pixel shares by class; a picture's row does not depend on the others."""
        reasons = [_unfit(picture) for picture in pictures]
        shares = np.full((len(pictures), len(self.classes)), np.nan, np.float32)
        fit = [i for i, reason in enumerate(reasons) if not reason]
        for batch in _batches(fit):
            labels = self.label([pictures[i] for i in batch]).reshape(len(batch), -1)
            shares[batch] = (labels[:, :, None] == np.arange(len(self.classes))).mean(axis=1)
        return Segmentation(self.classes, shares, tuple(reasons))

    def label(self, pictures: Sequence[Picture]) -> NDArray[np.uint8]:
        """Index of the class of each pixel, [B, *size]."""
        cues = self.cues(np.stack([_resized(picture, self.size) for picture in pictures]))
        of = self.prototypes
        at = cues.reshape(len(cues), -1, cues.shape[3]) / of.spread  # [B, H * W, C]
        to = of.cues / of.spread
        # One product a picture: a label must not depend on who else is in the batch. What all
        # prototypes share of the distance, the square of the cues, is added to the least alone.
        far = at @ (-2 * to.T)
        far += (to**2).sum(axis=1) + of.cost
        index = np.array([self.classes.index(label) for label in of.labels], np.uint8)
        found = index[far.argmin(axis=2)]
        unlike = far.min(axis=2) + (at**2).sum(axis=2) > of.reach
        found[unlike] = self.classes.index(of.unlike)
        return np.asarray(found.reshape(cues.shape[:3]))

    def cues(self, pixels: NDArray[np.uint8]) -> Floats:
        """What pixels are compared by: [B, H, W, C] of pictures [B, H, W, 3]."""
        raise NotImplementedError


# The words of captions by the classes that they speak of.
ELEMENTS: Mapping[str, Mapping[str, str]] = {
    "street_view": {
        "sky": "sky", "building": "buildings", "road": "road", "sidewalk": "pavement",
        "tree": "trees", "grass": "grass", "car": "vehicles", "person": "people",
        "signboard": "shop signs", "water": "water",
    },
    "satellite": {
        "background": "paved ground", "building": "buildings", "industrial": "industrial sheds",
        "road": "roads", "water": "water", "barren": "bare soil", "forest": "trees",
        "grass": "grass",
    },
}  # fmt: skip


class StreetSegmenter(_ByColour):
    """Classes of street scenes, by their ADE20K names."""

    classes = STREET_CLASSES
    size = (64, 96)

    def cues(self, pixels: NDArray[np.uint8]) -> Floats:
        """Colour with the exposure taken out, and place: row, distance from the middle column, how
        far below the horizon against that, and the strongest edge above."""
        image = pixels.astype(np.float32)
        _, height, width, _ = image.shape
        upper = image[:, : height // 2].mean(axis=3).reshape(len(image), -1)
        light = np.maximum(np.quantile(upper, 0.9, axis=1).astype(np.float32), 20)
        image = np.clip(image * (200 / light)[:, None, None, None], 0, 400)
        near = _mean(image, 3)
        brightness = near.mean(axis=3)
        step = np.abs(np.diff(brightness, axis=1, prepend=brightness[:, :1]))
        row = np.linspace(0, 100, height, dtype=np.float32)[:, None]
        aside = np.abs(np.linspace(-100, 100, width, dtype=np.float32))[None, :]
        place = [row, aside, 100 * (row - 50) / (aside + 30), light[:, None, None]]
        return _stacked(
            *_tint(image), *_tint(near), *_tint(_mean(image, 7)), _contrast(image, 3),
            np.maximum.accumulate(step, axis=1), *place,
        )  # fmt: skip


class LandCoverSegmenter(_ByColour):
    """Classes of satellite chips of about 1 km: LoveDA's, with grass for agriculture, forest for any
    trees, background for paved ground, and industrial for metal roofs and goods."""

    classes = LAND_COVER_CLASSES
    size = (64, 64)

    def cues(self, pixels: NDArray[np.uint8]) -> Floats:
        """Colour of the pixel and of its surroundings."""
        image = pixels.astype(np.float32)
        return _stacked(
            *_tint(image), *_tint(_mean(image, 3)), *_tint(_mean(image, 9)),
            _contrast(image, 3), _contrast(image, 9),
        )  # fmt: skip


def _unfit(picture: Picture) -> str:
    """Why a picture cannot be judged; empty where it can."""
    if picture.ndim != 3 or picture.shape[2] != 3 or min(picture.shape[:2]) < MIN_SIDE_PX:
        return f"smaller than {MIN_SIDE_PX} x {MIN_SIDE_PX} pixels"
    small = _resized(picture, (32, 32)).astype(np.float32)
    brightness, *tints = _tint(small)
    if brightness.std() < _LEAST_CONTRAST:
        return "one colour all over"
    if max(np.std(tint / (brightness + 20)) for tint in tints) < _LEAST_TINT:
        return "black and white: classes are told by colour"
    return ""


def _resized(picture: Picture, size: tuple[int, int]) -> NDArray[np.uint8]:
    if picture.shape[:2] == size:
        return picture
    resized = Image.fromarray(picture).resize(size[::-1], Image.Resampling.BOX)
    return np.asarray(resized)


def _mean(values: Floats, width: int) -> Floats:
    """Means over squares of pictures [B, H, W, ...]."""
    size = (1, width, width) + (1,) * (values.ndim - 3)
    return np.asarray(ndimage.uniform_filter(values, size, mode="nearest"))


def _contrast(image: Floats, width: int) -> Floats:
    brightness = image.mean(axis=3)
    spread = _mean(brightness**2, width) - _mean(brightness, width) ** 2
    return np.asarray(np.sqrt(np.maximum(spread, 0)))


def _tint(image: Floats) -> tuple[Floats, Floats, Floats]:
    """Brightness, red against green, green against blue."""
    red, green, blue = np.moveaxis(image, -1, 0)
    return image.mean(axis=-1), red - green, green - blue


def _stacked(*cues: Floats) -> Floats:
    return np.stack(np.broadcast_arrays(*cues), axis=-1).astype(np.float32)


def _batches(items: Sequence[int]) -> Iterator[Sequence[int]]:
    return (items[i : i + _BATCH] for i in range(0, len(items), _BATCH))


def _prototypes(
    reach: float,
    unlike: str,
    spread: Sequence[float],
    labelled: Mapping[str, Sequence[Sequence[float]]],
) -> Prototypes:
    labels = tuple(label for label, rows in labelled.items() for _ in rows)
    table = np.array([row for rows in labelled.values() for row in rows], np.float32)
    return Prototypes(
        labels, table[:, 1:], table[:, 0], np.array(spread, np.float32), reach, unlike
    )


# --- prototypes: cost, then the cues in the order of `cues` ---------------------------------------

StreetSegmenter.prototypes = _prototypes(
    reach=60,
    unlike="other",
    spread=[33.0, 23.4, 23.7, 42.1, 54.9, 32.3, 43.4, 32.6, 27.0, 16.9, 11.2, 13.7, 33.3, 26.5, 68.2],
    labelled={
        "sky": [
            [2.1, 200, 21, -1, 201, 6, 1, 195, 1, 48, 14, -17, 29, 93, -32, 122],
            [0.1, 216, -22, -36, 212, -12, -28, 155, 11, 19, -6, -11, 21, 85, -32, 215],
            [2.4, 186, 9, -7, 129, -9, 1, 150, -23, 33, 29, 29, 24, 75, -25, 197],
        ],
        "building": [
            [2.2, 126, 19, 1, 121, 14, 0, 156, -15, 20, 4, 23, 34, 69, -27, 193],
            [1.7, 142, 17, 24, 127, 30, -4, 158, 18, 31, 16, 35, 50, 84, -28, 186],
            [1.5, 225, 0, 31, 158, 4, 21, 150, 11, 1, 31, 27, 18, 106, -42, 161],
            [2.4, 121, -55, -3, 119, -40, -10, 129, -3, 16, 21, 20, 70, 59, -41, 187],
        ],
        "road": [
            [1.8, 113, 8, -5, 187, -15, 15, 74, -12, 23, 36, 32, 72, 46, 74, 189],
            [0.0, 83, -10, -10, 113, -16, -1, 82, -18, 14, 15, 31, 93, 0, 52, 172],
            [2.5, 98, -3, 5, 87, -13, 7, 112, 17, -41, 10, 35, 69, -24, -1, 168],
        ],
        "sidewalk": [
            [3.3, 147, 18, 21, 146, 8, 27, 118, -6, -1, 14, 34, 81, 38, -15, 186],
            [3.6, 146, 0, 25, 132, 9, 23, 143, 2, 1, 16, 27, 97, 35, 3, 157],
            [3.4, 150, 18, 6, 110, 10, 15, 149, -36, 56, 22, 38, 68, 88, 15, 158],
        ],
        "tree": [
            [2.6, 98, -5, 18, 167, -29, 40, 163, -29, -7, 16, 31, 32, 67, -6, 181],
            [1.8, 39, -5, 43, 142, -9, 28, 160, -12, 9, -3, 24, 28, 42, -15, 181],
            [3.7, 42, 8, 39, 118, -6, 6, 135, -34, 25, 25, 34, 61, 56, -17, 180],
        ],
        "grass": [
            [2.1, 121, 6, 54, 157, 1, 35, 85, 3, -40, 13, 37, 61, 26, 18, 152],
            [1.4, 105, -12, 53, 168, -23, 64, 111, 3, -17, 22, 31, 85, 52, 39, 155],
        ],
        "car": [
            [3.1, 47, -16, -15, 34, 7, -27, 82, 27, -5, 33, 29, 62, 6, 27, 189],
            [3.6, 169, -20, -19, 126, -17, -26, 189, -6, 30, 3, 29, 36, 36, 43, 191],
            [3.4, 145, 34, 22, 156, 27, 29, 103, 21, 4, 20, 37, 42, 48, 44, 216],
        ],
        "person": [
            [2.6, 31, -28, -13, 70, -18, -2, 177, -4, 33, 29, 31, 63, 52, 20, 175],
            [3.7, 152, 41, 28, 126, 41, 26, 132, -25, 0, 26, 36, 45, 85, 22, 181],
        ],
        "signboard": [
            [4.1, 244, 12, 0, 168, 4, 40, 207, 5, 22, 39, 32, 36, 100, -31, 230],
            [2.0, 165, 53, 38, 171, 46, 12, 137, -7, 21, 28, 35, 36, 75, -2, 264],
            [1.5, 145, -87, -9, 151, -57, 5, 116, 6, 14, 35, 23, 38, 75, 4, 191],
        ],
        "water": [
            [4.1, 151, -24, -5, 80, -31, -27, 152, -10, 36, 0, 34, 57, 46, -20, 161],
            [3.9, 154, -38, -5, 75, -33, -22, 150, -29, 21, 5, 31, 49, 79, 25, 89],
            [4.5, 150, -33, 0, 74, -32, -14, 147, -47, 16, 9, 34, 52, 77, 15, 209],
        ],
    },
)  # fmt: skip
LandCoverSegmenter.prototypes = _prototypes(
    reach=40,
    unlike="background",
    spread=[34.7, 13.9, 17.1, 50.5, 27.4, 35.0, 46.0, 22.0, 18.4, 28.0, 26.4],
    labelled={
        "background": [
            [3.6, 151, -9, 29, 128, -5, 46, 145, 10, 4, -5, 20],
            [4.4, 146, -11, 8, 180, -40, 3, 162, -13, 5, 6, 7],
            [4.2, 87, 9, 29, 142, 23, 25, 131, 14, 4, 32, 22],
        ],
        "industrial": [
            [5.1, 109, 18, 20, 154, 4, 23, 134, -26, 3, 29, 16],
            [0.0, 177, -38, 5, 160, -9, 23, 148, -2, 15, 12, 16],
        ],
        "road": [
            [3.7, 93, 0, 11, 124, 22, 46, 156, 3, 34, 15, 20],
            [4.5, 120, 7, -14, 140, 4, 7, 103, -32, -11, 33, 4],
        ],
        "water": [
            [4.6, 138, -31, 7, 117, -21, 8, 90, -25, -14, 23, 16],
        ],
        "barren": [
            [1.5, 151, -8, 31, 146, -3, 28, 60, -25, -23, 5, 33],
            [3.2, 109, 9, 39, 151, 8, 44, 166, 12, 28, 14, 12],
        ],
        "forest": [
            [1.8, 59, 10, 45, 136, 18, 31, 128, 9, 24, 31, 24],
            [4.2, 125, -27, 21, 135, 6, 48, 139, 4, 19, 19, 14],
        ],
        "grass": [
            [4.3, 155, -11, 43, 138, -21, 34, 148, -3, 21, 2, 20],
            [5.3, 90, 9, 40, 121, 21, 36, 108, 1, 27, 29, 37],
        ],
        "building": [
            [4.8, 170, 14, 21, 189, -12, 45, 82, 9, 17, 31, 25],
            [1.5, 108, 24, -8, 82, -16, -7, 122, 11, 41, 1, 29],
            [2.9, 82, 16, 40, 132, 17, 1, 110, 0, 19, 38, 22],
        ],
    },
)  # fmt: skip
