"""Debian's Chromium, driven by playwright, that reports whatever a page should not do."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """Path of the browser: `$CITYLOOM_CHROMIUM` or `chromium`; without it, skip (in CI: fail)."""
    found = os.environ.get("CITYLOOM_CHROMIUM") or shutil.which("chromium")
    if found and Path(found).exists():
        return found
    reason = "no Chromium: apt-get install chromium, or set CITYLOOM_CHROMIUM to its path"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def open_page(
    browser: Browser, file: Path, *, width: int = 1280, height: int = 900, dark: bool = False
) -> Iterator[Page]:
    """The file in a window of its own; at the end, any message, error, dialog or request fails."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("request", lambda request: problems.append(f"request: {request.url[:200]}"))
    page.on("dialog", lambda dialog: (problems.append("dialog"), dialog.dismiss()))
    try:
        page.goto(file.as_uri())
        yield page
        page.wait_for_timeout(50)
    finally:
        context.close()
    own = f"request: {file.as_uri()}"
    found = [p for p in problems if p != own and not p.startswith("request: data:")]
    assert not found, "\n".join(found)


def look(page: Page, host: str) -> str:
    """The picture on the canvas of a map or chart."""
    return str(page.evaluate("(id) => document.querySelector(`#${id} canvas`).toDataURL()", host))


def marked(page: Page, host: str) -> bool:
    """Whether something is pointed at on a map or chart."""
    script = """(id) => {
        const over = document.querySelector(`#${id} .over`);
        const copy = document.createElement("canvas");
        [copy.width, copy.height] = [over.width, over.height];
        const pen = copy.getContext("2d", { willReadFrequently: true });
        pen.drawImage(over, 0, 0);
        return pen.getImageData(0, 0, copy.width, copy.height).data.some((v) => v > 0);
    }"""
    return bool(page.evaluate(script, host))


def options(page: Page, select: str) -> list[str]:
    return list(page.locator(f"#{select} option").evaluate_all("(all) => all.map((o) => o.value)"))


def hover(page: Page, target: str, x: float = 10, y: float = 10) -> None:
    """Point at a place once the page rests there: scrolling takes away what was pointed at."""
    element = page.locator(target).first
    element.scroll_into_view_if_needed()
    page.wait_for_timeout(150)
    element.hover(position={"x": x, "y": y})


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def press(page: Page, group: str, value: str) -> None:
    button = page.locator(f"#{group} button[data-value='{value}']")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
