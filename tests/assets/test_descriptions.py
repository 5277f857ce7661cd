"""Descriptions and LMEMR through the real job on a tiny city, and what lies upstream of them."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import nn

import pipelines.definitions  # noqa: F401 (fills the registry of stages)
from assets import captions, descriptions
from assets.asking import Remembering
from assets.descriptions import forecast_of
from assets.inputs import region_data
from assets.methods import _contrasted
from assets.stage import STAGES
from model_code.backends import Ask
from model_code.city import Captions
from model_code.errors import DataError
from model_code.methods import METHODS
from model_code.text.levels import HOURS
from model_code.text.prompts import prompt_id
from model_code.vision.loading import Loaded, Memory
from resources import backends
from resources.lake import Lake, read
from tests.assets.held_pictures import HeldPictures
from tests.assets.test_asking import context as asking
from tests.assets.test_captions import SMALL_CLIP, missing, says
from tests.assets.test_features import Held
from tests.resources.captioners_server import serving
from tests.resources.tiny_models import save_llava
from tests.tiny import Place, make_place

HOURLY = [name for name, spec in METHODS.items() if spec.predicts == ("hourly",)]


def with_descriptions(config: dict[str, Any]) -> dict[str, Any]:
    small = {"width": 8, "heads": 2, "blocks": 1, "temporal_layers": 1, "epochs": 1}
    methods = {
        "lmemr": {
            "config": small,
            "variants": {"lite": {"prompt": "lite"}, "lone": {"inter": False}},
        },
        "hourly_linear": {"config": {"components": 2}},
    }
    indicators = {k: config["indicators"][k] for k in ("population", "hourly_outflow")}
    return {
        **config, "captions": {"clip": SMALL_CLIP}, "methods": methods, "splits": {"random": {}},
        "seeds": [0], "indicators": indicators,
    }  # fmt: skip


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A tiny city with LMEMR, built by the job."""
    place = make_place(tmp_path_factory.mktemp("described") / "place", regions=12, seed=5)
    place.write(with_descriptions(place.config()))
    done = place.run(*place.job())
    assert done.returncode == 0, done.stderr[-3000:]
    return place


def table(place: Place, name: str) -> pd.DataFrame:
    return read(name, city="tiny", lake=str(place.root / "lake"))


def test_every_modality_of_every_region_is_described_once_a_form(described: Place) -> None:
    told = table(described, "region_descriptions")
    regions = {
        "satellite": table(described, "region_chips")["region_id"],
        "street_view": table(described, "region_street_views")["region_id"],
        "heights": table(described, "heights")["region_id"],
        "pois": table(described, "poi_counts")["region_id"],
    }
    for (_, modality), rows in told.groupby(["form", "modality"]):
        assert set(rows["region_id"]) == set(regions[modality])
    assert set(told["form"]) == {"levels", "levels_lite"}
    good = told[told["error"] == ""]
    assert len(good) > 0.9 * len(told)
    assert (good["departures"].map(len) == HOURS).all() and good["activity"].notna().all()
    assert good["text"].str.contains("Departures by hour").all()
    lite = good["form"] == "levels_lite"
    spread = good.groupby(lite)["activity"].std()
    assert spread[True] < spread[False]
    assert told["captioner"].str.startswith("TemplateCaptioner ").all()


def test_descriptions_are_encoded_in_the_order_of_the_regions(described: Place) -> None:
    lake = Lake(str(described.root / "lake"))
    handles = {
        name: lake.handle("tiny", name) for name in ("regions", "description_features", "adjacency")
    }
    data = region_data(handles, ("descriptions", "adjacency"), 0.5)
    assert data.descriptions is not None and data.neighbours is not None
    features = table(described, "description_features")
    for (form, modality), rows in data.descriptions.items():
        own = features.query(f"form == '{form}' and modality == '{modality}'").set_index(
            "region_id"
        )
        for region, row in zip(data.region_ids, rows, strict=True):
            if region in own.index and len(own.loc[region, "feature"]):
                np.testing.assert_array_equal(own.loc[region, "feature"], row)
            else:
                assert np.isnan(row).all()
    borders = table(described, "adjacency")
    named = {tuple(pair) for pair in data.region_ids[data.neighbours].tolist()}
    assert named == set(zip(borders["region_id"], borders["neighbour_id"], strict=True))


def test_captions_that_nothing_reads_are_not_made(described: Place) -> None:
    lake = Lake(str(described.root / "lake"))
    assert lake.handle("tiny", "captions").left_out
    assert not lake.handle("tiny", "image_shares").left_out


def test_the_leaderboard_says_what_was_read_and_predicted(described: Place) -> None:
    board = table(described, "leaderboard")
    assert set(board["task"]) == {"hourly_outflow"}  # no other is predicted by these methods
    own = board.query("method == 'lmemr'").iloc[0]
    assert set(own["inputs"].split(",")) == {
        "imagery", "buildings", "street_views", "pois", "descriptions",
    }  # fmt: skip
    assert (
        own["captioner"].startswith("TemplateCaptioner ")
        and own["protocol"] == "supervised, transductive"
    )
    assert not board["target_in_inputs"].any()
    assert board.query("method == 'hourly_linear'")["captioner"].unique().tolist() == [""]
    metrics = set(board.query("scale == 'original'")["metric"])
    assert metrics == {"r2", "rmse", "mae", "mape"}
    assert "accuracy" in set(board.query("scale == 'transformed'")["metric"])
    hours = table(described, "hourly_metrics")
    assert set(hours["method"]) == {"lmemr", "hourly_linear"}
    assert sorted(hours["hour"].unique()) == list(range(24))


def test_the_attention_of_the_checkpoint_is_on_the_page(described: Place) -> None:
    given = table(described, "lmemr_attention")
    borders = table(described, "adjacency")
    assert len(given) == given["modality"].nunique() * len(borders) > 0
    sums = given.groupby(["modality", "region_id"])["weight"].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    lake = Lake(str(described.root / "lake"))
    handle = lake.handle("tiny", "lmemr_attention")
    states = handle.frame(file="states.parquet")
    assert set(states["contrast"]) == {"with", "without"}
    assert set(states["projection"]) == {"pca"}  # 12 regions
    assert "picture.png" in handle.files
    page = lake.handle("tiny", "report").path("report.html").read_text("utf-8")
    assert "Graph attention of single regions" in page
    assert "Modalities, with and without the contrast between them" in page


def test_the_variant_without_contrast_differs_in_nothing_else() -> None:
    plain = {"inter": True, "width": 8}
    variants = {"default": plain, "wide": {**plain, "width": 9, "inter": False}}
    assert _contrasted(variants, "default") == {"with": "default"}
    variants["lone"] = {**plain, "inter": False}
    assert _contrasted(variants, "default") == {"with": "default", "without": "lone"}
    assert _contrasted({"default": variants["lone"]}, "default") == {"without": "default"}


def test_a_rerun_asks_for_nothing_again(described: Place, tmp_path: Path) -> None:
    """Not even where a changed setting makes the table anew; only what is new is asked for."""
    place = described.copy(tmp_path / "place")
    folder = place.root / "lake" / "tiny" / "region_descriptions" / "rows" / "texts"
    before = sum(len(pd.read_parquet(path)) for path in folder.iterdir())
    config = place.config()
    config["captions"] = {**config["captions"], "descriptions": {"tries": 2}}
    place.write(config)
    asset = ("--select", "region_descriptions", "--partition", "tiny")
    dagster = (sys.executable, "-W", "ignore", "-m", "dagster", "asset", "materialize")
    done = place.run(*dagster, "-m", "pipelines.definitions", *asset)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sum(len(pd.read_parquet(path)) for path in folder.iterdir()) == before


def test_a_dry_run_counts_what_is_described(described: Place, tmp_path: Path) -> None:
    told = says(described, "captions", "tiny", "--dry-run").partition(
        "region_descriptions of tiny"
    )[2]
    counted = {}
    for line in told.splitlines():
        if "to ask" in line:
            modality, form, *figures = line.split()
            counted[modality, form] = [int(figures[i]) for i in (0, 3, 5)]
    rows = table(described, "region_descriptions").groupby(["modality", "form"])["text"]
    assert counted and counted.keys() == rows.groups.keys()
    for key, (asks, cached, left) in counted.items():
        # Equal content is one ask; a second try is told, and not counted.
        assert 0 < asks <= len(rows.get_group(key)) and [cached, left] == [asks, 0]
    assert "at most 2 times each" in told and "holds no three levels" in told
    place = described.copy(tmp_path / "place")
    config = place.config()
    config["captions"] = {**config["captions"], "seed": 9}
    place.write(config)
    told = says(place, "captions", "tiny", "--dry-run").partition("region_descriptions of tiny")[2]
    assert missing(told) == [asks for asks, *_ in counted.values()]


# --- answers that fail ---------------------------------------------------------------------------


@pytest.fixture
def streets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """What the stage sees of a city of street views, a picture a region, and of a server."""

    def stage_of(regions: int, url: str, **captioner: Any) -> Any:
        pixels = np.random.default_rng(0).integers(0, 256, (regions, 8, 8, 3), dtype=np.uint8)
        held = Held(pixels)
        held.region_id = np.array([f"r{i}" for i in range(regions)], object)
        monkeypatch.setattr(descriptions, "Pictures", lambda *given: held)
        nothing = ([], np.empty((regions, 0), np.float32))
        monkeypatch.setattr(descriptions, "measured_shares", lambda *given: nothing)
        ctx = asking(tmp_path, base_url=url, **captioner)
        ctx.name, ctx.settings = "tiny", {"forms": ["levels"], "prompts": {}}
        ctx.inputs = {"region_street_views": None, "image_shares": None}
        ctx.has = lambda table: True
        return ctx

    return stage_of


def test_an_error_is_a_row_and_is_asked_again_alone(streets: Callable[..., Any]) -> None:
    poisoned: set[str] = set()

    def fault(number: int, body: dict[str, Any]) -> str:
        picture = json.dumps(body["messages"])
        if not number:
            poisoned.add(picture)
        return "poisoned" if picture in poisoned else ""

    with serving(fault) as server:
        ctx = streets(5, server.url, concurrency=1)
        assert forecast_of(ctx).groups == (("street_view levels", 5, 0),)
        assert forecast_of(ctx).missing == 5 and not server.requests
        made = STAGES["region_descriptions"].body(ctx)
        rows = made.table
        assert len(rows) == rows["region_id"].nunique() == 5 and len(server.requests) == 5
        (bad,) = rows[rows["error"] != ""].to_dict("records")
        assert bad["error"] == "HTTP 400: cannot decode the image" and bad["status"] == "error"
        assert bad["text"] == bad["land"] == "" and np.isnan(bad["activity"])
        assert len(bad["departures"]) == 0 and (bad["tries"], bad["requests"]) == (1, 1)
        assert bad["prompt"].startswith("levels.") and bad["captioner"] == "tiny-vl r1"
        good = rows[rows["error"] == ""]
        assert (good["status"] == "ok").all() and (good["activity"] == 40).all()
        assert made.unanswered["count"] == 1 and made.metadata["failed"] == 1
        assert forecast_of(ctx).groups == (("street_view levels", 5, 4),)
        poisoned.clear()
        again = STAGES["region_descriptions"].body(streets(5, server.url))
        assert len(server.requests) == 6 and not again.unanswered
        assert (again.table["error"] == "").all()


@pytest.mark.parametrize(
    ("fault", "told"), [("poisoned", "cannot decode the image"), ("empty", "an empty answer")]
)
def test_where_all_answers_fail_the_stage_says_why(
    streets: Callable[..., Any], fault: str, told: str
) -> None:
    with serving(lambda number, body: fault) as server:
        ctx = streets(3, server.url, max_tries=1)
        with pytest.raises(DataError, match=f"no region is described; the first failed .*{told}"):
            STAGES["region_descriptions"].body(ctx)
        assert forecast_of(ctx).missing == 3
        # Refused for good is asked once; what is malformed, as often as the config says.
        assert len(server.requests) == 3 * (1 if fault == "poisoned" else 3)


def test_of_many_regions_the_pictures_of_a_batch_or_two_are_held(
    streets: Callable[..., Any],
) -> None:
    held = HeldPictures()

    def made(i: int) -> Ask:
        return Ask("satellite", held.picture(i))

    regions = np.array([f"r{i}" for i in range(40)], object)
    subjects = descriptions._Subjects("satellite", regions, list(range(40)), made)
    wrong: set[str] = set()

    def fault(number: int, body: dict[str, Any]) -> str:
        """Every third ask fails as long as it is the first try."""
        if number < 40 and number % 3 == 0:
            wrong.add(str(number))
            return "wrong_schema"
        return ""

    with serving(fault) as server:
        ctx = streets(1, server.url, batch=4, concurrency=1, max_tries=1)
        captioner = Remembering(ctx, backends.captioner(ctx.city.captions), "described")
        found = descriptions._describe(ctx, captioner, subjects, "levels")
        assert len(server.requests) == 40 + len(wrong)
    assert 4 <= held.most <= 2 * 4 + 1
    again = np.array(found["tries"]) == 2
    assert again.tolist() == [i % 3 == 0 for i in range(40)] and not any(found["error"])
    first = descriptions._seeds(ctx, subjects)
    assert found["seed"] == [s + int(a) for s, a in zip(first, again, strict=True)]
    assert found["temperature"] == [0.5 if a else 0.0 for a in again]
    assert set(found["prompt"]) == {prompt_id("levels")}


def test_a_captioner_goes_with_its_stage_also_when_that_fails(
    streets: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one, of which an answer that holds no three levels is all that comes."""
    choice = {"kind": "transformers", "model": str(save_llava(tmp_path / "llava")),
              "max_tokens": 4, "max_tries": 1, "device": "cpu"}  # fmt: skip
    ctx = streets(1, "http://nowhere.invalid/v1")
    ctx.city.captions = Captions.model_validate({"captioner": choice, "descriptions": {"tries": 1}})
    models, use = list[weakref.ref[Any]](), Memory.use

    def noted(self: Memory, model: Any) -> Any:
        value = use(self, model)
        models.append(weakref.ref(value[1]))
        return value

    monkeypatch.setattr(Memory, "use", noted)
    gc.disable()
    try:
        with pytest.raises(DataError, match="no region is described"):
            STAGES["region_descriptions"].body(ctx)
        assert models and {model() for model in models} == {None}
    finally:
        gc.enable()


def test_what_captions_are_made_with_goes_with_their_stage(
    streets: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms: list[Memory] = []

    def fails(ctx: Any, memory: Memory) -> None:
        rooms.append(memory)
        Loaded("judge", lambda: nn.Linear(2, 2), memory, lambda module: [module])()
        raise DataError("the judge is of no use")

    monkeypatch.setattr(captions, "_captions", fails)
    with pytest.raises(DataError, match="of no use"):
        STAGES["captions"].body(streets(1, "http://nowhere.invalid/v1"))
    assert [room.held for room in rooms] == [()]


# --- what is never an input ----------------------------------------------------------------------


def upstream(asset: str, stop: frozenset[str] = frozenset()) -> set[str]:
    """All assets that one rests on, without going through those at which to stop."""
    found: set[str] = set()
    todo = [asset]
    while todo:
        for name in STAGES[todo.pop()].inputs:
            if name not in found and name not in stop:
                found.add(name)
                todo.append(name)
    return found


TRIPS = {"trips", "flows", "mobility"}


@pytest.mark.parametrize("method", HOURLY)
def test_no_asset_upstream_of_the_features_reads_trips(method: str) -> None:
    """Outside the target and the split, which every supervised fit has."""
    fitted = upstream(f"{method}_finetuned", frozenset({"targets", "splits"}))
    assert not fitted & TRIPS
    for name in fitted:
        raw = STAGES[name].raw
        assert not any(section.startswith(("sources.trips", "sources.od")) for section in raw), name
    embedded = upstream(f"{method}_embeddings", frozenset({"targets", "splits"}))
    assert not embedded & TRIPS
    assert "flows" not in METHODS[method].needs


def test_the_walk_finds_trips_where_they_are() -> None:
    assert upstream("musecl_checkpoint") >= {"trips", "flows"}
    assert upstream("lmemr_finetuned") >= TRIPS  # through the target
    assert "description_features" in upstream("lmemr_finetuned", frozenset({"targets"}))


def test_a_view_more_changes_what_its_region_shows_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (21, 4, 4, 3)).astype(np.uint8)
    regions = np.array([f"r{i // 5}" for i in range(20)] + ["r0"], object)
    captions = Captions.model_validate({"descriptions": {"views": 2}})
    ctx: Any = SimpleNamespace(
        city=SimpleNamespace(captions=captions),
        inputs={"region_street_views": None, "image_shares": None},
    )
    nothing = ([], np.empty((21, 0)))
    monkeypatch.setattr(descriptions, "measured_shares", lambda *given: nothing)

    def shown(count: int) -> dict[str, Any]:
        held = Held(pixels[:count])
        held.region_id = regions[:count]
        monkeypatch.setattr(descriptions, "Pictures", lambda *given: held)
        told = descriptions._views(ctx)
        return dict(zip(told.region_id, told.content, strict=True))

    before, after = shown(20), shown(21)
    assert {region for region in before if before[region] != after[region]} <= {"r0"}
    assert all(len(views) == 2 for views in after.values()) and len(after) == 4
