"""Pages that are made from code, and links between pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model_code.tables import contract, markdown
from tests.tiny import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("cities/**/*.md")])


def test_tables_page_is_what_the_contracts_say() -> None:
    assert (ROOT / "docs" / "tables.md").read_text() == markdown(), "run `make tables`"


def test_evaluation_page_lists_the_protocols() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text()
    (column,) = (c for c in contract("leaderboard").columns if c.name == "protocol")
    rows = page.split("| `protocol` |")[1].split("\n\n")[0]
    assert tuple(re.findall(r"^\| `([\w, ]+)` \|", rows, re.M)) == column.choices


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text())
    missing = [t for t in targets if not (page.parent / t).exists()]
    assert not missing
