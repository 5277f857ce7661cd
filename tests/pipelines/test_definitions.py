"""The code location: quick to load, complete, and the same to the UI and to the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

from assets.asking import ASKING
from assets.stage import CITIES, STAGES, in_order
from model_code.city import Cities
from model_code.methods import METHODS
from pipelines.definitions import defs
from pipelines.jobs import GROUPS
from tests.tiny import ROOT


def test_every_asset_is_described_grouped_partitioned_and_checked() -> None:
    graph = defs.resolve_asset_graph()
    assert {key.path[-1] for key in graph.get_all_asset_keys()} == set(STAGES)
    for spec in defs.resolve_all_asset_specs():
        name = spec.key.path[-1]
        assert spec.description and len(spec.description) > 20, name
        assert spec.group_name in (*GROUPS, "transfer"), name
        assert spec.kinds, name
        assert spec.partitions_def == CITIES, name
    checked = {check.asset_key.path[-1] for check in graph.asset_check_keys}
    assert checked == {name for name, stage in STAGES.items() if stage.table}


def test_every_method_has_its_assets() -> None:
    for name, spec in METHODS.items():
        parts = {"embeddings", "finetuned", "predictions", "metrics"}
        parts |= {"checkpoint"} if spec.kind == "pretrained" else set()
        assert {f"{name}_{part}" for part in parts} <= set(STAGES)


def test_stages_stand_in_an_order_in_which_they_can_run() -> None:
    seen: set[str] = set()
    for stage in in_order():
        assert {*stage.inputs, *stage.after} <= seen, stage.name
        seen.add(stage.name)


DATA = {
    "raw_files", "boundary", "imagery", "street_views", "pois", "trips", "buildings", "regions",
    "adjacency",
}  # fmt: skip
BEFORE_PRETRAINING = DATA | {
    "region_chips", "region_street_views", "region_pois", "poi_counts", "poi_texts", "flows", "mobility", "heights",
    "image_shares", "image_features", "captions", "caption_scores", "calibrated_captions", "clip_checkpoint",
    "poi_descriptions", "location_features", "region_descriptions", "description_features", "targets",
    "indicators", "splits", "coverage", "rejected",
}  # fmt: skip
OF_PRETRAINED = {
    f"{name}_{part}"
    for name, spec in METHODS.items()
    if spec.kind == "pretrained"
    for part in ("checkpoint", "embeddings")
}
LEFT_OUT = {
    "whole_city": set[str](),
    "from_features": DATA,
    "from_pretraining": BEFORE_PRETRAINING,
    "fine_tune": BEFORE_PRETRAINING
    | OF_PRETRAINED
    | {"musecl_triplets", "urbanmmcl_graphs", "urbanmmcl_views"},
}


@pytest.mark.parametrize("job", LEFT_OUT)
def test_a_job_holds_all_that_follows_what_it_leaves_out(job: str) -> None:
    layer = defs.resolve_job_def(job).asset_layer
    chosen = {key.path[-1] for key in layer.executable_asset_keys}
    assert chosen == set(STAGES) - LEFT_OUT[job] - {"transfer"}


def test_captions_can_be_made_before_all_that_needs_them() -> None:
    layer = defs.resolve_job_def("up_to_captions").asset_layer
    chosen = {key.path[-1] for key in layer.executable_asset_keys}
    assert chosen == {
        name for name, stage in STAGES.items()
        if stage.group in ("raw", "regions", "features", "captions")
    }  # fmt: skip
    assert {"raw_files", "captions", "poi_descriptions"} <= chosen
    assert not {"targets", "poi_embeddings"} & chosen


def test_what_captions_rest_on_can_be_made_without_asking_for_any() -> None:
    layer = defs.resolve_job_def("before_captions").asset_layer
    chosen = {key.path[-1] for key in layer.executable_asset_keys}
    assert not set(ASKING) & chosen
    assert {need for name in ASKING for need in STAGES[name].inputs} <= chosen
    assert set(ASKING) == {
        name for name, stage in STAGES.items()
        if stage.group == "captions" and {"captions", "captions.captioner"} & set(stage.config)
    }  # fmt: skip


def test_each_city_with_a_cron_has_its_schedule() -> None:
    good = Cities.load().good
    wanted = {f"rebuild_{name}" for name, city in good.items() if city.schedule}
    schedules = {schedule.name: schedule for schedule in defs.schedules or ()}
    assert wanted == set(schedules) and wanted
    demo = schedules["rebuild_demo"]
    assert demo.cron_schedule == good["demo"].schedule.cron
    assert demo.execution_timezone == good["demo"].schedule.timezone


def test_workspace_names_the_definitions() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    assert workspace["load_from"][0]["python_module"]["module_name"] == "pipelines.definitions"


def test_the_location_loads_as_the_webserver_loads_it() -> None:
    """All names at once: an op and a job of one name pass until then."""
    defs.get_repository_def().load_all_definitions()


# What libraries have read of the environment, in the process of a run.
ASK = """
import json
import pipelines.definitions
import torch
from huggingface_hub import constants
print(json.dumps([torch.get_num_threads(), constants.HF_HUB_DISABLE_TELEMETRY]))
"""


@pytest.mark.parametrize("threads", ["", "2"])
def test_a_run_has_one_thread_a_process_and_tells_nobody(threads: str) -> None:
    ours = ("OMP_", "MKL_", "COV", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY")
    env = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    env |= {"OMP_NUM_THREADS": threads} if threads else {}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK], cwd=ROOT, capture_output=True, text=True,
        check=False, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == [int(threads or 1), True]
