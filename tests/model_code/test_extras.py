from __future__ import annotations

import tomllib
from importlib.metadata import packages_distributions
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from model_code import extras
from model_code.errors import MissingExtraError
from tests.tiny import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    extra: [Requirement(line) for line in lines]
    for extra, lines in PROJECT["optional-dependencies"].items()
}
LOCK: dict[str, Any] = {}  # by name of package: its entries in uv.lock, one for each version
for entry in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
    LOCK.setdefault(entry["name"], []).append(entry)


def test_every_extra_of_the_project_is_known() -> None:
    assert set(EXTRAS) == set(extras.PACKAGE_OF)


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_is_locked_as_the_project_asks_for_it(extra: str) -> None:
    """What `uv sync --locked --extra` installs, read without a network."""
    (own,) = LOCK["cityloom"]
    asked = {canonicalize_name(wanted.name): wanted for wanted in EXTRAS[extra]}
    locked = own["optional-dependencies"][extra]
    assert {entry["name"] for entry in locked} == set(asked)
    for name, wanted in asked.items():
        for version in LOCK[name]:
            assert wanted.specifier.contains(version["version"]), (name, version["version"])
            assert version.get("wheels") or version.get("sdist"), name
    for entry in locked:  # extras of extras, as ray[data]
        wanted = asked[entry["name"]]
        assert set(entry.get("extra", ())) == wanted.extras


def test_the_lock_follows_the_project_file() -> None:
    (own,) = LOCK["cityloom"]
    noted = {
        (entry["name"], entry.get("marker", ""), entry.get("specifier", ""))
        for entry in own["metadata"]["requires-dist"]
    }
    asked = [("", Requirement(line)) for line in PROJECT["dependencies"]]
    asked += [(extra, wanted) for extra, lines in EXTRAS.items() for wanted in lines]
    for extra, wanted in asked:
        marker = f"extra == '{extra}'" if extra else ""
        matching = [
            s for name, m, s in noted if (name, m) == (canonicalize_name(wanted.name), marker)
        ]
        assert [set(s.split(",")) for s in matching] == [set(str(wanted.specifier).split(","))]
    assert len(noted) == len(asked)


@pytest.mark.parametrize("extra", [extra for extra in EXTRAS if extras.installed(extra)])
def test_the_package_that_tells_of_an_extra_comes_with_it(extra: str) -> None:
    brings = set(map(canonicalize_name, packages_distributions()[extras.PACKAGE_OF[extra]]))
    assert brings & {canonicalize_name(wanted.name) for wanted in EXTRAS[extra]}


def test_an_installed_extra_is_loaded() -> None:
    assert extras.load("dev") is pytest


def test_a_missing_extra_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.PACKAGE_OF, "vllm", "a_package_that_nobody_has")
    assert not extras.installed("vllm")
    with pytest.raises(MissingExtraError) as caught:
        extras.load("vllm")
    assert "a_package_that_nobody_has" in str(caught.value)
    assert "uv sync --inexact --extra vllm" in str(caught.value)
