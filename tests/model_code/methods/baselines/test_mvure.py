from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from model_code.methods import MvureConfig
from model_code.methods.base import RegionData
from model_code.methods.baselines.mvure import METHOD, MvureNet
from model_code.methods.baselines.relation_net import relations
from model_code.training import seeded
from tests.model_code.methods.baselines.relation import (
    EVERYONE,
    REGIONS,
    RelationContract,
    relation_city,
)

CONFIG = MvureConfig(feature_width=12, width=8, heads=2, neighbours=4, epochs=3, batch=16)


@pytest.fixture(scope="module")
def data() -> RegionData:
    return relation_city()


class TestMvure(RelationContract):
    method, config = METHOD, CONFIG

    @pytest.mark.parametrize("fusion", ["mean", "gate"])
    def test_the_net_is_that_of_the_paper(self, data: RegionData, fusion: str) -> None:
        """View by view and region by region, in evaluation mode, in value and gradient."""
        graphs = relations(data, 4, EVERYONE, near=False)
        assert list(graphs) == ["source", "destination", "poi"]
        with seeded(0):
            changed = CONFIG.model_copy(update={"fusion": fusion})
            net = MvureNet(tuple(graphs), changed).eval()
            features = torch.randn(REGIONS, CONFIG.feature_width)
        seen = torch.arange(REGIONS) % 3 > 0
        prepared = {name: net.prepared(graph) for name, graph in graphs.items()}
        embedding, joined = net(features, prepared, seen)

        views = []
        for name, graph in graphs.items():
            layer, links = net.views[name], graph.matrix().toarray() > 0
            hidden = (features @ layer.lin.weight.T).view(REGIONS, 2, 4)
            rows = []
            for i in range(REGIONS):
                heard = [*links[i].nonzero()[0].tolist(), i]
                logits = (hidden[heard] * layer.att_src[0]).sum(2) + (
                    hidden[i] * layer.att_dst[0]
                ).sum(1)
                share = F.leaky_relu(logits, 0.2).softmax(dim=0)  # [K, heads]
                rows.append((share[:, :, None] * hidden[heard]).sum(dim=0).flatten())
            views.append(F.elu(torch.stack(rows) + layer.bias))
        queries, keys = ([linear(view)[seen] for view in views] for linear in (net.query, net.key))
        mixed = []
        for view, query in zip(views, queries, strict=True):
            logits = torch.stack([(query * key).sum(1).mean() for key in keys]) / 8**0.5
            taken = sum(a * v for a, v in zip(logits.softmax(0), views, strict=True))
            mixed.append(0.8 * taken + 0.2 * view)
        gates = [torch.tensor(1 / 3)] * 3
        if fusion == "gate":
            gates = [net.gate(view[seen].mean(dim=0)).sigmoid() for view in mixed]
        twin = sum(gate * view for gate, view in zip(gates, mixed, strict=True))
        torch.testing.assert_close(embedding, twin, rtol=1e-4, atol=1e-5)
        for found, view in zip(joined.values(), mixed, strict=True):
            torch.testing.assert_close(found, 0.5 * view + 0.5 * twin, rtol=1e-4, atol=1e-5)
        parameters = list(net.parameters())
        ours, theirs = (
            torch.autograd.grad((values**2).sum(), parameters) for values in (embedding, twin)
        )
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


class TestMvureWithGates(RelationContract):
    method, config = METHOD, CONFIG.model_copy(update={"fusion": "gate"})


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValidationError, match="multiple of heads"):
        MvureConfig(width=10, heads=4)
