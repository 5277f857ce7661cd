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

from model_code.backends import Identity, Picture
from model_code.methods.base import Floats
from model_code.vision.backbones import ImageEncoder
from model_code.vision.loading import Loaded, Memory, device, dtype_of
from model_code.vision.model_choices import Backbone

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


class BackboneFeatures:
    """`model_code.backends.ImageEncoder` over a pretrained backbone."""

    def __init__(self, choice: Backbone) -> None:
        self._choice = choice
        self._size = (choice.size_px[0], choice.size_px[1])
        settings = {
            "kind": choice.kind,
            "size_px": list(choice.size_px),
            "dtype": str(dtype_of("auto")),
        }
        self.identity = Identity(choice.model, choice.weights.sha256[:16], settings)
        name = f"backbone {choice.model}"
        self._network = Loaded(name, self._load, Memory(), lambda network: [network])

    def _load(self) -> ImageEncoder:
        network = ImageEncoder(self._choice.model)
        network.load_file(self._choice.weights.path, self._choice.weights.sha256)
        return network.to(device()).eval()

    def encode_images(self, pictures: Sequence[Picture]) -> Floats:
        """Features, float32 [B, D]; a picture's row does not depend on the others."""
        network = self._network()

        def prepare(some: Sequence[Picture]) -> Tensor:
            floats = normalised(some, self._size, (0.0,) * 3, (1.0,) * 3)
            return (floats * 255).round().byte().permute(0, 2, 3, 1)

        parts = list(encoded(pictures, prepare, network, self._choice.batch))
        return np.concatenate([np.empty((0, network.width), np.float32), *parts])
