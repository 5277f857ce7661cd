"""Tells people that a run failed: a line in the log, and a POST to `$CITYLOOM_WEBHOOK`."""

from __future__ import annotations

import json
import os
import urllib.request

import dagster as dg


@dg.failure_hook
def tell_of_failure(context: dg.HookContext) -> None:
    """One log line for a step that failed, and a POST to `$CITYLOOM_WEBHOOK` when it is set."""
    error = context.op_exception
    what = f"run {context.run_id}: {context.step_key} failed: {error}"
    expected = isinstance(error, dg.Failure)  # says what to change; a traceback would bury it
    context.log.error(what, exc_info=None if expected else error)
    if problem := post(context.run_id, context.step_key, what):
        context.log.error(problem)


def post(run_id: str, step: str, text: str) -> str:
    """POST `{"run_id", "step", "text"}` to `$CITYLOOM_WEBHOOK`, if it is set; returns what went
    wrong. The run has failed already: this must not hide why."""
    url = os.environ.get("CITYLOOM_WEBHOOK")
    if not url:
        return ""
    if not url.startswith(("http://", "https://")):
        return f"$CITYLOOM_WEBHOOK must be an http(s) URL, not {url!r}"
    body = json.dumps({"run_id": run_id, "step": step, "text": text}).encode()
    request = urllib.request.Request(  # noqa: S310 (scheme checked above)
        url, data=body, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310
            return ""
    except OSError as problem:
        return f"$CITYLOOM_WEBHOOK could not be reached: {problem}"
