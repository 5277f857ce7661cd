"""A process that helps a run does the run's own fits, or refuses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from assets.stage import member_command
from resources.lake import Lake
from tests.tiny import ROOT, Place


def helped(place: Place, fingerprint: str) -> tuple[int, str]:
    """Exit code of a helping process for the ViT's fits, and what it said."""
    command = member_command("tiny", "vit_finetuned", fingerprint, str(place.root / "data"))
    process = subprocess.Popen(
        command, env=place.env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    said = process.stdout.read()  # its input stays open, as a run's would
    process.stdin.close()
    process.stdout.close()
    return process.wait(timeout=300), said


def test_what_a_helper_leaves_is_what_the_run_would_have_made(place: Place) -> None:
    want = place.data_files()
    manifest = Lake(str(place.root / "lake")).manifest("tiny", "vit_finetuned")
    assert manifest is not None
    folder: Path = place.root / "lake" / "tiny" / "vit_finetuned"
    fits = sorted(Path(name).stem for name in manifest.files if name.endswith(".json"))
    shutil.rmtree(folder)
    code, said = helped(place, manifest.fingerprint)
    assert code == 0, said
    (work,) = folder.glob(".work-*")
    assert sorted(path.stem for path in work.glob("[!.]*.json")) == fits
    done = place.run(*place.job())
    assert done.returncode == 0, done.stderr[-3000:]
    assert place.data_files() == want


def test_a_helper_refuses_what_the_run_did_not_begin(place: Place) -> None:
    code, said = helped(place, "0" * 64)
    assert code != 0 and "has changed since the run began" in said
