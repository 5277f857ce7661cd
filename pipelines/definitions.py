"""What `workspace.yaml` loads: every asset, job, schedule and sensor of Cityloom."""

from __future__ import annotations

import warnings

import dagster as dg

warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)  # partitioned checks

from assets import evaluation, methods, raw, regions, report  # noqa: E402
from pipelines.console import console  # noqa: E402
from pipelines.jobs import JOBS, SCHEDULES, changed_raw_files  # noqa: E402
from resources.dagster import CityResource, lake_io  # noqa: E402

defs = dg.Definitions(
    assets=[
        *dg.load_assets_from_modules([raw, regions, evaluation, report]),
        *methods.ASSETS,
    ],
    jobs=JOBS,
    schedules=SCHEDULES,
    sensors=[changed_raw_files],
    resources={"cities": CityResource(), "io_manager": lake_io},
    loggers={"console": console},
)
