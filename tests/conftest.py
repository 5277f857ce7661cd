"""Fixtures that several parts share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import Place, make_place


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A tiny city that the job has built once; copy it before changing it."""
    place = make_place(tmp_path_factory.mktemp("built") / "place")
    done = place.run(*place.job(), env={**os.environ, **place.env})
    assert done.returncode == 0, done.stderr[-4000:]
    return place


@pytest.fixture
def place(built: Place, tmp_path: Path) -> Iterator[Place]:
    """A copy of the built city of one's own."""
    yield built.copy(tmp_path / "place")
