"""What `workspace.yaml` loads: every asset, job, schedule and sensor of Cityloom."""

from __future__ import annotations

import logging

import dagster as dg

from assets import (
    captions,
    descriptions,
    evaluation,
    features,
    methods,
    raw,
    regions,
    report,
    transfer,
)
from model_code.city import Cities
from pipelines.console import console
from pipelines.jobs import EXECUTOR, JOBS, SCHEDULES, changed_raw_files, tell_of_dead_runs
from resources.dagster import CityResource, lake_io

defs = dg.Definitions(
    assets=[
        *dg.load_assets_from_modules(
            [raw, regions, captions, descriptions, features, evaluation, report, transfer]
        ),
        *methods.ASSETS,
    ],
    jobs=JOBS,
    schedules=SCHEDULES,
    sensors=[changed_raw_files, tell_of_dead_runs],
    resources={"cities": CityResource(), "io_manager": lake_io},
    loggers={"console": console},
    executor=EXECUTOR,
)

for _name, _error in sorted(Cities.load().bad.items()):
    logging.getLogger(__name__).warning("%s is no partition: %s", _name, _error)
