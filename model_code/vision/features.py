"""Frozen features of many pictures: batch by batch, of as many as there are.

Half precision on a GPU, deterministic, and a picture's features do not depend on how many others are
in its batch, beyond the last digits.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model_code.backends import Picture
from model_code.methods.base import Floats
from model_code.vision.loading import device

Forward = Callable[[Tensor], Tensor]


def encoded(
    pictures: Iterable[Picture],
    prepare: Callable[[Sequence[Picture]], Tensor],
    forward: Forward,
    batch: int,
) -> Iterator[Floats]:
    """Features float32 [b, D] of each batch of pictures, in order; no more than a batch is in memory.

    `prepare` makes a tensor of some pictures, `forward` features of it, on the device of the models.
    """
    rest = iter(pictures)
    while some := list(itertools.islice(rest, batch)):
        with computing():
            yield forward(prepare(some).to(device())).float().cpu().numpy()


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """Without gradients, deterministic, and in half precision where a GPU computes."""
    where = device().type
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with (
            torch.inference_mode(),
            torch.autocast(where, torch.float16, enabled=where == "cuda"),
        ):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def normalised(
    pictures: Sequence[Picture],
    size_px: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Pictures [H, W, 3] of any size as floats [B, 3, h, w]: brought to `size_px` as a whole, so that
    nothing is cropped."""
    out = torch.empty(len(pictures), 3, *size_px)
    for row, picture in zip(out, pictures, strict=True):
        x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
        if x.shape[2:] != size_px:
            x = F.interpolate(x, size_px, mode="bicubic", antialias=True).clamp(0, 1)
        row.copy_(x[0])
    shift, scale = (torch.tensor(tuple(v))[:, None, None] for v in (mean, std))
    return (out - shift) / scale
