from __future__ import annotations

import tomllib

import pytest

from model_code import extras
from model_code.errors import MissingExtraError
from tests.tiny import ROOT


def test_every_extra_of_the_project_is_known() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) == set(extras.PACKAGE_OF)


def test_an_installed_extra_is_loaded() -> None:
    assert extras.load("dev") is pytest


def test_a_missing_extra_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.PACKAGE_OF, "vllm", "a_package_that_nobody_has")
    assert not extras.installed("vllm")
    with pytest.raises(MissingExtraError) as caught:
        extras.load("vllm")
    assert "a_package_that_nobody_has" in str(caught.value)
    assert "uv sync --inexact --extra vllm" in str(caught.value)
