"""Attention along the links of a graph, as products of sparse and dense matrices: no matrix of all pairs is
made, and what a link's ends hold is never gathered, which takes 20 times as long.

N nodes, E links, H heads, W width of a head.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Links(nn.Module):
    """Who hears whom: a sparse matrix [N, N] whose row hears its columns; each row has one at least."""

    start: Tensor
    column: Tensor
    back_start: Tensor
    back_column: Tensor
    order: Tensor

    def __init__(self, matrix: Any) -> None:
        """`matrix` [N, N], scipy sparse; its values say nothing.

        Raises:
            ValueError: a row hears nobody, so that its attention has no sum.
        """
        super().__init__()
        there = matrix.tocsr()
        if (np.diff(there.indptr) == 0).any():
            raise ValueError("a node hears nobody")
        there.sort_indices()
        # The same links by column, and where each of them stands among those by row.
        place = np.arange(1, there.nnz + 1)
        back = type(there)((place, there.indices, there.indptr), shape=there.shape).T.tocsr()
        for name, values in (
            ("start", there.indptr),
            ("column", there.indices),
            ("back_start", back.indptr),
            ("back_column", back.indices),
            ("order", back.data - 1),
        ):
            self.register_buffer(name, torch.from_numpy(values.astype(np.int64)), persistent=False)

    def __len__(self) -> int:
        return len(self.start) - 1

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """What each node hears [H, N, W]: by head, the sum of `value` [H, N, W] of those that it hears,
        weighed by the softmax over them of <query, key> / sqrt(W)."""
        heard: Tensor = _Attention.apply(self, query, key, value)  # type: ignore[no-untyped-call]
        return heard

    def matrix(self, values: Tensor) -> Tensor:
        """A number a link [E] as a sparse matrix [N, N]."""
        return _csr(self.start, self.column, values, len(self))

    def back(self, values: Tensor) -> Tensor:
        """Its transpose."""
        return _csr(self.back_start, self.back_column, values[self.order], len(self))

    def products(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Inner products [E] of the ends of each link, from vectors [N, W] of both."""
        nothing = self.matrix(rows.new_zeros(len(self.column)))
        found: Tensor = torch.sparse.sampled_addmm(nothing, rows, columns.T, beta=0.0).values()
        return found

    def spread(self, values: Tensor) -> Tensor:
        """A number a node [N] to each of its links [E]."""
        return values.repeat_interleave(self.start.diff(), output_size=len(self.column))

    def reduced(self, values: Tensor, how: str) -> Tensor:
        """Over the links [E] of each node, [N]: `sum` or `max`."""
        found: Tensor = torch.segment_reduce(values, how, offsets=self.start)
        return found


class _Attention(torch.autograd.Function):
    """The gradient is written out, for that of sparse values would be a dense matrix."""

    @staticmethod
    def forward(ctx: Any, links: Links, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scale = query.shape[2] ** -0.5
        shares, heard = [], []
        for q, k, v in zip(query, key, value, strict=True):
            scores = links.products(q * scale, k)
            share = (scores - links.spread(links.reduced(scores, "max"))).exp()
            share = share / links.spread(links.reduced(share, "sum"))
            shares.append(share)
            heard.append(torch.sparse.mm(links.matrix(share), v))
        ctx.links, ctx.scale = links, scale
        ctx.save_for_backward(query, key, value, torch.stack(shares))
        return torch.stack(heard)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        links, scale = ctx.links, ctx.scale
        found = []
        for q, k, v, share, heard in zip(
            *ctx.saved_tensors, gradients[0].contiguous(), strict=True
        ):
            of_share = share * links.products(heard, v)
            of_score = of_share - share * links.spread(links.reduced(of_share, "sum"))
            found.append(
                (
                    torch.sparse.mm(links.matrix(of_score), k) * scale,
                    torch.sparse.mm(links.back(of_score), q) * scale,
                    torch.sparse.mm(links.back(share), heard),
                )
            )
        return None, *(torch.stack(parts) for parts in zip(*found, strict=True))


def _csr(start: Tensor, column: Tensor, values: Tensor, nodes: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the format a beta
        return torch.sparse_csr_tensor(start, column, values, size=(nodes, nodes))
