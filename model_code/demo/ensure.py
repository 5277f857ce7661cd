"""Keeps a simulated city's raw files up to date with its settings and with the simulator's code."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from model_code.city import Simulator
from model_code.errors import DataError
from model_code.fingerprint import code_digests, digest

NOTE = "made_by.json"


def ensure(root: str, settings: Simulator, progress: Callable[[str], None]) -> bool:
    """Simulate the city's raw files below the data root unless they stand there already, made with
    the same settings and the same code. Files that a person has changed since are left alone.

    Returns:
        Whether the files were made anew.
    Raises:
        DataError: the data root is no local folder, or the folder holds something else.
    """
    if "://" in root:
        raise DataError(
            f"a simulated city cannot be written to {root}",
            fix="set $CITYLOOM_DATA to a local folder",
        )
    folder = Path(root) / settings.path
    folder.parent.mkdir(parents=True, exist_ok=True)
    wanted = {
        "regions": settings.regions,
        "seed": settings.seed,
        "north_km": settings.north_km,
        "cell_m": settings.cell_m,
        "code": digest(code_digests(["model_code.demo.simulate:simulate"])),
    }
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if _noted(folder) == wanted:
            return False
        # Of a simulation that was killed; `demo` must not take those of `demo.b`.
        for left in folder.parent.glob(f".{folder.name}.{'[0-9a-f]' * 32}*"):
            shutil.rmtree(left)
        from model_code.demo.simulate import simulate

        simulate(
            folder,
            regions=settings.regions,
            seed=settings.seed,
            north_km=settings.north_km,
            cell_m=settings.cell_m,
            progress=progress,
        )
        (folder / NOTE).write_text(json.dumps(wanted, sort_keys=True) + "\n", encoding="utf-8")
        return True


def _noted(folder: Path) -> Any:
    """What the folder's files were made with; None where nothing says so."""
    with contextlib.suppress(FileNotFoundError, ValueError):  # the note may have been cut off
        return json.loads((folder / NOTE).read_text(encoding="utf-8"))
    return None
