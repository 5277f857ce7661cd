"""docs/deployment.md and the second instance file."""

from __future__ import annotations

import re

import yaml
from dagster._core.instance.config import dagster_instance_config
from dagster._core.system_config.objects import ResolvedRunConfig

from pipelines.definitions import defs
from pipelines.jobs import JOBS
from tests.tiny import ROOT

PAGE = (ROOT / "docs" / "deployment.md").read_text()


def test_postgres_differs_from_sqlite_in_where_things_are_kept_only() -> None:
    plain, postgres = (
        yaml.safe_load((ROOT / path).read_text())
        for path in ("dagster.yaml", "docs/dagster.postgres.yaml")
    )
    for place in ("storage", "local_artifact_storage", "compute_logs"):
        plain.pop(place)
    database = postgres.pop("storage")["postgres"]["postgres_db"]
    assert postgres == plain
    asked = {value["env"] for value in database.values() if isinstance(value, dict)}
    assert all(f"export {name}" in PAGE or f" {name}=" in PAGE for name in asked)


def test_dagster_accepts_both_instance_files() -> None:
    for folder, name in ((ROOT, "dagster.yaml"), (ROOT / "docs", "dagster.postgres.yaml")):
        config, _ = dagster_instance_config(str(folder), name)
        assert config["telemetry"] == {"enabled": False}


def test_every_variable_that_the_code_reads_is_told() -> None:
    rooms = ("pipelines", "assets", "resources", "model_code")
    code = "".join(p.read_text() for room in rooms for p in (ROOT / room).rglob("*.py"))
    read = set(re.findall(r"[\"'](CITYLOOM_\w+)[\"']", code))
    told = set(re.findall(r"^\| `(CITYLOOM_\w+)`", PAGE, re.M))
    assert read and told == read


def test_one_process_is_the_default_and_the_page_says_how_to_have_more() -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    more = yaml.safe_load(block)
    for name in (*(job.name for job in JOBS), "__ASSET_JOB"):
        job = defs.resolve_job_def(name)
        for config, kind in (({}, "in_process"), (more, "multiprocess")):
            resolved = ResolvedRunConfig.build(job, config)
            assert list(resolved.execution.execution_engine_config) == [kind]
