"""A run that is killed anywhere completes when it is started again, with the same bytes."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from model_code.errors import MissingTableError
from resources.lake import Lake
from tests.tiny import ROOT, Place, make_place

KILLS = 10
LATEST = 0.7  # share of the assets after which the last kill comes
PATIENCE_S = 400
STEP = re.compile(r"\[ *(\d+)/(\d+)\] tiny · \w+: (.*)")  # the line of a step that is done


def readable(place: Place) -> None:
    """Whatever the lake says it has can be read whole; nothing else is visible."""
    lake = Lake(str(place.root / "lake"))
    for asset in lake.assets(place.city):
        manifest = lake.manifest(place.city, asset)
        if manifest is None:  # the folder is there, no version was ever committed
            with pytest.raises(MissingTableError):
                lake.path(place.city, asset, f"{asset}.parquet")
            continue
        for file in manifest.files:
            lake.path(place.city, asset, file)


def far_enough(process: subprocess.Popen[str], share: float) -> bool:
    """Waits until a run has been through a share of its assets and has computed one of them; false if it
    ends before."""
    assert process.stderr is not None
    computed = False
    for line in process.stderr:
        if found := STEP.search(line):
            done, total, text = int(found[1]), int(found[2]), found[3]
            computed |= text.endswith(" s")  # how long it took, where it was computed
            if computed and done >= share * total:
                return True
    return False


def test_kill_minus_nine_at_random_points(built: Place, tmp_path: Path) -> None:
    """Each kill comes within a second after a step that has done its work, and so in the next; they are
    spread over the whole job, on a machine of any speed."""
    want = built.data_files()
    place = make_place(tmp_path / "place")
    rng, kills, built_at, missed = random.Random(0), 0, [], 0
    while kills < KILLS:
        process = subprocess.Popen(
            place.job(), env=place.env, cwd=ROOT, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        stuck = threading.Timer(
            PATIENCE_S, process.kill
        )  # a run that waits for a lock of a dead one
        stuck.start()
        under_way = far_enough(process, LATEST * (kills + rng.random()) / KILLS)
        try:
            said = process.communicate(timeout=rng.random() if under_way else None)[1]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            kills += 1
            built_at.append(len(place.data_files()))
        else:  # all was built before the kill: start from nothing, so that each kill hits work
            assert process.returncode == 0, said[-2000:]
            missed += 1
            assert missed < 4
            shutil.rmtree(place.root / "lake")
        finally:
            stuck.cancel()
        readable(place)
    assert 0 < built_at[0] < len(want) / 2 < max(built_at)  # early and late ones
    done = place.run(*place.job())
    assert done.returncode == 0, done.stderr[-3000:]
    assert place.data_files() == want


def test_two_runs_of_one_city_at_once(built: Place, tmp_path: Path) -> None:
    place = make_place(tmp_path / "place")
    processes = [
        subprocess.Popen(
            place.job(), env=place.env, cwd=ROOT, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=400)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], (
        said[0][-2000:] + said[1][-2000:]
    )
    assert any("another run" in text and "waiting" in text for text in said)
    assert place.data_files() == built.data_files()
