"""The whole simulator: determinism, atomicity, sizes, and what each file can know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_code.demo.latents import Latents, draw_latents
from model_code.demo.place import Place
from model_code.demo.simulate import simulate, write_files
from model_code.errors import DataError

from .conftest import CELL_M, REGIONS, SEED
from .reading import digests

PICTURES = ("orthophoto.tif", "street_views")


def test_same_arguments_same_bytes(city: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "again", regions=REGIONS, seed=SEED, cell_m=CELL_M)
    assert digests(tmp_path / "again") == digests(city)


def test_leaving_the_pictures_out_moves_nothing_else(city: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "bare", regions=REGIONS, seed=SEED, cell_m=CELL_M, images=False)
    bare, full = digests(tmp_path / "bare"), digests(city)
    assert not [name for name in bare if name.startswith(PICTURES)]
    left = {k: v for k, v in full.items() if not k.startswith(PICTURES)}
    assert bare | {"simulated.json": ""} == left | {"simulated.json": ""}


def test_another_seed_is_another_city(city: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "other", regions=REGIONS, seed=SEED + 1, cell_m=CELL_M, images=False)
    other, known = digests(tmp_path / "other"), digests(city)
    assert {name for name in other if other[name] == known[name]} == {"boundary.geojson"}


# The table of docs/embedded-city.md: which files a latent may change. Two cells of it are not
# information about the latent itself: no building and no camera stands in the water.
SEEN_BY = {
    "density": {"orthophoto", "buildings"},
    "greenery": {"orthophoto", "street_views"},
    "river_m": {"orthophoto", "street_views", "buildings"},
    "industry": {"orthophoto", "street_views", "pois"},
    "income": {"street_views"},
    "commerce": {"street_views", "pois", "trips"},
    "employment": {"pois", "trips"},
    "centrality": {"orthophoto", "buildings", "trips"},
}
MODALITIES = ("orthophoto", "buildings", "street_views", "pois", "trips")


def _modalities(folder: Path) -> dict[str, list[str]]:
    found = digests(folder)
    return {m: [found[name] for name in found if name.startswith(m)] for m in MODALITIES}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Latents, dict[str, list[str]]]:
    latents = draw_latents(Place(10, 300.0), 2)
    folder = tmp_path_factory.mktemp("as_drawn")
    write_files(folder, latents, True, print)
    return latents, _modalities(folder)


@pytest.mark.parametrize("latent", SEEN_BY)
def test_a_modality_sees_its_latents_and_no_other(
    latent: str, small: tuple[Latents, dict[str, list[str]]], tmp_path: Path
) -> None:
    latents, before = small
    turned = latents.with_field(latent, (lambda f: -0.3 * f) if latent == "river_m" else _flip)
    write_files(tmp_path, turned, True, print)
    after = _modalities(tmp_path)
    assert {m for m in MODALITIES if after[m] != before[m]} == SEEN_BY[latent]


def _flip(values):
    return 1 - values


def test_settings_are_noted(city: Path) -> None:
    noted = json.loads((city / "simulated.json").read_text())
    expected = {"regions": REGIONS, "seed": SEED, "cell_m": CELL_M, "images": True}
    assert noted == {**expected, "north_km": 0.0}


@pytest.mark.parametrize("regions", [-1, 0, 9, 100_001])
def test_sizes_out_of_bounds_are_refused(regions: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose 10 to 100,000 regions"):
        simulate(tmp_path / "city", regions=regions, seed=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cell_m", [0, 10, 1e9, float("nan")])
def test_cells_out_of_bounds_are_refused(cell_m: float, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose 100 to 5000 metres"):
        simulate(tmp_path / "city", regions=10, seed=0, cell_m=cell_m)


def test_a_city_must_fit_into_its_zone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fewer or smaller cells"):
        simulate(tmp_path / "city", regions=100_000, seed=0, cell_m=5000)


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose 0 or more"):
        simulate(tmp_path / "city", regions=10, seed=-1)


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="no simulation wrote"):
        simulate(tmp_path, regions=10, seed=0)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_earlier_simulation_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "city"
    simulate(folder, regions=10, seed=0, cell_m=300, images=False)
    (folder / "stale.txt").write_text("of the earlier one")
    simulate(folder, regions=10, seed=1, cell_m=300, images=False)
    assert not (folder / "stale.txt").exists()
    assert json.loads((folder / "simulated.json").read_text())["seed"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["city"]


def test_an_interrupted_simulation_leaves_the_earlier_one(tmp_path: Path) -> None:
    folder = tmp_path / "city"
    simulate(folder, regions=10, seed=0, cell_m=300, images=False)
    before = digests(folder)

    def interrupt(message: str) -> None:
        if message == "trips":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(folder, regions=10, seed=1, cell_m=300, images=False, progress=interrupt)
    assert digests(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["city"]
