from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from model_code.report import figures, look_alikes
from model_code.tables import contract
from tests.model_code.report.sample import city

IDS = [f"r{i:02}" for i in range(24)]


@pytest.fixture
def views() -> dict[str, pd.DataFrame]:
    """Two sorts of regions, in turns; one graph knows them, the other is noise."""
    rng = np.random.default_rng(0)
    sort = np.where(np.arange(24) % 2, 1.0, -1.0)[:, None]
    known = 5 + sort + 0.1 * rng.normal(size=(24, 4))
    frame = lambda values: pd.DataFrame(values, index=IDS)  # noqa: E731
    return {
        "whole": frame(known),
        "function": frame(2 * known),
        "mobility": frame(rng.normal(size=(24, 4))),
    }


def test_look_alikes_are_of_one_sort(views: dict[str, pd.DataFrame]) -> None:
    alike = look_alikes.similarity(views["whole"], "r04")
    assert (
        alike["r04"] == pytest.approx(1) and (alike[::2] > 0.5).all() and (alike[1::2] < -0.5).all()
    )
    near = look_alikes.most_alike(views["whole"], "r04")
    assert len(near) == 10 and "r04" not in near and all(int(name[1:]) % 2 == 0 for name in near)
    assert len(look_alikes.most_alike(views["whole"].iloc[:3], "r00")) == 2
    flat = 0 * views["whole"]
    assert (look_alikes.similarity(flat, "r04") == 0).all()


def test_measures_say_which_part_knows_the_indicator(
    views: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = pd.DataFrame({"people": np.arange(24) % 2 * 10.0 + np.arange(24) / 24}, index=IDS)
    values.iloc[3] = np.nan
    found = look_alikes.measures(views, values)
    assert list(found.index) == list(views)
    assert found.loc["whole", "shared"] == found.loc["function", "shared"] == 1
    assert found.loc["mobility", "shared"] < 0.7
    assert found.loc["function", "correlation"] == pytest.approx(found.loc["whole", "correlation"])
    near = [look_alikes.most_alike(views["whole"], name) for name in IDS]
    means = np.array([values["people"].reindex(names).mean() for names in near])
    twin = values["people"].corr(pd.Series(means, IDS), method="spearman")
    assert found.loc["whole", "correlation"] == pytest.approx(twin)
    assert found.loc["whole", "correlation"] > 0.5 > found.loc["mobility", "correlation"]
    said = look_alikes.sentences(found)
    assert "whole embedding 0." in said[0] and "graph of function 100%" in said[1]
    assert len(look_alikes.sentences(look_alikes.measures(views, values.iloc[:, :0]))) == 1
    monkeypatch.setattr(look_alikes, "_MEASURED", 12)
    assert look_alikes.measures(views, values).loc["function", "shared"] == 1


def test_maps_have_a_column_for_each_view_that_there_is() -> None:
    regions = city(3, 4).regions
    rng = np.random.default_rng(0)
    rows = [
        pd.DataFrame(
            {"view": view, "region_id": regions["region_id"], "vector": list(rng.random((12, d)))}
        )
        for view, d in (("distance", 3), ("modalities", 8), ("whole", 8))
    ]
    table = pd.concat(rows)[contract("urbanmmcl_views").names()]
    views = look_alikes.by_view(table)
    assert list(views) == ["whole", "modalities", "distance"]  # the whole first
    assert views["distance"].shape == (12, 3)
    anchors = list(regions["region_id"][:2])
    drawn = look_alikes.alike_maps(regions, views, anchors)
    assert drawn.startswith(b"\x89PNG") and len(drawn) <= figures.MAX_BYTES
    assert drawn == look_alikes.alike_maps(regions, views, anchors)
    assert drawn != look_alikes.alike_maps(regions, views, anchors[::-1])
    alone = look_alikes.alike_maps(regions, {"whole": views["whole"]}, anchors[:1])
    assert alone.startswith(b"\x89PNG") and alone != drawn
