from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from assets.stage import Context
from assets.transfer import _branches, _check_apart, _fresh
from model_code.city import load_city
from model_code.contracts import Checker
from model_code.errors import DataError
from model_code.methods import MuseClConfig, UrbanVlpConfig
from model_code.methods.base import Checkpoint, RegionData
from model_code.methods.baselines.poi import METHOD as POI
from model_code.methods.musecl import METHOD as MUSECL
from model_code.methods.urbanvlp import METHOD
from model_code.tables import contract
from resources.lake import Lake, table_writer
from tests.model_code.methods.fake_city import fake_city, with_towers
from tests.tiny import ROOT

TOWER = {
    "shrink": 1, "patch_px": 8, "image_width": 32, "image_layers": 1, "text_width": 32, "text_layers": 1,
    "embed_dim": 16, "context": 12,
}  # fmt: skip
CONFIG = UrbanVlpConfig.model_validate(
    {"chip_px": 16, "view_px": (16, 24), "width": 16, "epochs": 1, "batch": 16, "tower": TOWER}
)


@pytest.fixture(scope="module")
def here() -> RegionData:
    """A city without street views."""
    data = fake_city(20, seed=2)[0]
    return replace(data, views=None, view_region=None, view_texts=None, view_location_features=None)


@pytest.fixture(scope="module")
def carried() -> Checkpoint:
    """An encoder of a city that has them."""
    there = fake_city(40, seed=1)[0]
    return METHOD.pretrain(there, CONFIG, seed=0, visible=np.ones(40, bool))


def test_a_city_takes_the_branches_that_it_can_feed(here: RegionData, carried: Checkpoint) -> None:
    cut = _branches(carried, _fresh(METHOD, here, CONFIG), "here", "there")
    found = METHOD.embed(cut, here, CONFIG)
    assert found.shape == (20, CONFIG.width)
    # The whole encoder, were the views there but in no region, gives the same and its absent-tokens.
    nobody = replace(
        here,
        views=np.zeros((1, 16, 24, 3), np.uint8),
        view_region=np.zeros(1, np.int64),
        view_location_features=np.full((1, 512), np.nan, np.float32),
    )
    whole = METHOD.embed(carried, nobody, CONFIG)
    names = carried.record["features"]
    place = names.index("satellite") * CONFIG.width
    np.testing.assert_allclose(found, whole[:, place : place + CONFIG.width], atol=1e-6)
    others = np.delete(whole, np.s_[place : place + CONFIG.width], axis=1)[1:]
    assert (others == others[0]).all()


def test_an_encoder_of_other_towers_is_refused(here: RegionData, carried: Checkpoint) -> None:
    narrow = _fresh(METHOD, here, CONFIG.model_copy(update={"width": 8}))
    with pytest.raises(DataError, match=r"(?s)of 'there' does not fit 'here'.*captions\.clip"):
        _branches(carried, narrow, "here", "there")


def test_towers_that_rested_come_from_this_city() -> None:
    names = {"satellite_backbone": "towers", "street_view_backbone": "towers"}
    config = MuseClConfig.model_validate(
        {"epochs": 1, "align_epochs": 1, "width": 8, "word_epochs": 1, "word_min_count": 1, **names}
    )
    there, other = (with_towers(fake_city(40, seed=seed)[0], TOWER) for seed in (1, 2))
    given = MUSECL.pretrain(there, config, seed=0, visible=np.ones(40, bool))
    cut = _branches(given, _fresh(MUSECL, other, config), "here", "there")
    assert not any(".visual." in name for name in cut.tensors)
    assert np.isfinite(MUSECL.embed(cut, other, config)).all()
    with pytest.raises(DataError, match="other towers"):
        strange = with_towers(other, TOWER, seed=6)
        _branches(given, _fresh(MUSECL, strange, config), "here", "there")


def test_what_is_no_encoder_is_carried_as_it_is(here: RegionData, carried: Checkpoint) -> None:
    assert _branches(carried, _fresh(POI, here, CONFIG), "here", "there") is carried


def town(lake: Lake, name: str, east_m: float) -> None:
    """A city of three squares of a kilometre in a row."""
    corners = 500_000 + east_m + 1000 * np.arange(3)
    squares = shapely.box(corners, 4_500_000, corners + 1000, 4_501_000)
    numbers = dict.fromkeys(["area_km2", "inside_share", "x_m", "y_m", "lon", "lat"], 1.0)
    frame = gpd.GeoDataFrame(
        {"region_id": ["r0", "r1", "r2"]} | numbers, geometry=squares, crs="EPSG:32618"
    )
    writer = table_writer(Checker(contract("regions")), frame, {"asset": "regions"})
    lake.commit(lake.stage(name, "regions", {"regions.parquet": writer}), fingerprint=name)


def test_a_city_that_shares_ground_is_a_leak(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    for name, east_m in (("here", 0), ("next_door", 3000), ("half_in", 1500)):
        town(lake, name, east_m)
    others = {(n, "regions"): lake.handle(n, "regions") for n in ("next_door", "half_in", "nil")}
    ctx = Context(
        city=load_city(ROOT / "cities" / "demo.yaml").view(()),
        inputs={"regions": lake.handle("here", "regions")},
        root="",
        name="here",
        asset="",
        progress=print,
        work=tmp_path,
        elsewhere=others,
    )
    _check_apart(ctx, "next_door")
    with pytest.raises(DataError, match="2 regions of 'here' lie in 'half_in'"):
        _check_apart(ctx, "half_in")
    with pytest.raises(DataError, match="'nil', which was never built"):
        _check_apart(ctx, "nil")
