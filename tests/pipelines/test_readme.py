"""The lines that README tells people to type are the lines that work.

The block of CI is run line by line as it stands, in a folder that has what the checkout has, with two
changes: `uv run` is taken out, as this environment is that of uv; and `demo` is the tiny city that
stands already, since building the demo takes minutes.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.tiny import ROOT, Place


def job_block() -> str:
    """The README's block with `dagster job execute`."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    (found,) = (block for block in blocks if "dagster job execute" in block)
    return str(found)


def test_the_block_of_ci_runs_as_it_stands(built: Place, tmp_path: Path) -> None:
    block = job_block()
    assert block.count("uv run ") == block.count('"demo"') == 1
    for name in ("dagster.yaml", "cities", "pipelines", "assets", "resources", "model_code"):
        (tmp_path / name).symlink_to(ROOT / name)
    unset = ("DAGSTER_HOME", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
    env = {key: value for key, value in built.env.items() if key not in unset}
    script = block.replace("uv run ", "").replace('"demo"', f'"{built.city}"')
    done = built.run("bash", "-e", "-c", script, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "nothing had to be computed" in done.stderr
    assert (tmp_path / ".dagster").is_dir()  # the block has said where Dagster's instance is
    assert (built.root / "lake" / "tiny" / "report.html").stat().st_size > 50_000


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"`make ([a-z]+)", (ROOT / "README.md").read_text()))
    assert named and named <= targets
