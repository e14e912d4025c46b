"""A headless Chromium for tests; where there is none, they are skipped and say so."""
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass
class Seen:
    "What a page did while it was looked at."
    said: list[str]  # console, errors
    asked: list[str]  # requests besides files
    scroll_width: int


@contextmanager
def open_browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
    found = os.environ.get("COTSTUDY_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found: pytest.skip("no browser: install chromium, or name one in COTSTUDY_BROWSER, to look at the pages")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def look_at(browser, path: Path, width: int, shot: Path | None = None, after=None) -> Seen:
    "Open a file and keep what it says and asks for; `after(page)` may use it."
    page, said, asked = browser.new_page(viewport=dict(width=width, height=900)), [], []
    page.on("console", lambda m: said.append(m.text))
    page.on("pageerror", lambda e: said.append(str(e)))
    page.on("request", lambda q: None if q.url.startswith(("file:", "data:")) else asked.append(q.url))
    page.goto(path.resolve().as_uri())
    page.wait_for_timeout(200)
    if after: after(page)
    if shot: page.screenshot(path=str(shot), full_page=True)
    wide = page.evaluate("document.documentElement.scrollWidth")
    page.close()
    return Seen(said, asked, wide)
