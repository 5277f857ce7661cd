"""The YAML of an embedded city, from one template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from model_code.city import NAME_PATTERN
from model_code.demo.place import EPSG, TIMEZONE, Place
from model_code.errors import DataError


def city_yaml(
    name: str,
    *,
    regions: int,
    seed: int,
    cell_m: float = 1000.0,
    images: bool = True,
    path: str | None = None,
    spatial_repeats: int = 1,
    captions: bool = False,
    north_km: float = 0.0,
    hexagons: int = 0,
    ablations: bool = False,
    hourly: bool = False,
    methods: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
) -> str:
    """A city's YAML. Without `path` its raw files are made by the pipeline when they are needed;
    with it they are there already.

    Args:
        name: the city's name, and the stem of its file.
        regions: cells.
        seed: the simulator's seed.
        cell_m: side of a cell.
        images: whether there are an orthophoto and street views.
        path: folder of the raw files, absolute or in the data root; by default the name.
        spatial_repeats: foldings of the spatial split.
        captions: whether to caption its pictures, and run the methods that read captions.
        north_km: how far north of the usual place it lies.
        hexagons: H3 resolution of its regions, which are the simulated square cells without it; then
            MuseCL runs, whose paper has hexagons, and the truth is left out, which is by square cell.
        ablations: the papers' ablations of all methods, and the baselines of the hourly outflow, for a
            city that is large enough to tell.
        hourly: the hourly outflow alone, with LMEMR, its ablations and its baselines.
        methods: these and their settings, in place of those that such a city shows.
        seeds: training seeds.

    Raises:
        DataError: the name cannot be used, or the city cannot be made on demand.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise DataError(
            f"{name!r} cannot be the name of a city",
            fix="choose small letters, digits and underscores, a letter first",
        )
    template = (Path(__file__).parent / "city.yaml.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(  # noqa: S701 (YAML, not HTML)
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    place = Place(regions, cell_m, north_km)
    captions = captions or hourly
    if (captions or hexagons) and not images:
        what = "caption" if captions else "compare"
        raise DataError(f"{name}: there are no pictures to {what}", fix="simulate pictures too")
    if path is None and not images:
        # The section `simulator` of a config knows no city without pictures.
        raise DataError(
            f"{name}: a city without pictures is not made on demand",
            fix="simulate the city first, and give `path`",
        )
    return environment.from_string(template).render(
        name=name,
        regions=place.regions,
        seed=seed,
        cell_m=f"{cell_m:g}",
        block_m=f"{3 * cell_m:g}",
        images=images,
        made_on_demand=path is None,
        path=path or name,
        spatial_repeats=spatial_repeats,
        captions=captions,
        north_km=north_km,
        hexagons=hexagons,
        ablations=ablations,
        hourly=hourly,
        methods=methods,
        seeds=list(seeds),
        epsg=EPSG,
        timezone=TIMEZONE,
    )
