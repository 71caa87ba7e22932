"""Headless Chromium, which records every request and every error of a page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)


@contextmanager
def started() -> Iterator[Any]:
    """Start a headless browser, and close it at the end of the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=list(_ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, page: Path, **context: Any) -> Iterator[Any]:
    """Open a local page. At the end of the block, check that it requested no other file and reported no error."""
    session = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **context})
    tab = session.new_page()
    requested: list[str] = []
    errors: list[str] = []
    tab.on("request", lambda request: requested.append(request.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    # not warnings: a browser without a GPU that is busy gives some of its own, about its canvas
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
    tab.set_default_timeout(8000)
    tab.goto(page.as_uri())
    yield tab
    session.close()
    assert {url.partition("#")[0] for url in requested if not url.startswith("data:")} == {page.as_uri()}
    assert errors == [], errors
