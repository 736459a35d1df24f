"""A real browser for tests: Chromium, which fails a test for what a user's console would show."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from packmule.tests.command_line import DEADLINE, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response

SCREENS = Path(__file__).parents[2] / "build" / "screens"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
TIMEOUT = 1000 * DEADLINE
"""Milliseconds, for machines that are busy with other things."""


def chromium() -> str:
    """The path of an installed Chromium; without one the test is skipped, but not in CI."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: install the package chromium")
        pytest.skip("needs Chromium: install the package chromium")
    return found


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser without windows, until the block ends."""
    from playwright.sync_api import sync_playwright

    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
            timeout=TIMEOUT,
        )
        try:
            yield browser
        finally:
            browser.close()


class Faults(list[str]):
    """What went wrong in a page, such as errors and requests to others; `allowed` are parts of what may."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed: list[str] = []

    def add(self, fault: str) -> None:
        if not any(part in fault for part in self.allowed):
            self.append(fault)


@contextmanager
def opened(
    browser: Browser,
    viewport: dict[str, int] = WIDE,
    scheme: str = "light",
    *,
    javascript: bool = True,
) -> Iterator[tuple[Page, Faults]]:
    """A page of a fresh profile; at the end of the block its faults fail the test."""
    context = browser.new_context(
        viewport=viewport,  # type: ignore[arg-type]
        color_scheme=scheme,  # type: ignore[arg-type]
        java_script_enabled=javascript,
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="Europe/Berlin",
        device_scale_factor=1,
    )
    context.set_default_timeout(TIMEOUT)
    page, faults = context.new_page(), Faults()

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            faults.add(f"console {message.type}: {message.text} ({message.location.get('url')})")

    def on_request(request: Request) -> None:
        here = urlsplit(request.url)
        if here.scheme in ("http", "https") and here.hostname not in ("127.0.0.1", "localhost"):
            faults.add(f"a request to another host: {request.url}")

    def on_response(response: Response) -> None:
        if response.status >= 500:
            faults.add(f"{response.status} from {response.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: faults.add(f"script: {error}"))
    page.on("request", on_request)
    page.on("response", on_response)
    page.on("dialog", lambda dialog: (faults.add(f"a dialog: {dialog.message}"), dialog.dismiss()))
    try:
        yield page, faults
    finally:
        context.close()
    assert not faults, "\n".join(faults)


def becomes_true(page: Page, expression: str) -> None:
    """Wait until an expression is true in the page; its policy lets no script do that there."""
    until(lambda: page.evaluate(expression), expression, lambda: str(page.locator("body").inner_text()))


def shoot(page: Page, name: str) -> Path:
    """Write a picture of the whole page to `build/screens/<name>.png`."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    path = SCREENS / f"{name}.png"
    page.screenshot(path=path, full_page=True, animations="disabled")
    return path


def sideways(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))
