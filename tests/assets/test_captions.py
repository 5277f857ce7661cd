"""Captions, what methods make of them, and transfer, through the real job on a tiny city."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image, ImageOps

from assets.inputs import region_data
from resources.lake import Lake, read
from tests.tiny import Place, make_place

SMALL_CLIP = {
    "pairs": 64, "held_out": 16, "epochs": 1, "batch": 16, "image_width": 32, "image_layers": 1,
    "text_width": 32, "text_layers": 1, "embed_dim": 16,
}  # fmt: skip


def with_captions(config: dict[str, Any]) -> dict[str, Any]:
    methods = {
        "urbanvlp": {"config": {"epochs": 1, "width": 8, "batch": 8}}, "shares": {},
        "urbanmoe": {"config": {"epochs": 1, "hidden": 8, "width": 4, "n_specific": 1, "n_pair": 1}},
    }  # fmt: skip
    splits = {"random": {}}
    return {
        **config, "captions": {"clip": SMALL_CLIP}, "methods": methods, "splits": splits, "seeds": [0],
    }  # fmt: skip


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A tiny city with captions and UrbanVLP, built by the job."""
    place = make_place(tmp_path_factory.mktemp("captioned") / "place", regions=12, seed=5)
    place.write(with_captions(place.config()))
    done = place.run(*place.job())
    assert done.returncode == 0, done.stderr[-3000:]
    return place


def table(place: Place, name: str, city: str = "tiny") -> pd.DataFrame:
    return read(name, city=city, lake=str(place.root / "lake"))


def page(place: Place, city: str = "tiny") -> str:
    return (place.root / "lake" / city / "report.html").read_text(encoding="utf-8")


def kept_rows(place: Place, asset: str, kind: str) -> int:
    folder = place.root / "lake" / "tiny" / asset / "rows" / kind
    return sum(len(pd.read_parquet(path)) for path in folder.iterdir())


def test_every_picture_has_one_calibrated_caption_of_its_tries(captioned: Place) -> None:
    chips, views = table(captioned, "region_chips"), table(captioned, "region_street_views")
    best, tries = table(captioned, "calibrated_captions"), table(captioned, "captions")
    pictures = {("satellite", r) for r in chips["region_id"]}
    pictures |= {("street_view", v) for v in views["view_id"]}
    assert set(zip(best["view"], best["image_id"], strict=True)) == pictures
    counted = tries.groupby(["view", "image_id"])["attempt"].agg(["size", "max"])
    assert (counted["size"] == counted["max"] + 1).all()
    joined = best.set_index(["view", "image_id"])
    assert (joined["tries"] == counted["size"].reindex(joined.index)).all()
    key = ["view", "image_id", "attempt"]
    scored = table(captioned, "caption_scores")
    assert scored[key].equals(tries[key])
    top = scored.groupby(key[:2])["perception_score"].max().reindex(joined.index)
    assert (joined["perception_score"] == top)[joined["attempt"] >= 0].all()
    assert (best["kept"] == (best["reason"] == "")).all()


def test_the_leaderboard_says_who_wrote_the_texts_and_what_was_read(captioned: Place) -> None:
    board = table(captioned, "leaderboard").groupby("method").first()
    assert board.loc["urbanvlp", "captioner"].startswith("TemplateCaptioner ")
    assert board.loc["shares", "captioner"] == ""
    assert set(board.loc["urbanvlp", "inputs"].split(",")) == {
        "imagery", "street_views", "chip_captions", "view_captions", "view_locations",
    }  # fmt: skip


def test_texts_of_pois_come_in_the_order_of_the_regions(captioned: Place) -> None:
    lake = Lake(str(captioned.root / "lake"))
    handles = {name: lake.handle("tiny", name) for name in ("regions", "poi_texts")}
    data = region_data(handles, ("poi_texts",), 0.5)
    rows = table(captioned, "poi_texts").set_index("region_id").reindex(data.region_ids)
    for column, texts, region in (
        ("names", data.poi_names, data.poi_name_region),
        ("comments", data.poi_comments, data.poi_comment_region),
    ):
        told = rows[column].dropna().explode().dropna()
        assert texts.tolist() == told.tolist() and len(told) > 0
        assert data.region_ids[region].tolist() == told.index.tolist()


def test_a_method_that_routes_shows_its_experts(captioned: Place) -> None:
    board = table(captioned, "leaderboard").query("method == 'urbanmoe'")
    assert board["inputs"].unique().tolist() == ["imagery,poi_texts,pois"]
    assert set(board["captioner"]) == {""} and set(board["protocol"]) == {"supervised"}
    assert board.groupby("task")["target_in_inputs"].first()[["poi_count", "population"]].tolist() == [
        True, False,
    ]  # fmt: skip
    assert 'id="experts"' in page(captioned)


def test_the_report_shows_captions_of_each_view(captioned: Place) -> None:
    text = page(captioned)
    for view, pictures in table(captioned, "calibrated_captions").groupby("view"):
        for rank in ("best", "worst"):
            assert f'data-view="{view}" data-rank="{rank}"' in text
        assert f'<td class="num">{len(pictures)}</td>' in text
    assert text.count('class="caption-card') == text.count("What a painter makes") == 12 + 20
    assert 'id="transfer"' not in text


def test_what_is_trained_step_by_step_shows_its_losses(captioned: Place) -> None:
    lake = Lake(str(captioned.root / "lake"))
    drawn = {
        asset: "picture.png" in lake.handle("tiny", asset).files
        for asset in (
            "urbanvlp_checkpoint",
            "urbanvlp_finetuned",
            "shares_checkpoint",
            "urbanmoe_finetuned",
        )
    }
    assert drawn == {
        "urbanvlp_checkpoint": True, "urbanvlp_finetuned": False, "shares_checkpoint": False,
        "urbanmoe_finetuned": True,
    }  # fmt: skip


def test_one_changed_picture_costs_one_segmentation_and_its_own_tries(
    captioned: Place, tmp_path: Path
) -> None:
    place = captioned.copy(tmp_path / "place")
    stores = (("image_shares", "shares"), ("captions", "texts"))
    before = [kept_rows(place, *store) for store in stores]
    images = sorted((place.root / "data" / "tiny" / "street_views" / "images").glob("view_*.jpg"))
    ImageOps.mirror(Image.open(images[1])).save(images[0], quality=95)
    done = place.run(*place.job())
    assert done.returncode == 0, done.stderr[-3000:]
    after = [kept_rows(place, *store) for store in stores]
    tries = table(place, "calibrated_captions").set_index("image_id").loc[images[0].name, "tries"]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, tries]


def test_an_encoder_is_carried_to_a_city_that_was_not_seen(
    captioned: Place, tmp_path: Path
) -> None:
    place = captioned.copy(tmp_path / "place")
    north = Place(place.root, "north")
    config = yaml.safe_load(place.yaml.read_text().replace("tiny/", "north/"))
    config["simulator"] |= {"path": "north", "seed": 9, "north_km": 100}
    north.write({**config, "name": "north", "transfer": {"urbanvlp": ["tiny"]}})
    for job in ("whole_city", "transfer_encoders"):
        done = north.run(*north.job(job))
        assert done.returncode == 0, done.stderr[-3000:]
        assert ('id="transfer"' in page(place, "north")) == (job == "transfer_encoders")
        # The towers are of no city: whoever has them gives them.
        copied = [line for line in done.stderr.splitlines() if "copied from tiny" in line]
        assert [line.split(" · ")[1].split(":")[0] for line in copied] == (
            ["clip_checkpoint"] if job == "whole_city" else []
        )
    again = north.run(*north.job())
    assert "north · report: up to date" in again.stderr
    rows = table(place, "transfer", "north")
    assert set(rows["pretrained_on"]) == {"north", "tiny"}
    figures = rows[(rows["metric"] == "r2") & (rows["scale"] == "transformed")]
    assert figures.groupby("pretrained_on")["value"].count().nunique() == 1
