"""A variational graph autoencoder whose reconstruction is sampled (UrbanMMCL, 3.4.2).

Kipf and Welling 2016 (arXiv:1611.07308): a graph convolution gives each region a normal distribution,
and the inner product of two draws says how strongly two regions are linked.

As printed, softplus(z_i . z_j) cannot fit a weak view: over all pairs its mean is at least ln 2. The
decoder here is softplus(s z_i . z_j + b) with learned s and b, where b starts at the view's mean.

Eq 20 is a mean over all pairs, which vanishes as 1 / N where a region has k neighbours. Here both it
and the Kullback-Leibler term are N times as large: sums over the pairs of a region, means over the
regions.

N regions, B regions of a step, U regions that are looked at, K edges, M regions that stand for all, W width
of a feature, L width of a draw.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_code.graphs.walks import Links

Decoder = Literal["scaled", "as_printed"]

# With draws of unit variance from the start, means that say nothing yet are drowned in noise.
_START_LOG_VARIANCE = -3.0
_LEAST_MEAN = 1e-4  # of a view's weights, so that b is finite where there is no edge


class GraphAutoencoder(nn.Module):
    """Regions to draws, and draws to weights of edges.

    Its one graph convolution is linear before the activation, so that the propagation of features can
    be done once and for all: `forward` wants them propagated. Mean and log variance are two linear
    maps of the activated convolution (eq 17).
    """

    def __init__(self, width: int, latent: int, mean_weight: float, decoder: Decoder) -> None:
        super().__init__()
        self.convolution = nn.Linear(width, latent)
        self.mean = nn.Linear(latent, latent)
        self.log_variance = nn.Linear(latent, latent)
        nn.init.constant_(self.log_variance.bias, _START_LOG_VARIANCE)
        self.decoder = decoder
        if decoder == "scaled":
            self.scale = nn.Parameter(torch.tensor(latent**-0.5))
            start = torch.tensor(max(mean_weight, _LEAST_MEAN))
            self.bias = nn.Parameter(start.expm1().log())

    def forward(self, propagated: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log variances [U, L] of propagated features [U, W]."""
        hidden = F.leaky_relu(self.convolution(propagated))
        return self.mean(hidden), self.log_variance(hidden)

    def draw(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """A draw [U, L] in training (eq 18), the mean otherwise."""
        if not self.training:
            return mean
        return mean + (log_variance / 2).exp() * torch.randn_like(mean)

    def weight(self, product: Tensor) -> Tensor:
        """Reconstructed weights of inner products, of any shape (eq 19)."""
        if self.decoder == "as_printed":
            return F.softplus(product)
        return F.softplus(self.scale * product + self.bias)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q || N(0, I)) of each region [B] (eq 21)."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1)


def active_dimensions(mean: Tensor, floor: float = 0.01) -> int:
    """Dimensions of means [N, L] whose variance over the regions is above `floor`: the others say
    nothing of a region (Burda et al. 2016, arXiv:1509.00519)."""
    return int((mean.var(dim=0) > floor).sum())


class NonNeighbours:
    """Visible regions that a region is not linked to: drawn for each, or some that stand for all."""

    def __init__(self, links: Links, visible: Tensor) -> None:
        """`visible` [N] bool."""
        self.members = visible.nonzero()[:, 0]
        position = visible.cumsum(0) - 1  # of a visible region among the visible ones
        self._links, self._position = links, position
        self.count = len(self.members) - 1 - links.degree  # by visible region [N]

    def draw(self, index: Tensor, number: int) -> Tensor:
        """Uniform draws [B, number] with replacement, for the visible regions `index` [B]; where a
        region is linked to all others its own index stands, and its `count` is 0."""
        # The r-th of those that are left is r plus the taken ones below: each row's taken ones, less
        # their rank, are ascending, so that a search finds how many lie below.
        edge, owner = self._links.of(index)
        taken = torch.cat([self._position[self._links.column[edge]], self._position[index]])
        owner = torch.cat([owner, torch.arange(len(index))])
        span = len(self.members) + 1
        order = torch.argsort(owner * span + taken)
        owner, taken = owner[order], taken[order]
        first = torch.searchsorted(owner, torch.arange(len(index)))
        rank = torch.arange(len(owner)) - first[owner]
        chance = torch.rand(len(index), number, dtype=torch.float64)
        wish = (chance * self.count[index, None]).long()
        row = torch.arange(len(index))[:, None]
        below = torch.searchsorted(owner * span + taken - rank, row * span + wish, right=True)
        found = self.members[(wish + below - first[:, None]).clamp(max=len(self.members) - 1)]
        return torch.where(self.count[index, None] > 0, found, index[:, None])

    def shared(self, index: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Regions [M] that stand for all visible ones, and how many of those that each of the regions
        `index` [B] is not linked to each stands for [B, M]: 0 where it is linked or the region itself.

        All of them where they are no more than `number`, else as many uniform draws with replacement; a
        step's regions share them, so that few are to be encoded.
        """
        total = len(self.members)
        if total <= number:
            found, times = self.members, torch.ones(total)
        else:
            drawn = self.members[torch.randint(total, (number,))]
            found, times = torch.unique(drawn, return_counts=True)
        stands_for = (times * max(1.0, total / number)).repeat(len(index), 1)
        edge, owner = self._links.of(index)
        taken = torch.cat([self._links.column[edge], index])
        owner = torch.cat([owner, torch.arange(len(index))])
        place = torch.searchsorted(found, taken).clamp(max=len(found) - 1)
        there = found[place] == taken
        stands_for[owner[there], place[there]] = 0
        return found, stands_for


def reconstruction(edge_error: Tensor, owner: Tensor, other: Tensor, stands_for: Tensor) -> Tensor:
    """The sum over all pairs of a region of its squared errors, mean over the B regions: N - 1 times
    eq 20 without the diagonal; unbiased, since the squares of M regions stand for all that are not linked.

    Args:
        edge_error: [K] difference of true and reconstructed weight of each edge.
        owner: [K] which of the B regions each edge is of.
        other: [B, M] reconstructed weights of the regions that stand for all.
        stands_for: [B, M] how many that are not linked each of them stands for.
    """
    linked = edge_error.new_zeros(len(other)).index_add(0, owner, edge_error**2)
    return (linked + (stands_for * other**2).sum(dim=1)).mean()
