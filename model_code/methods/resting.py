"""Image towers that may rest, so that a checkpoint need not repeat what the city's own towers hold.

While such a tower rests, its weights are no part of a module's state: their digest is. A state without
them takes them from the city again, and refuses another city's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model_code.errors import DataError
from model_code.methods.base import Checkpoint
from model_code.methods.urbanvlp import ImageTower
from model_code.training import load_arrays
from model_code.vision.clip import Towers

_OF_CITY = "clip.visual."  # the image half among a city's weights
_HERE = "visual."


class CityTower(ImageTower):
    """An image tower, freshly initialised, of a city that has pretrained ones (`given`) or has not. It
    rests when none of its parameters asks for a gradient.

    Attributes:
        digest: of the city's weights, uint8 [32]; zeros where it has none.
    """

    digest: Tensor

    def __init__(self, towers: Towers, given: Checkpoint | None) -> None:
        super().__init__(towers)
        self.given = {
            name.removeprefix(_OF_CITY): values
            for name, values in (given.tensors if given else {}).items()
            if name.startswith(_OF_CITY)
        }
        self.register_buffer("digest", torch.zeros(32, dtype=torch.uint8))
        if self.given:
            self.digest.copy_(
                torch.frombuffer(bytearray(weights_digest(self.given)), dtype=torch.uint8)
            )
        hooked: Any = self  # torch gives these no types
        hooked.register_state_dict_post_hook(_leave_out)
        hooked.register_load_state_dict_pre_hook(_fill_in)

    def start(self) -> None:
        """Take the city's weights, where it has any."""
        if self.given:
            load_arrays(self.visual, self.given)

    @property
    def rests(self) -> bool:
        return not any(parameter.requires_grad for parameter in self.visual.parameters())


def weights_digest(weights: Mapping[str, Any]) -> bytes:
    """SHA-256 of arrays, with their names."""
    found = hashlib.sha256()
    for name, values in sorted(weights.items()):
        found.update(name.encode() + values.tobytes())
    return found.digest()


def _leave_out(tower: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    assert isinstance(tower, CityTower)
    if tower.given and tower.rests:
        for name in [name for name in state if name.startswith(prefix + _HERE)]:
            del state[name]


def _fill_in(tower: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    assert isinstance(tower, CityTower)
    if not tower.given or any(name.startswith(prefix + _HERE) for name in state):
        return
    digest = state.get(f"{prefix}digest")
    if digest is not None and not torch.equal(digest.cpu(), tower.digest.cpu()):
        raise DataError(
            "what is to be loaded was fitted on other towers than those of this city",
            fix="give both cities the same `captions.clip`, or fit it anew",
        )
    state.update({f"{prefix}{_HERE}{n}": torch.from_numpy(v) for n, v in tower.given.items()})
