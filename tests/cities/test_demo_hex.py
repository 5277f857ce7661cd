"""The hexagon city, small, through the job: MuseCL as it ships, and UrbanMMCL's graphs on hexagons."""

from __future__ import annotations

import base64
from pathlib import Path

import h3
import numpy as np
import pandas as pd
import pytest
import yaml

from model_code.demo.city_yaml import city_yaml
from resources.lake import Lake, read
from tests.assets.test_captions import SMALL_CLIP
from tests.tiny import Place, make_place


@pytest.fixture(scope="module")
def hexagons(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = make_place(tmp_path_factory.mktemp("hexagons") / "place")
    config = yaml.safe_load(city_yaml(place.city, regions=16, seed=13, hexagons=8, seeds=(0,)))
    (musecl,) = (m for name, m in config["methods"].items() if name == "musecl")
    musecl["config"] |= {"epochs": 1}
    musecl["variants"] = {"without_satellite": {"satellite": False}}
    graphs = {"config": {"epochs": 1, "width": 8, "text": False, "neighbours": 3, "batch": 8}}
    config["methods"] = {"musecl": musecl, "urbanmmcl": graphs}
    config["splits"] = {"random": {}}
    place.write(config | {"captions": {"clip": SMALL_CLIP}})
    done = place.run(*place.job())
    assert done.returncode == 0, done.stderr[-3000:]
    return place


def table(place: Place, name: str) -> pd.DataFrame:
    return read(name, city=place.city, lake=str(place.root / "lake"))


def test_regions_are_cells_of_h3_and_every_method_is_scored_on_them(hexagons: Place) -> None:
    regions = table(hexagons, "regions")
    assert {h3.get_resolution(cell) for cell in regions["region_id"]} == {8}
    board = table(hexagons, "leaderboard")
    assert set(zip(board["method"], board["variant"], strict=True)) == {
        ("musecl", "default"), ("musecl", "without_satellite"), ("urbanmmcl", "default"),
    }  # fmt: skip
    scored = board[(board["metric"] == "r2") & (board["n_test"] > 1)]
    told = scored.groupby(["method", "variant"])["value"].agg(lambda v: np.isfinite(v).any())
    assert len(told) == 3 and told.all()  # each of them
    lake = Lake(str(hexagons.root / "lake"))
    assert not lake.handle(hexagons.city, "captions").exists  # UrbanMMCL is told to read none


def test_triplets_are_two_more_regions_for_each_anchor(hexagons: Place) -> None:
    known = set(table(hexagons, "regions")["region_id"])
    triplets = table(hexagons, "musecl_triplets")
    assert set(triplets["view"]) == {"satellite", "street_view"}
    for _, rows in triplets.groupby(["view", "triplet"]):
        by_role = rows.set_index("role")
        assert set(by_role.index) == {"anchor", "positive", "negative"}
        assert by_role["region_id"].is_unique and set(by_role["region_id"]) <= known
        assert by_role.loc["positive", "similarity"] >= by_role.loc["negative", "similarity"]


def test_each_view_of_the_graphs_has_links_between_regions(hexagons: Place) -> None:
    known = set(table(hexagons, "regions")["region_id"])
    rows = table(hexagons, "urbanmmcl_graphs")
    assert set(rows["view"]) == {"distance", "function", "mobility"}
    assert set(rows["region_a"]) | set(rows["region_b"]) <= known
    assert (rows["region_a"] != rows["region_b"]).all() and (rows["weight"] > 0).all()


def test_the_whole_embedding_and_its_parts_are_on_the_page(hexagons: Place) -> None:
    rows = table(hexagons, "urbanmmcl_views")
    known = table(hexagons, "regions")["region_id"]
    assert set(rows["view"]) == {"distance", "function", "mobility", "modalities", "whole"}
    assert (rows.groupby("view")["region_id"].apply(set) == set(known)).all()
    first = table(hexagons, "urbanmmcl_embeddings").query("variant == 'default'")
    whole = rows[rows["view"] == "whole"]
    for one, other in zip(first["embedding"], whole["vector"], strict=True):
        np.testing.assert_array_equal(one, other)
    lake = Lake(str(hexagons.root / "lake"))
    assert "picture.png" in lake.handle(hexagons.city, "urbanmmcl_views").files
    page = (hexagons.root / "lake" / hexagons.city / "report.html").read_text(encoding="utf-8")
    assert "Look-alikes, by all and by each part" in page and "rank correlation" in page
    assert "Predictions for single regions" in page


def test_the_report_shows_triplets_and_graphs(hexagons: Place) -> None:
    lake = Lake(str(hexagons.root / "lake"))
    page = (hexagons.root / "lake" / hexagons.city / "report.html").read_text(encoding="utf-8")
    for asset, begins in (
        ("musecl_triplets", "What MuseCL learns from"),
        ("urbanmmcl_graphs", "UrbanMMCL&#39;s graphs"),
    ):
        drawn = Path(lake.handle(hexagons.city, asset).path("picture.png")).read_bytes()
        start = page.index(base64.b64encode(drawn).decode())
        figure = page[start : page.index("</figure>", start)]
        assert f"<figcaption>{begins}" in figure
