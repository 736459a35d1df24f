"""Every page of the menu: axe in both themes, on a telephone too, small enough, and by keyboard."""

from __future__ import annotations

import pytest

from packmule.dashboard.pages.addresses import known
from packmule.dashboard.pages.menu import GROUPS
from packmule.tests.dashboard.browser import NARROW, WIDE, opened, shoot, sideways
from packmule.tests.dashboard.gallery import ROUTES
from packmule.tests.dashboard.sites import served
from packmule.tests.jobs import sample_jobs

LONGEST_PAGE = 60_000
HEAVY = {"metrics"}
FOREIGN = {"rq"}
ITEMS = [item.route for _, items in GROUPS for item in items if item.route not in FOREIGN] + ["gallery"]
AXE = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}


def paths(site) -> dict[str, str]:
    """The paths of the menu's pages that exist, by route."""

    class Asked:
        app = site.app.site

    found = known(Asked())  # type: ignore[arg-type]
    return {name: found[name].path for name in ITEMS if name in found}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing_on_any_page(browser, client, produce, viewport, scheme):
    from axe_playwright_python.sync_playwright import Axe

    for _ in range(3):
        sample_jobs.noop.enqueue()
    told = []
    with served(client, more_routes=ROUTES) as site, opened(browser, viewport, scheme) as (page, _):
        for name, path in paths(site).items():
            answer = page.goto(site.address + path)
            assert answer is not None
            assert answer.status == 200, path
            if name not in HEAVY | {"gallery"} and len(answer.body()) > LONGEST_PAGE:
                told.append(f"{path}: {len(answer.body()):,} bytes")
            shoot(page, f"{name}-{viewport['width']}-{scheme}")
            if sideways(page):
                told.append(f"{path}: {sideways(page)} pixels too wide")
            for fault in Axe().run(page, options=AXE).response["violations"]:
                nodes = "; ".join(node["html"][:200] for node in fault["nodes"][:3])
                told.append(f"{path}: {fault['id']}: {fault['help']}: {nodes}")
    assert not told, "\n".join(told)


def test_every_page_can_be_walked_by_keyboard(dashboard, page):
    page.goto(dashboard.address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator("body").press("Shift+Tab")
    seen = set()
    for _ in range(40):
        page.keyboard.press("Shift+Tab")
        seen.add(page.evaluate("document.activeElement.innerText || document.activeElement.name"))
    assert {"Overview", "Jobs", "q"} <= seen
