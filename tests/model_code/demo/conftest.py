"""One small embedded city on disk for all tests of the simulator."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_code.demo.latents import Latents, draw_latents
from model_code.demo.place import Place
from model_code.demo.simulate import simulate

REGIONS, SEED, CELL_M = 23, 5, 500.0


@pytest.fixture(scope="session")
def place() -> Place:
    return Place(REGIONS, CELL_M)


@pytest.fixture(scope="session")
def latents(place: Place) -> Latents:
    return draw_latents(place, SEED)


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a city whose northernmost row is short."""
    folder = tmp_path_factory.mktemp("demo") / "city"
    simulate(folder, regions=REGIONS, seed=SEED, cell_m=CELL_M)
    return folder
