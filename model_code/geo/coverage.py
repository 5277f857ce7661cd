"""What share of the regions each modality reaches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

MODALITIES = ("buildings", "flows", "imagery", "pois", "street_views")


def make_coverage(
    region_ids: Iterable[str], tables: Mapping[str, pd.DataFrame], buildings: int = 0
) -> pd.DataFrame:
    """The table `coverage`: one row a modality; one that is not in `tables` reaches no region.

    Items are chips, photographs, POIs, footprints, and trips (of the ready matrix where there is
    one), each counted once; a region has flows when a trip starts or ends there.

    Args:
        region_ids: ids of all regions [N].
        tables: by modality, rows with `region_id` (imagery, street_views, buildings), with
            `poi_count` (pois); `source`, `origin_id`, `destination_id` and `trip_count` (flows).
        buildings: how many buildings lie in any region; those of each region do not add up to it,
            as one may lie in several.
    """
    ids = pd.Index(list(region_ids))
    rows = []
    for modality in MODALITIES:
        table = tables.get(modality)
        items, reached = (0, 0) if table is None else _counted(modality, table, ids)
        items = buildings if modality == "buildings" else items
        rows.append((modality, items, reached, reached / max(len(ids), 1)))
    return pd.DataFrame(rows, columns=["modality", "items", "regions", "region_share"])


def _counted(modality: str, table: pd.DataFrame, ids: pd.Index) -> tuple[int, int]:
    """Items of one modality, and the regions that have any."""
    if modality == "flows":
        table = one_source(table)
        table = table[table["trip_count"] > 0]
        ends = np.concatenate([table["origin_id"], table["destination_id"]])
        return round(float(table["trip_count"].sum())), int(ids.isin(ends).sum())
    items = int(table["poi_count"].sum()) if modality == "pois" else len(table)
    return items, int(ids.isin(table["region_id"]).sum())


def one_source(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the ready matrix where there are any, else those of the trips: never both added."""
    ready = table["source"] == "od"
    return table[ready] if ready.any() else table
