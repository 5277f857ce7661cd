"""Backbones by name, without their classifiers; nothing is ever downloaded."""

from __future__ import annotations

import difflib
import hashlib
import itertools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.errors import DataError

_CHANNELS = (3, 16, 32, 64, 128)  # of the small one
_HEADS = ("AuxLogits", "avgpool", "dropout", "fc")
_HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# Mean and standard deviation of the pictures that torchvision's weights were trained on. Inception-v3's are
# ported from a network that saw them from -1 to 1, and so does the small one.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class ImageEncoder(nn.Module):
    """Pictures to features: a backbone, and the mean over what is left of the picture's area.

    `small`: four convolutions of stride 2 with group normalisation, so that a picture's features
    never depend on the others in its batch. `resnet18`, `resnet152` and `inception_v3`: torchvision's, freshly
    initialised, whose pictures are normalised as their weights want it. `timm/NAME`: timm's, with its own pooling
    and normalisation, likewise; one that takes
    pictures of one size only, such as a ViT, gets them brought to it. In training, pictures are mirrored at random: `turned` ones (seen from above, and
    square) at both axes and the diagonal, others left to right.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, *, augment: bool = False, turned: bool = False) -> None:
        super().__init__()
        self.layers: nn.Module
        self.layers, self.width = _timm(name) if name.startswith("timm/") else _layers(name)
        self.augment, self.turned = augment, turned
        about: dict[str, Any] = getattr(self.layers, "pretrained_cfg", {})
        self.pooled = bool(about)
        self.size_px: tuple[int, int] | None = None
        if about.get("fixed_input_size"):
            self.size_px = tuple(about["input_size"][1:])
        usual = _IMAGENET if name.startswith("resnet") else _HALVES
        for side, values in zip(("mean", "std"), usual, strict=True):
            channels = torch.tensor(tuple(about.get(side, values)))
            self.register_buffer(side, channels[:, None, None], persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Features [V, self.width] of pictures uint8 [V, h, w, 3]."""
        device = next(self.parameters()).device
        x = (pictures.to(device).permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        if self.size_px is not None and x.shape[2:] != self.size_px:
            x = F.interpolate(x, self.size_px, mode="bilinear", antialias=True)
        if self.training and self.augment:
            flips = torch.rand(3, len(x), 1, 1, 1).to(device) < 0.5
            x = torch.where(flips[0], x.flip(3), x)
            if self.turned:
                x = torch.where(flips[1], x.flip(2), x)
                x = torch.where(flips[2], x.transpose(2, 3), x)
        features: Tensor = self.layers(x)
        return features if self.pooled else features.mean((2, 3))

    def load_file(self, path: str, sha256: str) -> None:
        """Take the weights of a file: a safetensors file, or a state as torch saves it. A classifier
        in it is left alone.

        Raises:
            DataError: the file is not there, is another one, or holds other layers.
        """
        file = Path(path).expanduser()
        if not file.is_file():
            raise DataError(f"there are no weights at {path}", fix="mend the method's `path`")
        content = file.read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != sha256:
            raise DataError(
                f"the weights at {path} are not those that the city's YAML means",
                fix=f"if they are, set the method's `sha256: {found}`",
            )
        if file.suffix == ".safetensors":
            from safetensors.torch import load

            state = load(content)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
        own = self.layers.state_dict()
        taken = {name: value for name, value in state.items() if name in own}
        if wrong := [n for n in own if n not in taken or taken[n].shape != own[n].shape]:
            raise DataError(
                f"the weights at {path} are of another network: no {wrong[0]} of that shape",
                fix="name the backbone that they belong to",
            )
        self.layers.load_state_dict(taken)


def _layers(name: str) -> tuple[nn.Sequential, int]:
    """Layers that give a map of features [V, width, h', w'], and the width."""
    if name == "small":
        blocks = [
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.ReLU()
            )
            for before, after in itertools.pairwise(_CHANNELS)
        ]
        return nn.Sequential(*blocks), _CHANNELS[-1]
    import torchvision

    if name in ("resnet18", "resnet152"):
        whole = getattr(torchvision.models, name)(weights=None)
        width = whole.fc.in_features
    else:
        whole, width = torchvision.models.inception_v3(weights=None, init_weights=False), 2048
    # In both, the layers run one after the other. A mean over the area has a deterministic gradient
    # on every device; torchvision's pooling has not.
    layers = OrderedDict((n, layer) for n, layer in whole.named_children() if n not in _HEADS)
    return nn.Sequential(layers), width


def _timm(name: str) -> tuple[nn.Module, int]:
    """A network of timm up to its pooled features, and their width.

    Raises:
        DataError: timm has none of this name.
    """
    import timm

    own = name.removeprefix("timm/")
    if not timm.is_model(own):
        near = difflib.get_close_matches(own, timm.list_models(), n=3)
        raise DataError(
            f"timm knows no network {own!r}",
            fix=f"name another backbone: timm/{' or timm/'.join(near)}"
            if near
            else "see timm.list_models()",
        )
    network: Any = timm.create_model(own, pretrained=False, num_classes=0)
    return network, int(network.num_features)
