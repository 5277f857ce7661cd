"""What segmenters call what they see, and the elements that captions and prompts name.

Lists are data (`classes/*.csv`, a class a row in the order of the model's outputs): ADE20K of street
scenes (Zhou et al. 2017, 150 classes), LoveDA of land cover (Wang et al. 2021, arXiv:2110.08733, 7
classes). A class without an element, such as a bathtub, is measured and not named. K classes.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from model_code.errors import DataError

_FOLDER = Path(__file__).with_name("classes")


@dataclass(frozen=True)
class ClassList:
    """Names [K], and the element of each [K]; empty where there is none."""

    names: tuple[str, ...]
    elements: tuple[str, ...]


def class_list(choice: str | tuple[str, ...]) -> ClassList:
    """A list of the project by name, or names as they are: each is its own element."""
    return _read(choice) if isinstance(choice, str) else ClassList(choice, choice)


@cache
def _read(name: str) -> ClassList:
    with (_FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return ClassList(tuple(row["class"] for row in rows), tuple(row["element"] for row in rows))


def checked_length(classes: ClassList, outputs: int, model: str) -> tuple[str, ...]:
    """The names, one an output of the model.

    Raises:
        DataError: there are more or fewer.
    """
    if len(classes.names) != outputs:
        raise DataError(
            f"{model} tells {outputs} classes apart, and its list has {len(classes.names)}",
            fix="mend `classes` of the segmenter in the city's YAML: the list that the model was "
            "trained with, or its names in order",
        )
    return classes.names


def element_shares(names: Sequence[str], shares: Sequence[float]) -> dict[str, float]:
    """Shares by element, largest first, from the shares [K] of the classes `names` [K]; a list of
    unknown names is its own elements. Nothing, where nothing was measured."""
    element = _elements().get(tuple(names), {})
    found: dict[str, float] = {}
    for name, share in zip(names, shares, strict=False) if len(shares) else ():
        if share > 0 and (told := element.get(name, name)):
            found[told] = found.get(told, 0.0) + float(share)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


@cache
def _elements() -> Mapping[tuple[str, ...], Mapping[str, str]]:
    lists = [_read(path.stem) for path in sorted(_FOLDER.glob("*.csv"))]
    return {own.names: dict(zip(own.names, own.elements, strict=True)) for own in lists}
