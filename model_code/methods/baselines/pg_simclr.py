"""PG-SimCLR: satellite chips of regions that are used alike are alike, as are those of near ones.

Xi, Li, Wang, Li, Tarkoma and Hui 2022, "Beyond the First Law of Geography: Learning Representations of
Satellite Imagery by Leveraging Point-of-Interests" (WWW, doi:10.1145/3485447.3512149), on SimCLR (Chen
et al. 2020, arXiv:2002.05709). The paper's: two views, each with an encoder and a projection head of its
own, trained by NT-Xent. The positive of a chip is the chip of the region whose POI counts are nearest
(Euclidean) in one view, of the nearest region in the other. Both chips are cropped and mirrored at
random. What the encoders say before the projection is a region's representation.

What departs:

- The paper merges its views by an attention that learns from the labels, inside of the head. Here
  pretraining sees no label, so the views stand side by side and any head weighs them.
- A batch may hold other pictures of a region of one's pair; they are no negatives.
- A region without POIs is in no pair of that view: its use is unknown, and not like that of another
  such region.
- Units of an encoder that hardly differ among the regions that pretraining sees are left out.
- Backbones start from chance, as in the published code; the default is small, `resnet18` the paper's.
- A token stands for a chip that a region has not; it is put at the mean of the others.

POIs say who is alike, and are not in the embedding. A city without them has the view of nearness alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from model_code.errors import DataError
from model_code.finetuning import embed_all, embed_some
from model_code.losses import nt_xent
from model_code.methods import MethodConfig, PgSimClrConfig
from model_code.methods.base import NOWHERE, Checkpoint, Floats, Mask, RegionData, Workspace
from model_code.methods.chips import ChipRegions, usable_chips
from model_code.methods.nearness import NearSampler
from model_code.training import Settings, fit, load_arrays, seeded, state_arrays
from model_code.vision.backbones import ImageEncoder
from model_code.vision.pictures import cropped


def views_of(data: RegionData, config: PgSimClrConfig) -> list[str]:
    """The views that are on and that the city has.

    Raises:
        DataError: there is none.
    """
    found = ["pois"] if config.pois and data.poi_counts is not None else []
    found += ["near"] if config.near else []
    if not found:
        raise DataError(
            "pg_simclr: there are no POIs, and the view of near regions is off",
            fix="set the method's `near: true`, or add `sources.pois`",
        )
    return found


def samplers(data: RegionData, config: PgSimClrConfig, usable: Mask) -> dict[str, NearSampler]:
    """Positives of each view among the `usable` regions [N]."""
    found = {}
    for view in views_of(data, config):
        points, rows, most = data.xy_m, usable, config.neighbours
        if view == "pois":
            assert data.poi_counts is not None
            points = data.poi_counts
            points, most = np.log1p(points) if config.counts == "log1p" else points, config.alike
            rows = usable & (data.poi_counts.sum(axis=1) > 0)
        if rows.sum() < 2:
            raise DataError(
                f"pg_simclr: fewer than two visible regions have a chip and what `{view}` compares",
                fix=f"set the method's `{view}: false`",
            )
        found[view] = NearSampler(points, rows, neighbours=most)
    return found


class PairTraining(nn.Module):
    """Encoders with their projection heads on pairs of chips, a view for each sampler."""

    def __init__(
        self, regions: ChipRegions, drawn: Mapping[str, NearSampler], config: PgSimClrConfig
    ) -> None:
        super().__init__()
        self.encoders, self.pixels, self.samplers = regions.encoders, regions.pixels, drawn
        self.crop, self.scale = config.crop, 1 / config.temperature
        self.projections = nn.ModuleDict()
        for view, encoder in regions.encoders.items():
            assert isinstance(encoder, ImageEncoder)
            self.projections[view] = nn.Sequential(
                nn.Linear(encoder.width, encoder.width, bias=False),
                nn.ReLU(),
                nn.Linear(encoder.width, config.projection, bias=False),
            )

    def loss(self, index: Tensor) -> Tensor:
        losses = [next(self.parameters()).sum() * 0]  # where no pair is left
        for view, sampler in self.samplers.items():
            pairs = sampler.pairs(index).T  # [2, T]
            if pairs.shape[1]:
                chips = cropped(self.pixels[pairs.flatten()], self.crop)
                vectors = self.projections[view](self.encoders[view](chips))
                left, right = vectors.view(2, -1, vectors.shape[1])
                losses.append(nt_xent(left, right, self.scale, pairs))
        return torch.stack(losses).sum()


class PgSimClr:
    """PG-SimCLR, and each of its views alone."""

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, PgSimClrConfig)
        usable = usable_chips(data, visible, "pg_simclr", 2)
        with seeded(seed):
            regions = self.encoder(data, config)
            training = PairTraining(regions, samplers(data, config, usable), config)
        if config.weights is not None:
            for encoder in regions.encoders.values():
                assert isinstance(encoder, ImageEncoder)
                encoder.load_file(config.weights.path, config.weights.sha256)
        history = fit(
            training,
            np.flatnonzero(usable),
            Settings.of(config),
            seed=seed,
            resume=workspace.resume,
            progress=workspace.progress,
        )
        rows = embed_some(regions, np.flatnonzero(usable))
        regions.silence(rows)
        regions.start_token(rows)
        record = {"views": list(training.samplers), "loss": history.train}
        return Checkpoint(state_arrays(regions), record)

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        assert isinstance(config, PgSimClrConfig)
        views, fitted = views_of(data, config), checkpoint.record["views"]
        if views != fitted:
            raise DataError(
                f"pg_simclr was fitted on the views {', '.join(fitted)}, and the city now has "
                f"{', '.join(views)}",
                fix="fit it on the data that it embeds",
            )
        with seeded(0):  # the weights are about to be replaced
            regions = self.encoder(data, config)
        load_arrays(regions, checkpoint.tensors)
        return embed_all(regions, len(data))

    def encoder(
        self, data: RegionData, config: MethodConfig, visible: Mask | None = None
    ) -> ChipRegions:
        """Fresh, it has taken nothing from any region, `visible` or not."""
        assert isinstance(config, PgSimClrConfig)
        encoders = {
            view: ImageEncoder(config.backbone, augment=True, turned=True)
            for view in views_of(data, config)
        }
        return ChipRegions(data, encoders, chip_px=config.chip_px, absent_rate=config.absent_rate)


METHOD = PgSimClr()
