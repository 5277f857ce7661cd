"""Named random streams and stationary Gaussian fields."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import fft

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Shape = int | tuple[int, ...]


def stream(seed: int, name: str) -> np.random.Generator:
    """A generator of its own for each name, so that one file's draws never move another's."""
    digest = hashlib.sha256(name.encode()).digest()
    key = tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


class Streams:
    """Draws of a batch of which each row has a generator of its own, so that no row depends on who
    else is drawn with it. The first axis of every shape is the batch."""

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self.generators = generators

    def random(self, shape: Shape, dtype: Any = np.float64) -> npt.NDArray[Any]:
        """Uniform in [0, 1)."""
        return self._stack(lambda rng, rest: rng.random(rest, dtype=dtype), shape)

    def standard_normal(self, shape: Shape, dtype: Any = np.float64) -> npt.NDArray[Any]:
        """Mean 0, variance 1."""
        return self._stack(lambda rng, rest: rng.standard_normal(rest, dtype=dtype), shape)

    def integers(
        self, low: int, high: int, shape: Shape, dtype: Any = np.int64
    ) -> npt.NDArray[Any]:
        """Whole numbers from low to below high."""
        return self._stack(lambda rng, rest: rng.integers(low, high, rest, dtype=dtype), shape)

    def _stack(
        self, draw: Callable[[np.random.Generator, tuple[int, ...]], Any], shape: Shape
    ) -> npt.NDArray[Any]:
        rest = () if isinstance(shape, int) else shape[1:]
        return np.stack([np.asarray(draw(rng, rest)) for rng in self.generators])


Draws = np.random.Generator | Streams


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


def bilinear_grid(nodes: Floats, u: Doubles, v: Doubles, wrap: bool) -> Floats:
    """Nodes at the grid of fractional columns u [W] and rows v [H]: [H, W]."""

    def split(position: Doubles, size: int) -> tuple[np.ndarray, np.ndarray, Floats]:
        if not wrap:
            position = np.clip(position, 0, size - 1)
        low = np.floor(position).astype(np.int64)
        share = (position - low).astype(np.float32)
        if wrap:
            return low % size, (low + 1) % size, share
        return low, np.minimum(low + 1, size - 1), share

    left, right, a = split(u, nodes.shape[1])
    below, above, b = split(v, nodes.shape[0])
    line = nodes[below] * (1 - b)[:, None] + nodes[above] * b[:, None]  # [H, all columns]
    out: Floats = line[:, left] * (1 - a) + line[:, right] * a
    return out


def _wrapped(n: int, step_m: float) -> Doubles:
    """Distance of each node from node 0 on a circle of n nodes."""
    i = np.arange(n)
    return np.asarray(np.minimum(i, n - i) * float(step_m))
