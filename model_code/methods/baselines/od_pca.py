"""PCA of the log origin-destination matrix plus both volumes: the baseline that graph methods have
to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_code.graphs.views import trip_matrix, trips_of
from model_code.methods import MethodConfig, OdPcaConfig
from model_code.methods.base import (
    NOWHERE,
    Checkpoint,
    Floats,
    Mask,
    RegionData,
    Workspace,
    must_be_of_regions,
    of_regions,
)
from model_code.pca import principal_axes


class OdPca:
    """A region is its row and its column of log1p trips, [N, 2 N], on their principal axes (centred,
    not scaled), followed by its out- and inflow divided by their means.

    The volumes stay untransformed, and of about the size of the axes' smaller scores: a linear head
    on log shares has no other way to the totals. Only trips between visible regions are fitted; an
    unseen region is described by its trips from and to the visible ones.
    """

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        assert isinstance(config, OdPcaConfig)
        partners = np.flatnonzero(visible)
        trips = _trips(data, partners)
        mean, axes = principal_axes(trips[partners].log1p(), config.components)
        volumes = _volumes(trips[partners]).mean(axis=0)
        return Checkpoint(
            {
                "mean": mean,
                "axes": axes,
                "mean_volumes": np.where(volumes > 0, volumes, 1.0),
                "partners": partners,
            },
            of_regions(data),
        )

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        why = "its columns are the regions of one city"
        must_be_of_regions(checkpoint, data, "od_pca", why)
        fitted = checkpoint.tensors
        trips = _trips(data, fitted["partners"])
        scores = trips.log1p() @ fitted["axes"].T - fitted["mean"] @ fitted["axes"].T
        return np.hstack([scores, _volumes(trips) / fitted["mean_volumes"]]).astype(np.float32)


def _trips(data: RegionData, partners: NDArray[np.int64]) -> Any:
    """Trips to and from the P partners as a sparse matrix [N, 2 P]."""
    import scipy.sparse as sp

    od = trip_matrix(*trips_of(data), len(data))
    return sp.hstack([od[:, partners], od.T.tocsr()[:, partners]], format="csr")


def _volumes(trips: Any) -> NDArray[Any]:
    """Trips [N, 2 P] summed to out- and inflow [N, 2]."""
    half = trips.shape[1] // 2
    return np.stack([trips[:, :half].sum(axis=1), trips[:, half:].sum(axis=1)], axis=1)


METHOD = OdPca()
