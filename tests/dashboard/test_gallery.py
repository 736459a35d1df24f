"""The pieces that all pages are made of, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from packmule.tests.dashboard.browser import NARROW, WIDE, becomes_true, opened, shoot, sideways
from packmule.tests.dashboard.gallery import ROUTES
from packmule.tests.dashboard.sites import Served, served


@pytest.fixture
def gallery(client: Redis) -> Iterator[Served]:
    with served(client, more_routes=ROUTES, environment="production") as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_piece_is_shown_without_sideways_scrolling(browser, gallery, viewport, scheme):
    with opened(browser, viewport, scheme) as (page, _):
        page.goto(f"{gallery.address}/gallery")
        becomes_true(page, "document.querySelector('time[data-form=since]').textContent.endsWith('s')")
        shoot(page, f"gallery-{viewport['width']}-{scheme}")
        assert sideways(page) == 0
        assert page.evaluate("window.hit") is None
