"""Contrastive losses: between pictures and texts, between pictures, and of triplets.

B pairs in a batch, D width; L1 tokens of a picture, L2 tokens of a text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Temperature(nn.Module):
    """The learned scale 1 / tau of similarities. It starts at 1 / 0.07 and stays within 1 and 100, as
    in CLIP (Radford et al. 2021, arXiv:2103.00020)."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self) -> Tensor:
        with torch.no_grad():  # clamped inside the graph, it could never come back from the edge
            self.log_scale.clamp_(0, math.log(100))
        return self.log_scale.exp()


def info_nce(left: Tensor, right: Tensor, scale: Tensor | float) -> Tensor:
    """Symmetric InfoNCE of unit vectors [B, D], the i-th of both a pair: the sum of both directions'
    mean cross-entropies (UrbanVLP, eq 5). Zero for a batch of one, or none."""
    similarity = left @ right.T
    return symmetric_cross_entropy(scale * similarity, scale * similarity.T)


def mean_info_nce(left: Tensor, right: Tensor, scale: float, at_once: int) -> Tensor:
    """Mean of both directions of InfoNCE between vectors [B, D] of any length, the i-th of both a pair
    (LMEMR, eq 4 and 11). Above `at_once` pairs they are dealt at random into batches of equal size,
    each a contrast of its own, and the mean is over all pairs: cost grows with B, not with its square.
    Zero for one pair, or none.
    """
    left, right = F.normalize(left, dim=1), F.normalize(right, dim=1)
    count = len(left)
    if count <= at_once:
        return 0.5 * info_nce(left, right, scale)
    batches = torch.randperm(count).to(left.device).tensor_split(-(-count // at_once))
    losses = [0.5 * len(rows) * info_nce(left[rows], right[rows], scale) for rows in batches]
    return torch.stack(losses).sum() / count


def one_way_info_nce(left: Tensor, right: Tensor, scale: Tensor | float) -> Tensor:
    """InfoNCE of unit vectors [B, D], the i-th of both a pair, where each of `left` is to find its own
    among `right` (MuseCL, eq 11). Zero for a batch of one, or none."""
    logits = scale * (left @ right.T)
    if not len(logits):
        return logits.sum()
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def nt_xent(left: Tensor, right: Tensor, scale: float, owner: Tensor | None = None) -> Tensor:
    """NT-Xent of vectors [B, D] of any length, the i-th of both a pair: each of the 2 B is to find its
    partner among all others by cosine (SimCLR, eq 1; Chen et al. 2020, arXiv:2002.05709). Where
    `owner` [2, B] says what each is a picture of, other pictures of what is in one's own pair are no
    negatives. Zero for a batch of one, or none."""
    both = F.normalize(torch.cat([left, right]), dim=1)  # [2 B, D]
    if not len(both):
        return both.sum()
    each = torch.arange(len(both), device=both.device)
    partner = each.roll(len(left))
    hidden = each[:, None] == each
    if owner is not None:
        of = owner.flatten().to(both.device)
        hidden = (of[:, None] == of) | (of[partner][:, None] == of)
        hidden[each, partner] = False
    logits = (scale * (both @ both.T)).masked_fill(hidden, -torch.inf)
    return F.cross_entropy(logits, partner)


def triplet_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float,
    distance: Literal["cosine", "euclidean"] = "cosine",
) -> Tensor:
    """Mean hinge of margin + d(anchor, positive) - d(anchor, negative) over triplets of vectors
    [T, D], where d is 1 - cosine or Euclidean (MuseCL, eq 6, whose signs are printed the other way
    round); zero without a triplet."""
    if distance == "cosine":
        near = 1 - F.cosine_similarity(anchor, positive, dim=1)
        far = 1 - F.cosine_similarity(anchor, negative, dim=1)
    else:
        near = F.pairwise_distance(anchor, positive)
        far = F.pairwise_distance(anchor, negative)
    return (margin + near - far).relu().sum() / max(len(anchor), 1)


def symmetric_cross_entropy(forward: Tensor, backward: Tensor) -> Tensor:
    """Sum of the mean cross-entropies of two matrices of logits [B, B], the truth on the diagonals;
    zero without a pair."""
    if not len(forward):
        return forward.sum() + backward.sum()
    truth = torch.arange(len(forward), device=forward.device)
    return F.cross_entropy(forward, truth) + F.cross_entropy(backward, truth)


def late_interaction_loss(
    picture: Tensor,
    text: Tensor,
    text_mask: Tensor,
    scale: Tensor | float,
    *,
    picture_mask: Tensor | None = None,
    budget_bytes: int = 2**24,
) -> Tensor:
    """Symmetric InfoNCE of token-wise similarities (UrbanVLP, eq 6-8; see `late_interaction`)."""
    to_text, to_picture = late_interaction(
        picture, text, text_mask, picture_mask=picture_mask, budget_bytes=budget_bytes
    )
    return symmetric_cross_entropy(scale * to_text, scale * to_picture)


def late_interaction(
    picture: Tensor,
    text: Tensor,
    text_mask: Tensor,
    *,
    picture_mask: Tensor | None = None,
    budget_bytes: int = 2**24,
) -> tuple[Tensor, Tensor]:
    """Similarities of every picture with every text by their tokens (FILIP, arXiv:2111.07783).

    A picture is as near to a text as its tokens' greatest dot products with the text's tokens are on
    average, and the other way round; padding takes part in neither the maximum nor the mean. The
    similarities of all tokens are made in blocks of pairs, forward and backward, and no block takes
    more than `budget_bytes`.

    Shapes:
        picture [B, L1, D], picture_mask [B, L1] (None: no padding); text [C, L2, D],
        text_mask [C, L2]; every row has a token. Returns pictures to texts [B, C] and texts to
        pictures [C, B].

    Raises:
        ValueError: the budget is smaller than one pair's block.
    """
    if picture_mask is None:
        picture_mask = torch.ones(picture.shape[:2], dtype=torch.bool, device=picture.device)
    pair_bytes = picture.shape[1] * text.shape[1] * picture.element_size()
    if budget_bytes < pair_bytes:
        raise ValueError(f"a budget of {budget_bytes} bytes is less than one pair's {pair_bytes}")
    outputs = _LateInteraction.apply(picture, text, picture_mask, text_mask, budget_bytes)  # type: ignore[no-untyped-call]
    to_text, to_picture = cast(tuple[Tensor, Tensor], outputs)
    return to_text, to_picture.T


class _LateInteraction(torch.autograd.Function):
    """Keeps where the maxima lie if that fits into the budget too, else finds them again."""

    @staticmethod
    def forward(
        ctx: Any, picture: Tensor, text: Tensor, own: Tensor, other: Tensor, budget: int
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(picture, text, own, other)
        ctx.budget = budget
        to_text, to_picture = picture.new_empty(2, len(picture), len(text))
        where_bytes = 8 * len(picture) * len(text) * (picture.shape[1] + text.shape[1])
        ctx.where = {} if where_bytes <= budget else None
        for rows, columns in _blocks(picture, text, budget):
            best, where = _maxima(picture[rows], text[columns], own[rows], other[columns])
            to_text[rows, columns] = best[0].sum(1) / own[rows].sum(1)[:, None]
            to_picture[rows, columns] = best[1].sum(2) / other[columns].sum(1)
            if ctx.where is not None:
                ctx.where[rows.start, columns.start] = where
        return to_text, to_picture

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        picture, text, own, other = ctx.saved_tensors
        to_text, to_picture = grads
        # A token's share in the mean, zero for padding.
        own_share = own / own.sum(1, keepdim=True)  # [B, L1]
        other_share = other / other.sum(1, keepdim=True)  # [C, L2]
        d_picture, d_text = torch.zeros_like(picture), torch.zeros_like(text)
        width = picture.shape[2]
        for rows, columns in _blocks(picture, text, ctx.budget):
            left, right = picture[rows], text[columns]
            if ctx.where is not None:
                where = ctx.where[rows.start, columns.start]
            else:
                _, where = _maxima(left, right, own[rows], other[columns])
            b, l1, c, l2 = len(left), left.shape[1], len(right), right.shape[1]
            weight = picture.new_zeros(b, l1, c, l2)
            ahead = to_text[rows, columns][:, None] * own_share[rows][:, :, None]
            back = to_picture[rows, columns][:, :, None] * other_share[columns]
            weight.scatter_(3, where[0][..., None], ahead[..., None])
            weight.scatter_add_(1, where[1][:, None], back[:, None])
            flat = weight.view(b * l1, c * l2)
            d_picture[rows] += (flat @ right.reshape(-1, width)).view_as(left)
            d_text[columns] += (flat.T @ left.reshape(-1, width)).view_as(right)
        return d_picture, d_text, None, None, None


def _maxima(
    picture: Tensor, text: Tensor, own: Tensor, other: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Of a block of pairs: the greatest similarity of each picture's token [b, L1, c] and of each
    text's token [b, c, L2] (zero for padding), and at which token of the other side each lies."""
    b, l1, width = picture.shape
    c, l2, _ = text.shape
    padding = torch.zeros_like(other, dtype=picture.dtype).masked_fill_(~other, -torch.inf)
    dots = torch.addmm(padding.view(1, -1), picture.reshape(-1, width), text.reshape(-1, width).T)
    dots = dots.view(b, l1, c, l2)
    if not own.all():
        dots.masked_fill_(~own[:, :, None, None], -torch.inf)
    of_picture, at_text = dots.max(3)
    of_text, at_picture = dots.max(1)
    best = (
        of_picture.masked_fill_(~own[:, :, None], 0),
        of_text.masked_fill_(~other[None], 0),
    )
    return best, (at_text, at_picture)


def _blocks(picture: Tensor, text: Tensor, budget: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the blocks, as many whole rows as the budget holds, or parts of one."""
    if not len(picture) or not len(text):
        return
    pairs = budget // (picture.shape[1] * text.shape[1] * picture.element_size())
    height, breadth = max(1, pairs // len(text)), min(len(text), pairs)
    for row in range(0, len(picture), height):
        for column in range(0, len(text), breadth):
            yield slice(row, row + height), slice(column, column + breadth)
