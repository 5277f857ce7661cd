"""Shares of what satellite chips and street views show, as a segmenter measures them: the control
for every method that reads captions, since these are written from the shares."""

from __future__ import annotations

import numpy as np

from model_code.errors import DataError
from model_code.methods import MethodConfig
from model_code.methods.base import NOWHERE, Checkpoint, Floats, Mask, RegionData, Workspace
from model_code.scaling import Scaler


class Shares:
    """The shares of a region's chip, and the mean of those of its street views.

    Where a view has none, the mean of the visible regions stands, and a column of each view says so
    with a 1. Nothing is random.
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
        return Checkpoint(
            {name: Scaler.fit(rows, visible).mean for name, rows in _shares(data).items()}
        )

    def embed(self, checkpoint: Checkpoint, data: RegionData, config: MethodConfig) -> Floats:
        columns = []
        for name, rows in _shares(data).items():
            absent = np.isnan(rows[:, :1])
            columns += [np.where(absent, checkpoint.tensors[name], rows), absent]
        return np.hstack(columns).astype(np.float32)


def _shares(data: RegionData) -> dict[str, Floats]:
    """By view, shares [N, K] of each region, a row of NaN where there are none."""
    found: dict[str, Floats] = {}
    if data.chip_shares is not None:
        found["satellite"] = np.asarray(data.chip_shares, np.float64)
    if data.view_shares is not None and data.view_region is not None:
        rows = np.asarray(data.view_shares, np.float64)
        known = np.isfinite(rows).all(axis=1)
        region, rows = data.view_region[known], rows[known]
        total = np.stack(
            [np.bincount(region, column, minlength=len(data)) for column in rows.T], axis=1
        )  # a loop over classes
        count = np.bincount(region, minlength=len(data))[:, None]
        found["street_view"] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    if not found:
        raise DataError(
            "the city has segmentation shares of no view",
            fix="remove `methods.shares`, or give the city imagery or street views",
        )
    return found


METHOD = Shares()
