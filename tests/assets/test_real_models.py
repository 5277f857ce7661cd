"""Captions of a tiny city by real models of tiny random weights, named in its YAML: nothing above the
protocols changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from model_code.vision.model_choices import VIEWS
from resources.lake import Lake, read
from tests.model_code.vision import tiny_models
from tests.tiny import Place, make_place


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A city whose captions SegFormer, Mask2Former, SDXL and open_clip judge."""
    folder = tmp_path_factory.mktemp("real")
    place = make_place(folder / "place", regions=12, seed=5)
    models = folder / "models"
    segmenter = {
        "street_view": {
            "kind": "transformers", "model": str(tiny_models.segformer(models / "segformer")),
            "classes": "ade20k",
        },
        "satellite": {
            "kind": "transformers", "model": str(tiny_models.mask2former(models / "mask2former")),
            "classes": "loveda",
        },
    }  # fmt: skip
    painter = {
        "kind": "sdxl", "model": str(tiny_models.sdxl(models / "sdxl")), "steps": 1,
        "size_px": [32, 32], "batch": 16, "scheduler": "DDIMScheduler",
    }  # fmt: skip
    clip = {
        "kind": "open_clip", "model": tiny_models.CLIP_MODEL, "held_out": 8,
        "weights": tiny_models.open_clip_state(models / "clip.pt"),
    }  # fmt: skip
    captions = {
        "segmenter": segmenter, "painter": painter, "clip": clip, "memory_gib": 0.001,
        "keep_painted": True, "calibration": {v: {"retries": 1, "floor": 0.0} for v in VIEWS},
    }  # fmt: skip
    methods = {
        "urbanvlp": {"config": {"epochs": 1, "width": 8, "batch": 8}}, "shares": {}, "features": {},
        "clip_probe": {},
        "urbanmoe": {"config": {"epochs": 1, "hidden": 8, "width": 4, "n_specific": 1, "n_pair": 1}},
    }  # fmt: skip
    place.write(
        {**place.config(), "captions": captions, "image_encoder": "clip", "methods": methods, "splits": {"random": {}},
         "seeds": [0]}
    )  # fmt: skip
    done = place.run(*place.job())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return place


def table(place: Place, name: str) -> pd.DataFrame:
    return read(name, city="tiny", lake=str(place.root / "lake"))


def test_each_view_is_measured_in_the_classes_of_its_segmenter(painted: Place) -> None:
    shares = table(painted, "image_shares").groupby("view").first()
    assert {view: len(row["classes"]) for view, row in shares.iterrows()} == {
        "satellite": 7, "street_view": 150,
    }  # fmt: skip
    assert shares["segmenter"].str.split().str[0].to_dict() == {
        "satellite": "mask2former", "street_view": "segformer",
    }  # fmt: skip


def test_every_caption_that_was_written_has_all_scores(painted: Place) -> None:
    scores = table(painted, "caption_scores")
    texts = table(painted, "captions")["text"] != ""
    assert texts.all()
    for name in ("clip_cosine", "clip_score", "cycle_score", "cycle_paper", "perception_score"):
        assert scores[name].between(-1, 1).all()
    # 150 classes keep the printed score from falling below 1 - 2 / 150.
    streets = scores[scores["view"] == "street_view"]
    assert (streets["cycle_paper"] >= 1 - 2 / 150).all() and streets["cycle_score"].min() < 0.9


def test_frozen_features_of_every_picture_are_those_of_the_towers(painted: Place) -> None:
    features = table(painted, "image_features")
    pictures = table(painted, "image_shares")
    assert features["image_id"].tolist() == pictures["image_id"].tolist()
    assert features["encoder"].str.startswith("open_clip ").all()
    vectors = np.stack(features["feature"].to_list())
    assert vectors.shape[1] == tiny_models.CLIP_MODEL["embed_dim"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_ui_is_told_how_scores_are_spread(painted: Place) -> None:
    lake = Lake(str(painted.root / "lake"))
    scores = lake.handle("tiny", "caption_scores").metadata("street_view")
    assert scores["cycle_score"]["p05"] <= scores["cycle_score"]["p95"]
    best = lake.handle("tiny", "calibrated_captions").metadata("satellite")
    assert best["pictures"] == 12 and sum(best["pictures_by_tries"].values()) == 12


def test_paintings_are_kept_beside_their_sources(painted: Place) -> None:
    lake = Lake(str(painted.root / "lake"))
    files = [f for f in lake.handle("tiny", "captions").files if f.startswith("painted_")]
    assert {f.rsplit("_", 1)[0] for f in files} == {"painted_satellite", "painted_street_view"}


def test_methods_and_report_stand_on_them(painted: Place) -> None:
    board = table(painted, "leaderboard")
    assert set(board["method"]) == {
        "urbanvlp", "shares", "features", "clip_probe", "urbanmoe",
    }  # fmt: skip
    page = (painted.root / "lake" / "tiny" / "report.html").read_text(encoding="utf-8")
    assert "What a painter makes of the caption" in page


def test_another_run_finds_everything_up_to_date(painted: Place) -> None:
    again = painted.run(*painted.job())
    assert again.returncode == 0, again.stderr[-2000:]
    for asset in ("image_shares", "image_features", "captions", "clip_checkpoint", "report"):
        assert f"tiny · {asset}: up to date" in again.stderr
