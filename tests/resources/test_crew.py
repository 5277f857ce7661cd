from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model_code.errors import CityloomError
from resources import crew
from resources.crew import Crew, workers
from tests.tiny import ROOT

# What a process of the tests does: leaves a file for each piece, and tells who it was.
SCRIPT = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from resources.crew import Crew, end_with_parent
end_with_parent()
folder, pause_s = Path(sys.argv[1]), float(sys.argv[2])
names = [f"piece{{i}}" for i in range({count})]
def do(name):
    time.sleep(pause_s)
    (folder / name).write_text(f"member {{os.getpid()}}")
def say(line):
    print(line, flush=True)
say("starts")
Crew(None, say).work(folder, names, do, lambda name: (folder / name).exists())
"""
COUNT = 24
NAMES = [f"piece{i}" for i in range(COUNT)]


def member(folder: Path, script: str = SCRIPT) -> list[str]:
    code = script.format(root=str(ROOT), count=COUNT)
    return [sys.executable, "-c", code, str(folder), "0.02"]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members start at once, however short the work is."""
    monkeypatch.setenv(crew.VARIABLE, "2")
    monkeypatch.setattr(crew, "_WATCHED_S", 0.0)
    monkeypatch.setattr(crew, "_WORTH_S", 0.0)


def work(command: list[str], folder: Path, pause_s: float = 0.05) -> tuple[list[str], list[str]]:
    """What the first process did of all pieces, and what was said."""
    own, said = [], []

    def do(name: str) -> None:
        time.sleep(pause_s)
        own.append(name)
        (folder / name).write_text("first")

    shared = Crew(command, said.append)
    try:
        shared.work(folder, NAMES, do, lambda name: (folder / name).exists())
    finally:
        shared.close()
    return own, said


@pytest.mark.usefixtures("eager")
def test_two_processes_share_the_pieces_and_do_each_once(tmp_path: Path) -> None:
    own, said = work(member(tmp_path), tmp_path, pause_s=0.2)
    by_member = [n for n in NAMES if (tmp_path / n).read_text().startswith("member")]
    assert sorted([*own, *by_member]) == sorted(NAMES)
    assert len(own) >= 2 and len(by_member) >= 2
    assert "process 2: starts" in said


@pytest.mark.usefixtures("eager")
def test_what_a_failed_member_had_claimed_is_done_again(tmp_path: Path) -> None:
    broken = SCRIPT.replace("(folder / name).write_text", "raise ValueError")
    own, said = work(member(tmp_path, broken), tmp_path)
    assert sorted(own) == sorted(NAMES)
    assert any("ValueError" in line for line in said)


def test_the_run_leads_and_its_members_do_not(tmp_path: Path) -> None:
    assert Crew(member(tmp_path), print).leads
    assert not Crew(None, print).leads


def test_short_work_is_done_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(crew.VARIABLE, "2")
    own, said = work(member(tmp_path), tmp_path, pause_s=0.0)
    assert own == NAMES and not said


def test_two_long_pieces_are_shared_before_the_first_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(crew.VARIABLE, "2")
    monkeypatch.setattr(crew, "_WATCHED_S", 0.05)
    monkeypatch.setattr(crew, "_WORTH_S", 0.3)
    pieces = ["piece0", "piece1"]
    own: list[str] = []
    shared = Crew(member(tmp_path), lambda line: None)

    def do(piece: str) -> None:
        for _ in range(60):
            time.sleep(0.05)
            shared.beat()
        own.append(piece)
        (tmp_path / piece).write_text("first")

    try:
        shared.work(tmp_path, pieces, do, lambda name: (tmp_path / name).exists())
    finally:
        shared.close()
    assert own == ["piece0"] and (tmp_path / "piece1").read_text().startswith("member")


def test_a_member_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    starts = f"""
import subprocess, sys, time
command = {[*member(tmp_path)[:-1], "60"]!r}
started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
started.stdout.readline()
print(started.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", starts], stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]
    except FileNotFoundError:
        return False


def test_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(crew.VARIABLE, "3")
    assert workers() == 3
    for wrong in ("0", "-1", "two"):
        monkeypatch.setenv(crew.VARIABLE, wrong)
        with pytest.raises(CityloomError, match=crew.VARIABLE):
            workers()
    monkeypatch.delenv(crew.VARIABLE)
    assert workers() >= 1
