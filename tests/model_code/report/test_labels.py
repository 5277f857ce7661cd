from __future__ import annotations

import pytest

from model_code.report.labels import is_default, method_label


@pytest.mark.parametrize(
    ("variant", "label"),
    [
        ("default", "vit"),
        ("small", "vit · small"),
        ("default · without views", "vit · default · without views"),
    ],
)
def test_the_default_goes_by_the_methods_name_alone(variant: str, label: str) -> None:
    assert method_label("vit", variant) == label


@pytest.mark.parametrize(
    ("variant", "told"),
    [
        ("default", True),
        ("default_without_street_views_without_flows", True),
        ("default_wide", False),
        ("without_text", False),
    ],
)
def test_the_default_of_a_city_may_lack_something_and_is_no_other_variant(
    variant: str, told: bool
) -> None:
    assert is_default(variant) == told
