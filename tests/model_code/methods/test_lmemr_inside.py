from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model_code.methods.base import Checkpoint
from model_code.methods.lmemr import METHOD
from model_code.methods.lmemr_inside import inside
from model_code.training import evaluating
from tests.model_code.methods.test_lmemr import config, hourly_city

CITY = hourly_city(50)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    data, targets, parts = CITY
    return METHOD.fit(data, targets, parts, config(epochs=3, learning_rate=0.01), seed=0)


def test_attention_is_that_of_the_fitted_layers(checkpoint: Checkpoint) -> None:
    """Eq 8-9 written out, region by region, head by head, in both blocks."""
    data = CITY[0]
    found = inside(checkpoint, data, config())
    assert found.modalities == ("satellite", "heights", "street_view", "pois")
    np.testing.assert_array_equal(np.stack([found.source, found.target], 1), data.neighbours)
    net = METHOD.restored(checkpoint, data, config())
    with evaluating(net):
        branch = net.branches["pois"]
        spatial, _, semantic, _ = branch.sides(torch.zeros(len(data), dtype=torch.bool))
        state = branch.fused(spatial, semantic, branch.similarity)
        total = np.zeros(len(found.source))
        for block in branch.blocks:
            conv, heads = block.conv, 2
            value = conv.lin(block.norm(state)).view(len(data), heads, -1)
            for region in range(len(data)):
                edges = np.flatnonzero(found.target == region)
                for head in range(heads):
                    scores = [
                        F.leaky_relu(
                            value[found.source[edge], head] @ conv.att_src[0, head]
                            + value[region, head] @ conv.att_dst[0, head],
                            0.2,
                        )
                        for edge in edges
                    ]
                    if scores:
                        total[edges] += torch.stack(scores).softmax(dim=0).numpy() / (2 * heads)
            state = block(state, net.graph)
        np.testing.assert_allclose(found.attention["pois"], total, atol=1e-5)
        np.testing.assert_allclose(found.states, net.states()[0].numpy(), atol=1e-6)
        np.testing.assert_allclose(found.states[:, 3], state.numpy(), atol=1e-5)
    assert np.ptp(total * np.bincount(found.target)[found.target]) > 0.01  # it is not even


def test_those_of_a_region_sum_to_one_and_a_lone_one_has_none(checkpoint: Checkpoint) -> None:
    found = inside(checkpoint, CITY[0], config())
    for weights in found.attention.values():
        sums = np.bincount(found.target, weights, minlength=50)
        looked = np.bincount(found.target, minlength=50) > 0
        np.testing.assert_allclose(sums, looked, atol=1e-6)
        assert not looked.all()


def test_without_a_gat_there_is_no_attention(checkpoint: Checkpoint) -> None:
    data, targets, parts = CITY
    for spatial in ("gcn", "none"):
        changed = config(spatial=spatial, epochs=1, pois=False)
        found = inside(METHOD.fit(data, targets, parts, changed, seed=0), data, changed)
        assert found.attention == {} and found.states.shape == (50, 3, 16)
    assert (inside(checkpoint, data, config()).present[:, 0] == data.chip_present).all()
