"""What a person sees of a run on the console."""

import logging

import dagster as dg
import pytest

from pipelines.console import console

FOLLOWS = "Dependencies for step after failed: ['breaks']. Not executing."


@dg.op
def speaks(context: dg.OpExecutionContext) -> None:
    context.log.debug("only when it is asked for")
    context.log.info("[ 1/2] town · pois: computed")
    context.log.warning("its file is damaged")


@dg.op(ins={"start": dg.In(dg.Nothing)})
def breaks() -> None:
    raise dg.Failure("the raw file is gone")


@dg.job(logger_defs={"console": console})
def good() -> None:
    speaks()


@dg.job(logger_defs={"console": console})
def bad() -> None:
    breaks(start=speaks())


def run(job: dg.JobDefinition, capfd: pytest.CaptureFixture[str], level: str = "INFO") -> list[str]:
    """Lines on the console of a run."""
    config = {"loggers": {"console": {"config": {"log_level": level}}}}
    job.execute_in_process(run_config=config, raise_on_error=False)
    return capfd.readouterr().err.splitlines()


def test_a_run_says_what_its_assets_say_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(good, capfd) == ["[ 1/2] town · pois: computed", "WARNING: its file is damaged"]


def test_the_level_is_the_configs(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(good, capfd, level="WARNING") == ["WARNING: its file is damaged"]
    assert "only when it is asked for" in run(good, capfd, level="DEBUG")


def test_a_failed_run_ends_with_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    lines = run(bad, capfd)
    assert lines[:2] == ["[ 1/2] town · pois: computed", "WARNING: its file is damaged"]
    (last,) = lines[2:]
    assert last.startswith("ERROR: ") and "Steps failed: ['breaks']" in last


def test_what_follows_from_a_failed_step_is_not_said_again() -> None:
    logger = console.logger_fn(dg.build_init_logger_context(logger_config={"log_level": "INFO"}))
    (handler,) = logger.handlers

    def shown(text: str) -> bool:
        record = logging.LogRecord("cityloom", logging.ERROR, "", 0, text, None, None)
        record.dagster_meta = {"orig_message": text}
        return bool(handler.filter(record))

    assert shown("the raw file is gone") and not shown(FOLLOWS)
