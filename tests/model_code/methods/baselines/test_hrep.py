from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from model_code.methods import HrepConfig
from model_code.methods.base import RegionData
from model_code.methods.baselines.hrep import METHOD, HrepNet
from model_code.methods.baselines.relation_net import relations
from model_code.training import seeded
from tests.model_code.methods.baselines.relation import (
    EVERYONE,
    REGIONS,
    RelationContract,
    relation_city,
)

CONFIG = HrepConfig(
    width=8,
    heads=2,
    layers=3,
    neighbours=4,
    poi_weight=1.0,
    neighbour_weight=1.0,
    epochs=3,
    batch=16,
)


@pytest.fixture(scope="module")
def data() -> RegionData:
    return relation_city()


class TestHrep(RelationContract):
    method, config = METHOD, CONFIG

    def test_the_net_is_that_of_the_paper(self, data: RegionData) -> None:
        """Layer by layer on dense matrices, in evaluation mode, in value and gradient."""
        graphs = relations(data, 4, EVERYONE, near=True)
        assert list(graphs) == ["source", "destination", "poi", "neighbour"]
        with seeded(0):
            net = HrepNet(tuple(graphs), CONFIG).eval()
            features = torch.randn(REGIONS, CONFIG.width)
        seen = torch.arange(REGIONS) % 3 > 0
        prepared = {name: net.prepared(graph) for name, graph in graphs.items()}
        embedding, vectors = net(features, prepared, seen)

        own, last = [], {}
        for name, graph in graphs.items():
            adjacency = torch.from_numpy(graph.matrix().toarray() > 0).float() + torch.eye(REGIONS)
            root = adjacency.sum(dim=1) ** -0.5
            mixes = root[:, None] * adjacency * root
            values, relation = features, net.convolution.relation[name]
            for layer in range(3):
                linear, transform = (
                    part[layer] for part in (net.convolution.linear, net.convolution.transform)
                )
                heard = mixes @ (values * relation) @ linear.weight.T
                if layer < 2:
                    heard = heard / np.sqrt(1 + 1e-5)  # statistics at their start
                    values = values + F.leaky_relu(heard)
                else:
                    values = heard + linear.bias
                relation = transform(relation)
            own.append(values)
            last[name] = relation
        stacked = torch.stack(own)  # [R, N, W]
        attention = net.attention
        query, key, value = F.linear(
            stacked, attention.in_proj_weight, attention.in_proj_bias
        ).chunk(3, dim=2)
        heads = []
        for part in torch.arange(CONFIG.width).chunk(CONFIG.heads):
            logits = torch.einsum("rnd,snd->nrs", query[..., part], key[..., part])
            share = (logits / len(part) ** 0.5).softmax(dim=2)
            heads.append(torch.einsum("nrs,snd->rnd", share, value[..., part]))
        heard = attention.out_proj(torch.cat(heads, dim=2))
        mixed = 0.95 * heard + 0.05 * stacked
        scores = [
            torch.stack([F.leaky_relu(net.score(row)) @ net.query for row in rows[seen]]).mean()
            for rows in mixed
        ]
        weights = torch.stack(scores).softmax(dim=0)
        twin = sum(weight * rows for weight, rows in zip(weights, mixed, strict=True))
        torch.testing.assert_close(embedding, twin, rtol=1e-4, atol=1e-5)
        for name, found in vectors.items():
            torch.testing.assert_close(found, twin * last[name], rtol=1e-4, atol=1e-5)
        parameters = [net.convolution.relation["poi"], net.query, attention.in_proj_weight]
        ours, theirs = (
            torch.autograd.grad((values**2).sum(), parameters) for values in (embedding, twin)
        )
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValidationError, match="multiple of heads"):
        HrepConfig(width=10, heads=4)
