"""Clicks through the report in a real browser."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from model_code.report.html import render_report
from tests.model_code.report.browser import (
    hover,
    look,
    marked,
    open_browser,
    open_page,
    options,
    overflow,
    press,
)
from tests.model_code.report.sample import EVIL, METHODS, TASKS, report_data

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(render_report(report_data()), encoding="utf-8")
    return file


@pytest.mark.parametrize("width", [1280, 390])
def test_every_selector_of_the_maps_changes_them(
    browser: Browser, report: Path, width: int
) -> None:
    with open_page(browser, report, width=width) as page:
        assert overflow(page) <= 0
        assert options(page, "map-task") == [task for task, *_ in TASKS]
        seen_true = set()
        for task in options(page, "map-task"):
            page.select_option("#map-task", task)
            seen_true.add(look(page, "true-map"))
            seen_predicted, seen_error = set(), set()
            for method in options(page, "map-method"):
                page.select_option("#map-method", method)
                for split in ("random", "spatial"):
                    press(page, "map-split", split)
                    seen_predicted.add(look(page, "predicted-map"))
                    seen_error.add(look(page, "error-map"))
                    finding = page.inner_text("#map-finding")
                    assert f"in a test part of the {split} split" in finding
                    assert finding.startswith("macro F1" if task == "land_use" else "R²")
                    assert page.locator("#worst tbody tr").count() > 0
            assert len(seen_predicted) == len(seen_error) == 2 * len(METHODS)
            assert page.locator("#scatter canvas").count() == (0 if task == "land_use" else 2)
            assert page.locator("#hours svg").is_visible() == (task == "hourly_outflow")
            assert overflow(page) <= 0
        assert len(seen_true) == len(TASKS)
        press(page, "partition-kind", "spatial")
        assert "test: " in page.inner_text("#partition-legend")
        assert overflow(page) <= 0


def test_pointing_and_arrow_keys_show_a_region_on_every_map(browser: Browser, report: Path) -> None:
    with open_page(browser, report) as page:
        assert page.locator("#tip").is_hidden()
        canvas = page.locator("#true-map canvas").first
        hover(page, "#true-map canvas", 40, 40)
        tip = page.inner_text("#tip").splitlines()
        assert tip[0] == "r010c001", "the second row from the north, second column from the west"
        assert tip[1].startswith("true: ") and tip[1].endswith(" people")
        assert tip[2].startswith("predicted: ") and tip[3].startswith("error: ")
        everywhere = (
            "true-map",
            "predicted-map",
            "error-map",
            "scatter",
            "cluster-map",
            "embedding",
        )
        assert all(marked(page, host) for host in everywhere)

        canvas.focus()
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#tip").startswith("r010c002")
        page.keyboard.press("ArrowDown")
        assert page.inner_text("#tip").startswith("r009c002")
        page.keyboard.press("Escape")
        assert page.locator("#tip").is_hidden()
        assert not any(marked(page, host) for host in everywhere)

        row = page.locator("#worst tbody tr").first
        hover(page, "#worst tbody tr")
        assert page.inner_text("#tip").splitlines()[0] == row.locator("th").inner_text()
        assert marked(page, "error-map")


def test_a_region_without_data_says_so(browser: Browser, report: Path) -> None:
    with open_page(browser, report) as page:
        page.select_option("#map-task", "night_light")
        width = float(page.evaluate("document.querySelector('#true-map canvas').clientWidth"))
        hover(page, "#true-map canvas", width * 3.5 / 13, 60)
        assert "true: no data" in page.inner_text("#tip")
        assert "predicted: not in a test part" in page.inner_text("#tip")
        assert "no data" in page.inner_text("#value-legend")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_leaderboard_sorts_marks_and_compares(
    browser: Browser, report: Path, width: int
) -> None:
    with open_page(browser, report, width=width) as page:
        rows = page.locator("#board tbody tr")

        def order() -> list[str]:
            return list(rows.evaluate_all("(all) => all.map((r) => r.dataset.method)"))

        assert order() == ["poi", "chip_pca", "vit · small"], "by mean rank"
        page.locator("#board button[data-sort=population]").click()
        head = page.locator("#board th:has(button[data-sort=population])")
        assert head.get_attribute("aria-sort") == "descending"
        page.locator("#board button[data-sort=population]").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert order() == ["vit · small", "chip_pca", "poi"]

        contained = page.locator("#board tr[data-method=poi] .contained")
        assert contained.count() == 1 and "⊂" in contained.inner_text()
        assert page.locator("#board tr[data-method=chip_pca] .best").count() == 1
        assert "Within reach" in page.inner_text("#board tfoot")
        assert "0.84" in page.inner_text("#board tfoot")

        seen = set()
        for split in ("random", "spatial"):
            press(page, "board-split", split)
            for metric in options(page, "board-metric"):
                page.select_option("#board-metric", metric)
                text = page.inner_text("#board")
                assert "±" in text and "NaN" not in text and "undefined" not in text
                seen.add(text)
                for task in options(page, "detail-task"):
                    page.select_option("#detail-task", task)
                    assert page.locator("#dots circle").count() >= len(METHODS)
        assert len(seen) == 2 * len(options(page, "board-metric"))

        page.select_option("#board-metric", "headline")
        page.select_option("#detail-task", "population")
        page.select_option("#detail-method", "poi")
        better = page.inner_text("#duels")
        assert "poi is better than chip_pca by 0." in better and "[" in better
        page.select_option("#detail-method", "chip_pca")
        assert "chip_pca is worse than poi by 0." in page.inner_text("#duels")
        page.select_option("#detail-task", "land_use")
        assert "cannot be told apart" in page.inner_text("#duels")
        assert overflow(page) <= 0


def test_embeddings_switch_and_share_what_is_pointed_at(browser: Browser, report: Path) -> None:
    with open_page(browser, report) as page:
        seen = set()
        for method in options(page, "embedding-method"):
            page.select_option("#embedding-method", method)
            for axes in ("pca", "tsne"):
                press(page, "embedding-axes", axes)
                seen.add(look(page, "embedding"))
        assert len(seen) == 2 * len(METHODS)
        assert page.locator("#cluster-legend li").count() == 4
        hover(page, "#cluster-map canvas", 100, 100)
        assert marked(page, "embedding") and "cluster" in page.inner_text("#tip")


def test_links_tables_and_note(browser: Browser, report: Path) -> None:
    with open_page(browser, report) as page:
        assert "For showing, not for proving" in page.inner_text("header")
        for link in page.locator(".sections a").all():
            link.click()
            target = str(link.get_attribute("href")).removeprefix("#")
            page.wait_for_function(
                "(id) => document.querySelector(`.sections a[href='#${id}']`)"
                ".getAttribute('aria-current') === 'true'",
                arg=target,
            )
        assert "unknown zone" in page.inner_text("#rejected")
        assert "row 19: x=3, y=4" in page.inner_text("#rejected")
        assert "CC BY 4.0" in page.inner_text("#provenance")
        assert "sample/views/a.jpg and 1 more" in page.inner_text("#provenance")
        assert page.locator("#city img").evaluate_all(
            "(all) => all.every((image) => image.complete && image.naturalWidth > 0)"
        )


@pytest.mark.parametrize("width", [1280, 390])
def test_captions_stand_with_their_pictures_scores_and_shares(
    browser: Browser, report: Path, width: int
) -> None:
    with open_page(browser, report, width=width) as page:
        figures = page.locator(".caption-figures tr").evaluate_all(
            "(rows) => rows.map((r) => [...r.children].map((c) => c.firstChild?.textContent.trim()))"
        )
        found = {name: values for name, *values in figures}
        assert found["Captions"] == ["Satellite chips", "Street views"]
        assert found["Kept for pretraining"] == ["2 (100 %)", "2 (67 %)"]
        assert found["Tries, mean"] == ["1.00", "2.00"]
        assert found["CycleScore, mean"] == ["0.925", "0.550"]
        assert found["Declined by the segmenter"] == ["0", "1"]
        cards = page.locator(".caption-card")
        assert cards.count() == 5
        assert page.locator("[data-view=street_view][data-rank=worst] .caption-card").count() == 2
        assert page.locator("#captions img").evaluate_all(
            "(all) => all.length === 10 && all.every((i) => i.complete && i.naturalWidth > 0)"
        )
        first, poor = cards.nth(0), cards.filter(has_text="A dark street.")
        assert first.locator(".caption-shares li > span:first-child").all_inner_texts() == [
            "forest", "road", "open sky",
        ]  # fmt: skip
        bars = first.locator(".caption-shares .fill").evaluate_all(
            "(all) => all.map((bar) => +bar.getAttribute('width'))"
        )
        assert bars == [70, 20, 10]
        assert first.locator(".caption-shares .mark").count() == 3
        assert first.locator(".caption-scores dd").all_inner_texts() == [
            "0.90", "0.85", "0.95", "0.95", "0.95",
        ]  # fmt: skip
        state = poor.locator(".caption-state").inner_text()
        assert state == "Not kept: PerceptionScore 0.300 is under the floor of 0.45, after 3 tries."
        alone = cards.filter(has_text="CLIPScore alone")
        assert alone.count() == 1 and alone.locator(".caption-shares").count() == 0
        assert alone.locator(".caption-scores dd").count() == 2
        assert page.locator(".histogram").count() == 10
        assert page.locator(".histogram .mark").count() == 4
        inside = page.locator(".caption-card").evaluate_all(
            "(all) => all.every((card) => card.scrollWidth <= card.clientWidth)"
        )
        assert inside and overflow(page) <= 0


def test_ablations_say_what_is_a_tie(browser: Browser, report: Path) -> None:
    with open_page(browser, report, width=390) as page:
        said = page.locator("#ablations .sentences li").all_inner_texts()
        assert said[1].startswith("Spatial split, against itself without text: of 3 indicators ")
        assert "clearly better on 1 (population), clearly worse on 1 (night light)" in said[1]
        assert "a tie on 1" in said[1] and len(said) == 4
        assert page.locator("#ablations img, #transfer img").evaluate_all(
            "(all) => all.length === 2 && all.every((i) => i.complete && i.naturalWidth > 0)"
        )
        assert overflow(page) <= 0


def test_a_city_without_captions_has_no_such_sections(browser: Browser, tmp_path: Path) -> None:
    bare = dataclasses.replace(report_data(3, 4), captions=None, ablations=(), transfer=())
    file = tmp_path / "plain.html"
    file.write_text(render_report(bare), encoding="utf-8")
    with open_page(browser, file) as page:
        for name in ("captions", "ablations", "transfer"):
            assert page.locator(f"#{name}, a[href='#{name}']").count() == 0


def test_dark_and_light_differ(browser: Browser, report: Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with open_page(browser, report) as page:
        light, map_light = page.evaluate(background), look(page, "error-map")
        page.emulate_media(color_scheme="dark")
        page.wait_for_timeout(100)
        assert look(page, "error-map") != map_light, "a change of the scheme repaints the maps"
    with open_page(browser, report, dark=True) as page:
        assert page.evaluate(background) != light


def test_markup_in_names_stays_text(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "evil.html"
    file.write_text(render_report(report_data(4, 5, evil=True, pictures=False)), encoding="utf-8")
    with open_page(browser, file, width=390) as page:
        assert page.inner_text("h1") == EVIL
        assert EVIL in page.inner_text("#captions")
        page.select_option("#map-task", "land_use")
        assert EVIL in page.inner_text("#value-legend")
        page.locator("#true-map canvas").first.focus()
        page.wait_for_timeout(150)
        page.keyboard.press("ArrowDown")
        assert page.inner_text("#tip b") == EVIL
        assert page.locator("img[src=x]").count() == 0
        assert overflow(page) <= 0


@pytest.mark.parametrize("rows", [1, 3])
def test_a_city_with_next_to_nothing(browser: Browser, tmp_path: Path, rows: int) -> None:
    data = report_data(rows, 3, pictures=False)
    nothing: dict[str, Any] = {"predictions": {}, "embedding_maps": {}, "reachable": None,
                               "captions": None}  # fmt: skip
    for table in ("leaderboard", "summary", "comparisons", "rejected", "raw_files", "targets"):
        nothing[table] = getattr(data, table).iloc[:0]
    file = tmp_path / "bare.html"
    file.write_text(render_report(dataclasses.replace(data, **nothing)), encoding="utf-8")
    with open_page(browser, file) as page:
        assert "Nothing was rejected" in page.inner_text("#rejected")
        assert "No method predicts this indicator" in page.inner_text("#map-finding")
        hover(page, "#true-map canvas", 20, 20)
        assert "no data" in page.inner_text("#tip")
        assert overflow(page) <= 0
