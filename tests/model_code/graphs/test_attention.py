"""Attention along links beside the same with a matrix of all pairs, in value and gradient."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from model_code.graphs.attention import Links

NODES, HEADS, WIDTH = 11, 2, 3


def test_attention_is_that_over_the_links() -> None:
    rng = np.random.default_rng(0)
    there = np.eye(NODES, dtype=bool) | (rng.random((NODES, NODES)) < 0.2)
    there[:, 4] = there[7] = True  # one whom all hear, and one that hears all
    links = Links(sp.csr_array(there.astype(float)))
    generator = torch.Generator().manual_seed(0)
    of = [
        (3 * torch.randn(HEADS, NODES, WIDTH, generator=generator, dtype=torch.float64))
        .requires_grad_()
        for _ in range(3)
    ]  # fmt: skip
    query, key, value = of
    scores = torch.einsum("hiw,hjw->hij", query, key) / WIDTH**0.5
    shares = scores.masked_fill(~torch.from_numpy(there), -torch.inf).softmax(dim=2)
    twin = torch.einsum("hij,hjw->hiw", shares, value)
    ours = links(query, key, value)
    torch.testing.assert_close(ours, twin)
    weights = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    for a, b in zip(
        *(torch.autograd.grad((rows * weights).sum(), of) for rows in (ours, twin)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_large_scores_do_not_overflow() -> None:
    links = Links(sp.csr_array(np.ones((3, 3))))
    rows = 1e3 * torch.eye(3)[None]
    torch.testing.assert_close(links(rows, rows, rows), rows)


def test_no_matrix_of_all_pairs_is_made() -> None:
    nodes = 200_000  # all pairs would take 160 GB
    place = np.arange(nodes)
    ends = np.tile(place, 2), np.concatenate([place, np.roll(place, 1)])
    links = Links(sp.csr_array((np.ones(2 * nodes), ends), shape=(nodes, nodes)))
    values = torch.arange(nodes, dtype=torch.float32)[None, :, None].requires_grad_()
    heard = links(torch.zeros_like(values), torch.zeros_like(values), values)
    expected = torch.from_numpy((place + np.roll(place, 1)) / 2).float()
    torch.testing.assert_close(heard[0, :, 0], expected)
    (gradient,) = torch.autograd.grad(heard.sum(), values)
    torch.testing.assert_close(gradient, torch.ones_like(gradient))


def test_a_node_that_hears_nobody_is_an_error() -> None:
    with pytest.raises(ValueError, match="hears nobody"):
        Links(sp.csr_array(np.array([[1.0, 0.0], [0.0, 0.0]])))
