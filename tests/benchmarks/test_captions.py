from __future__ import annotations

import subprocess
import sys

from tests.tiny import ROOT


def test_the_proof_of_captions_prints_every_kind_of_both_views() -> None:
    script = str(ROOT / "benchmarks" / "captions.py")
    command = [sys.executable, script, "--quick", "--count", "6"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    for view in ("satellite", "street_view"):
        assert f"{view}, a third wrong: " in said
        kinds = [line.split()[1] for line in said.splitlines() if line.split()[0] == view]
        assert {"drop", "add", "exaggerate", "swap", "all", "own"} <= set(kinds)
