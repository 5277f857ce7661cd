"""The lines that README tells people to type are the lines that work."""

from __future__ import annotations

import re
import shlex

from tests.tiny import ROOT, Place


def job_line() -> str:
    """The `dagster job execute` line of the README, joined."""
    text = (ROOT / "README.md").read_text()
    found = re.search(r"^(?:uv run )?(dagster job execute(?:.*\\\n)*.*)$", text, re.M)
    assert found, "README has no `dagster job execute` line"
    return found[1].replace("\\\n", " ")


def test_the_exact_job_line_runs(built: Place) -> None:
    line = job_line()
    assert '"dagster/partition": "demo"' in line
    done = built.run(*shlex.split(line.replace('"demo"', '"tiny"')))
    assert done.returncode == 0, done.stderr[-3000:]
    assert (built.root / "lake" / "tiny" / "report.html").stat().st_size > 50_000


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"`make ([a-z]+)", (ROOT / "README.md").read_text()))
    assert named and named <= targets
