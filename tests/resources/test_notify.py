"""What people are told when a run fails."""

from __future__ import annotations

import dagster as dg
import pytest

from pipelines import definitions  # noqa: F401 (fills the registry of stages)
from resources.notify import post, tell_of_failure


def failing_job() -> dg.JobDefinition:
    @dg.op
    def breaks() -> None:
        raise dg.Failure("the raw file is gone")

    @dg.job(hooks={tell_of_failure})
    def job() -> None:
        breaks()

    return job


def test_a_failed_run_is_posted_to_the_webhook(
    webhook: tuple[str, list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, posted = webhook
    monkeypatch.setenv("CITYLOOM_WEBHOOK", url)
    result = failing_job().execute_in_process(raise_on_error=False)
    assert not result.success
    assert [p["step"] for p in posted] == ["breaks"]
    assert "the raw file is gone" in posted[0]["text"] and posted[0]["run_id"] == result.run_id


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://127.0.0.1:9/"])
def test_a_useless_webhook_does_not_hide_the_failure(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CITYLOOM_WEBHOOK", url)
    result = failing_job().execute_in_process(raise_on_error=False)
    failed = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    assert len(failed) == 1 and "CITYLOOM_WEBHOOK" not in str(failed[0].event_specific_data)


@pytest.mark.parametrize(
    ("url", "said"),
    [(None, ""), ("file:///etc/passwd", "http"), ("http://127.0.0.1:9/", "reached")],
)
def test_what_went_wrong_is_returned_and_never_raised(
    url: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CITYLOOM_WEBHOOK", raising=False)
    if url:
        monkeypatch.setenv("CITYLOOM_WEBHOOK", url)
    problem = post("run", "step", "text")
    assert said in problem and problem.startswith("$CITYLOOM_WEBHOOK" if url else "")
    assert bool(problem) == bool(url)
