"""Captions, what methods make of them, and transfer, through the real job on a tiny city."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from PIL import Image, ImageOps

from assets import captions
from assets.inputs import Pictures, region_data
from assets.stage import STAGES
from model_code.city import Captions
from model_code.report import contact_sheet
from model_code.vision.model_choices import VIEWS
from model_code.vision.segmenters import TransformersSegmenter
from resources import backends
from resources.lake import Lake, read
from resources.rows import RowStore
from tests.assets.test_asking import context
from tests.assets.test_inputs import Table
from tests.model_code.vision import tiny_models
from tests.resources.captioners_server import now_and_then, serving
from tests.tiny import Place, make_place, unsigned

SMALL_CLIP = {
    "pairs": 64, "held_out": 16, "epochs": 1, "batch": 16, "image_width": 32, "image_layers": 1,
    "text_width": 32, "text_layers": 1, "embed_dim": 16,
}  # fmt: skip


def with_captions(config: dict[str, Any]) -> dict[str, Any]:
    methods = {
        "urbanvlp": {"config": {"epochs": 1, "width": 8, "batch": 8}}, "shares": {},
        "urbanmoe": {
            "config": {"epochs": 1, "hidden": 8, "width": 4, "n_specific": 1, "n_pair": 1},
            "variants": {"told": {"text_from": "descriptions", "image": False}},
        },
        "urbanmmcl": {
            "config": {
                "epochs": 1, "width": 8, "batch": 8, "neighbours": 3, "location_axes": 3, "latent": 4,
                "graph_hidden": 8, "graph_width": 4, "walk_length": 4, "walks": 1, "shared_negatives": 2,
            }
        },
    }  # fmt: skip
    splits = {"random": {}}
    return {
        **config, "captions": {"clip": SMALL_CLIP}, "methods": methods, "splits": splits, "seeds": [0],
    }  # fmt: skip


class Shown:
    """Pictures of a view."""

    size_px = (32, 48)

    def __init__(self, seed: int) -> None:
        shape = (3, *self.size_px, 3)
        self._pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
        self.image_id = self.region_id = np.array(["a", "b", "c"], object)

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, i: int) -> np.ndarray:
        return self._pixels[i]


def test_the_segmenter_of_a_view_goes_before_that_of_the_next_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def real(folder: Path, classes: str) -> dict[str, str]:
        return {"kind": "transformers", "model": str(folder), "classes": classes}

    models = {
        "satellite": real(tiny_models.mask2former(tmp_path / "mask2former"), "loveda"),
        "street_view": real(tiny_models.segformer(tmp_path / "segformer"), "ade20k"),
    }
    lake, opened, beside = Lake(str(tmp_path / "lake")), [], []
    load = TransformersSegmenter._load

    def noting(self: TransformersSegmenter) -> Any:
        beside.append([other.identity.model for other in opened if other._network.value])
        opened.append(self)
        return load(self)

    monkeypatch.setattr(TransformersSegmenter, "_load", noting)
    monkeypatch.setattr(
        captions,
        "_images",
        lambda ctx: [captions._Images(v, Shown(i)) for i, v in enumerate(models)],
    )
    ctx: Any = SimpleNamespace(
        city=SimpleNamespace(captions=Captions.model_validate({"segmenter": models})),
        rows=cache(
            lambda kind: RowStore(lake, "tiny", "image_shares", kind, pytest.fail, tidies=True)
        ),
        progress=lambda line: None,
    )
    found = STAGES["image_shares"].body(ctx).table
    assert found.groupby("view")["classes"].first().map(len).tolist() == [7, 150]
    assert beside == [[], []] and not any(of._network.value for of in opened)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A tiny city with captions and methods that read them, built by the job."""
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


def test_tables_of_captions_and_towers_say_what_they_were_made_from(captioned: Place) -> None:
    files = {"captions/caption_scores.parquet", "clip_checkpoint/satellite.json"}
    assert files < set(captioned.data_files())
    assert not unsigned(captioned)


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
    told = board[board["variant"] == "told"]
    assert told["inputs"].unique().tolist() == ["poi_descriptions,pois"]
    assert told["captioner"].str.startswith("TemplateCaptioner ").all() and len(told)
    texts = table(captioned, "poi_descriptions")
    assert (texts["status"] == "ok").all() and set(texts["prompt"]) == {""}
    board = board[board["variant"] == "default"]
    assert board["inputs"].unique().tolist() == ["imagery,poi_texts,pois"]
    assert set(board["captioner"]) == {""} and set(board["protocol"]) == {"supervised"}
    assert board.groupby("task")["target_in_inputs"].first()[["poi_count", "population"]].tolist() == [
        True, False,
    ]  # fmt: skip
    assert 'id="experts"' in page(captioned)


def test_the_outputs_of_the_experts_are_on_the_page(captioned: Place) -> None:
    rows = table(captioned, "urbanmoe_outputs")
    indicators = table(captioned, "indicators")["indicator"]
    tasks = [name for name in rows["task"].unique() if name in set(indicators)]
    assert len(tasks) == rows["task"].nunique() == min(3, len(indicators))
    assert set(rows["branch"]) == {"image", "text"}
    assert set(rows["kind"]) == {"own", "pair", "shared", "mixture"}
    each = rows.groupby(["branch", "task", "region_id"])["number"].agg(["size", "max"])
    assert (each["size"] == each["max"] + 1).all()  # each expert once, and the mixture
    mixture = rows["kind"] == "mixture"
    assert (rows["number"] == rows["number"].max()).eq(mixture).all()
    assert rows["spread"].isna().eq(mixture).all() and rows["axis_1"].notna().all()
    lake = Lake(str(captioned.root / "lake"))
    assert "picture.png" in lake.handle("tiny", "urbanmoe_outputs").files
    assert "outputs of the experts" in page(captioned)


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


def test_one_changed_picture_costs_one_segmentation_its_own_tries_and_their_scores(
    captioned: Place, tmp_path: Path
) -> None:
    place = captioned.copy(tmp_path / "place")
    stores = (("image_shares", "shares"), ("captions", "texts"), ("captions", "scores"))
    before = [kept_rows(place, *store) for store in stores]
    images = sorted((place.root / "data" / "tiny" / "street_views" / "images").glob("view_*.jpg"))
    ImageOps.mirror(Image.open(images[1])).save(images[0], quality=95)
    done = place.run(*place.job())
    assert done.returncode == 0, done.stderr[-3000:]
    after = [kept_rows(place, *store) for store in stores]
    tries = table(place, "calibrated_captions").set_index("image_id").loc[images[0].name, "tries"]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, tries, tries]


KEY = "sk-S3NTINEL-0123456789"


def test_contact_sheets_read_each_row_group_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures stand by region in their table and on the sheets, whatever they are called, and
    however the captions are ordered."""
    monkeypatch.setattr(contact_sheet, "PAIRS", 6)
    rng = np.random.default_rng(0)
    shown, names = rng.integers(0, 256, (24, 16, 16, 3), np.uint8), rng.permutation(24)
    columns = {
        "view_id": [f"v{i:02d}" for i in names], "region_id": [f"r{i:02d}" for i in range(24)],
        "pixels": [picture.tobytes() for picture in shown],
        "height_px": pa.array([16] * 24, pa.int32()), "width_px": pa.array([16] * 24, pa.int32()),
    }  # fmt: skip
    table = Table(tmp_path / "views.parquet", columns, 2)
    held = Pictures(table, "street_view", 0.0)
    ctx = context(tmp_path / "lake")
    painter = captions._Keeping(
        ctx, backends.painter(ctx.city.captions.painter, "street_view", (16, 16))
    )
    tries = pd.DataFrame(
        {
            "view": "street_view",
            "image_id": held.image_id,
            "attempt": 0,
            "text": "A road.",
            "seed": 1,
        }
    )
    images = captions._Images("street_view", held)
    best = tries.drop(columns="seed").sort_values("image_id")
    best["text"] = best["text"].mask(best["image_id"] == held.image_id[7], "")  # none was written
    sheets = captions._sheets(ctx, images, painter, best, tries)
    assert [*sheets] == [f"painted_street_view_{i:04d}.jpg" for i in range(4)]
    for name, write in sheets.items():
        write(tmp_path / name)
    assert held._group.cache_info().misses == 12
    painted = painter.kept(ctx, ["A road."] * 24, [1] * 24)
    rows = [i for i in range(24) if i != 7][6:12]
    wanted = contact_sheet.sheet(shown[rows], painted[:6], [columns["view_id"][i] for i in rows])
    assert (tmp_path / "painted_street_view_0001.jpg").read_bytes() == wanted


def says(place: Place, *command: str) -> str:
    done = place.run("python", "-m", "pipelines.cli", *command)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def missing(told: str) -> list[int]:
    """How many asks a dry run counts as missing, by group."""
    return [int(line.split()[-3]) for line in told.splitlines() if "to ask" in line]


def everything_written(place: Place) -> bytes:
    """All that is left of a run: the lake with its manifests, and Dagster's records."""
    files = [*(place.root / "lake").rglob("*"), *(place.root / "home").rglob("*")]
    return b"".join(path.read_bytes() for path in files if path.is_file())


def test_a_server_that_misbehaves_loses_no_row_and_error_rows_alone_are_asked_again(
    captioned: Place, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    place, faults = captioned.copy(tmp_path / "place"), now_and_then(0.2)
    told = says(place, "captions", "tiny", "--dry-run")
    assert missing(told) == [0, 0, 0] and "captioner: TemplateCaptioner " in told

    def fault(number: int, body: dict[str, Any]) -> str:
        if number % 25 == 7:
            return "poisoned"
        return faults(number, body).replace("slow", "busy")

    with serving(fault) as server:
        config = place.config()
        config["captions"] |= {
            "captioner": {
                "kind": "openai", "base_url": server.url, "model": "tiny-vl", "revision": "r1",
                "api_key_env": "A_KEY", "batch": 16, "backoff_s": 0.01, "timeout_s": 30.0,
            },
            "calibration": {view: {"threshold": 0, "floor": 0} for view in VIEWS},
        }  # fmt: skip
        place.write(config)

        def run() -> str:
            done = place.run(*place.job("up_to_captions"), env={**place.env, "A_KEY": KEY})
            assert done.returncode == 0, done.stderr[-3000:]
            return done.stdout + done.stderr

        said = run()
        first, described = table(place, "captions"), table(place, "poi_descriptions")
        asked = len(server.requests)
        bad = first[first["status"] == "error"]
        failed = len(bad) + int((described["status"] == "error").sum())
        assert failed == server.met()["poisoned"] > 2
        assert bad["error"].unique().tolist() == ["HTTP 400: cannot decode the image"]
        assert asked == first["requests"].sum() + described["requests"].sum()
        record_property(
            "figure", f"{asked} requests, {asked - server.met()['']} faults, "
                      f"{len(first) + len(described)} rows, {failed} of them errors",
        )  # fmt: skip

        # Each picture has its one row; what is no error is what the server said to it.
        assert (
            len(first)
            == len(table(place, "calibrated_captions"))
            == len(table(place, "image_shares"))
        )
        good = first[first["status"] == "ok"]
        assert good["text"].str.match(r"A street with trees and houses, number \d+\.").all()
        assert set(good["captioner"]) == {"tiny-vl r1"}
        assert set(good["settings"]) == {'{"max_tokens": 512}'}
        prompts = first.groupby("view")["prompt"].agg(
            lambda ids: " ".join({i.split()[0] for i in ids})
        )
        assert prompts.to_dict() == {"satellite": "satellite.v1", "street_view": "street_view.v1"}
        assert (good["took_s"] > 0).all() and (good["tokens_out"] >= 20).all()
        assert described["prompt"].str.startswith("pois.v1 ").all()
        told = says(place, "captions", "tiny", "--dry-run")
        assert sum(missing(told)) == failed and "measured on" in told
        assert f"{len(bad)} asks that failed are made again" in says(place, "explain", "tiny")

        # The same asks, which alone are made again, fail again: what is downstream stays.
        server.fault = lambda number, body: "poisoned"
        said += run()
        assert len(server.requests) == asked + failed
        line = next(line for line in said.splitlines()[::-1] if " calibrated_captions: " in line)
        assert "up to date" in line

        # They succeed: rows that were there are as they were.
        server.fault = lambda number, body: ""
        said += run()
        assert len(server.requests) == asked + 2 * failed
        second = table(place, "captions")
        assert set(second["status"]) == {"ok"}
        key = ["view", "image_id"]
        old = good.set_index(key)
        pd.testing.assert_frame_equal(second.set_index(key).loc[old.index], old)
        assert server.keys == {f"Bearer {KEY}"}
    assert "S3NTINEL" not in said and b"S3NTINEL" not in everything_written(place)


def test_an_encoder_is_carried_to_a_city_that_was_not_seen(
    captioned: Place, tmp_path: Path
) -> None:
    place = captioned.copy(tmp_path / "place")
    north = Place(place.root, "north")
    config = yaml.safe_load(place.yaml.read_text().replace("tiny/", "north/"))
    config["simulator"] |= {"path": "north", "seed": 9, "north_km": 100}
    tuned = {"mode": "finetune", "tuning": {"epochs": 1, "encoder_learning_rate": 1e-3}}
    config["methods"]["urbanvlp"]["config"] |= tuned
    carried = {method: ["tiny"] for method in ("urbanvlp", "urbanmmcl")}
    north.write({**config, "name": "north", "transfer": carried})
    for job in ("whole_city", "transfer_encoders"):
        done = north.run(*north.job(job))
        assert done.returncode == 0, done.stderr[-3000:]
        assert ('id="transfer"' in page(place, "north")) == (job == "transfer_encoders")
        # The towers are of no city: whoever has them gives them.
        copied = [line for line in done.stderr.splitlines() if "copied from tiny" in line]
        assert [line.split(" · ")[1].split(":")[0] for line in copied] == (
            ["clip_checkpoint"] if job == "whole_city" else []
        )
    assert not unsigned(north)
    again = north.run(*north.job())
    assert "north · report: up to date" in again.stderr
    rows = table(place, "transfer", "north")
    figures = rows[(rows["metric"] == "r2") & (rows["scale"] == "transformed")]
    each = figures.pivot_table(index=["method", "task"], columns="pretrained_on", values="value")
    assert set(each.index.get_level_values("method")) == set(carried)
    assert list(each) == ["north", "tiny"] and np.isfinite(each).all(axis=None)
    assert (each["north"] != each["tiny"]).all()
    # Graph parts that start anew have seen all regions of this city, and the encoder as it came none.
    came = rows[rows["pretrained_on"] == "tiny"].groupby("method")["protocol"].unique()
    assert came.map(list).to_dict() == {"urbanvlp": ["inductive"], "urbanmmcl": ["transductive"]}
