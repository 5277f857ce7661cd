"""Coverage by modality."""

import pandas as pd
import pyarrow as pa

from model_code.geo.coverage import MODALITIES, make_coverage
from tests.model_code.geo.rasters import checked

IDS = ["a", "b", "c", "d"]
FLOWS = pd.DataFrame(
    {
        "source": ["od", "od", "trips"],
        "origin_id": ["a", "b", "d"],
        "destination_id": ["b", "c", "d"],
        "trip_count": [2.5, 0.0, 9.0],
    }
)


def coverage(tables, **counts):
    found = make_coverage(IDS, tables, **counts)
    checked("coverage", [pa.Table.from_pandas(found, preserve_index=False)])
    return {m: (i, r, s) for m, i, r, s in found.itertuples(index=False)}


def test_every_modality_is_counted():
    found = coverage(
        {
            "imagery": pd.DataFrame({"region_id": ["a", "b", "c", "d"]}),
            "street_views": pd.DataFrame({"region_id": ["a", "a", "c"]}),
            "pois": pd.DataFrame({"region_id": ["a", "a", "b"], "poi_count": [2, 3, 4]}),
            "flows": FLOWS,
            "buildings": pd.DataFrame({"region_id": ["c", "d"], "building_count": [7, 2]}),
        },
        buildings=8,  # one lies in both
    )
    assert found == {
        "buildings": (8, 2, 0.5),
        "flows": (2, 2, 0.5),  # the ready matrix alone; a row of no trips reaches nobody
        "imagery": (4, 4, 1.0),
        "pois": (9, 2, 0.5),
        "street_views": (3, 2, 0.5),
    }


def test_trips_count_where_there_is_no_matrix():
    assert coverage({"flows": FLOWS[FLOWS["source"] == "trips"]})["flows"] == (9, 1, 0.25)


def test_an_absent_modality_reaches_no_region():
    assert coverage({}) == dict.fromkeys(MODALITIES, (0, 0, 0.0))
