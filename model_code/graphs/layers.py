"""PyG's graph convolutions, imported without the warnings of torch.jit, which the package still uses; and
the propagation of one convolution as a sparse matrix."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model_code.graphs.views import Graph

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch_geometric.nn import DenseGCNConv, GATConv, GCNConv

__all__ = ["DenseGCNConv", "GATConv", "GCNConv", "edges", "propagation", "sparse_tensor"]


def propagation(graph: Graph) -> Tensor:
    """D^-1/2 (A + I) D^-1/2 of a graph whose links all weigh 1, sparse [N, N]. Multiplying by it is 20
    times as quick as gathering and adding the ends of edges."""
    return sparse_tensor(replace(graph, weight=np.ones_like(graph.weight)).normalised())


def sparse_tensor(matrix: Any) -> Tensor:
    """A sparse matrix of scipy as a tensor in rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the format a beta
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data.astype(np.float32)),
            size=matrix.shape,
        )


def edges(graph: Graph) -> Tensor:
    """From whom, and to whom a message goes, [2, E]: a region hears its neighbours."""
    return torch.from_numpy(np.stack([graph.column, graph.row]))
