"""Jobs, a schedule a city, the sensor of changed raw files, and that of runs that died."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from assets.asking import ASKING
from assets.stage import STAGES, explain, fingerprint_of, fingerprints
from model_code.city import Cities, City, check_files, data_root
from model_code.errors import CityloomError
from model_code.fingerprint import digest
from resources.dagster import PARTITION_TAG
from resources.lake import Lake
from resources.notify import post
from resources.raw import RawFiles

# Groups in the order in which data flows through them.
GROUPS = ("raw", "regions", "features", "captions", "targets", "pretraining", "embeddings", "finetuning",
          "predictions", "evaluation", "report")  # fmt: skip


VARIABLE = "CITYLOOM_EXECUTOR"
_BOTH = dg.multi_or_in_process_executor
_DEFAULT = dg.ExecutorDefinition(
    name="in_process_or_multiprocess",
    description="One process unless a run's config says otherwise: most steps are shorter than "
    "a start of Python.",
    config_schema=dg.Field(
        _BOTH.config_schema.as_field().config_type,
        is_required=False,
        default_value={"in_process": {}},
    ),
    requirements=_BOTH.get_requirements,
    executor_creation_fn=_BOTH.executor_creation_fn,
)


def executor() -> dg.ExecutorDefinition:
    """What runs the steps of every job: what `$CITYLOOM_EXECUTOR` names (`module:attribute`), or one
    process.

    Raises:
        CityloomError: it names no executor.
    """
    said = os.environ.get(VARIABLE, "")
    if not said:
        return _DEFAULT
    fix = "give module:attribute of a Dagster executor, such as dagster_k8s:k8s_job_executor, or unset it"
    module, _, name = said.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise CityloomError(f"${VARIABLE} is {said!r}: {error}", fix=fix) from error
    if not isinstance(found, dg.ExecutorDefinition):
        raise CityloomError(f"${VARIABLE} is {said!r}, which is no executor: {found!r}", fix=fix)
    return found


EXECUTOR = executor()


def _job(name: str, first_group: str, about: str) -> dg.UnresolvedAssetJobDefinition:
    groups = GROUPS[GROUPS.index(first_group) :]
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.groups(*groups),
        description=about,
        executor_def=EXECUTOR,
    )


_ASKING = dg.AssetSelection.assets(*ASKING)

JOBS = [
    _job("whole_city", "raw", "Raw files to report, for one city."),
    _job("from_features", "features", "Chips, counts, flows and all that follows."),
    _job("from_pretraining", "pretraining", "Pretraining and all that follows."),
    _job("fine_tune", "finetuning", "Heads on the embeddings that stand, and all that follows."),
    dg.define_asset_job(
        "up_to_captions",
        selection=dg.AssetSelection.groups("raw", "regions", "features", "captions"),
        description="Raw files to captions: what may need a GPU or a server of its own.",
        executor_def=EXECUTOR,
    ),
    dg.define_asset_job(
        "before_captions",
        selection=_ASKING.upstream() - _ASKING,
        description="All that asks of a captioner rest on, and none of them: for the dry run of a new city.",
        executor_def=EXECUTOR,
    ),
    dg.define_asset_job(
        "transfer_encoders",
        selection=dg.AssetSelection.groups("transfer") | dg.AssetSelection.assets("report"),
        description="Encoders that were pretrained in the cities that the YAML's `transfer` names, "
        "tested in this one, and the report anew.",
        executor_def=EXECUTOR,
    ),
]
WHOLE_CITY = JOBS[0]


def _schedule(name: str, city: City) -> dg.ScheduleDefinition:
    assert city.schedule is not None

    @dg.schedule(
        name=f"rebuild_{name}",
        cron_schedule=city.schedule.cron,
        execution_timezone=city.schedule.timezone,
        job=WHOLE_CITY,
        description=f"Rebuild {city.title}; what has not changed is not computed again.",
    )
    def rebuild(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(partition_key=name)

    return rebuild


SCHEDULES = [_schedule(n, c) for n, c in sorted(Cities.load().good.items()) if c.schedule]


@dg.sensor(job=WHOLE_CITY, minimum_interval_seconds=60)
def changed_raw_files(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest]:
    """Requests, for each city that has been built before, the assets that changed raw files (or
    config, or code) touch; a city that was never built is left to its schedule or to a person."""
    lake, raw = Lake(), RawFiles(data_root())
    cities = Cities.load()
    for name, error in sorted(cities.bad.items()):
        context.log.warning(f"{name} is no partition: {error}")
    for name, city in sorted(cities.good.items()):
        try:
            if not lake.assets(name) or _busy(context.instance, name):
                continue
            if city.simulator is None:
                check_files(city, raw.root)
            states = explain(city, lake, raw, verify=False)
            key = _state_key(city, lake, raw)
        except CityloomError as error:
            context.log.warning(f"{name}: {error}")
            continue
        # Of this job alone: a transfer is asked for by a person.
        stale = [a for a, state, _ in states if state == "to do" and STAGES[a].group in GROUPS]
        if stale:
            yield dg.RunRequest(
                run_key=f"{name}-{key}",
                partition_key=name,
                asset_selection=[dg.AssetKey(asset) for asset in stale],
            )


@dg.run_failure_sensor(default_status=dg.DefaultSensorStatus.RUNNING)
def tell_of_dead_runs(context: dg.RunFailureSensorContext) -> None:
    """Tells of a run that ended without a failed step, as when its process was killed or its city is
    unknown; of failed steps the assets' own hook tells."""
    if context.get_step_failure_events():
        return
    what = f"run {context.dagster_run.run_id} failed: {context.failure_event.message}"
    context.log.error(what)
    if problem := post(context.dagster_run.run_id, "", what):
        context.log.error(problem)


def _busy(instance: dg.DagsterInstance, city: str) -> bool:
    """Whether a run of the city is waiting or under way; what it does is not requested again."""
    unfinished = [status for status in dg.DagsterRunStatus if status not in FINISHED_STATUSES]
    filters = dg.RunsFilter(tags={PARTITION_TAG: city}, statuses=unfinished)
    return instance.get_runs_count(filters) > 0


def _state_key(city: City, lake: Lake, raw: RawFiles) -> str:
    """Differs whenever what stands or what is wanted differs: the same change is requested once,
    and again when it comes back later."""
    wanted = fingerprints(city, lake, raw)
    standing = {name: fingerprint_of(lake.handle(city.name, name)) for name in wanted}
    return digest([wanted, standing])[:16]
