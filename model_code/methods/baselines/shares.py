"""Shares of what satellite chips and street views show, as a segmenter measures them: the control
for every method that reads captions, since these are written from the shares."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from model_code.errors import DataError
from model_code.methods import MethodConfig
from model_code.methods.base import NOWHERE, Checkpoint, Floats, Mask, RegionData, Workspace
from model_code.scaling import Scaler


class RegionMeans:
    """Numbers of a region's chip, and the mean of those of its street views.

    Where a view has none, the mean of the visible regions stands, and a column of each view says so
    with a 1. Nothing is random.
    """

    def numbers(self, data: RegionData) -> tuple[Floats | None, Floats | None]:
        """Of the chips [N, K1] and of the street views [M, K2]; a row of NaN where there are none."""
        raise NotImplementedError

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        rows = region_rows(data, *self.numbers(data))
        return Checkpoint({name: Scaler.fit(own, visible).mean for name, own in rows.items()})

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        columns = []
        for name, rows in region_rows(data, *self.numbers(data)).items():
            absent = np.isnan(rows[:, :1])
            columns += [np.where(absent, checkpoint.tensors[name], rows), absent]
        return np.hstack(columns).astype(np.float32)


class Shares(RegionMeans):
    """The shares of segmentation classes."""

    def numbers(self, data: RegionData) -> tuple[Floats | None, Floats | None]:
        return data.chip_shares, data.view_shares


def region_rows(
    data: RegionData, of_chips: Floats | None, of_views: Floats | None
) -> dict[str, Floats]:
    """By view, numbers [N, K] of each region, a row of NaN where there are none.

    Raises:
        DataError: there are none of either view.
    """
    found: dict[str, Floats] = {}
    if of_chips is not None:
        found["satellite"] = np.asarray(of_chips, np.float64)
    if of_views is not None and data.view_region is not None:
        rows = np.asarray(of_views, np.float64)
        known = np.asarray(np.isfinite(rows).all(axis=1), bool)
        region = data.view_region[known]
        mean = sparse.coo_array(
            (np.ones(len(region)), (region, np.flatnonzero(known))), (len(data), len(rows))
        ).tocsr() @ np.where(known[:, None], rows, 0)
        count = np.bincount(region, minlength=len(data))[:, None]
        found["street_view"] = np.where(count > 0, mean / np.maximum(count, 1), np.nan)
    if not found:
        raise DataError(
            "the city has such numbers of no view, neither of satellite chips nor of street views",
            fix="remove the method, or give the city imagery or street views",
        )
    return found


METHOD = Shares()
