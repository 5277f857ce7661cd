"""UrbanVLP: satellite chips, street views and their places against captions.

Hao et al. 2025, "UrbanVLP: Multi-Granularity Vision-Language Pretraining for Urban Socioeconomic
Indicator Prediction". A CLIP pair of towers for each view; a region's satellite feature, the
aggregate of its street views and that of their GeoCLIP location features are fused (eq 4) and
contrasted with the satellite caption (eq 5); the patches of one street view of a region with the
words of its own caption (eq 6-8).

A region's embedding is its satellite, street-view and location features side by side, each after
its projection: Y = MLP(e_st, e_sv, e_p) has three arguments, and a head on their sum could not weigh
one against another. The fusion serves the contrast alone, and text is not needed any more.

What the paper leaves open:

- Each contrast has a temperature of its own, since similarities of vectors and of tokens differ in
  spread.
- Location features are standardised on the regions that pretraining sees: within one city GeoCLIP's
  features are nearly one vector.
- In training, a few modalities are hidden, so that the tokens for absent ones are learned where
  every region has all.
- Without satellite captions, the fused feature is contrasted with the caption of one street view.

B regions and V street views in a batch, N regions, M street views, E width of a tower's shared
space, W width of a projected feature.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.errors import DataError
from model_code.finetuning import embed_all
from model_code.fusion import Aggregate, Fusion, Projection
from model_code.losses import Temperature, info_nce, late_interaction_loss
from model_code.methods import MethodConfig, UrbanVlpConfig
from model_code.methods.base import NOWHERE, Checkpoint, Floats, Mask, RegionData, Workspace
from model_code.scaling import Scaler
from model_code.training import Settings, fit, load_arrays, seeded, state_arrays
from model_code.vision.clip import Towers, model_arguments
from model_code.vision.clip_config import ClipConfig
from model_code.vision.pictures import RegionViews, encoded, resized

View = Literal["satellite", "street_view"]


class ImageTower(nn.Module):
    """The image half of a view's towers."""

    mean: Tensor
    std: Tensor

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.visual = towers.clip.visual
        self.size_px, self.width = towers.size_px, towers.embed_dim
        self.register_buffer("mean", towers.mean.clone(), persistent=False)
        self.register_buffer("std", towers.std.clone(), persistent=False)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors [V, E] and patch tokens [V, L, image width] of pictures uint8 [V, h, w, 3]."""
        x = pictures.to(self.mean.device).permute(0, 3, 1, 2).float() / 255
        pooled, tokens = self.visual((x - self.mean) / self.std)
        return F.normalize(pooled, dim=-1), tokens

    def vectors(self, pictures: Tensor, index: Tensor) -> Tensor:
        """Unit vectors [V, E] of `pictures[index]`, in parts where no gradient has to be kept."""
        if not len(index):
            return self.mean.new_zeros(0, self.width)
        return encoded(lambda part: cast(Tensor, self(part)[0]), pictures, index)

    def shared(self, tokens: Tensor) -> Tensor:
        """Patch tokens [V, L, E] in the space that the view shares with its texts, of length one."""
        return F.normalize(tokens @ self.visual.proj, dim=-1)


class PicturedRegions(RegionViews):
    """A `RegionEncoder`: the features of each modality side by side; its data is not in its state."""

    location_mean: Tensor
    location_scale: Tensor

    def __init__(
        self, data: RegionData, config: UrbanVlpConfig, towers: dict[View, Towers], seen: Mask
    ) -> None:
        """`towers` of the views that are on; location features are standardised on `seen` [N]."""
        placed = config.location and data.view_location_features is not None
        viewed = placed or "street_view" in towers
        super().__init__(data.view_region if viewed else None, len(data), config.views_per_step)
        self.absent_rate = config.absent_rate
        self.towers = nn.ModuleDict({view: ImageTower(pair) for view, pair in towers.items()})
        widths: dict[str, int] = {view: pair.embed_dim for view, pair in towers.items()}
        if "satellite" in towers:
            assert data.chips is not None and data.chip_present is not None
            self.chips = resized(data.chips, towers["satellite"].size_px)
            self.chip_present = torch.from_numpy(np.array(data.chip_present))
        if "street_view" in towers:
            assert data.views is not None
            size_px = towers["street_view"].size_px
            self.views = resized(data.views, size_px, self.view_order)
        if placed:
            assert data.view_location_features is not None and data.view_region is not None
            places = data.view_location_features[self.view_order]
            scaler = Scaler.fit(data.view_location_features, seen[data.view_region])
            self.placed = torch.from_numpy(np.isfinite(places).all(axis=1))
            self.places = torch.from_numpy(np.array(places, np.float32))
            widths["location"] = places.shape[1]
            self.register_buffer("location_mean", torch.from_numpy(scaler.mean).float())
            self.register_buffer("location_scale", torch.from_numpy(scaler.scale).float())
        self.aggregates = nn.ModuleDict(
            {
                name: Aggregate(config.aggregate, width, config.slots)
                for name, width in widths.items()
                if name != "satellite"
            }
        )
        self.projections = nn.ModuleDict(
            {name: Projection(width, config.width) for name, width in widths.items()}
        )
        self.width = config.width * len(widths)

    def forward(self, index: Tensor) -> Tensor:
        view, owner, _ = self.views_of(index)
        return torch.cat(self.features(index, view, owner), dim=1)  # [B, self.width]

    def features(
        self, index: Tensor, view: Tensor, owner: Tensor, pictured: Tensor | None = None
    ) -> list[Tensor]:
        """By modality, features [B, W] of the regions `index` from the street views `view` of the
        regions `owner`; `pictured` [V, E] are these views' vectors, if they are known."""
        parts = []
        device = next(self.parameters()).device
        for name, projection in self.projections.items():
            if name == "satellite":
                own = self.chip_present[index].nonzero()[:, 0]  # a chip is the one view of its kind
                vectors = cast(ImageTower, self.towers[name]).vectors(self.chips, index[own])
                values = vectors.new_zeros(len(index), vectors.shape[1])
                values = values.index_copy(0, own.to(device), vectors)
            elif name == "location":
                placed = self.placed[view]
                own, vectors = owner[placed], self.places[view[placed]].to(device)
                vectors = (vectors - self.location_mean) / self.location_scale
                vectors = vectors * vectors.shape[1] ** -0.5  # of length one, like a tower's
                values = self.aggregates[name](vectors, own.to(device), len(index))
            else:
                own = owner
                if pictured is None:
                    pictured = cast(ImageTower, self.towers[name]).vectors(self.views, view)
                values = self.aggregates[name](pictured, own.to(device), len(index))
            present = torch.zeros(len(index), dtype=torch.bool).index_fill(0, own, True)
            if self.training:
                present &= torch.rand(len(index)) >= self.absent_rate
            parts.append(projection(values, present.to(device)))
        return parts


class Alignment(nn.Module):
    """The pretraining of `PicturedRegions`: its towers with their texts, and both contrasts (eq 9).

    Attributes:
        region_text: the view whose captions the fused regions are contrasted with, or None.
        tokens: whether street views are contrasted with their captions by tokens.
        usable: regions [N] that have something to contrast.
    """

    def __init__(
        self,
        regions: PicturedRegions,
        data: RegionData,
        config: UrbanVlpConfig,
        towers: dict[View, Towers],
    ) -> None:
        super().__init__()
        self.regions = regions
        self.alpha, self.beta = config.alpha, config.beta
        self.budget_bytes = config.budget_mib * 2**20
        kept, texts = captions(data, config, regions.view_order)
        kept = {view: mask for view, mask in kept.items() if view in towers}
        self.region_text: View | None = None
        first: View = "satellite" if "satellite" in towers else "street_view"
        if config.alpha > 0 and first in kept:
            self.region_text = first
        self.tokens = config.beta > 0 and "street_view" in kept
        self.kept = {view: torch.from_numpy(mask) for view, mask in kept.items()}

        used: set[View] = {"street_view"} if self.tokens else set()
        if self.region_text is not None:
            used.add(self.region_text)
        # The image halves are those of `regions`: every parameter is there once.
        self.towers = nn.ModuleDict({view: towers[view] for view in sorted(used)})
        for view in used:
            towers[view].clip.logit_scale.requires_grad_(False)
        self.ids = {view: towers[view].tokenize(texts[view].tolist()) for view in used}
        if self.region_text is not None:
            self.fusion = Fusion(config.fusion, len(regions.projections), config.width)
            self.to_fused = Projection(towers[self.region_text].embed_dim, config.width).linear
            self.temperature = Temperature()
        if self.tokens:
            self.token_temperature = Temperature()
            if config.local == "both":
                self.view_temperature = Temperature()
        self.local = config.local
        self.usable = np.zeros(len(data), bool)
        if self.region_text == "satellite":
            self.usable |= kept["satellite"]
        if self.tokens or self.region_text == "street_view":
            assert data.view_region is not None
            self.usable[data.view_region[regions.view_order][kept["street_view"]]] = True

    def loss(self, index: Tensor) -> Tensor:
        regions = self.regions
        view, owner, drawn = regions.views_of(index, self.kept.get("street_view"))
        globals_, tokens = None, None
        if "street_view" in regions.towers and len(view):
            globals_, tokens = cast(ImageTower, regions.towers["street_view"])(regions.views[view])
        losses = []
        if self.region_text is not None:
            if self.region_text == "satellite":
                rows = self.kept["satellite"][index].nonzero()[:, 0]
                text = index[rows]
            else:
                rows, text = owner[drawn], view[drawn]
            if len(rows):
                parts = regions.features(index, view, owner, globals_)
                fused = self.fusion([part[rows] for part in parts])
                words, _, _ = self._read(self.region_text, text)
                words = F.normalize(self.to_fused(F.normalize(words, dim=-1)), dim=-1)
                contrast = info_nce(F.normalize(fused, dim=-1), words, self.temperature())
                losses.append(self.alpha * contrast)
        if self.tokens and drawn.any():
            assert tokens is not None and globals_ is not None
            caption, words, mask = self._read("street_view", view[drawn])
            projection = cast(Towers, self.towers["street_view"]).clip.text_projection
            contrast = late_interaction_loss(
                cast(ImageTower, regions.towers["street_view"]).shared(tokens[drawn]),
                F.normalize(words @ projection, dim=-1),
                mask,
                self.token_temperature(),
                budget_bytes=self.budget_bytes,
            )
            losses.append(self.beta * contrast)
            if self.local == "both":
                unit = F.normalize(caption, dim=-1)
                contrast = info_nce(globals_[drawn], unit, self.view_temperature())
                losses.append(self.beta * contrast)
        return torch.stack(losses).sum()

    def _read(self, view: View, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        towers = cast(Towers, self.towers[view])
        return towers.text(self.ids[view][rows].to(towers.mean.device))


class UrbanVlp:
    """UrbanVLP, and by other settings the methods that it contains."""

    def settings(self, config: MethodConfig) -> UrbanVlpConfig:
        """The method's config as one of UrbanVLP."""
        assert isinstance(config, UrbanVlpConfig)
        return config

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        config = self.settings(config)
        with seeded(seed):
            towers = make_towers(data, config, visible)
            start_towers(towers, data)
            regions = PicturedRegions(data, config, towers, visible)
            alignment = Alignment(regions, data, config, towers) if config.text else None
        record: dict[str, Any] = {"features": list(regions.projections), "loss": []}
        if alignment is not None and (alignment.region_text is not None or alignment.tokens):
            index = np.flatnonzero(visible & alignment.usable)
            if not len(index):
                raise DataError(
                    "no region that pretraining sees has a caption that is kept",
                    fix="look at the captions, or set the method's `calibrated: false` or "
                    "`text: false`",
                )
            settings = Settings.of(config, schedule="cosine")
            history = fit(
                alignment,
                index,
                settings,
                seed=seed,
                resume=workspace.resume,
                progress=workspace.progress,
            )
            record |= {"loss": history.train, "pretrained_regions": len(index)}
        return Checkpoint(state_arrays(regions), record)

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        with seeded(0):  # the weights are about to be replaced
            regions = self.encoder(data, config)
        load_arrays(regions, checkpoint.tensors)
        return embed_all(regions, len(data))

    def encoder(
        self, data: RegionData, config: MethodConfig, visible: Mask | None = None
    ) -> nn.Module:
        config = self.settings(config)
        seen = np.ones(len(data), bool) if visible is None else visible
        return PicturedRegions(data, config, make_towers(data, config, seen), seen)


def make_towers(data: RegionData, config: UrbanVlpConfig, visible: Mask) -> dict[View, Towers]:
    """Freshly initialised towers of the views that are on: of the size of the given ones, else of the
    config's, for the words of the regions `visible` [N].

    Raises:
        DataError: no modality is left.
    """
    pictures: dict[View, NDArray[np.uint8]] = {}
    if config.satellite and data.chips is not None:
        pictures["satellite"] = data.chips
    if config.street_views and data.views is not None and len(data.views):
        pictures["street_view"] = data.views
    if not pictures and not (config.location and data.view_location_features is not None):
        raise DataError(
            "neither satellite chips nor street views nor their places are left to look at",
            fix="set one of the method's `satellite`, `street_views` and `location` to true, and see "
            "that the city has it",
        )
    towers: dict[View, Towers] = {}
    for view in pictures:
        if data.towers is not None:
            given = given_towers(data.towers, view)
            towers[view] = Towers(given.record["model"], given.tensors["vocabulary"])
        else:
            size = ClipConfig.model_validate(config.tower.model_dump())
            px = (config.chip_px, config.chip_px) if view == "satellite" else config.view_px
            towers[view] = Towers(model_arguments(size, px), _vocabulary(data, view, visible))
    return towers


def start_towers(towers: dict[View, Towers], data: RegionData) -> None:
    """Give towers the pretrained weights of the data, where there are any."""
    for view, pair in towers.items():
        if data.towers is not None:
            load_arrays(pair, given_towers(data.towers, view).tensors)


def given_towers(towers: dict[str, Checkpoint], view: View) -> Checkpoint:
    """The pretrained towers of a view.

    Raises:
        DataError: there are none.
    """
    if view not in towers:
        raise DataError(
            f"there are no pretrained towers of the view {view}, only of "
            f"{', '.join(sorted(towers)) or 'none'}",
            fix="make the towers of this city anew",
        )
    return towers[view]


def captions(
    data: RegionData, config: UrbanVlpConfig, view_order: NDArray[np.int64]
) -> tuple[dict[View, Mask], dict[View, NDArray[np.str_]]]:
    """By view, which captions pretraining may read, and the captions (empty where it may not): of
    chips in the order of the regions [N], of street views in `view_order` [M]. Without calibration
    these are the first ones that were written, all of them."""
    kept: dict[View, Mask] = {}
    texts: dict[View, NDArray[np.str_]] = {}
    chips = data.chip_texts if config.calibrated else data.chip_first_texts
    if chips is not None:
        kept["satellite"] = _readable(chips, data.chip_text_kept if config.calibrated else None)
        texts["satellite"] = np.where(kept["satellite"], chips, "")
    views = data.view_texts if config.calibrated else data.view_first_texts
    if views is not None:
        readable = _readable(views, data.view_text_kept if config.calibrated else None)
        kept["street_view"] = readable[view_order]
        texts["street_view"] = np.where(readable, views, "")[view_order]
    return kept, texts


def _readable(texts: NDArray[np.str_], kept: Mask | None) -> Mask:
    mask = np.strings.str_len(np.strings.strip(texts)) > 0
    return mask if kept is None else mask & kept


def _vocabulary(data: RegionData, view: View, visible: Mask) -> NDArray[np.int64]:
    """Ids of the words in a view's captions of visible regions."""
    if view == "satellite":
        texts = None if data.chip_texts is None else data.chip_texts[visible]
    elif data.view_texts is None:
        texts = None
    else:
        assert data.view_region is not None
        texts = data.view_texts[visible[data.view_region]]
    if texts is None:
        return np.empty(0, np.int64)
    encode = SimpleTokenizer().encode
    ids = {word for text in np.unique(texts).tolist() for word in encode(text)}
    return np.array(sorted(ids), np.int64)


METHOD = UrbanVlp()
