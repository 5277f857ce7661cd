"""Location features: GeoCLIP's pretrained location encoder, frozen (Vivanco Cepeda et al. 2023,
arXiv:2309.16020). Its weights come in the package `geoclip`. M places."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from model_code.methods.base import Floats

WIDTH = 512
_BATCH = 4096


def location_features(lonlat_deg: Floats) -> Floats:
    """Features float32 [M, 512] of places [M, 2] in degrees (longitude, latitude); not normalised.

    Raises:
        ValueError: a place is not finite.
    """
    places = np.asarray(lonlat_deg, np.float64).reshape(-1, 2)
    if not np.isfinite(places).all():
        raise ValueError("a place without coordinates has no location features")
    latlon = torch.from_numpy(places[:, ::-1].astype(np.float32).copy())
    with torch.inference_mode():
        parts = [_encoder()(part) for part in torch.split(latlon, _BATCH)]
    return np.concatenate([np.empty((0, WIDTH), np.float32), *(p.numpy() for p in parts)])


@cache
def _encoder() -> nn.Module:
    # The weights that it starts from are replaced, and must cost no random numbers: the first fit of a
    # process would differ from the others.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit, which the package still uses
        import geoclip.model.location_encoder as package

        encoder: nn.Module = package.LocationEncoder(from_pretrained=False)
    weights = Path(package.__file__).parent / "weights" / "location_encoder_weights.pth"
    encoder.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return encoder.eval().requires_grad_(False)
