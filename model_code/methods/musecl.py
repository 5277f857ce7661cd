"""MuseCL: pictures of regions that are alike in POIs or in mobility, taught by the words of POIs.

Yong and Zhou 2024, "MuseCL: Predicting Urban Socioeconomic Indicators via Multi-Semantic Contrastive
Learning". Three trainings, one after the other:

1. Triplets (eq 1-6). Satellite chips of regions with like POI counts, and street views of regions with
   like in- and outflow, come close; those of unlike regions move apart. A backbone and a linear head
   for each view. The paper's backbones come from ImageNet; here they are the city's pretrained towers,
   which rest unless they are told to train (`rest`), or a network that starts from chance.
2. Words (eq 7). Skip-gram vectors of what POIs are, are called, and what is said of them; a region is
   the mean of its POIs' categories.
3. Alignment (eq 8-11). The two heads and the attention that fuses them are trained on to find the
   region's POI vector among others by InfoNCE; the backbones rest.

A region's embedding is its fused picture vector (eq 10). POIs teach it and are not a part of it, but
for `fusion: concat`, which aligns nothing and sets all three side by side.

What the paper leaves open, or prints otherwise:

- The hinge is that of FaceNet: eq 5 and 6 call a similarity what must be a distance.
- Negatives are the least similar of a few regions drawn at random: always the very least similar
  would make a handful of outliers everyone's negative. A triplet whose negative is no less similar
  than its positive is left out.
- A region without POIs or trips is unlike none, but unknown: it is in no triplet of that view.
- A word of a category comes first in each sentence (a name, or a comment, of such a POI), and the
  categories of a region, shuffled, are one sentence more: so categories without any text meet too.
- POI vectors are standardised on the regions that pretraining sees: within one city their means are
  nearly one vector, which nothing could tell apart.
- Pictures without words (`pois: false`): the attention learns from the triplets of both kinds.
- A token stands for pictures, or POIs in the embedding, that a region has not; it starts at their
  mean. The alignment, which hides a few, trains it; where nothing is aligned it stays there.

N regions, M street views, B regions in a batch, T triplets, K categories of POIs, F width of a
backbone's features, W width of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.errors import DataError
from model_code.finetuning import embed_all
from model_code.fusion import Aggregate, Fusion, Projection
from model_code.losses import one_way_info_nce, triplet_loss
from model_code.methods import MethodConfig, MuseClConfig
from model_code.methods.base import NOWHERE, Checkpoint, Floats, Mask, RegionData, Workspace
from model_code.methods.resting import CityTower
from model_code.methods.urbanvlp import given_towers
from model_code.scaling import Scaler
from model_code.text.word_vectors import sentences_of, word_vectors
from model_code.training import (
    Settings,
    evaluating,
    fit,
    load_arrays,
    mix,
    seeded,
    state_arrays,
)
from model_code.vision.backbones import ImageEncoder
from model_code.vision.clip import Towers
from model_code.vision.pictures import RegionViews, encoded, resized

View = Literal["satellite", "street_view"]
Values = Mapping[str, tuple[Tensor, Tensor]]  # by modality, numbers [B, F] and who has any [B]

_EPS = 1e-6  # of a distance, so that equal regions have a finite similarity
_BLOCK_BYTES = 2**26  # of similarities that are held at once
_CHUNK = 256  # regions whose pictures are encoded at once outside training
_MARGIN = {"cosine": 0.3, "euclidean": 5.0}


# --- triplets ------------------------------------------------------------------------------------


def similarity(left: Tensor, right: Tensor) -> Tensor:
    """1 / (distance + eps) of features [..., A, d] and [..., C, d]: [..., A, C] (eq 1-4)."""
    return 1 / (torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist") + _EPS)


class TripletSampler:
    """Draws regions that are like an anchor and regions that are not. Similarities are made in blocks
    of rows, once for the positives, and for a few candidates a draw."""

    def __init__(self, features: Floats, usable: Mask, *, positives: int, candidates: int) -> None:
        """Of features [N, d] of the `usable` regions [N], three at least; others are not read.
        Positives come from so many most similar regions; the negative is the least similar of so many
        `candidates`."""
        self.regions = torch.from_numpy(np.flatnonzero(usable))
        self.features = torch.from_numpy(np.asarray(features[usable], np.float64))
        self.candidates = candidates
        count = len(self.regions)
        self.position = torch.full((len(usable),), -1)
        self.position[self.regions] = torch.arange(count)
        rows = max(1, _BLOCK_BYTES // (8 * count))
        nearest = []
        for block in torch.split(torch.arange(count), rows):
            alike = similarity(self.features[block], self.features)
            alike[torch.arange(len(block)), block] = -1  # nobody is a positive of itself
            nearest.append(alike.topk(min(positives, count - 1)).indices)
        self.nearest = torch.cat(nearest)  # [n, k]

    def draw(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Triplets [T, 3] of anchor, positive and negative region for those of `index` [B] that have
        features, and the anchor's similarities [T, 2] with the other two. A triplet whose negative is
        as similar as its positive is left out."""
        anchor = self.position[index]
        anchor = anchor[anchor >= 0]
        each = torch.arange(len(anchor))
        choice = torch.randint(self.nearest.shape[1], (len(anchor),))
        positive = self.nearest[anchor, choice]
        others = torch.randint(len(self.regions) - 1, (len(anchor), self.candidates))
        others += others >= anchor[:, None]  # any but the anchor
        own = self.features[anchor][:, None]
        alike = similarity(own, self.features[others])[:, 0]  # [T, candidates]
        least, place = alike.min(dim=1)
        near = similarity(own, self.features[positive][:, None])[:, 0, 0]
        triplets = self.regions[torch.stack([anchor, positive, others[each, place]], dim=1)]
        apart = least < near
        return triplets[apart], torch.stack([near, least], dim=1)[apart]


def mobility(data: RegionData, visible: Mask) -> Floats:
    """Out- and inflow [N, 2] of each region, counting the trips between visible regions [N]; a trip
    within a region is one out and one in."""
    assert data.flow_origin is not None and data.flow_destination is not None
    assert data.flow_count is not None
    both = visible[data.flow_origin] & visible[data.flow_destination]
    return np.stack(
        [
            np.bincount(ends[both], data.flow_count[both], minlength=len(data))
            for ends in (data.flow_origin, data.flow_destination)
        ],
        axis=1,
    )


def samplers(data: RegionData, config: MuseClConfig, visible: Mask) -> dict[View, TripletSampler]:
    """A sampler for each view that is on, over the visible regions [N] that have such a picture and
    what makes them alike; none where fewer than three have."""
    has = pictured(data, config)
    features: dict[View, Floats] = {}
    if "satellite" in has and data.poi_counts is not None:
        features["satellite"] = data.poi_counts
    if "street_view" in has and data.flow_count is not None:
        features["street_view"] = mobility(data, visible)
    found: dict[View, TripletSampler] = {}
    for view, counts in features.items():
        usable = visible & has[view] & (counts.sum(axis=1) > 0)
        if usable.sum() >= 3:
            found[view] = TripletSampler(
                np.log1p(counts) if config.counts == "log1p" else counts,
                usable,
                positives=config.positives,
                candidates=config.candidates if config.negatives == "least" else 1,
            )
    return found


def pictured(data: RegionData, config: MuseClConfig) -> dict[View, Mask]:
    """By view that is on and that the city has, which regions [N] have such a picture."""
    has: dict[View, Mask] = {}
    if config.satellite and data.chips is not None:
        assert data.chip_present is not None
        has["satellite"] = data.chip_present
    if config.street_views and data.views is not None and len(data.views):
        assert data.view_region is not None
        has["street_view"] = np.bincount(data.view_region, minlength=len(data)) > 0
    return has


# --- words of POIs -------------------------------------------------------------------------------


class PoiWords(nn.Module):
    """Counts of POIs [B, K] to the standardised mean [B, W] of their categories' vectors (eq 7).
    Nothing here is trained by gradients."""

    words: Tensor
    known: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, categories: int, width: int) -> None:
        super().__init__()
        self.register_buffer("words", torch.zeros(categories, width))
        self.register_buffer("known", torch.zeros(categories, dtype=torch.bool))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def forward(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [B, W], and which regions [B] have a POI of a known category."""
        counts = counts * self.known
        total = counts.sum(dim=1, keepdim=True)
        vectors = (counts / total.clamp(min=1)) @ self.words
        return (vectors - self.mean) / self.scale, total[:, 0] > 0

    def learn(self, data: RegionData, config: MuseClConfig, visible: Mask, seed: int) -> None:
        """Vectors of categories from the visible regions' [N] POIs, and the scales of their means."""
        tokens = np.array([f"§{code}" for code in range(len(self.known))])
        vectors = word_vectors(
            poi_sentences(data, tokens, visible, seed),
            tokens.tolist(),
            width=self.words.shape[1],
            window=config.word_window,
            epochs=config.word_epochs,
            min_count=config.word_min_count,
            seed=seed,
        )
        self.known.copy_(torch.from_numpy(np.isfinite(vectors).all(axis=1)))
        self.words.copy_(torch.from_numpy(np.nan_to_num(vectors)))
        means, present = self(torch.from_numpy(np.asarray(data.poi_counts, np.float32)))
        scaler = Scaler.fit(means.numpy(), visible & present.numpy())
        self.mean.copy_(torch.from_numpy(scaler.mean))
        self.scale.copy_(torch.from_numpy(scaler.scale))


def poi_sentences(
    data: RegionData, tokens: NDArray[np.str_], visible: Mask, seed: int
) -> list[list[str]]:
    """The sentences of visible regions [N]: each name and each comment after the word `tokens` [K] of
    its POI's category; and of each region these words, one a POI, in random order."""
    assert data.poi_counts is not None
    codes = {name: code for code, name in enumerate(data.poi_categories)}
    found: list[list[str]] = []
    for texts, region, category in (
        (data.poi_names, data.poi_name_region, data.poi_name_category),
        (data.poi_comments, data.poi_comment_region, data.poi_comment_category),
    ):
        if texts is not None and region is not None and category is not None:
            names, which = np.unique(category[visible[region]], return_inverse=True)
            topics = tokens[[codes[name] for name in names.tolist()]] if len(names) else names
            found += sentences_of(texts[visible[region]], topics[which])
    counts = np.asarray(data.poi_counts[visible], np.int64)
    owner, code = np.divmod(
        np.repeat(np.arange(counts.size), counts.ravel()), max(counts.shape[1], 1)
    )
    order = np.lexsort((np.random.default_rng(seed).random(len(owner)), owner))
    ends = np.cumsum(counts.sum(axis=1))[:-1]
    return found + [part.tolist() for part in np.split(tokens[code[order]], ends) if len(part)]


# --- networks ------------------------------------------------------------------------------------


class TowerEncoder(nn.Module):
    """The image tower of a view as a backbone: its vectors, standardised on what pretraining sees."""

    mean: Tensor
    scale: Tensor

    def __init__(self, tower: CityTower) -> None:
        super().__init__()
        self.tower = tower
        self.width, self.size_px = self.tower.width, self.tower.size_px
        self.register_buffer("mean", torch.zeros(self.width))
        self.register_buffer("scale", torch.ones(self.width))

    def forward(self, pictures: Tensor) -> Tensor:
        """Features [V, self.width] of pictures uint8 [V, h, w, 3]."""
        return self.standardised(self.tower(pictures)[0])

    def standardised(self, vectors: Tensor) -> Tensor:
        """The tower's unit vectors [V, self.width] as features."""
        return (vectors - self.mean) / self.scale


def _backbone(data: RegionData, config: MuseClConfig, view: View) -> ImageEncoder | TowerEncoder:
    """A view's backbone, freshly initialised."""
    satellite = view == "satellite"
    name = config.satellite_backbone if satellite else config.street_view_backbone
    if name != "towers":
        return ImageEncoder(name, augment=config.augment, turned=satellite)
    given = given_towers(data.towers or {}, view)
    towers = Towers(given.record["model"], given.tensors["vocabulary"])
    return TowerEncoder(CityTower(towers, given))


class Joint(nn.Module):
    """The modalities of regions, each after its linear head, as one vector (eq 8-10)."""

    def __init__(self, widths: Mapping[str, int], config: MuseClConfig) -> None:
        super().__init__()
        self.absent_rate = config.absent_rate
        self.heads = nn.ModuleDict(
            {name: Projection(width, config.width) for name, width in widths.items()}
        )
        self.fusion: Fusion | None = None
        self.width = config.width
        if config.fusion == "concat":
            self.width *= len(widths)
        elif len(widths) > 1:
            kind: Literal["attention", "sum"] = "sum" if config.fusion == "add" else "attention"
            self.fusion = Fusion(kind, len(widths), config.width)

    def forward(self, values: Values) -> Tensor:
        parts = []
        for name, head in self.heads.items():
            numbers, present = values[name]
            if self.training:
                hidden = torch.rand(len(present)) < self.absent_rate
                present = present & ~hidden.to(present.device)
            parts.append(head(numbers, present))
        return torch.cat(parts, dim=1) if self.fusion is None else self.fusion(parts)  # [B, width]


class MuseRegions(RegionViews):
    """A `RegionEncoder` of all that is on; its data is not in its state."""

    def __init__(self, data: RegionData, config: MuseClConfig) -> None:
        has = pictured(data, config)
        owner = data.view_region if "street_view" in has else None
        super().__init__(owner, len(data), config.views_per_step)
        self.encoders = nn.ModuleDict()
        widths: dict[str, int] = {}
        self.pixels: dict[View, Tensor] = {}
        self.known: dict[View, Tensor] = {}  # features of all pictures, where the backbone rests
        sizes: dict[str, tuple[int, int]]
        sizes = {"satellite": (config.chip_px, config.chip_px), "street_view": config.view_px}
        for view in has:
            encoder = _backbone(data, config, view)
            self.encoders[view] = encoder
            widths[view] = encoder.width
            size_px = encoder.size_px if isinstance(encoder, TowerEncoder) else sizes[view]
            pictures = data.chips if view == "satellite" else data.views
            assert pictures is not None
            order = None if view == "satellite" else self.view_order
            self.pixels[view] = resized(pictures, size_px, order)
        if "satellite" in has:
            self.chip_present = torch.from_numpy(np.array(has["satellite"]))
        self.mean_of = Aggregate("mean", 0, 0)
        self.words: PoiWords | None = None
        if config.pois and data.poi_counts is not None and (config.fusion == "concat" or not has):
            self.counts = torch.from_numpy(np.asarray(data.poi_counts, np.float32))
            self.words = PoiWords(self.counts.shape[1], config.width)
            widths["pois"] = config.width
        if not widths:
            raise DataError(
                "neither satellite chips nor street views nor POIs are left to look at",
                fix="set one of the method's `satellite`, `street_views` and `pois` to true, and see "
                "that the city has it",
            )
        self.joint = Joint(widths, config)
        self.width = self.joint.width

    def forward(self, index: Tensor) -> Tensor:
        return cast(Tensor, self.joint(self.values(index)))  # [B, self.width]

    def values(self, index: Tensor) -> Values:
        """What the heads read of the regions `index` [B]: features of pictures, a region's mean over
        its street views, and POI vectors."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        device = next(self.parameters()).device
        for view in self.pixels:
            if view == "satellite":
                own = self.chip_present[index].nonzero()[:, 0]  # one picture a region
                rows = index[own]
            else:
                rows, own, _ = self.views_of(index)
            numbers = self.mean_of(self.features(view, rows), own.to(device), len(index))
            present = torch.zeros(len(index), dtype=torch.bool).index_fill(0, own, True)
            found[view] = numbers, present.to(device)
        if self.words is not None:
            found["pois"] = self.words(self.counts[index].to(device))
        return found

    def features(self, view: View, pictures: Tensor) -> Tensor:
        """What the view's backbone makes [V, F] of the pictures that `pictures` [V] names, where the
        view's head is: a training may move that alone."""
        encoder = cast(ImageEncoder, self.encoders[view])
        head = cast(Projection, self.joint.heads[view]).linear.weight
        if view in self.known:
            return self.known[view][pictures].to(head.device)
        if not len(pictures):
            return head.new_zeros(0, encoder.width)
        return encoded(encoder, self.pixels[view], pictures)

    def drawn(self, view: View, regions: Tensor) -> Tensor:
        """A picture [B] of each of the regions [B], which have one: the chip, or a street view drawn
        at random."""
        if view == "satellite":
            return regions
        chance = torch.rand(len(regions), dtype=torch.float64)
        rank = (chance * self.view_count[regions]).long()
        return self.view_first[regions] + rank


def started(data: RegionData, config: MuseClConfig, visible: Mask, seed: int) -> MuseRegions:
    """Regions as training finds them: heads from the seed, backbones from what they start from. What a
    backbone that rests makes of all pictures is kept."""
    with seeded(seed):
        regions = MuseRegions(data, config)
    for view in regions.pixels:
        _start(data, config, regions, view, visible)
    return regions


def _start(
    data: RegionData, config: MuseClConfig, regions: MuseRegions, view: View, visible: Mask
) -> None:
    encoder = regions.encoders[view]
    if isinstance(encoder, ImageEncoder):
        satellite = view == "satellite"
        weights = config.satellite_weights if satellite else config.street_view_weights
        if weights is not None:
            encoder.load_file(weights.path, weights.sha256)
        return
    assert isinstance(encoder, TowerEncoder)
    encoder.tower.start()
    encoder.tower.requires_grad_(not config.rest)
    key = ("tower vectors", view)
    if key not in data.memo:
        with evaluating(encoder):
            everything = torch.arange(len(regions.pixels[view]))
            data.memo[key] = encoder.tower.vectors(regions.pixels[view], everything)
    vectors: Tensor = data.memo[key]
    seen = visible & pictured(data, config)[view]
    if view == "street_view":
        assert data.view_region is not None
        seen = seen[data.view_region[regions.view_order]]
    scaler = Scaler.fit(vectors.numpy(), seen)
    encoder.mean.copy_(torch.from_numpy(scaler.mean))
    encoder.scale.copy_(torch.from_numpy(scaler.scale))
    if config.rest:
        regions.known[view] = encoder.standardised(vectors)


def start_tokens(regions: MuseRegions, visible: Mask) -> Values:
    """What the heads read of all regions, in evaluation. The token of each modality is put where the
    visible regions [N] that have it are on average."""
    with evaluating(regions):
        index = torch.arange(len(visible))
        values = _joined([regions.values(part) for part in torch.split(index, _CHUNK)])
        seen = torch.from_numpy(visible)
        for name, head in regions.joint.heads.items():
            numbers, present = values[name]
            if (seen & present).any():
                mean = cast(Projection, head).linear(numbers[seen & present]).mean(dim=0)
                cast(Projection, head).absent.copy_(mean)
    return values


# --- trainings -----------------------------------------------------------------------------------


class TripletTraining(nn.Module):
    """Backbones and heads on triplets of pictures (eq 5, 6), a view for each sampler."""

    def __init__(
        self, regions: MuseRegions, drawn: Mapping[View, TripletSampler], config: MuseClConfig
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {view: regions.encoders[view] for view in drawn if view not in regions.known}
        )
        self.heads = nn.ModuleDict(
            {view: cast(Projection, regions.joint.heads[view]).linear for view in drawn}
        )
        self.samplers, self.features, self.picture_of = drawn, regions.features, regions.drawn
        self.hinge = Hinge(config)

    def loss(self, index: Tensor) -> Tensor:
        losses = [next(self.parameters()).sum() * 0]  # where no triplet is left
        for view, sampler in self.samplers.items():
            triplets, _ = sampler.draw(index)
            if len(triplets):
                features = self.features(view, self.picture_of(view, triplets.flatten()))
                losses.append(self.hinge(self.heads[view](features)))
        return torch.stack(losses).sum()


class Hinge(nn.Module):
    """The hinge of the vectors [3 T, W] of anchors, positives and negatives in turn."""

    def __init__(self, config: MuseClConfig) -> None:
        super().__init__()
        self.distance = config.distance
        self.margin = config.margin or _MARGIN[config.distance]

    def forward(self, vectors: Tensor) -> Tensor:
        anchor, positive, negative = vectors.view(-1, 3, vectors.shape[1]).unbind(1)
        return triplet_loss(anchor, positive, negative, self.margin, self.distance)


class Alignment(nn.Module):
    """Heads and fusion, on the features of resting backbones, against the POI vectors (eq 11); without
    these on triplets of fused vectors."""

    def __init__(
        self,
        joint: Joint,
        values: Values,
        teacher: tuple[Tensor, Tensor] | None,
        drawn: Mapping[View, TripletSampler],
        config: MuseClConfig,
    ) -> None:
        super().__init__()
        self.joint, self.values = joint, values
        self.teacher, self.samplers = teacher, drawn
        self.scale, self.hinge = 1 / config.temperature, Hinge(config)

    def fused(self, index: Tensor) -> Tensor:
        device = next(self.parameters()).device
        rows = {n: (v[index].to(device), p[index].to(device)) for n, (v, p) in self.values.items()}
        return cast(Tensor, self.joint(rows))

    def loss(self, index: Tensor) -> Tensor:
        if self.teacher is not None:
            vectors, present = self.teacher
            index = index[present[index]]
            fused = F.normalize(self.fused(index), dim=1)
            told = F.normalize(vectors[index].to(fused.device), dim=1)
            return one_way_info_nce(fused, told, self.scale)
        losses = []
        for sampler in self.samplers.values():
            triplets, _ = sampler.draw(index)
            losses.append(self.hinge(self.fused(triplets.flatten())))
        return torch.stack(losses).sum()


class MuseCl:
    """MuseCL and its variants."""

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, MuseClConfig)
        regions = started(data, config, visible, seed)
        record: dict[str, Any] = {"features": list(regions.joint.heads), "loss": []}
        drawn = samplers(data, config, visible)
        settings = Settings.of(config)
        if drawn:
            usable = np.unique(np.concatenate([s.regions.numpy() for s in drawn.values()]))
            record["triplets"] = {view: len(sampler.regions) for view, sampler in drawn.items()}
            record["loss"] = fit(
                TripletTraining(regions, drawn, config),
                usable,
                settings,
                seed=seed,
                resume=workspace.resume,
                keep=True,
                progress=workspace.progress,
            ).train
        words = self._words(data, config, regions, visible, seed)
        record["align_loss"] = self._align(
            data, config, regions, words, drawn, visible, seed, settings, workspace
        )
        return Checkpoint(state_arrays(regions), record)

    def _words(
        self, data: RegionData, config: MuseClConfig, regions: MuseRegions, visible: Mask, seed: int
    ) -> PoiWords | None:
        """The words of POIs, if they are read: those in the embedding, or those that teach it."""
        if not config.pois or data.poi_counts is None:
            return None
        words = regions.words or PoiWords(data.poi_counts.shape[1], config.width)
        words.learn(data, config, visible, mix(seed))
        return words

    def _align(
        self,
        data: RegionData,
        config: MuseClConfig,
        regions: MuseRegions,
        words: PoiWords | None,
        drawn: Mapping[View, TripletSampler],
        visible: Mask,
        seed: int,
        settings: Settings,
        workspace: Workspace,
    ) -> list[float]:
        """The third training, in place; its loss by epoch, none where nothing is to be aligned."""
        values = start_tokens(regions, visible)
        if config.fusion == "concat" or not regions.encoders:
            return []
        seen = torch.from_numpy(visible)
        anyone = seen & torch.stack([p for _, p in values.values()]).any(dim=0)
        teacher = None
        if words is not None:
            with torch.no_grad():
                teacher = words(torch.from_numpy(np.asarray(data.poi_counts, np.float32)))
            index = (anyone & teacher[1]).nonzero()[:, 0].numpy()
        elif drawn and regions.joint.fusion is not None and config.fusion == "attention":
            index = np.unique(np.concatenate([s.regions.numpy() for s in drawn.values()]))
        else:
            return []
        if len(index) < 2:
            return []
        alignment = Alignment(regions.joint, values, teacher, drawn, config)
        return fit(
            alignment,
            index,
            replace(settings, epochs=config.align_epochs),
            seed=mix(seed, 1),
            resume=workspace.resume,
            progress=workspace.progress,
        ).train

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        with seeded(0):  # the weights are about to be replaced
            regions = self.encoder(data, config)
        load_arrays(regions, checkpoint.tensors)
        return embed_all(regions, len(data))

    def encoder(
        self, data: RegionData, config: MethodConfig, visible: Mask | None = None
    ) -> nn.Module:
        """Fresh, it has taken nothing from any region, `visible` or not."""
        assert isinstance(config, MuseClConfig)
        return MuseRegions(data, config)


def example_triplets(
    data: RegionData, config: MuseClConfig, *, count: int, seed: int
) -> dict[View, tuple[NDArray[np.int64], Floats, NDArray[np.uint8]]]:
    """For each view, up to `count` triplets as training draws them, of anchors spread over the city:
    their regions [T, 3], the similarities [T, 2] of anchor and positive, anchor and negative, and their
    pictures uint8 [T, 3, h, w, 3]."""
    found: dict[View, tuple[NDArray[np.int64], Floats, NDArray[np.uint8]]] = {}
    everyone = np.ones(len(data), bool)
    with seeded(seed):
        regions = MuseRegions(data, config)
        for view, sampler in samplers(data, config, everyone).items():
            triplets, alike = sampler.draw(sampler.regions)
            some = torch.linspace(0, len(triplets) - 1, min(count, len(triplets))).round().long()
            pictures = regions.pixels[view][regions.drawn(view, triplets[some].flatten())].numpy()
            shape = (len(some), 3, *pictures.shape[1:])
            rows = triplets[some].numpy(), alike[some].numpy(), pictures.reshape(shape)
            found[view] = rows
    return found


def _joined(parts: Sequence[Values]) -> Values:
    return {
        name: cast(
            tuple[Tensor, Tensor],
            tuple(torch.cat([part[name][k] for part in parts]) for k in range(2)),
        )
        for name in parts[0]
    }


METHOD = MuseCl()
