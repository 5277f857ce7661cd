from __future__ import annotations

import numpy as np
import torch

from model_code.graphs.layers import GCNConv, edges, propagation
from tests.model_code.graphs.places import graphs, places


def test_propagation_is_that_of_a_graph_convolution_without_weights() -> None:
    visible = np.arange(40) % 3 > 0
    for graph in graphs(places(), 4, visible).values():
        values = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
        convolution = GCNConv(5, 3, bias=False)
        with torch.no_grad():
            twin = convolution(values, edges(graph))
        ours = torch.sparse.mm(propagation(graph), values @ convolution.lin.weight.T)
        torch.testing.assert_close(ours, twin)
        whole = propagation(graph).to_dense()
        (gradient,) = torch.autograd.grad((ours**2).sum(), values)
        expected = 2 * whole.T @ ours @ convolution.lin.weight
        torch.testing.assert_close(gradient, expected.detach(), rtol=1e-4, atol=1e-5)
