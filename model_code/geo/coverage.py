"""What share of the regions each modality reaches."""

from __future__ import annotations

import numpy as np
import pandas as pd


def make_coverage(
    regions: pd.DataFrame,
    *,
    region_chips: pd.DataFrame | None = None,
    region_street_views: pd.DataFrame | None = None,
    poi_counts: pd.DataFrame | None = None,
    mobility: pd.DataFrame | None = None,
    heights: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The table `coverage`: one row a modality; one that the city lacks (None) has no items.

    Items are chips, photographs, POIs, trips that start in a region (of the ready matrix where
    there is one) and footprints; a region has flows when a trip starts or ends there.

    Args:
        regions: column `region_id` [N].
        region_chips: column `region_id`.
        region_street_views: column `region_id`.
        poi_counts: columns `region_id`, `poi_count`.
        mobility: the table `mobility`.
        heights: columns `region_id`, `building_count`.
    """
    ids = pd.Index(regions["region_id"])
    none = pd.Series(0, index=ids)
    items = {
        "imagery": none if region_chips is None else _each(region_chips, ids),
        "street_views": none if region_street_views is None else _each(region_street_views, ids),
        "pois": none if poi_counts is None else _sum(poi_counts, "poi_count", ids),
        "flows": none,
        "buildings": none if heights is None else _sum(heights, "building_count", ids),
    }
    has = {name: counts > 0 for name, counts in items.items()}
    if mobility is not None:
        rows = one_source(mobility)
        items["flows"] = _sum(rows, "outflow", ids)
        has["flows"] = (items["flows"] > 0) | (_sum(rows, "inflow", ids) > 0)
    names = sorted(items)
    reached = np.array([int(has[name].sum()) for name in names], np.int64)
    return pd.DataFrame(
        {
            "modality": names,
            "items": np.array([round(float(items[name].sum())) for name in names], np.int64),
            "regions": reached,
            "region_share": reached / max(len(ids), 1),
        }
    )


def one_source(mobility: pd.DataFrame) -> pd.DataFrame:
    """Rows of the ready matrix where there are any, else those of the trips: never both added."""
    ready = mobility["source"] == "od"
    return mobility[ready] if ready.any() else mobility


def _each(rows: pd.DataFrame, ids: pd.Index) -> pd.Series:
    return rows["region_id"].value_counts().reindex(ids, fill_value=0)


def _sum(rows: pd.DataFrame, column: str, ids: pd.Index) -> pd.Series:
    return rows.groupby("region_id")[column].sum().reindex(ids, fill_value=0)
