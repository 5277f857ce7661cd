"""The four modalities that the methods of the hourly outflow read, as frozen features.

Satellite chips, rendered height maps, street views and POI counts of N regions; a row of NaN where a
region has none. Pictures go through the CLIP towers of the city, or through a convolutional backbone
by name. Nothing here reads a trip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from model_code.errors import DataError
from model_code.methods import Encoded, MethodConfig
from model_code.methods.base import Checkpoint, Floats, Mask, RegionData
from model_code.methods.urbanvlp import ImageTower, View
from model_code.pca import principal_axes
from model_code.scaling import Scaler
from model_code.training import evaluating, seeded
from model_code.vision.backbones import ImageEncoder
from model_code.vision.clip import Towers, model_arguments, open_towers
from model_code.vision.clip_config import ClipConfig
from model_code.vision.pictures import encoded, resized
from model_code.vision.renders import height_pictures

# In the order of their tokens.
MODALITIES = ("satellite", "heights", "street_view", "pois")
# Components of so small a part of the strongest one's deviation are rounding.
_FLAT = 1e-4
# A height map is seen from above, as a chip is.
_VIEW: dict[str, View] = {
    "satellite": "satellite",
    "heights": "satellite",
    "street_view": "street_view",
}


def modality_features(data: RegionData, config: Encoded) -> dict[str, Floats]:
    """By modality of `MODALITIES` that is on and there, frozen features [N, D].

    The feature of a region's street views is their mean, over at most `views` of them. (The paper
    draws 20 with replacement where there are fewer; the mean over such draws is this mean and noise.)

    Raises:
        DataError: no modality is left.
    """
    found: dict[str, Floats] = {}
    makers: dict[str, tuple[bool, object, Callable[[RegionData, Encoded], Floats]]] = {
        "satellite": (config.satellite, data.chips, _chip_features),
        "heights": (config.buildings, data.heights, _height_features),
        "street_view": (config.street_views, data.views, _view_features),
        "pois": (config.pois, data.poi_counts, _poi_features),
    }
    weights = config.weights.sha256 if config.weights else ""
    settings = (config.encoder, weights, config.views, config.image_px, str(config.tower))
    for name in MODALITIES:
        on, there, make = makers[name]
        if on and there is not None:
            key = ("modality", name, settings)
            if key not in data.memo:
                data.memo[key] = make(data, config)
            if np.isfinite(data.memo[key]).all(axis=1).any():
                found[name] = data.memo[key]
    if not found:
        raise DataError(
            "no modality is left to read: neither chips, height maps, street views nor POIs",
            fix="set one of the method's satellite, buildings, street_views and pois to true, and see "
            "that the city has it",
        )
    return found


def _chip_features(data: RegionData, config: Encoded) -> Floats:
    assert data.chips is not None and data.chip_present is not None
    vectors = picture_vectors(data, config, "satellite", data.chips)
    return _where(data.chip_present, vectors)


def _height_features(data: RegionData, config: Encoded) -> Floats:
    assert data.heights is not None and data.height_present is not None
    known = data.height_present & np.isfinite(data.heights).any(axis=(1, 2))
    vectors = picture_vectors(data, config, "heights", height_pictures(data.heights))
    return _where(known, vectors)


def _view_features(data: RegionData, config: Encoded) -> Floats:
    assert data.views is not None and data.view_region is not None
    shown = _some_views(data.view_region, config.views)
    region = data.view_region[shown]
    vectors = picture_vectors(data, config, "street_view", data.views, shown)
    belongs = sparse.coo_array(
        (np.ones(len(shown)), (region, np.arange(len(shown)))), (len(data), len(shown))
    ).tocsr()
    count = np.bincount(region, minlength=len(data))
    means = (belongs @ vectors.astype(np.float64)) / np.maximum(count, 1)[:, None]
    return _where(count > 0, means)


def _poi_features(data: RegionData, config: Encoded) -> Floats:
    """log(1 + count) by category."""
    assert data.poi_counts is not None
    return _where(data.poi_counts.sum(axis=1) > 0, np.log1p(data.poi_counts))


def _where(present: NDArray[np.bool_], values: Floats) -> Floats:
    return np.where(present[:, None], values, np.nan).astype(np.float32)


def _some_views(region: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Positions of at most `most` views of each region, drawn the same way each time."""
    order = np.lexsort((np.random.default_rng(0).random(len(region)), region))
    count = np.bincount(region)
    first = np.cumsum(count) - count
    rank = np.arange(len(region)) - first[region[order]]
    return np.sort(order[rank < most])


# --- as one vector -------------------------------------------------------------------------------


def fit_encoding(
    features: Mapping[str, Floats], seen: Mask, components: int
) -> dict[str, NDArray[Any]]:
    """What `encode` needs: of each modality the scales, and its strongest `components` principal axes (or
    as many as there are) with their deviations, over the regions `seen` [N] that have it."""
    found: dict[str, NDArray[Any]] = {}
    for name, values in features.items():
        rows = seen & np.isfinite(values).all(axis=1)
        scaler = Scaler.fit(values, rows)
        middle, axes = np.zeros(values.shape[1]), np.empty((0, values.shape[1]))
        deviation = np.empty(0)
        if rows.any():
            standard = scaler.apply(values[rows])
            middle, axes = principal_axes(standard, components)
            deviation = ((standard - middle) @ axes.T).std(axis=0)
            kept = deviation > _FLAT * deviation.max(initial=0)
            axes, deviation = axes[kept], deviation[kept]
        tensors = {
            "mean": scaler.mean,
            "scale": scaler.scale,
            "middle": middle,
            "axes": axes,
            "deviation": deviation,
        }
        found |= {f"{name}.{key}": value.astype(np.float32) for key, value in tensors.items()}
    return found


def encode(features: Mapping[str, Floats], tensors: Mapping[str, NDArray[Any]]) -> Floats:
    """Raw encodings [N, W] without descriptions: the principal components of each modality, each
    of deviation one over the regions that they were fitted on (zeros where a region has none), and whether
    it is there."""
    parts = []
    for name, values in features.items():
        own = {
            key: tensors[f"{name}.{key}"].astype(np.float64)
            for key in ("mean", "scale", "middle", "axes", "deviation")
        }
        present = np.isfinite(values).all(axis=1, keepdims=True)
        standard = (np.where(present, values, own["mean"]) - own["mean"]) / own["scale"]
        found = (standard - own["middle"]) @ own["axes"].T / own["deviation"]
        parts += [np.where(present, found, 0), present]
    return np.hstack(parts).astype(np.float32)


# --- encoders of pictures ------------------------------------------------------------------------


def picture_vectors(
    data: RegionData,
    config: Encoded,
    modality: str,
    pictures: NDArray[np.uint8],
    rows: NDArray[np.int64] | None = None,
) -> Floats:
    """Vectors [V, D] of pictures [P, H, W, C], or of the `rows` [V] of them."""
    index = torch.arange(len(pictures) if rows is None else len(rows))
    if config.encoder == "towers":
        towers = towers_of(data, config, _VIEW[modality])
        with evaluating(towers):
            sized = resized(pictures, towers.size_px, rows)
            return cast(Floats, ImageTower(towers).vectors(sized, index).numpy())
    with seeded(0):
        backbone = ImageEncoder(config.encoder)
    if config.weights is not None:
        backbone.load_file(config.weights.path, config.weights.sha256)
    size = (config.image_px, config.image_px)
    if not len(index):
        return np.empty((0, backbone.width), np.float32)
    with evaluating(backbone):
        vectors: Tensor = encoded(backbone, resized(pictures, size, rows), index)
    return cast(Floats, vectors.numpy())


def towers_of(data: RegionData, config: Encoded, view: View) -> Towers:
    """The city's towers of a view; without any, random ones of the config's size, always the same."""
    if data.towers is not None:
        if view not in data.towers:
            raise DataError(
                f"there are no pretrained towers of the view {view!r}",
                fix="make the towers of this city anew",
            )
        return open_towers(data.towers[view])
    size = ClipConfig.model_validate(config.tower.model_dump())
    with seeded(0):
        arguments = model_arguments(size, (config.image_px, config.image_px))
        return Towers(arguments, np.empty(0, np.int64)).eval()


class ReadsModalities:
    """Base of the methods that read them."""

    def features(self, data: RegionData, config: Encoded) -> dict[str, Floats]:
        """See `modality_features`."""
        return modality_features(data, config)


class RawEncoded(ReadsModalities):
    """Base of those whose embedding is a region's raw encoding, as it was fitted."""

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        """See `encode`."""
        assert isinstance(config, Encoded)
        return encode(self.features(data, config), checkpoint.tensors)
