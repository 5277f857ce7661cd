"""A painter that runs anywhere: reads a text and renders a street or a chip that shows what it says.

What the text says is brought to shares by class: a fraction or a percentage is taken as it is, a word
of quantity means the amount that is typical for it, and what is not mentioned is as usual. Which
settings of the renderer give such shares was measured once, by segmenting rendered pictures and
regressing the settings on the shares. B texts, K classes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_code.backends import Identity, Picture, View
from model_code.demo import chip_scene, street_scene
from model_code.demo.chip_scene import Grounds
from model_code.demo.fields import Draws, Streams
from model_code.demo.street_scene import Layout, Scenes
from model_code.fingerprint import code_digests, digest
from model_code.text.parsing import Said, parse
from model_code.vision.segmentation import (
    LAND_COVER_CLASSES,
    STREET_CLASSES,
    LandCoverSegmenter,
    StreetSegmenter,
)

Floats = NDArray[np.float32]

_BATCH = 64
_LEVELS = (0.0, 0.1, 0.3, 0.5, 0.8, 1.0)
_HOURS = (13.0, 18.8, 20.4)  # by day, at dusk, at night
_USUAL_INCOME, _USUAL_INDUSTRY = 0.55, 0.1
_OPENS_AT = 0.008  # share of water from which a street opens to it
_CLASS_OF = {"person": "person", "shop": "signboard"}  # elements of texts named otherwise


class ScenePainter:
    """Paints texts of one view with the renderer of the demo's pictures.

    Args:
        view: street views or satellite chips of 1 km.
        size_px: height and width of the pictures.
        sketches: how often a text is painted. From the second time on, what the last picture shows
            too little of is aimed higher; the picture that comes nearest to the text is kept.
    """

    def __init__(self, view: View, size_px: tuple[int, int], sketches: int = 2) -> None:
        self.view, self.size_px, self.sketches = view, size_px, sketches
        self.street = view == "street_view"
        self.segmenter = StreetSegmenter() if self.street else LandCoverSegmenter()
        settings = {"view": view, "size_px": list(size_px), "sketches": sketches}
        revision = digest(code_digests([__name__]))[:12]
        self.identity = Identity(type(self).__name__, revision, settings)

    def paint(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Picture]:
        """One picture a text; it depends on that text and seed alone."""
        pictures: list[Picture] = []
        for start in range(0, len(texts), _BATCH):
            batch = slice(start, start + _BATCH)
            pictures += self._paint(texts[batch], seeds[batch])
        return pictures

    def _paint(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Picture]:
        said = [parse(text, self.view) for text in texts]
        wanted = wanted_shares(said, self.view)
        render = self._streets if self.street else self._chips
        aim, kept = wanted, render(said, wanted, _streams(texts, seeds))
        pictures, least = kept, np.full(len(texts), np.inf)
        for sketch in range(1, self.sketches + 1):
            if self.sketches == 1:
                break
            shares = np.nan_to_num(self.segmenter.segment(list(pictures)).shares)
            off = np.abs(shares - wanted).sum(axis=1)
            better = off < least
            kept = np.where(better[:, None, None, None], pictures, kept)
            least = np.minimum(off, least)
            if sketch < self.sketches:  # the same draws, aimed higher where too little is seen
                aim = np.clip(aim + wanted - shares, 0, 1)
                pictures = render(said, aim, _streams(texts, seeds))
        return [self._sized(picture) for picture in kept]

    def _sized(self, picture: Picture) -> Picture:
        if picture.shape[:2] == self.size_px:
            return picture
        image = Image.fromarray(picture).resize(self.size_px[::-1], Image.Resampling.LANCZOS)
        return np.asarray(image)

    def _streets(self, said: Sequence[Said], wanted: Floats, rng: Draws) -> NDArray[np.uint8]:
        set_to = _settings(wanted, _STREET)
        # Sheds and lorries have no class of their own: what the text says of them counts.
        industry = _levels(said, ("warehouse", "truck"), _USUAL_INDUSTRY)
        # Shops and people tell of commerce by their words; else the other shares do.
        commerce = _levels(said, ("shop", "person"), np.nan)
        scenes = Scenes(
            greenery=set_to["greenery"],
            water=(wanted[:, STREET_CLASSES.index("water")] > _OPENS_AT).astype(np.float32),
            industry=industry,
            income=_levels(said, ("upkeep",), _USUAL_INCOME),
            commerce=np.where(np.isnan(commerce), set_to["commerce"], commerce),
            hour=np.interp(_levels(said, ("dark",), 0.0), (0, 0.55, 1), _HOURS).astype(np.float32),
        )
        layout = Layout(set_to["horizon"], set_to["road_half_m"], set_to["storeys"])
        return street_scene.render(scenes, rng, layout)

    def _chips(self, said: Sequence[Said], wanted: Floats, rng: Draws) -> NDArray[np.uint8]:
        grounds = Grounds(**_settings(wanted, _CHIP))
        return chip_scene.render(grounds, rng, min(self.size_px))


def _streams(texts: Sequence[str], seeds: Sequence[int]) -> Streams:
    keys = (
        (int(seed) % 2**63, zlib.crc32(text.encode()))
        for text, seed in zip(texts, seeds, strict=True)
    )
    return Streams([np.random.default_rng(key) for key in keys])


def wanted_shares(said: Sequence[Said], view: View) -> Floats:
    """Shares by class that texts ask for, [B, K], each row of sum 1."""
    amounts = _STREET_AMOUNTS if view == "street_view" else _LAND_AMOUNTS
    classes = STREET_CLASSES if view == "street_view" else LAND_COVER_CLASSES
    usual = np.array([amounts[name][0] for name in classes])
    varies = np.array([amounts[name][1][4] - amounts[name][1][2] for name in classes])
    wanted = np.full((len(said), len(classes)), np.nan)
    for row, one in zip(wanted, said, strict=True):
        for name, amount in one.items():
            name = _CLASS_OF.get(name, name)
            if name in classes:
                known = np.interp(amount.level, _LEVELS, amounts[name][1])
                row[classes.index(name)] = known if amount.share is None else amount.share
    open_ = np.isnan(wanted)
    named = np.where(open_, 0, wanted)
    named /= np.maximum(1, named.sum(axis=1, keepdims=True))
    # What is left goes to the others: as usual, and what is too much or too little by how far each
    # class varies.
    rest, spread = np.where(open_, usual, 0) + 1e-9, np.where(open_ & (usual > 0), varies, 0) + 1e-9
    left = np.maximum(0, 1 - named.sum(axis=1, keepdims=True))
    rest += (left - rest.sum(axis=1, keepdims=True)) * spread / spread.sum(axis=1, keepdims=True)
    rest = np.maximum(rest, 1e-9)
    rest *= left / rest.sum(axis=1, keepdims=True)
    total = named + np.where(open_, rest, 0)
    return np.asarray(total / total.sum(axis=1, keepdims=True), np.float32)


def _settings(
    wanted: Floats, table: Mapping[str, tuple[float, float, Sequence[float]]]
) -> dict[str, Floats]:
    """Settings of the renderer by name, [B] each, from shares and their square roots."""
    terms = np.concatenate([np.ones_like(wanted[:, :1]), wanted, np.sqrt(wanted)], axis=1)
    return {
        name: np.clip((terms * np.array(weights, np.float32)).sum(axis=1), low, high)
        for name, (low, high, weights) in table.items()
    }


def _levels(said: Sequence[Said], names: Sequence[str], usual: float) -> Floats:
    """Mean level of what each text names of some elements, [B]; `usual` where it names none."""
    named = [[one[name].level for name in names if name in one] for one in said]
    return np.array([sum(one) / len(one) if one else usual for one in named], np.float32)


# --- measured ------------------------------------------------------------------------------------

# By class: the usual share, and the shares that words of quantity mean, at `_LEVELS`.
_STREET_AMOUNTS: Mapping[str, tuple[float, Sequence[float]]] = {
    "sky": (0.29, (0.1, 0.17, 0.24, 0.3, 0.37, 0.45)),
    "building": (0.19, (0.02, 0.05, 0.12, 0.2, 0.3, 0.42)),
    "road": (0.316, (0.2, 0.25, 0.29, 0.315, 0.345, 0.39)),
    "sidewalk": (0.053, (0.02, 0.03, 0.04, 0.052, 0.08, 0.11)),
    "tree": (0.07, (0.0, 0.008, 0.035, 0.08, 0.16, 0.27)),
    "grass": (0.01, (0.0, 0.004, 0.012, 0.025, 0.045, 0.06)),
    "car": (0.007, (0.0, 0.003, 0.006, 0.009, 0.018, 0.035)),
    "person": (0.002, (0.0, 0.001, 0.002, 0.003, 0.006, 0.011)),
    "signboard": (0.003, (0.0, 0.002, 0.006, 0.01, 0.022, 0.04)),
    "water": (0.0, (0.0, 0.006, 0.018, 0.028, 0.045, 0.07)),
    "other": (0.0, (0.0,) * 6),
}
_LAND_AMOUNTS: Mapping[str, tuple[float, Sequence[float]]] = {
    "background": (0.2, (0.0, 0.02, 0.1, 0.3, 0.45, 0.6)),
    "building": (0.09, (0.0, 0.02, 0.06, 0.13, 0.25, 0.38)),
    "industrial": (0.05, (0.0, 0.01, 0.03, 0.13, 0.3, 0.45)),
    "road": (0.11, (0.04, 0.05, 0.08, 0.11, 0.14, 0.18)),
    "water": (0.0, (0.0, 0.01, 0.04, 0.12, 0.3, 0.6)),
    "barren": (0.03, (0.0, 0.005, 0.03, 0.12, 0.4, 0.75)),
    "forest": (0.1, (0.0, 0.01, 0.05, 0.18, 0.45, 0.75)),
    "grass": (0.015, (0.0, 0.005, 0.03, 0.07, 0.15, 0.3)),
}

# Settings of the renderer: lowest, highest, and weights of 1, the shares, and their roots.
_STREET: Mapping[str, tuple[float, float, Sequence[float]]] = {
    "greenery": (
        0, 1,
        [0.08,
         -0.09, -0.02, 0.0, -0.1, 0.7, -0.22, 0.1, -0.04, -0.15, -0.14, -0.04,
         0.08, 0.04, 0.0, -0.46, 1.2, 0.76, -0.01, -0.11, 0.01, -0.07, -0.01],
    ),
    "commerce": (
        0, 1,
        [-0.41,
         -0.28, -0.14, 0.4, 0.03, 0.47, 0.08, 0.01, 0.31, -0.43, -0.4, -0.06,
         0.28, -0.05, 0.29, 0.42, -0.24, 0.21, 0.86, 4.18, 1.98, 0.36, -0.77],
    ),
    "horizon": (
        0.44, 0.56,
        [0.62,
         0.22, 0.25, -0.38, -0.11, 0.15, -0.17, -0.02, -0.0, 0.04, 0.01, 0.01,
         0.11, 0.02, -0.32, -0.11, 0.05, -0.04, 0.05, -0.01, 0.04, 0.04, 0.05],
    ),
    "road_half_m": (
        3.2, 5.6,
        [1.26,
         2.28, 3.55, 1.84, -3.6, 1.51, -4.16, -0.44, -0.04, -0.76, -0.34, 0.16,
         2.78, 0.29, 1.81, -5.91, 1.14, -2.1, -0.0, 0.01, 0.33, 0.14, 0.82],
    ),
    "storeys": (
        0.3, 6,
        [3.16,
         -2.65, 1.8, -2.85, -2.67, 3.19, -2.06, 0.06, 0.38, 0.42, 4.31, 0.07,
         -3.56, 7.68, -2.31, -2.96, 1.13, -1.12, 2.04, 2.79, -0.04, 9.24, 0.75],
    ),
}  # fmt: skip
_CHIP: Mapping[str, tuple[float, float, Sequence[float]]] = {
    "density": (
        0, 1,
        [0.23,
         -0.54, -0.29, 0.52, 0.21, 0.02, -0.34, 0.06, 0.35,
         -0.25, 1.83, 0.32, 0.53, 0.13, -0.18, -0.66, -0.43],
    ),
    "greenery": (
        0, 1,
        [0.05,
         -0.07, 0.1, 0.76, -0.21, 0.28, 0.15, -0.91, -0.1,
         -0.13, -0.35, 0.44, -0.33, 0.05, -0.19, 2.22, -0.64],
    ),
    "water": (
        0, 0.95,
        [0.17,
         -0.13, -0.11, -0.14, -0.03, 0.76, -0.1, -0.15, -0.09,
         -0.01, -0.04, -0.04, -0.03, 0.1, -0.05, -0.02, -0.01],
    ),
    "industry": (
        0, 1,
        [0.28,
         -0.36, 0.41, -0.37, -0.01, 0.14, -0.07, 0.12, 0.14,
         0.25, -0.99, 1.45, -0.03, -0.08, -0.03, -0.08, -0.21],
    ),
}  # fmt: skip
