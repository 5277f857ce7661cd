"""docs/bring-your-own-city.md, run from top to bottom on files made here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_code.city import check_files, load_city
from tests.docs.files import write_files
from tests.tiny import ROOT

PAGE = ROOT / "docs" / "bring-your-own-city.md"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the bold word that it stands under."""

    language: str
    text: str
    about: str

    @property
    def file(self) -> str:
        """The file that its first line names; empty for a fragment."""
        named = re.match(r"# (~/\S+)\n", self.text)
        return named[1] if named else ""


def blocks() -> list[Block]:
    """All blocks of the page, in order."""
    found, about = [], ""
    pattern = r"^\*\*(?P<about>[^*]+?)\.?\*\*|^```(?P<language>\w*)\n(?P<text>.*?)^```$"
    for match in re.finditer(pattern, PAGE.read_text(), re.M | re.S):
        about = match["about"] or about
        if match["text"]:
            found.append(Block(match["language"], match["text"], about))
    return found


FRAGMENTS = [b for b in blocks() if b.language == "yaml" and not b.file]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person's home with the files of the page, and what Dagster reads of a checkout."""
    home: Path = tmp_path_factory.mktemp("home")
    write_files(home / "cityloom" / "data" / "mycity")
    (home / "checkout").mkdir()
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, home / "checkout")
    return home


def merged(config: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The page says one more thing of a section; `boundary`, `partition` and the like are new."""
    result = {**config, **more}
    if "sources" in more:
        result["sources"] = {**config["sources"], **more["sources"]}
    return result


def smallest() -> dict[str, Any]:
    [block] = [b for b in blocks() if b.file.endswith("mycity.yaml")]
    config: dict[str, Any] = yaml.safe_load(block.text)
    return config


def test_blocks_are_of_known_kinds() -> None:
    assert {b.language for b in blocks()} == {"bash", "yaml", "text", "python"}
    assert len(FRAGMENTS) > 10


@pytest.mark.parametrize("block", FRAGMENTS, ids=lambda b: b.about.lower().replace(" ", "_"))
def test_each_fragment_fits_the_smallest_city(block: Block, home: Path, tmp_path: Path) -> None:
    more = yaml.safe_load(block.text)
    path = tmp_path / "mycity.yaml"
    path.write_text(yaml.safe_dump(merged(smallest(), more)))
    check_files(load_city(path), str(home / "cityloom" / "data"))


# Data stages alone and in one process: every file of every fragment is read.
READ_ALL = """
import json
import dagster as dg
from pipelines.definitions import raw, regions
from resources.dagster import CityResource, lake_io
from resources.lake import read
assets = dg.load_assets_from_modules([raw, regions])
resources = {"cities": CityResource(), "io_manager": lake_io}
assert dg.materialize(assets, partition_key="mycity", resources=resources).success
about = {
    "regions": read("coverage", city="mycity").set_index("modality")["regions"].to_dict(),
    "labels": read("indicators", city="mycity").set_index("indicator")["regions"].to_dict(),
    "reasons": sorted(set(read("rejected", city="mycity")["reason"])),
}
print(json.dumps(about))
"""


class Person:
    """Types what the page says, in the checkout; no variable of Cityloom or Dagster is set before."""

    def __init__(self, home: Path) -> None:
        self.home, self.exports = home, ""
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("CITYLOOM_", "DAGSTER_"))},
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }

    def types(self, script: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["bash", "-c", self.exports + script],
            cwd=self.home / "checkout",
            env=self.env,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        self.exports += "".join(re.findall(r"^export .*\n", script, re.M))
        return done

    def saves(self, name: str, text: str) -> None:
        path = self.home / name.removeprefix("~/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_page_from_top_to_bottom(home: Path) -> None:
    person, config, said = Person(home), smallest(), ""
    for block in blocks():
        if block.file:
            person.saves(block.file, block.text)
        elif block.language == "yaml":
            config = merged(config, yaml.safe_load(block.text))
            if "schedule" in config:  # the last one: all of them at once
                person.saves("~/cityloom/cities/mycity.yaml", yaml.safe_dump(config))
                checked = person.types("cityloom check mycity")
                assert checked.stdout == "mycity: in order\n", checked.stdout + checked.stderr
        elif block.language == "bash":
            done = person.types(block.text)
            said = done.stdout + done.stderr
            assert done.returncode == ("broken" in block.text), said[-4000:]
        elif block.language == "python":
            done = person.types(f"python -W ignore - <<'EOF'\n{block.text}EOF\n")
            assert done.returncode == 0, done.stderr[-4000:]
            assert "area_km2" in done.stdout and "items" in done.stdout
        else:
            lacking = [
                line
                for line in block.text.replace("/home/you", str(home)).splitlines()
                if " ".join(line.split()) not in " ".join(said.split())
            ]
            assert not lacking, said[-4000:]
    assert (home / "checkout" / ".dagster").is_dir()  # where the page has put Dagster's instance
    report = home / "cityloom" / "lake" / "mycity" / "report.html"
    assert report.stat().st_size > 50_000
    done = person.types(f"python -W ignore - <<'EOF'{READ_ALL}EOF\n")
    assert done.returncode == 0, done.stderr[-4000:]
    about = json.loads(done.stdout.splitlines()[-1])
    assert about["labels"] == dict.fromkeys(
        ("cafes", "hourly_outflow", "house_price", "land_use", "night_light", "residents"), 36
    )
    reached = about["regions"]
    assert {reached[name] for name in ("flows", "imagery", "pois", "buildings")} == {36}
    assert 1 <= reached["street_views"] <= 12
    assert "value out of range" in about["reasons"] and "excluded by config" in about["reasons"]
