"""Frozen features of pictures as they come: what a pretrained encoder, such as ResNet-152 or RemoteCLIP's
image tower, tells of a city without having been trained on it."""

from __future__ import annotations

from model_code.methods.base import Floats, RegionData
from model_code.methods.baselines.shares import RegionMeans


class Features(RegionMeans):
    """The features of the city's `image_encoder`."""

    def numbers(self, data: RegionData) -> tuple[Floats | None, Floats | None]:
        return data.chip_features, data.view_features


METHOD = Features()
