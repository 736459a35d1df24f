"""Hostile records in a real browser: nothing of them runs on any page."""

from __future__ import annotations

from typing import Any

from redis import Redis

from packmule.tests.dashboard import addresses
from packmule.tests.dashboard import browser as browsers
from packmule.tests.dashboard.sites import served
from packmule.tests.dashboard.test_attacks import EVIL, streams, values
from packmule.tests.hostile import Hostile

UNSEEN = ("/login", "/health", "/mail/suppressed.csv", "/mail/results")
"""What is looked at elsewhere, or downloaded."""


def test_nothing_that_others_wrote_runs_on_any_page(client: Redis, browser: Any) -> None:
    hostile = Hostile(client, EVIL)
    hostile.write()
    shown = 0
    with served(client) as site, browsers.opened(browser) as (page, faults):
        faults.allowed += ["status of 4", "status of 5", "500 from"]  # pages of things that aren't there
        for each in addresses.of_pages(site.app):
            if each.method != "GET" or streams(each) or each.path.startswith(UNSEEN):
                continue
            for filling in values(hostile)[1:4:2] if each.parameters else values(hostile)[:1]:
                page.goto(site.address + each.filled(filling), wait_until="load")
                harmed = page.evaluate("window.pwned || document.getElementById('pwned') !== null")
                assert not harmed, str(each)
                shown += "pwned" in page.content()
    assert shown > 5
