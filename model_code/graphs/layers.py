"""PyG's graph convolutions, imported without the warnings of torch.jit, which the package still uses."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch_geometric.nn import DenseGCNConv, GATConv, GCNConv

__all__ = ["DenseGCNConv", "GATConv", "GCNConv"]
