"""The one training loop, over Lightning: the same numbers from the same seed, resumed or not.

A module trains on indexes of regions and holds its data itself, so that a batch costs nothing to
make. B regions in a batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_code.errors import CityloomError

Progress = Callable[[str], None]


class Trainable(Protocol):
    """An `nn.Module` with a loss of its own: contrastive, supervised, or on a whole graph."""

    def loss(self, index: Tensor) -> Tensor:
        """Scalar loss of the regions `index` [B], int64 on the CPU."""


class TrainingConfig(Protocol):
    """A config that says how its method trains."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch(self) -> int | None: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


@dataclass(frozen=True)
class Settings:
    """How to train. `batch` None takes all regions in every step. `rates` gives parameters whose
    names start with a key another learning rate. `patience` counts epochs without a better
    validation. Weight decay (AdamW; 0 is plain Adam) touches matrices only."""

    epochs: int
    batch: int | None = None
    learning_rate: float = 1e-3
    rates: Mapping[str, float] = field(default_factory=dict)
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    clip_norm: float | None = 1.0
    patience: int | None = None
    drop_last: bool = False

    @classmethod
    def of(
        cls,
        config: TrainingConfig,
        schedule: Literal["constant", "cosine"] = "constant",
        patience: int | None = None,
    ) -> Settings:
        """With what a method's config says of its training."""
        return cls(
            epochs=config.epochs,
            batch=config.batch,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            schedule=schedule,
            patience=patience,
        )


@dataclass
class History:
    """What happened: mean training loss and validation by epoch, and the epoch whose weights stay
    (counted from 0)."""

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = -1


def fit(
    module: nn.Module,
    index: NDArray[np.int64],
    settings: Settings,
    *,
    seed: int,
    validate: Callable[[], float] | None = None,
    resume: Path | None = None,
    keep: bool = False,
    progress: Progress | None = None,
) -> History:
    """Train `module` (see `Trainable`) in place on the regions `index`; it ends on the CPU.

    `validate` (lower is better) is called after each epoch in evaluation mode without gradients;
    the best epoch's weights are restored. Without it the last epoch's weights stay. A random draw in
    `loss` must come from torch: every step is seeded by (seed, step). With a folder `resume` the
    state is kept there after each epoch, and a rerun with the same arguments goes on from it to the
    same weights, bit for bit; the folder must belong to one content of the data. The state is
    deleted at the end, unless it is to be `keep`-t for a rerun that was killed in a later training.

    Raises:
        CityloomError: the loss or the validation is not finite.
    """
    from model_code.training_loop import run

    if len(index) == 0:
        raise CityloomError("no region to train on", fix="check the splits and the labels")
    state = None
    if resume is not None:
        resume.mkdir(parents=True, exist_ok=True)
        state = resume / f"{_digest(module, index, settings, seed)}.ckpt"
    history = run(
        module,
        Batches(index, settings, seed),
        parameter_groups(module, settings),
        settings,
        seed=seed,
        validate=validate,
        state=state,
        progress=progress or (lambda line: None),
    )
    if state is not None and not keep:
        state.unlink(missing_ok=True)
    return history


class Batches:
    """Index batches of one epoch, shuffled by (seed, epoch); all regions in order without a batch
    size."""

    def __init__(self, index: NDArray[np.int64], settings: Settings, seed: int) -> None:
        self._index = np.asarray(index, np.int64)
        self._size = min(settings.batch or len(index), len(index))
        self._shuffled = settings.batch is not None
        self._drop_last = settings.drop_last
        self._seed, self._epoch = seed, 0

    @property
    def sampler(self) -> Batches:
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(len(self._index), self._size)
        return whole + (rest > 0 and not self._drop_last)

    def __iter__(self) -> Iterator[Tensor]:
        order = self._index
        if self._shuffled:
            order = np.random.default_rng((self._seed, self._epoch)).permutation(order)
        for step in range(len(self)):
            yield torch.from_numpy(order[step * self._size : (step + 1) * self._size])


def parameter_groups(module: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """Every parameter that is not frozen, once, by learning rate and by whether it decays."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    used = set()
    for name, parameter in module.named_parameters():
        prefix = max((p for p in settings.rates if name.startswith(p)), key=len, default=None)
        used.add(prefix)
        if parameter.requires_grad:
            rate = settings.learning_rate if prefix is None else settings.rates[prefix]
            decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    if unused := set(settings.rates) - used:
        raise ValueError(f"no parameter starts with {', '.join(sorted(unused))}")
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def rate_factor(step: int, steps: int, schedule: str) -> float:
    """What the learning rate is multiplied by at `step` of `steps`."""
    return 1.0 if schedule == "constant" else 0.5 * (1 + math.cos(math.pi * step / steps))


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Torch's random numbers inside depend on `key` alone; outside they go on as if nothing was."""
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        torch.manual_seed(mix(*key))
        yield


def mix(*key: int) -> int:
    """One seed from several, so that neighbours (seed 0 step 1, seed 1 step 0) share nothing."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every submodule is as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def state_arrays(module: nn.Module) -> dict[str, NDArray[Any]]:
    """A module's state as numpy arrays by name, for a checkpoint."""
    return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}


def load_arrays(module: nn.Module, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Put arrays of `state_arrays` back; names and shapes must fit exactly."""
    state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    module.load_state_dict(state)


def _digest(module: nn.Module, index: NDArray[np.int64], settings: Settings, seed: int) -> str:
    shapes = {name: list(value.shape) for name, value in module.state_dict().items()}
    text = json.dumps([asdict(settings), seed, shapes], sort_keys=True)
    content = text.encode() + np.asarray(index, np.int64).tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
