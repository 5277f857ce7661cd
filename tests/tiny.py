"""A city of 16 regions that runs through the real job in seconds: for tests of the pipeline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from model_code.demo.city_yaml import city_yaml

# One of each kind, of each source and of each transform: every picture has a panel an indicator.
INDICATORS = (
    *("population", "pm25", "crime", "land_use"),
    *("poi_count", "trips_out", "hourly_outflow"),
)
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Place:
    """Folders of one isolated project: cities, raw data, lake, Dagster instance."""

    root: Path
    city: str = "tiny"

    @property
    def env(self) -> dict[str, str]:
        """Environment of a process that works on this place alone."""
        return {
            # Coverage is taken of the run that builds the city; elsewhere it would only cost time.
            **{key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CITYLOOM_CITIES": str(self.root / "cities"),
            "CITYLOOM_DATA": str(self.root / "data"),
            "CITYLOOM_LAKE": str(self.root / "lake"),
            "DAGSTER_HOME": str(self.root / "home"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }

    @property
    def yaml(self) -> Path:
        return self.root / "cities" / f"{self.city}.yaml"

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load(self.yaml.read_text())
        return config

    def write(self, config: dict[str, Any]) -> None:
        self.yaml.write_text(yaml.safe_dump(config, sort_keys=False))

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on this place, from the checkout's root."""
        options = {"capture_output": True, "text": True, "timeout": 900, **options}
        return subprocess.run(command, check=False, **{"env": self.env, "cwd": ROOT, **options})

    def job(self, job: str = "whole_city") -> list[str]:
        """The command line that builds the city."""
        tags = json.dumps({"dagster/partition": self.city})
        return [
            *(sys.executable, "-W", "ignore", "-m", "dagster", "job", "execute"),
            *("-m", "pipelines.definitions", "-j", job, "-c", "pipelines/run.yaml"),
            *("--tags", tags),
        ]

    def copy(self, target: Path) -> Place:
        """The same place elsewhere, so that a test can change it."""
        shutil.copytree(self.root, target)
        return Place(target, self.city)

    def data_files(self) -> dict[str, str]:
        """Digest of every data file that the lake shows, by name: what two runs must agree on."""
        from model_code.fingerprint import file_digest
        from resources.lake import Lake

        lake = Lake(str(self.root / "lake"))
        found = {}
        for asset in lake.assets(self.city):
            manifest = lake.manifest(self.city, asset)
            for file in manifest.files if manifest else ():
                found[f"{asset}/{file}"] = file_digest(lake.path(self.city, asset, file))
        return found


def unsigned(place: Place) -> set[str]:
    """Tables and checkpoints of the lake that do not say what they were made from."""
    from assets.stage import STAGES
    from pipelines import definitions  # noqa: F401 (fills the registry of stages)
    from resources.lake import Lake, provenance_of

    lake, found = Lake(str(place.root / "lake")), set()
    for asset in lake.assets(place.city):
        manifest = lake.manifest(place.city, asset)
        assert manifest is not None
        want = {"asset": asset, "inputs": manifest.inputs, "fingerprint": manifest.fingerprint}
        if not STAGES[asset].of_any_city():
            want["city"] = place.city
        tables = (file for file in manifest.files if file.endswith((".parquet", ".json")))
        found |= {
            f"{asset}/{file}"
            for file in tables
            if provenance_of(lake.path(place.city, asset, file)) != want
        }
    return found


def make_place(root: Path, *, regions: int = 16, seed: int = 3) -> Place:
    """A place with the city's YAML and nothing built yet."""
    place = Place(root)
    for folder in ("cities", "data", "lake", "home"):
        (root / folder).mkdir(parents=True)
    shutil.copy(ROOT / "dagster.yaml", root / "home")
    config = yaml.safe_load(city_yaml(place.city, regions=regions, seed=seed))
    config["splits"] = {"random": {}, "spatial": {"block_m": 1000, "folds": 3}}
    config["seeds"] = [0, 1]
    config["chips"] = {"size_px": 16}
    config["indicators"] = {name: config["indicators"][name] for name in INDICATORS}
    config["methods"] = {
        "poi": {"variants": {"shares": {"transform": "share"}}},
        "location": {},
        "od_pca": {"config": {"components": 4}},
        "vit": {"config": {"image_px": 16, "patch_px": 8, "width": 16, "depth": 1, "epochs": 2}},
    }
    place.write(config)
    return place
