from __future__ import annotations

import re

import pytest

from model_code.report import palette
from model_code.report.palette import qualitative


def lightness(colour: str) -> float:
    """Relative luminance of `#rrggbb`, 0 to 1 (WCAG 2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("count", [1, 12, 13, 30])
def test_classes_have_each_their_colour(count: int) -> None:
    colours = qualitative(count)
    assert len(set(colours)) == len(colours) == count
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)
    assert colours == qualitative(40)[:count]  # a class keeps its colour when others are added


def test_repeats_are_lighter_each_time() -> None:
    for first, second, third in zip(
        *(qualitative(36)[i : i + 12] for i in (0, 12, 24)), strict=True
    ):
        assert lightness(first) < lightness(second) < lightness(third)


def test_there_is_a_colour_for_no_class_at_all() -> None:
    assert len(qualitative(0)) == 1


def test_lightness_tells_more_from_less() -> None:
    """Read in grey, or by the colour-blind: rising for sizes, falling away from zero for errors."""
    rising = [lightness(colour) for colour in palette.SEQUENTIAL]
    assert rising == sorted(rising)
    middle = len(palette.DIVERGING) // 2
    for colours, sign in ((palette.DIVERGING, 1), (palette.DIVERGING_DARK, -1)):
        values = [sign * lightness(colour) for colour in colours]
        assert values[: middle + 1] == sorted(values[: middle + 1])
        assert values[middle:] == sorted(values[middle:], reverse=True)
