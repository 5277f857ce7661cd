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

    classes: tuple[str, ...] = STREET_CLASSES
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

    classes: tuple[str, ...] = LAND_COVER_CLASSES
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


# --- prototypes: cost, then the cues in the order of `cues` ------------------------------------------

StreetSegmenter.prototypes = _prototypes(
    reach=60,
    unlike="other",
    spread=[34.1, 22.0, 25.8, 33.1, 50.3, 29.1, 36.5, 32.8, 30.4, 14.6, 13.8, 12.5, 34.3, 30.8, 60.9],
    labelled={
        "sky": [
            [5.3, 181, -3, 25, 97, 1, 11, 144, -44, -3, 27, 29, 27, 67, -7, 177],
            [3.1, 216, -35, -35, 155, -26, -7, 103, -7, 31, 23, -10, 27, 70, -24, 130],
            [0.0, 201, -6, -27, 212, -3, -21, 200, 6, 13, -22, -21, 21, 102, -36, 220],
            [5.5, 216, 16, 4, 193, -4, -1, 150, -5, 49, 24, 23, 37, 92, -51, 162],
        ],
        "building": [
            [4.6, 146, 33, 51, 128, 27, 10, 140, -13, 13, -15, 27, 66, 86, 5, 181],
            [1.7, 223, 19, 39, 243, 15, 25, 170, -15, -14, 33, 32, 22, 98, -35, 124],
            [5.0, 152, 29, 19, 102, 28, 6, 117, 4, 54, 24, 31, 44, 58, -2, 193],
            [4.2, 150, -6, 9, 153, 2, -16, 193, 31, 51, 14, 35, 60, 93, 13, 182],
            [4.1, 105, -56, -4, 120, -50, -16, 92, 8, -18, 19, 15, 48, 46, -29, 187],
            [4.2, 159, 20, 19, 107, 9, 10, 146, -40, 12, 9, 17, 35, 69, -24, 170],
            [3.3, 95, 9, 1, 115, 18, -12, 127, 6, 28, 17, 33, 39, 80, -57, 151],
        ],
        "road": [
            [4.8, 102, 0, 3, 93, -25, 13, 101, 18, -37, 23, 35, 70, -19, 8, 166],
            [5.4, 125, 12, 13, 155, -24, 3, 101, -19, 21, 30, 29, 75, 44, 85, 189],
            [1.2, 96, -5, -18, 122, -15, -4, 92, -20, 22, 17, 34, 95, -5, 48, 182],
        ],
        "sidewalk": [
            [5.3, 148, -4, -3, 103, 1, -2, 149, 3, 34, 21, 37, 81, 30, 1, 31],
            [7.0, 159, 20, 12, 107, 28, 38, 119, -22, 7, 24, 33, 67, 39, -2, 196],
            [4.5, 158, 14, 18, 155, 10, 20, 142, -9, 24, 6, 32, 90, 54, 5, 180],
        ],
        "tree": [
            [4.9, 109, -4, 16, 141, -36, 47, 142, -38, -21, 21, 34, 33, 64, -10, 164],
            [3.7, 27, -14, 13, 124, -15, 41, 136, -3, 20, 20, 32, 35, 58, -37, 144],
            [6.6, 60, 22, 25, 110, 8, 28, 115, -30, 32, 29, 33, 47, 57, 38, 179],
        ],
        "grass": [
            [3.6, 112, -4, 41, 166, -19, 72, 124, 20, -13, 19, 31, 85, 51, 28, 171],
            [4.0, 128, 12, 58, 141, -3, 34, 87, -4, -49, 22, 36, 61, 23, 13, 165],
        ],
        "car": [
            [5.2, 154, 37, 26, 122, 32, 32, 97, 12, 9, 26, 35, 49, 36, 57, 218],
            [6.1, 184, -5, 4, 144, -2, 14, 223, 17, 15, 4, 36, 52, 59, 52, 153],
            [4.2, 64, -13, -28, 53, 16, -25, 91, 28, 17, 38, 32, 57, -2, 14, 193],
            [6.0, 166, -41, -23, 126, -28, -33, 96, -34, -18, 25, 27, 44, 20, 52, 218],
        ],
        "person": [
            [6.7, 138, 37, 18, 89, 48, 11, 130, -38, 29, 31, 33, 50, 59, 15, 179],
            [4.2, 49, -23, -24, 67, -21, -15, 159, 7, 49, 31, 31, 55, 51, 14, 168],
            [5.9, 192, 24, 51, 163, 14, 23, 116, -34, -21, 20, 31, 64, 93, -5, 186],
        ],
        "signboard": [
            [3.6, 244, 27, 37, 233, 16, 26, 189, -9, -3, 34, 35, 38, 111, -8, 212],
            [4.0, 166, 53, 36, 137, 53, 19, 113, -32, 30, 31, 32, 40, 71, -2, 242],
            [1.9, 147, -88, -12, 124, -64, -6, 129, 25, -2, 30, 21, 41, 81, -2, 196],
        ],
        "water": [
            [7.5, 155, -34, -11, 84, -19, -13, 134, -36, 17, 13, 34, 51, 66, 0, 181],
            [5.8, 165, -51, -36, 90, -40, -29, 72, -44, -35, -2, 29, 74, 144, 60, 95],
            [5.6, 121, -44, -13, 127, -32, -11, 101, -33, -9, 11, 39, 77, 113, -50, 274],
            [6.7, 147, -25, 4, 89, -21, -38, 116, 9, 36, 18, 37, 55, 21, -30, 204],
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
