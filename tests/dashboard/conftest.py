"""What tests of the dashboard share: a served site, and a real browser whose page tolerates no errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from packmule.dashboard.api.options import ApiOptions
from packmule.dashboard.live import changes, hub
from packmule.tests.command_line import DEADLINE
from packmule.tests.dashboard import browser as browsers
from packmule.tests.dashboard.api_site import Api, served_api
from packmule.tests.dashboard.pages_of_jobs import Pages, pages_for
from packmule.tests.dashboard.sites import Served, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture
def dashboard(client: Redis) -> Iterator[Served]:
    """The site on the shared server; `dashboard.viewer` is an admin, and may be replaced."""
    with served(client) as found:
        yield found


@pytest.fixture
def pages(client: Redis) -> Iterator[Pages]:
    """The site in this process, for a viewer who may be replaced."""
    with pages_for(client) as found:
        yield found


@pytest.fixture
def steady_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages wait until their hub has begun, however long that takes, and no minute begins meanwhile."""
    monkeypatch.setattr(hub, "PATIENCE", DEADLINE)
    monkeypatch.setattr(changes, "MINUTE", 10**12)


@pytest.fixture
def api(client: Redis, tmp_path: Path) -> Iterator[Api]:
    """The HTTP API on the shared server, with a storage of its own."""
    with served_api(client, ApiOptions(storage_url=str(tmp_path / "files"), max_file_bytes=100_000)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; tests are skipped where it isn't installed, unless `CI` is set.

    It ends with its module, since playwright's event loop keeps other tests from running theirs.
    """
    with browsers.launched() as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A wide, light page; what its console says, a dialog or a request to another host fails the test.

    Name it after `dashboard` in a test's arguments, so that it closes before the site does.
    """
    with browsers.opened(browser) as (found, _):
        yield found
