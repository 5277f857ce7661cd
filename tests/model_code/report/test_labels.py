from __future__ import annotations

import pytest

from model_code.report.labels import method_label


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
