"""A machine with torch alone can run the models, and one without torch can do all the rest."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

TORCH = ("torch", "torchvision", "lightning", "open_clip", "timm")
GEO = (
    "geopandas",
    "rasterio",
    "shapely",
    "pyproj",
    "pyogrio",
    "h3",
    "h3ronpy",
    "duckdb",
    "pandera",
)
DAGSTER = ("dagster", "dagster_webserver")

PROBE = """
import importlib, json, pkgutil, sys
blocked = set(sys.argv[1].split(","))
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"blocked: {name}")
sys.meta_path.insert(0, Blocker())
import model_code
names = [m.name for m in pkgutil.walk_packages(model_code.__path__, "model_code.")]
failed = {}
for name in names:
    if not name.endswith("__main__"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            failed[name] = str(error)
print(json.dumps([sorted(names), failed]))
"""


def probe(*blocked: str) -> tuple[list[str], dict[str, str]]:
    """All modules of model_code, and those that do not import without `blocked`, with the reason."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, ",".join(blocked)], capture_output=True, text=True, check=True
    )
    names, failed = json.loads(done.stdout.splitlines()[-1])
    assert all(reason.startswith("blocked: ") for reason in failed.values()), failed
    return names, failed


@pytest.fixture(scope="module")
def without_torch() -> tuple[list[str], dict[str, str]]:
    return probe(*TORCH, *DAGSTER)


@pytest.fixture(scope="module")
def without_geo() -> tuple[list[str], dict[str, str]]:
    return probe(*GEO, *DAGSTER)


def test_every_module_imports_on_one_side_at_least(
    without_torch: tuple, without_geo: tuple
) -> None:
    names, torch_side = without_torch
    _, geo_side = without_geo
    assert len(names) > 20
    assert set(torch_side) & set(geo_side) == set()


def test_models_need_no_geo_package(without_geo: tuple) -> None:
    names, geo_side = without_geo
    science = (
        "methods",
        "training",
        "finetuning",
        "heads",
        "scaling",
        "pca",
        "evaluation",
        "errors",
    )
    models = [name for name in names if name.split(".")[1].startswith(science)]
    assert "model_code.methods.baselines.vit" in models and "model_code.training_loop" in models
    assert set(models) & set(geo_side) == set()


def test_what_dagster_loads_needs_no_torch(without_torch: tuple) -> None:
    names, torch_side = without_torch
    first = ("city", "tables", "errors", "rejections", "geo", "demo", "report", "evaluation")
    light = [name for name in names if name.split(".")[1] in first]
    light += ["model_code.methods", "model_code.methods.base", "model_code.methods.run"]
    light += ["model_code.heads", "model_code.scaling", "model_code.methods.baselines.od_pca"]
    assert set(light) <= set(names) and set(light) & set(torch_side) == set()


def test_the_registry_loads_nothing_heavy() -> None:
    code = (
        "import sys, model_code.methods, model_code.city, model_code.tables, model_code.methods.run\n"
        "print([m for m in ('torch', 'lightning', 'sklearn', 'scipy', 'geopandas', 'matplotlib')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
