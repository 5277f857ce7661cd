"""ReMVC: POIs and mobility, each against itself and against the other.

Zhang, Long and Cong 2022 (TKDE), "Region Embedding With Intra and Inter-View Contrastive Learning". A region's
shares of POI categories, and its shares of trips to and from others, each go through a linear layer and
ReLU; trips in both directions are averaged. Within a view a region is contrasted with changed copies of
itself: POIs deleted, doubled and replaced, or noise on its trips; its negatives are regions that differ from
it, drawn the more often the more they do. Between views a scorer tells a region's own pair from those
with another's POIs or another's trips. The embedding is both vectors, side by side.

What differs from the paper or the authors' code:

- Trips have no hours here. The authors' encoder by default sums them away, too.
- Noise falls on the trips that there are, and is measured by their mean share: so it means the same in a city
  of any size, and a row of trips stays as short as it is.
- Negatives are drawn from a few hundred candidates a step, in proportion to how far their shares are; the
  code has a table of all pairs.
- The scorer of pairs is bilinear. The code's is linear in both vectors, so that it adds what it thinks of the
  one and of the other, and cannot see whether they belong together; `scorer: linear` is that.
- A region whose trips go in one direction has the vector of that one, without the other's bias.
- A region that lacks a view is in none of its contrasts, and has the mean vector of those that are seen.

N regions, B of a step, V visible ones, M candidates, Q negatives, C categories, W width of a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.errors import DataError
from model_code.graphs.views import trip_matrix, trips_of
from model_code.methods import MethodConfig, RemvcConfig
from model_code.methods.base import (
    NOWHERE,
    Checkpoint,
    Floats,
    Mask,
    RegionData,
    Workspace,
    must_be_of_regions,
    of_regions,
)
from model_code.training import Settings, evaluating, fit, load_arrays, seeded, state_arrays

_ROWS = 2**12  # regions that are embedded at once


# --- views ---------------------------------------------------------------------------------------


class PoiView(nn.Module):
    """Shares of POI categories to vectors [B, W]."""

    counts: Tensor
    present: Tensor  # who has POIs, [N]

    def __init__(self, counts: Tensor, width: int) -> None:
        """`counts` [N, C] of POIs, whole numbers."""
        super().__init__()
        self.linear = nn.Linear(counts.shape[1], width)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("present", counts.any(dim=1), persistent=False)

    def forward(self, index: Tensor) -> Tensor:
        return self._encode(self._of(index))

    def copies(self, index: Tensor, rate: float) -> Tensor:
        """Vectors [B, 3, W] of the regions with some POIs deleted, doubled, and replaced."""
        counts = self._of(index).cpu()
        changed = torch.stack([change(counts, rate) for change in (deleted, doubled, replaced)], 1)
        return self._encode(changed.to(self.counts))

    def distance(self, index: Tensor, others: Tensor) -> Tensor:
        """Between the shares of regions [B] and of others [M], [B, M]."""
        return torch.cdist(shares(self._of(index)), shares(self._of(others)))

    def _encode(self, counts: Tensor) -> Tensor:
        return cast(Tensor, self.linear(shares(counts)).relu())

    def _of(self, index: Tensor) -> Tensor:
        return self.counts.index_select(0, index.to(self.counts.device))


class TripView(nn.Module):
    """Shares of trips to and from the V visible regions to vectors [B, W].

    Rows are sparse: of each only the places with trips are read, whatever the size of the city.
    """

    present: Tensor  # who has trips, [N]

    def __init__(self, rows: Sequence[Any], width: int) -> None:
        """`rows` are trips to, and from, the visible regions: scipy sparse [N, V] each."""
        super().__init__()
        self.rows = [TripRows(matrix) for matrix in rows]
        self.layers = nn.ModuleList([ShareSum(matrix.shape[1], width) for matrix in rows])
        self.has = torch.stack([rows.total > 0 for rows in self.rows])  # [2, N]
        self.register_buffer("present", self.has.any(dim=0), persistent=False)

    def forward(self, index: Tensor) -> Tensor:
        return self._encode(index, 0.0)

    def copies(self, index: Tensor, noise: float, copies: int = 4) -> Tensor:
        """Vectors [B, copies, W] of the regions with noise on their trips."""
        return self._encode(index.repeat_interleave(copies), noise).view(len(index), copies, -1)

    def distance(self, index: Tensor, others: Tensor) -> Tensor:
        """Between the shares of regions [B] and of others [M], both directions as one row, [B, M]."""
        squares = [rows.squared_distances(index, others) for rows in self.rows]
        return torch.stack(squares).sum(dim=0).clamp(min=0).sqrt()

    def _encode(self, index: Tensor, noise: float) -> Tensor:
        found: list[Tensor] = []
        for rows, layer in zip(self.rows, self.layers, strict=True):
            column, share, start = rows.of(index)
            if noise:
                places = start.diff(append=torch.tensor([len(share)]))
                deviation = (noise / places).repeat_interleave(places)  # of the mean share
                share = (share + deviation * torch.randn(len(share))).clamp(min=0)
            found.append(layer(column, share, start))
        # A direction without trips is unknown; who has none at all is not told from its biases.
        vectors = torch.stack(found, dim=2)  # [B, W, 2]
        has = self.has[:, index] | ~self.has[:, index].any(dim=0)
        weight = (has / has.sum(dim=0)).T.to(vectors)
        return torch.einsum("bwd,bd->bw", vectors, weight)


class TripRows:
    """Sparse shares of trips, by region; on the CPU."""

    def __init__(self, matrix: Any) -> None:
        """`matrix` [N, V], scipy sparse."""
        total = np.asarray(matrix.sum(axis=1), np.float64).ravel()
        self.total = torch.from_numpy(total)
        share = matrix.multiply(1 / np.where(total > 0, total, 1)[:, None]).tocsr()
        self._share = share.astype(np.float32)
        self._square = np.asarray(self._share.multiply(self._share).sum(axis=1)).ravel()

    def of(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Columns [K] and shares [K] of the regions `index` [B], and where each one's begin [B]."""
        rows = self._share[index.numpy()]
        column, start = (part.astype(np.int64) for part in (rows.indices, rows.indptr[:-1]))
        return torch.from_numpy(column), torch.from_numpy(rows.data), torch.from_numpy(start)

    def squared_distances(self, index: Tensor, others: Tensor) -> Tensor:
        """Between regions [B] and others [M], [B, M]."""
        own, other = index.numpy(), others.numpy()
        product = (self._share[own] @ self._share[other].T).toarray()
        return torch.from_numpy(self._square[own, None] + self._square[other] - 2 * product)


class ShareSum(nn.Module):
    """A linear layer with ReLU on sparse rows of shares."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        bound = places**-0.5  # as of a linear layer
        self.weight = nn.Parameter(torch.empty(places, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound))

    def forward(self, column: Tensor, share: Tensor, start: Tensor) -> Tensor:
        column, share, start = (part.to(self.weight.device) for part in (column, share, start))
        summed = F.embedding_bag(column, self.weight, start, mode="sum", per_sample_weights=share)
        return (summed + self.bias).relu()


def shares(counts: Tensor) -> Tensor:
    """Counts [..., C] over their sum."""
    return counts / counts.sum(dim=-1, keepdim=True).clamp(min=1)


def deleted(counts: Tensor, rate: float) -> Tensor:
    """Each POI goes with a chance of `rate`; a region that would lose all keeps them."""
    kept = torch.binomial(counts, torch.full_like(counts, 1 - rate))
    return torch.where(kept.any(dim=1, keepdim=True), kept, counts)


def doubled(counts: Tensor, rate: float) -> Tensor:
    """Each POI comes twice with a chance of `rate`."""
    return counts + torch.binomial(counts, torch.full_like(counts, rate))


def replaced(counts: Tensor, rate: float) -> Tensor:
    """Each POI is of a random category with a chance of `rate`."""
    gone = torch.binomial(counts, torch.full_like(counts, rate))
    region = torch.repeat_interleave(torch.arange(len(counts)), gone.sum(dim=1).long())
    place = region * counts.shape[1] + torch.randint(counts.shape[1], region.shape)
    came = torch.bincount(place, minlength=counts.numel()).view_as(counts)
    return counts - gone + came


# --- contrasts -----------------------------------------------------------------------------------


def intra_view_loss(own: Tensor, copies: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Mean over regions of -log softmax, at each copy [B, P, W], of inner products of `own` [B, W] with all
    copies and negatives [B, Q, W]."""
    scores = torch.einsum("bw,bkw->bk", own, torch.cat([copies, negatives], dim=1)) / temperature
    return -scores.log_softmax(dim=1)[:, : copies.shape[1]].mean()


def inter_view_loss(own: Tensor, of_poi: Tensor, of_trips: Tensor) -> Tensor:
    """Mean over regions of -log softmax of the score of its own pair [B], among pairs with another's
    POIs and with another's trips [B, Q] each."""
    scores = torch.cat([own[:, None], of_poi, of_trips], dim=1)
    return -scores.log_softmax(dim=1)[:, 0].mean()


class Scorer(nn.Module):
    """How well vectors of POIs and of trips [..., W] belong together, [...]."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "linear":
            self.weight = nn.Parameter(torch.empty(2, width))
        else:
            self.weight = nn.Parameter(torch.empty(width, width))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, poi: Tensor, trips: Tensor) -> Tensor:
        if self.kind == "linear":
            return poi @ self.weight[0] + trips @ self.weight[1]
        return ((poi @ self.weight) * trips).sum(dim=-1)


class RemvcRegions(nn.Module):
    """The views that a city has, with the data of all its regions."""

    def __init__(self, data: RegionData, config: RemvcConfig, visible: Mask) -> None:
        super().__init__()
        self.views = nn.ModuleDict()
        if data.poi_counts is not None:
            counts = torch.from_numpy(np.asarray(data.poi_counts, np.float32)).round()
            self.views["poi"] = PoiView(counts, config.width)
        if data.flow_count is not None:
            seen, trips = np.flatnonzero(visible), trip_matrix(*trips_of(data), len(data))
            self.views["trips"] = TripView((trips[:, seen], trips.T.tocsr()[:, seen]), config.width)

    def view(self, name: str) -> PoiView | TripView:
        return cast(PoiView | TripView, self.views[name])

    def present(self, name: str) -> Tensor:
        """Who has this view, [N] on the CPU."""
        return self.view(name).present.cpu()

    def vectors(self, visible: Tensor) -> Tensor:
        """Embeddings [N, views W]; who lacks a view has the mean of the `visible` [N] ones that have
        it."""
        found = []
        for name, view in self.views.items():
            present = self.present(name)
            regions = torch.arange(len(present))
            rows = torch.cat([view(some) for some in torch.split(regions, _ROWS)])
            seen = present & visible
            mean = rows[seen].mean(dim=0) if seen.any() else torch.zeros(rows.shape[1])
            found.append(torch.where(present[:, None], rows, mean))
        return torch.cat(found, dim=1)


class Pretraining(nn.Module):
    """All contrasts of the visible regions."""

    def __init__(self, regions: RemvcRegions, config: RemvcConfig, visible: Mask) -> None:
        super().__init__()
        self.regions, self.config = regions, config
        self.pools = {
            name: (regions.present(name) & torch.from_numpy(np.array(visible))).nonzero()[:, 0]
            for name in regions.views
        }
        if len(regions.views) == 2:
            self.scorer = Scorer(config.scorer, config.width)

    def loss(self, index: Tensor) -> Tensor:
        """Of the regions `index` [B]: each contrast over those that have what it contrasts."""
        config, losses = self.config, [next(self.parameters()).sum() * 0]
        weights = {"poi": config.poi_weight, "trips": config.trip_weight}
        draws = {"poi": config.poi_negatives, "trips": config.trip_negatives}
        changes = {"poi": config.change_rate, "trips": config.noise}
        for name in self.regions.views:
            rows = index[self.regions.present(name)[index]]
            if len(rows) and len(self.pools[name]) > 1:
                view = self.regions.view(name)
                apart = self.negatives(name, rows, draws[name])
                copies = view.copies(rows, changes[name])
                loss = intra_view_loss(view(rows), copies, apart, config.temperature)
                losses.append(weights[name] * loss * (len(rows) / len(index)))
        if len(self.regions.views) == 2:
            losses.append(config.inter_weight * self.inter_loss(index))
        return torch.stack(losses).sum()

    def inter_loss(self, index: Tensor) -> Tensor:
        """Of the regions that have both views."""
        both = self.regions.present("poi") & self.regions.present("trips")
        rows = index[both[index]]
        if not len(rows) or min(len(pool) for pool in self.pools.values()) < 2:
            return next(self.parameters()).sum() * 0
        poi, trips = self.regions.view("poi")(rows), self.regions.view("trips")(rows)
        number = self.config.inter_negatives
        loss = inter_view_loss(
            self.scorer(poi, trips),
            self.scorer(self.negatives("poi", rows, number), trips[:, None]),
            self.scorer(poi[:, None], self.negatives("trips", rows, number)),
        )
        return loss * (len(rows) / len(index))

    def negatives(self, name: str, rows: Tensor, number: int) -> Tensor:
        """Vectors [B, Q, W] of `number` other regions, or as many as there are: for each of the regions
        `rows` [B] drawn, without putting back, in proportion to how far they are from it, from candidates
        [M] that the step draws at random."""
        pool, view = self.pools[name], self.regions.view(name)
        some = pool[torch.randperm(len(pool))[: self.config.candidates]]
        away = view.distance(rows, some).cpu().double() + 1e-9  # where all are alike any will do
        chance = away.masked_fill(some == rows[:, None], 0)
        drawn = torch.multinomial(chance, min(number, len(some) - 1))  # [B, Q]
        vectors: Tensor = view(some)
        found = vectors.index_select(0, drawn.flatten().to(vectors.device))
        return found.view(*drawn.shape, -1)


class Remvc:
    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, RemvcConfig)
        with seeded(seed):
            regions = RemvcRegions(data, config, visible)
            training = Pretraining(regions, config, visible)
        history = fit(
            training,
            np.flatnonzero(visible),
            Settings.of(config),
            seed=seed,
            resume=workspace.resume,
            progress=workspace.progress,
        )
        about = {
            **of_regions(data),
            "categories": list(data.poi_categories) if "poi" in regions.views else [],
            "views": list(regions.views),
            "loss": history.train,
        }
        return Checkpoint({**state_arrays(regions), "visible": np.array(visible)}, about)

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        assert isinstance(config, RemvcConfig)
        why = "it knows trips by the regions where they end"
        must_be_of_regions(checkpoint, data, "remvc", why)
        tensors, record = dict(checkpoint.tensors), checkpoint.record
        visible = tensors.pop("visible")
        with seeded(0):  # the weights are about to be replaced
            regions = RemvcRegions(data, config, visible)
        categories = list(data.poi_categories) if "poi" in regions.views else []
        if list(regions.views) != record["views"] or categories != record["categories"]:
            raise DataError(
                f"remvc was fitted on the views {', '.join(record['views'])} and POIs of "
                f"{len(record['categories'])} categories, and the city has others now",
                fix="fit it on the data that it embeds",
            )
        load_arrays(regions, tensors)
        with evaluating(regions):
            return cast(Floats, regions.vectors(torch.from_numpy(visible)).numpy())


METHOD = Remvc()
