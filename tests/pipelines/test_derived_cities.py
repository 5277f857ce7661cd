"""A city made of another is found by name, as it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_code.city import Cities
from model_code.errors import CityloomError
from pipelines.derived_cities import given, put


def test_a_derived_city_is_read_again_as_it_was_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CITYLOOM_DATA", str(tmp_path))
    monkeypatch.setenv("CITYLOOM_CITIES", "")
    made = given("demo") | {"name": "half", "title": "Halb so groß"}
    put({"half": made})
    assert given("half") == made
    assert Cities.load()["half"].title == "Halb so groß"
    assert given("demo")["name"] == "demo"
    with pytest.raises(CityloomError, match=r"no nowhere\.yaml in .*cities or .*derived_cities"):
        given("nowhere")
    monkeypatch.setenv("CITYLOOM_DATA", "s3://bucket/raw")
    with pytest.raises(
        CityloomError, match=r"s3://bucket/raw is no folder here[\s\S]*CITYLOOM_DATA"
    ):
        put({"half": made})
