"""Convolutional backbones by name, without their classifiers; nothing is ever downloaded."""

from __future__ import annotations

import hashlib
import itertools
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

from model_code.errors import DataError
from model_code.methods import Backbone

_CHANNELS = (3, 16, 32, 64, 128)  # of the small one
_HEADS = ("AuxLogits", "avgpool", "dropout", "fc")


class ImageEncoder(nn.Module):
    """Pictures to features: a backbone, and the mean over what is left of the picture's area.

    `small`: four convolutions of stride 2 with group normalisation, so that a picture's features
    never depend on the others in its batch. `resnet18`, `resnet152` and `inception_v3`: torchvision's, freshly
    initialised. In training, pictures are mirrored at random: `turned` ones (seen from above, and
    square) at both axes and the diagonal, others left to right.
    """

    def __init__(self, name: Backbone, *, augment: bool = False, turned: bool = False) -> None:
        super().__init__()
        self.layers, self.width = _layers(name)
        self.augment, self.turned = augment, turned

    def forward(self, pictures: Tensor) -> Tensor:
        """Features [V, self.width] of pictures uint8 [V, h, w, 3]."""
        device = next(self.parameters()).device
        x = pictures.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        if self.training and self.augment:
            flips = torch.rand(3, len(x), 1, 1, 1).to(device) < 0.5
            x = torch.where(flips[0], x.flip(3), x)
            if self.turned:
                x = torch.where(flips[1], x.flip(2), x)
                x = torch.where(flips[2], x.transpose(2, 3), x)
        features: Tensor = self.layers(x).mean((2, 3))
        return features

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


def _layers(name: Backbone) -> tuple[nn.Sequential, int]:
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
