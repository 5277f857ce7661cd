"""Fits that are kept as soon as they are there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.tiny import ROOT

# Two fits: the first has room, the second has not; then there is room again.
FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from assets.fits import fit_together, finished
from assets.stage import Context
from model_code.errors import LakeWriteError
from model_code.methods.base import Checkpoint
from resources.crew import Crew
ctx = Context(None, {}, "", "town", "poi_checkpoint", print, Path(sys.argv[1]), crew=Crew(None, print))
sizes, tried = {"small": 10, "large": 10_000}, []
def fit(job):
    tried.append(job)
    yield job, Checkpoint({"a": np.zeros(sizes[job])})
list(fit("small")), tried.clear()  # whatever is imported late
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    fit_together(ctx, list(sizes), fit)
except LakeWriteError as error:
    print(error)
print(finished(ctx, "small"), finished(ctx, "large"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
fit_together(ctx, list(sizes), fit)
print(finished(ctx, "large"), tried)
"""


def test_a_full_disk_is_told_and_what_was_kept_stands(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told, fix, first, second = done.stdout.splitlines()
    assert "'poi_checkpoint' of city 'town'" in told and str(tmp_path) in told
    assert "File too large" in told and "free some space" in fix
    assert (first, second) == ("True False", "True ['small', 'large', 'large']")
    kept = {"small", "large"}
    files = {path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")}
    assert files == {f"{name}{end}" for name in kept for end in (".json", ".safetensors")}
