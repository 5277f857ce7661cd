"""Named random streams and stationary Gaussian fields."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import fft

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def stream(seed: int, name: str) -> np.random.Generator:
    """A generator of its own for each name, so that one file's draws never move another's."""
    digest = hashlib.sha256(name.encode()).digest()
    key = tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def gaussian_field(
    rng: np.random.Generator,
    shape: tuple[int, int],
    step_m: float,
    length_m: float,
    kind: Literal["smooth", "exponential"] = "smooth",
    periodic: bool = False,
) -> Floats:
    """One draw of a zero-mean, unit-variance field by circulant embedding.

    Covariance exp(-d² / 2 length²) (`smooth`) or exp(-d / length) (`exponential`), d in metres.

    Args:
        rng: source of the white noise.
        shape: nodes (rows, columns).
        step_m: distance of neighbouring nodes.
        length_m: length scale of the covariance.
        kind: form of the covariance.
        periodic: let the field wrap around, so that it can tile the plane.

    Returns:
        float32 [rows, columns].
    """
    reach = 0 if periodic else int(np.ceil((8 if kind == "exponential" else 5) * length_m / step_m))
    rows, columns = (n if periodic else fft.next_fast_len(n + reach, real=True) for n in shape)
    d2 = _wrapped(rows, step_m)[:, None] ** 2 + _wrapped(columns, step_m)[None, :] ** 2
    exponential = kind == "exponential"
    covariance = np.exp(-np.sqrt(d2) / length_m if exponential else -d2 / (2 * length_m**2))
    # Truncation at the torus leaves slightly negative eigenvalues: clip, and restore unit variance.
    spectrum = np.clip(fft.rfft2(covariance).real, 0, None)
    kept = fft.irfft2(spectrum, s=(rows, columns))[0, 0]
    amplitude = np.sqrt(spectrum / kept).astype(np.float32)
    noise = rng.standard_normal((rows, columns), dtype=np.float32)
    field: Floats = fft.irfft2(fft.rfft2(noise) * amplitude, s=(rows, columns))
    return np.ascontiguousarray(field[: shape[0], : shape[1]], dtype=np.float32)


def _wrapped(n: int, step_m: float) -> Doubles:
    """Distance of each node from node 0 on a circle of n nodes."""
    i = np.arange(n)
    return np.asarray(np.minimum(i, n - i) * float(step_m))
