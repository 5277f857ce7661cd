"""READ: tiles of a satellite chip by a network that knows three grades, and statistics of them.

Han, Ahn, Cha, Yang, Park and Cha 2020, "Lightweight and Robust Representation of Economic Scales from
Satellite Imagery" (AAAI, arXiv:1912.08197), a baseline of UrbanMoE. The paper's, one after the other:

1. Transfer: a small network learns to tell three grades of settlement (uninhabited, rural, urban) from few
   graded pictures and many others, as student of a mean teacher (Tarvainen and Valpola 2017,
   arXiv:1703.01780), whose weights theta' follow the student's theta:

       loss = cross-entropy(student, grade) + lambda(t) |softmax(student) - softmax(teacher)|^2,
       theta' <- alpha theta' + (1 - alpha) theta.

2. Reduction: the principal components of the features of all pictures.
3. Embedded statistics: a district of any size is the number of its inhabited pictures, and the mean, the
   standard deviation and the correlations of their components.

What departs:

- *The paper's grades are votes of people, and no city has such*. Here a chip's grade is the third of the
  city, or what `grade_quantiles` say, that its built-up share falls into: the share of its pixels that the
  segmenter of `captions` takes for `built` classes. Grades are relative to the city, and as good as that
  segmenter; they come from pictures alone, and no indicator is read. A share `graded` of the regions, drawn
  at random, has one; the others teach by consistency alone.
- A district is a region, and its pictures are the tiles of its one chip. A grade is known of a chip and not
  of its tiles, so the mean of the tiles' logits is compared with it. The consistency is by tile.
- Tiles of the lowest grade are not thrown out, for a region may have no other: a tile counts by the chance
  that it is of a higher one.
- The teacher's word counts in full after a share of the steps (`ramp_share`), so that a city of few chips
  has it, too.
- The backbone is small and starts from chance; `resnet18` with a local file is the paper's.
- What the student sees when training is over is the embedding, as it is the lightweight one.
- A region without a chip stands at the mean of the others.

N regions, B of them in a batch, T tiles of a chip, F width of a tile's features, K components.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.errors import DataError
from model_code.methods import MethodConfig, ReadConfig
from model_code.methods.base import NOWHERE, Checkpoint, Floats, Mask, RegionData, Workspace
from model_code.methods.chips import usable_chips
from model_code.pca import principal_axes
from model_code.training import Settings, evaluating, fit, load_arrays, seeded, state_arrays
from model_code.vision.backbones import ImageEncoder
from model_code.vision.pictures import resized

_GRADES = 3
_CHIPS = 64  # whose tiles are encoded at once outside training
_SAMPLE = 50_000  # tiles that principal components and the token are of, at most
# Variance of a component in a chip, beside its variance among all, without correlations.
_FLAT = 1e-6


# --- grades --------------------------------------------------------------------------------------


def built_share(data: RegionData, config: ReadConfig) -> Floats:
    """Share [N] of each chip's pixels that is built on; NaN where the segmenter has not judged.

    Raises:
        DataError: chips have no shares, or no class is one of `built`.
    """
    if data.chip_shares is None:
        raise DataError(
            "read: no satellite chip has shares of what it shows, so none has a grade: none was "
            "segmented, or too few were",
            fix="give the city a segmenter of the view satellite (see `captions`), lower "
            "`min_modality_share`, or remove `methods.read`",
        )
    built = [k for k, name in enumerate(data.chip_classes) if name in config.built]
    if not built:
        raise DataError(
            f"read: none of {', '.join(config.built)} is a class of the satellite segmenter",
            fix=f"set methods.read.config.built to some of {', '.join(data.chip_classes)}",
        )
    found: Floats = np.asarray(data.chip_shares[:, built], np.float64).sum(axis=1)
    return found


def drawn_grades(
    share: Floats, usable: Mask, config: ReadConfig, seed: int
) -> tuple[NDArray[np.int64], tuple[float, float]]:
    """Grades [N] from 0 to 2 of a few regions, -1 of the others, and the shares between the grades.

    Of the `usable` regions [N] with a share [N], so many are drawn as the config's `graded` says, and
    three at least.

    Raises:
        DataError: all drawn regions are of one grade.
    """
    able = np.flatnonzero(usable & np.isfinite(share))
    wanted = max(_GRADES, math.ceil(config.graded * len(able)))
    drawn = np.random.default_rng((seed, 2)).permutation(able)[:wanted]
    low, high = np.quantile(share[able], config.grade_quantiles) if len(able) else (np.nan, np.nan)
    grades = np.full(len(share), -1)
    grades[drawn] = (share[drawn] > low).astype(np.int64) + (share[drawn] > high)
    if len(np.unique(grades[drawn])) < 2:
        raise DataError(
            f"read: of the {len(able)} visible chips that were segmented, those with a grade are all "
            "equally built up, so that there is nothing to learn",
            fix="see methods.read.config.built and grade_quantiles, raise `graded`, or remove "
            "`methods.read`",
        )
    return grades, (float(low), float(high))


# --- networks ------------------------------------------------------------------------------------


class Grader(nn.Module):
    """Tiles uint8 [V, p, p, 3] to features [V, F], and features to logits of the grades [V, 3]."""

    def __init__(self, config: ReadConfig) -> None:
        super().__init__()
        self.backbone = ImageEncoder(config.backbone, augment=config.augment, turned=True)
        self.width = self.backbone.width
        self.dropout = nn.Dropout(config.dropout)
        self.grades = nn.Linear(self.width, _GRADES)

    def forward(self, tiles: Tensor) -> Tensor:
        return cast(Tensor, self.grades(self.dropout(self.backbone(tiles))))


def tiles_of(chips: Tensor, tiles: int) -> Tensor:
    """Tiles [B * T, p, p, 3] of chips [B, P, P, 3], in rows, T = `tiles` squared and p = P / `tiles`."""
    count, side = len(chips), chips.shape[1] // tiles
    parts = chips.view(count, tiles, side, tiles, side, 3).transpose(2, 3)
    return parts.reshape(count * tiles**2, side, side, 3)


class MeanTeacher(nn.Module):
    """A student on grades of few chips and on what its teacher says of all of them.

    Attributes:
        step: trained so far.
    """

    step: Tensor

    def __init__(
        self,
        student: Grader,
        chips: Tensor,
        grades: NDArray[np.int64],
        config: ReadConfig,
        steps: int,
    ) -> None:
        """Of chips uint8 [N, P, P, 3] with `grades` [N], -1 where a chip has none; trained for so many
        `steps`."""
        super().__init__()
        self.student, self.teacher = student, copy.deepcopy(student).requires_grad_(False)
        self.chips, self.grades = chips, torch.from_numpy(grades)
        self.tiles, self.consistency = config.tiles, config.consistency
        self.ramp_steps, self.decay = config.ramp_share * steps, config.decay
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def loss(self, index: Tensor) -> Tensor:
        self.follow()
        tiles = tiles_of(self.chips[index], self.tiles)
        said: Tensor = self.student(tiles)  # [B * T, 3]
        with torch.no_grad():
            told: Tensor = self.teacher(tiles)
        apart = F.mse_loss(said.softmax(dim=1), told.softmax(dim=1))
        total = self.consistency * self.ramp() * apart
        grades = self.grades[index]
        rows = (grades >= 0).nonzero()[:, 0]
        if len(rows):
            chip = said.view(len(index), -1, _GRADES).mean(dim=1)  # [B, 3]
            device = said.device
            total = total + F.cross_entropy(chip[rows.to(device)], grades[rows].to(device))
        return total

    def ramp(self) -> float:
        """From nearly 0 to 1, as step by step a teacher has something to say."""
        done = min(int(self.step) / self.ramp_steps, 1.0)
        return math.exp(-5 * (1 - done) ** 2)

    def follow(self) -> None:
        """The teacher after the student's last step; early on it follows at once."""
        decay = min(self.decay, 1 - 1 / (int(self.step) + 1))
        with torch.no_grad():
            for own, other in zip(
                self.teacher.parameters(), self.student.parameters(), strict=True
            ):
                own.mul_(decay).add_(other, alpha=1 - decay)
            self.step += 1


# --- statistics ----------------------------------------------------------------------------------


def tile_statistics(parts: Tensor, weight: Tensor, floor: Tensor) -> Tensor:
    """Statistics [B, 1 + 2 K + K (K - 1) / 2] of components [B, T, K] of tiles that count by `weight`
    [B, T], all alike where none counts: the sum of the weights; means; deviations; correlations of each
    pair of components.
    `floor` [K] is added to the variances in the correlations, so that tiles that are all alike have
    none."""
    total = weight.sum(dim=1)  # [B]
    some = (total > 0)[:, None]
    share = weight / total[:, None].where(some, 1)
    share = share.where(some, 1 / weight.shape[1])[:, :, None]
    mean = (share * parts).sum(dim=1)  # [B, K]
    apart = parts - mean[:, None]
    both = (share * apart).transpose(1, 2) @ apart  # [B, K, K]
    variance = both.diagonal(dim1=1, dim2=2)
    scale = (variance + floor).sqrt()
    alike = both / (scale[:, :, None] * scale[:, None, :])
    one, other = torch.triu_indices(parts.shape[2], parts.shape[2], 1)
    return torch.cat([total[:, None], mean, variance.sqrt(), alike[:, one, other]], dim=1)


class Read:
    """READ on regions."""

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, ReadConfig)
        usable = usable_chips(data, visible, "read", _GRADES)
        grades, between = drawn_grades(built_share(data, config), usable, config, seed)
        chips = self._chips(data, config)
        with seeded(seed):
            student = Grader(config)
            if config.weights is not None:
                student.backbone.load_file(config.weights.path, config.weights.sha256)
            steps = config.epochs * math.ceil(usable.sum() / config.batch)
            training = MeanTeacher(student, chips, grades, config, steps)
        history = fit(
            training,
            np.flatnonzero(usable),
            Settings.of(config),
            seed=seed,
            resume=workspace.resume,
            progress=workspace.progress,
        )
        some = np.random.default_rng((seed, 3)).permutation(np.flatnonzero(usable))
        some = np.sort(some[: max(_SAMPLE // config.tiles**2, _GRADES)])
        seen = [_seen(student, part, config) for part in _in_parts(chips, some)]
        features, weight = (torch.cat(parts) for parts in zip(*seen, strict=True))
        flat = features.flatten(0, 1).double().numpy()
        middle, axes = principal_axes(flat, config.components)
        floor = _FLAT * ((flat - middle) @ axes.T).var(axis=0)
        tensors = {f"student.{name}": value for name, value in state_arrays(student).items()}
        for name, value in (("middle", middle), ("axes", axes), ("floor", floor)):
            tensors[f"pca.{name}"] = value.astype(np.float32)
        tensors["absent"] = _statistics(features, weight, tensors).mean(axis=0)
        record = {
            "loss": history.train,
            "graded": int((grades >= 0).sum()),
            "grades": np.bincount(grades[grades >= 0], minlength=_GRADES).tolist(),
            "between": list(between),
        }
        return Checkpoint(tensors, record)

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        assert isinstance(config, ReadConfig)
        with seeded(0):  # the weights are about to be replaced
            student = Grader(config)
        own = checkpoint.tensors
        load_arrays(
            student,
            {n.removeprefix("student."): v for n, v in own.items() if n.startswith("student.")},
        )
        out = np.tile(own["absent"], (len(data), 1))
        if data.chip_present is not None and data.chip_present.any():
            rows = np.flatnonzero(data.chip_present)
            parts = _in_parts(self._chips(data, config), rows)
            found = [_statistics(*_seen(student, part, config), own) for part in parts]
            out[rows] = np.concatenate(found)
        return out

    def _chips(self, data: RegionData, config: ReadConfig) -> Tensor:
        assert data.chips is not None
        return resized(data.chips, (config.chip_px, config.chip_px))


def _in_parts(chips: Tensor, rows: NDArray[np.int64]) -> Iterator[Tensor]:
    """The chips `rows` of [N, P, P, 3], some at a time."""
    for part in torch.split(torch.from_numpy(rows), _CHIPS):
        yield chips[part]


def _seen(student: Grader, chips: Tensor, config: ReadConfig) -> tuple[Tensor, Tensor]:
    """Features [S, T, F] of the tiles of chips [S, P, P, 3], and what each counts [S, T]: the chance that
    it is not of the lowest grade."""
    with evaluating(student):
        found: Tensor = student.backbone(tiles_of(chips, config.tiles))
        chance = student.grades(found).softmax(dim=1)
    higher = chance[:, 1:].sum(dim=1)  # 1 less the lowest's would round to 0
    return found.view(len(chips), -1, student.width), higher.view(len(chips), -1)


def _statistics(features: Tensor, weight: Tensor, tensors: Mapping[str, Any]) -> Floats:
    middle, axes, floor = (
        torch.from_numpy(np.array(tensors[f"pca.{name}"])) for name in ("middle", "axes", "floor")
    )
    found: Floats = tile_statistics((features - middle) @ axes.T, weight, floor).numpy()
    return found


METHOD = Read()
