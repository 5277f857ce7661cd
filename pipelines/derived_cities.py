"""Cities made of others: their YAML lies in the data root, and the runs of this process find it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from model_code.city import city_folders, data_root
from model_code.errors import CityloomError

FOLDER = "derived_cities"


def put(configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the YAML of cities, by name, into a folder that `$CITYLOOM_CITIES` names from here on.

    Raises:
        CityloomError: the data root is no folder of this machine.
    """
    folder = Path(data_root()) / FOLDER
    try:
        if "://" in data_root():
            raise NotADirectoryError
        folder.mkdir(parents=True, exist_ok=True)
    except (NotADirectoryError, FileExistsError) as error:
        raise CityloomError(
            f"YAML of derived cities is written into the data root, and {data_root()} is no folder here",
            fix="set CITYLOOM_DATA to a folder of this machine",
        ) from error
    os.environ["CITYLOOM_CITIES"] = str(folder)
    for name, config in configs.items():
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def given(city: str) -> dict[str, Any]:
    """The YAML of a city, shipped or made, as it stands in its file.

    Raises:
        CityloomError: there is none.
    """
    for folder in city_folders():
        if (path := folder / f"{city}.yaml").exists():
            return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    folders = list(map(str, city_folders()))
    raise CityloomError(
        f"no {city}.yaml in {' or '.join(folders)}", fix="name a city that has a file there"
    )
