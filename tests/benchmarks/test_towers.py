"""The benchmark runs at a tiny size; its figures are taken by hand, never in a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import towers
from model_code.demo.city_yaml import city_yaml
from model_code.tables import contract
from model_code.vision.clip_config import ClipConfig
from resources.lake import Lake, plain_table_writer
from tests.assets.test_captions import SMALL_CLIP
from tests.model_code.methods.fake_city import fake_city
from tests.model_code.methods.test_urbanvlp import CONFIG

REGIONS = 24


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A city that runs UrbanVLP, and its labels and splits in the lake."""
    small = CONFIG.model_dump(mode="json", include={"chip_px", "view_px", "width", "batch"})
    methods = {"urbanvlp": {"config": {**small, "epochs": 1}}}
    text = city_yaml("toy", regions=REGIONS, seed=1, captions=True, methods=methods)
    (tmp_path / "toy.yaml").write_text(text)
    monkeypatch.setenv("CITYLOOM_CITIES", str(tmp_path))
    monkeypatch.setenv("CITYLOOM_LAKE", str(tmp_path / "lake"))
    data, targets, parts = fake_city(REGIONS)
    income = targets.values["income"][:, 0]
    known = np.isfinite(income)
    labels = pd.DataFrame(
        {"indicator": "income", "region_id": data.region_ids[known], "slot": 0, "value": income[known],
         "coverage": 1.0}
    )  # fmt: skip
    catalogue = pd.DataFrame(
        {"indicator": ["income"], "kind": "regression", "transform": "none", "unit": "", "description": "",
         "contained_in": [[]], "classes": [[]], "regions": known.sum(), "region_share": known.mean()}
    )  # fmt: skip
    part = np.select([parts.train, parts.val], ["train", "val"], "test")
    splits = pd.DataFrame(
        {"split": "random", "fold": 0, "region_id": data.region_ids, "part": part, "block": ""}
    )
    files = {
        "targets": {"targets": labels, "indicators": catalogue},
        "splits": {"splits": splits},
    }
    lake = Lake()
    for asset, tables in files.items():
        writers = {
            f"{name}.parquet": plain_table_writer(contract(name), rows)
            for name, rows in tables.items()
        }
        lake.commit(lake.stage("toy", asset, writers), fingerprint="")
    return "toy"


def test_towers_of_fewer_and_more_pairs_are_read_as_they_come_and_pretrained(toy: str) -> None:
    config = ClipConfig.model_validate({**SMALL_CLIP, "held_out": 2})
    data, rows = fake_city(REGIONS)[0], []
    for count, pair in towers.towers(config, [2, 4]):
        own = replace(data, towers=pair)
        rows += [
            {"generic pairs": count, **row} for row in towers.scores(toy, own, free=["income"])
        ]
    table = pd.DataFrame(rows)
    assert table.groupby("generic pairs")["towers"].apply(list).to_dict() == {
        count: [*towers.VARIANTS] for count in (2, 4)
    }
    assert np.isfinite(table["r2"]).all() and table["r2"].nunique() == len(table)
    (axes,) = towers.draw(table).axes
    assert sorted(line.get_label() for line in axes.lines) == sorted(towers.VARIANTS)
    assert all(list(line.get_xdata()) == [2, 4] for line in axes.lines)
