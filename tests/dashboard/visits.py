"""Visits of pages without a browser: what a viewer of some role gets, and what a form's answer says."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from redis import Redis
from starlette.testclient import TestClient

from packmule.dashboard.site import Site, build
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs.client import Client
from packmule.observe.check.checks import Checks
from packmule.tests.dashboard.asking import unwatched
from packmule.tests.dashboard.sites import QUEUES

OURS = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
ADDRESS = "192.0.2.7"


@dataclass
class Visit:
    """What the viewer `ada` does; `viewer` may be replaced."""

    viewer: Viewer
    http: TestClient

    def get(self, path: str, status: int = 200, **query: str) -> str:
        """The page at `path`, or one region of it: `get("/errors", region="list")`."""
        answer: httpx.Response = self.http.get(path, params=query or None, headers=OURS)
        assert answer.status_code == status, answer.text
        return str(answer.text)

    def text(self, path: str, status: int = 200, **query: str) -> str:
        """The text of the page, without its tags and on one line."""
        return text_of(self.get(path, status, **query))

    def post(self, path: str, **fields: str) -> str:
        """Send a form; the message of the page to which it leads."""
        answer = self.http.post(path, data=fields, headers=OURS)
        assert answer.status_code == 200, answer.text
        found = re.search(r'<p class="message[^>]*>(.*?)</p>', answer.text, re.DOTALL)
        assert found, answer.text
        return html.unescape(found[1])

    def refused(self, path: str, status: int = 403, **fields: str) -> str:
        """Send a form that is refused; the text of the page that says so."""
        answer = self.http.post(path, data=fields, headers=OURS)
        assert answer.status_code == status, answer.text
        return text_of(answer.text)


@contextmanager
def visiting(
    client: Redis,
    role: Role = Role.ADMIN,
    *,
    may_see_payloads: bool = True,
    checks: Checks | None = None,
    templates: str | None = None,
) -> Iterator[Visit]:
    """Visits of the site on `client`'s server, until the block ends."""
    jobs = Client(client, QUEUES)
    site = Site(client, jobs, QUEUES, "redis://private", "development", checks=checks, templates=templates)
    visit = Visit(Viewer("ada", role, may_see_payloads, "s1"), None)  # type: ignore[arg-type]
    app = unwatched(build(site, lambda request: visit.viewer))
    with TestClient(app, base_url="http://127.0.0.1", client=(ADDRESS, 50_000)) as visit.http:
        yield visit


def text_of(page: str) -> str:
    """The text of HTML on one line, without what only the script and the style know."""
    main = page[page.find("<main") :] if "<main" in page else page
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", main)).split())
