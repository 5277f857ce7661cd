"""Urban2Vec: a region is what its street views look like, drawn towards the words of its POIs.

Wang, Li and Rajagopal 2020, "Urban2Vec: Incorporating Street View Imagery and POIs for Multi-Modal Urban
Neighborhood Embedding" (AAAI, arXiv:2001.11101). The paper's, one after the other:

1. Street views: triplets of an anchor, one of its five nearest street views and another one; a hinge of
   Euclidean distances. A region starts as the mean of its street views' embeddings.
2. Words: each POI is a bag of words (its category and what is said of it). By a hinge of Euclidean
   distances a region's vector comes nearer to the words of its POIs than to words that it lacks, which
   are drawn by the root of how often they are found. Regions and words learn; the network rests.

What departs:

- The paper's regions are a table of vectors, so one that training has not seen has none. Here the table
  serves to learn the words. When regions are embedded, each of them, seen or not, starts anew from its
  street views and is drawn to its words by the same hinge, in full and without chance: an average over
  all its words and a fixed draw of others. The words rest, so a region depends on no other.
- The backbone is the city's pretrained tower, which rests while the head learns; the paper's is an
  Inception-v3 from ImageNet, trained on.
- Another street view is any that is not near; the published code takes those of the batch.
- Words are of names and comments; ratings and prices are not in the data. A word in nearly all regions
  is left out instead of a list of stop words; categories always stay.
- A region without street views starts at the mean of the others; one without POIs, or in a city
  without them, stays where it starts.

N regions, M street views, K words, W width of an embedding, E words of all regions that are different.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from model_code.errors import DataError
from model_code.finetuning import embed_all
from model_code.losses import triplet_loss
from model_code.methods import MethodConfig, MuseClConfig, Urban2VecConfig
from model_code.methods.base import NOWHERE, Checkpoint, Floats, Mask, RegionData, Workspace
from model_code.methods.baselines.tile2vec import NearTriplets
from model_code.methods.musecl import MuseRegions, start_tokens, started
from model_code.methods.nearness import TRIES, NearSampler, first_of, on_sphere
from model_code.text.word_vectors import sentences_of
from model_code.training import Settings, fit, load_arrays, mix, seeded, state_arrays

_CATEGORY = "§"  # before a category, which is no word of a text
_OTHERS = 32  # words that a region may lack, when it is embedded
_CHUNK = 256  # regions that are drawn to their words at once


# --- words of regions ----------------------------------------------------------------------------


def poi_words(data: RegionData) -> tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.int64]]:
    """Words with their regions, and how often: the categories of POIs, and each word of a name or of a
    comment once."""
    words, regions, counts = [np.empty(0, "U1")], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    if data.poi_counts is not None:
        region, category = np.nonzero(data.poi_counts)
        names = np.strings.add(_CATEGORY, np.array(data.poi_categories, str))
        words.append(names[category] if len(names) else names)
        regions.append(region)
        counts.append(np.asarray(data.poi_counts[region, category], np.int64))
    for texts, owner in (
        (data.poi_names, data.poi_name_region),
        (data.poi_comments, data.poi_comment_region),
    ):
        if texts is None or owner is None or not len(texts):
            continue
        lists = sentences_of(texts, np.full(len(texts), _CATEGORY))  # which comes first
        flat = np.array(list(itertools.chain.from_iterable(lists)), str)
        text = np.repeat(np.arange(len(lists)), [len(own) for own in lists])
        known, code = np.unique(flat, return_inverse=True)
        once = np.unique(text * len(known) + code)
        found, text = known[once % len(known)], once // len(known)
        real = found != _CATEGORY
        words.append(found[real])
        regions.append(owner[text[real]])
        counts.append(np.ones(real.sum(), np.int64))
    return np.concatenate(words), np.concatenate(regions), np.concatenate(counts)


def vocabulary(data: RegionData, config: Urban2VecConfig, visible: Mask) -> list[str]:
    """The words of the visible regions [N] that are learned, sorted."""
    words, region, count = poi_words(data)
    seen = visible[region]
    names, code = np.unique(words[seen], return_inverse=True)
    often = np.bincount(code, count[seen], len(names))
    pairs = np.unique(np.stack([code, region[seen]]), axis=1)
    share = np.bincount(pairs[0], minlength=len(names)) / max(len(np.unique(pairs[1])), 1)
    told = (often >= config.word_min_count) & (share <= config.word_max_share)
    return [str(name) for name in names[told | np.strings.startswith(names, _CATEGORY)]]


class Bags:
    """How often each region has each word, by region: those of region i are `word[start[i]:start[i + 1]]`,
    ascending, with their `count`.

    Shapes: start [N + 1], word [E], row [E] (the region), count [E] float64.
    """

    def __init__(self, data: RegionData, words: list[str]) -> None:
        """Of the known, sorted `words` [K]; others are left out."""
        found, region, count = poi_words(data)
        known = np.array(words, str)
        code = np.minimum(np.searchsorted(known, found), max(len(known) - 1, 0))
        here = known[code] == found if len(known) else np.zeros(len(found), bool)
        shape = (len(data), max(len(known), 1))
        matrix = sparse.coo_array((count[here], (region[here], code[here])), shape=shape).tocsr()
        matrix.sort_indices()
        self.words = shape[1]
        self.start, self.word = (
            torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices)
        )
        self.count = torch.from_numpy(matrix.data.astype(np.float64))
        self.row = torch.repeat_interleave(torch.arange(len(data)), self.start.diff())
        self.key = self.row * self.words + self.word  # ascending
        self.until = torch.cat([self.count.new_zeros(1), self.count.cumsum(0)])

    def total(self) -> Tensor:
        """Words of each region [N]."""
        return self.until[self.start[1:]] - self.until[self.start[:-1]]

    def draw(self, region: Tensor) -> Tensor:
        """A word [T] of each of the regions [T], which have some; the more often the likelier."""
        first, last = self.start[region], self.start[region + 1] - 1
        low, high = self.until[first], self.until[last + 1]
        at = low + torch.rand(len(region), dtype=torch.float64) * (high - low)
        place = torch.searchsorted(self.until, at, right=True) - 1
        return self.word[torch.minimum(torch.maximum(place, first), last)]

    def has(self, region: Tensor, word: Tensor) -> Tensor:
        """Whether each of the regions has the word, of any equal shape."""
        key = region * self.words + word
        if not len(self.key):
            return torch.zeros_like(key, dtype=torch.bool)
        return self.key[torch.searchsorted(self.key, key).clamp(max=len(self.key) - 1)] == key


# --- trainings -----------------------------------------------------------------------------------


class WordTraining(nn.Module):
    """Vectors of regions and of words by the hinge of a region's words and others."""

    def __init__(self, start: Tensor, bags: Bags, noise: Tensor, config: Urban2VecConfig) -> None:
        """From the regions' vectors `start` [N, W]; others are drawn by `noise` [K]."""
        super().__init__()
        self.regions = nn.Parameter(start.clone())
        self.words = nn.Parameter(torch.randn(bags.words, start.shape[1]))
        self.bags, self.noise = bags, noise
        self.pairs, self.margin = config.word_pairs, config.word_margin

    def loss(self, index: Tensor) -> Tensor:
        region, own, other = self.drawn(index)
        device = self.words.device
        return triplet_loss(
            self.regions[region.to(device)],
            self.words[own.to(device)],
            self.words[other.to(device)],
            self.margin,
            "euclidean",
        )

    def drawn(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Regions of `index` [B], each several times, with a word of theirs and one that they lack;
        without a pair where a few draws find none that they lack."""
        region = index.repeat_interleave(self.pairs)
        own = self.bags.draw(region)
        others = torch.multinomial(self.noise, len(region) * TRIES, replacement=True)
        others = others.view(len(region), TRIES)
        lacking = ~self.bags.has(region[:, None].expand_as(others), others)
        some, other = first_of(others, lacking)
        return region[some], own[some], other


def settled(
    start: Tensor, bags: Bags, words: Tensor, noise: Tensor, config: Urban2VecConfig
) -> Tensor:
    """Vectors of regions [N, W], from `start` [N, W], as the resting `words` [K, W] draw them: down the
    slope of the hinge's mean over a region's words (by their counts) and over those of a fixed draw of
    others that it lacks."""
    with seeded(0):
        others = torch.multinomial(noise, _OTHERS, replacement=True)
    total, vectors = bags.total(), []
    for region in torch.split(torch.arange(len(start)), _CHUNK):
        entries = slice(int(bags.start[region[0]]), int(bags.start[region[-1] + 1]))
        row, own = bags.row[entries] - region[0], words[bags.word[entries]]
        lacking = ~bags.has(region[:, None].expand(-1, _OTHERS), others.expand(len(region), -1))
        share = lacking / lacking.sum(dim=1, keepdim=True).clamp(min=1)  # [B, others]
        weight = (bags.count[entries] / total[bags.row[entries]]).float()[:, None] * share[row]
        z = start[region].clone()
        for step in range(config.settle_steps):
            z.requires_grad_()
            with torch.enable_grad():
                near = (z[row] - own).norm(dim=1, keepdim=True)
                far = torch.cdist(z, words[others], compute_mode="donot_use_mm_for_euclid_dist")
                hinge = ((config.word_margin + near - far[row]).relu() * weight).sum()
                (slope,) = torch.autograd.grad(hinge, z)
            length = config.settle_rate * (1 - step / config.settle_steps)
            z = z.detach() - length * slope
        vectors.append(z)
    return torch.cat(vectors)


class Urban2Vec:
    """Urban2Vec, and its street views alone."""

    def settings(self, config: MethodConfig) -> MuseClConfig:
        """The network as one of MuseCL's: street views alone."""
        assert isinstance(config, Urban2VecConfig)
        return MuseClConfig(
            satellite=False,
            pois=False,
            street_view_backbone=config.backbone,
            street_view_weights=config.weights,
            rest=config.rest,
            view_px=config.view_px,
            width=config.width,
            augment=config.augment,
        )

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, Urban2VecConfig)
        if data.view_region is None or visible[data.view_region].sum() < 3:
            raise DataError(
                "urban2vec: visible regions have fewer than three street views",
                fix="check `sources.street_views`, or take `methods.urban2vec` out",
            )
        assert data.view_lonlat is not None
        regions = started(data, self.settings(config), visible, seed)
        seen = visible[data.view_region[regions.view_order]]
        places = on_sphere(data.view_lonlat[regions.view_order])
        sampler = NearSampler(places, seen, neighbours=config.neighbours)
        sampler.check_triplets("urban2vec")
        settings = Settings(
            epochs=config.epochs, batch=config.batch, learning_rate=config.learning_rate
        )
        history = fit(
            NearTriplets(regions, "street_view", sampler, margin=config.margin),
            np.flatnonzero(seen),
            settings,
            seed=seed,
            resume=workspace.resume,
            keep=True,
            progress=workspace.progress,
        )
        start_tokens(regions, visible)
        tensors, record = state_arrays(regions), {"loss": history.train}
        words = vocabulary(data, config, visible) if config.pois else []
        bags = Bags(data, words)
        told = np.flatnonzero(visible & (bags.total() > 0).numpy())
        if not len(told):
            return Checkpoint(tensors, record)
        own = torch.from_numpy(visible)[bags.row]
        often = torch.zeros(bags.words, dtype=torch.float64)
        noise = often.index_add(0, bags.word[own], bags.count[own]).sqrt()
        start = torch.from_numpy(embed_all(regions, len(data)))
        with seeded(mix(seed, 1)):
            training = WordTraining(start, bags, noise, config)
        word_settings = replace(
            settings, epochs=config.word_epochs, learning_rate=config.word_learning_rate
        )
        word_history = fit(
            training,
            told,
            word_settings,
            seed=mix(seed, 1),
            resume=workspace.resume,
            progress=workspace.progress,
        )
        tensors["words.vectors"] = training.words.detach().numpy()
        tensors["words.noise"] = noise.numpy()
        return Checkpoint(tensors, {**record, "word_loss": word_history.train, "words": words})

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        assert isinstance(config, Urban2VecConfig)
        with seeded(0):  # the weights are about to be replaced
            regions = MuseRegions(data, self.settings(config))
        own = {n: v for n, v in checkpoint.tensors.items() if not n.startswith("words.")}
        load_arrays(regions, own)
        start = embed_all(regions, len(data))
        if "words.vectors" not in checkpoint.tensors:
            return start
        words, noise = (
            torch.from_numpy(np.array(checkpoint.tensors[f"words.{name}"]))
            for name in ("vectors", "noise")
        )
        bags = Bags(data, checkpoint.record["words"])
        found: Floats = settled(torch.from_numpy(start), bags, words, noise, config).numpy()
        return found


METHOD = Urban2Vec()
