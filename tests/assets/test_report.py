"""The report that the job has written, in a real browser."""

from __future__ import annotations

from tests.model_code.report.browser import (
    hover,
    look,
    open_browser,
    open_page,
    options,
    overflow,
    press,
)
from tests.tiny import Place


def test_the_built_report_can_be_clicked_through(built: Place) -> None:
    """Whatever the page says on the console is an error."""
    config = built.config()
    methods = {
        name if variant == "default" else f"{name} · {variant}"
        for name, choice in config["methods"].items()
        for variant in ("default", *choice.get("variants", {}))
    }
    file = built.root / "lake" / built.city / "report.html"
    with open_browser() as browser, open_page(browser, file) as page:
        assert page.inner_text("h1") == config["title"]
        for link in page.locator(".sections a").all():
            link.click()
        assert sorted(options(page, "map-task")) == sorted(config["indicators"])
        assert set(options(page, "map-method")) == methods
        maps = set()
        for task in options(page, "map-task"):
            page.select_option("#map-task", task)
            for method in options(page, "map-method"):
                page.select_option("#map-method", method)
                for split in config["splits"]:
                    press(page, "map-split", split)
                    assert f"{split} split" in page.inner_text("#map-finding")
                    assert page.locator("#worst tbody tr").count() > 0
            maps.add(look(page, "true-map") + look(page, "predicted-map"))
        assert len(maps) == len(config["indicators"])
        hover(page, "#true-map canvas", 60, 60)
        assert "true: " in page.inner_text("#tip") and "predicted: " in page.inner_text("#tip")

        assert page.locator("#board tbody tr").count() == len(methods)
        for split in config["splits"]:
            press(page, "board-split", split)
            for metric in options(page, "board-metric"):
                page.select_option("#board-metric", metric)
                text = page.inner_text("#board")
                assert "NaN" not in text and "undefined" not in text
        for task in options(page, "detail-task"):
            page.select_option("#detail-task", task)
            assert page.locator("#dots circle").count() >= len(methods)
        for method in options(page, "embedding-method"):
            page.select_option("#embedding-method", method)
            for axes in ("pca", "tsne"):
                press(page, "embedding-axes", axes)
        assert page.locator("img").evaluate_all(
            "(all) => all.length > 0 && all.every((i) => i.complete && i.naturalWidth > 0)"
        )
        assert overflow(page) <= 0
