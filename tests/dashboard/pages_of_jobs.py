"""What tests of the pages of jobs share: a site without a server, for a viewer of any role, and its text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redis import Redis
from starlette.testclient import TestClient

from packmule.dashboard.api.options import ApiOptions
from packmule.dashboard.site import Site, build
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs.client import Client
from packmule.tests.dashboard.asking import unwatched

QUEUES = ("high", "default", "low")
SAME = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}


@dataclass
class Pages:
    """A site; `viewer` may be replaced."""

    browser: TestClient
    viewer: Viewer

    def get(self, path: str, status: int = 200, **query: str) -> str:
        answer = self.browser.get(
            path, params=query or None, headers={"Accept": "text/html"}, follow_redirects=True
        )
        assert answer.status_code == status, answer.text
        return str(answer.text)

    def post(self, path: str, status: int = 200, **fields: Any) -> str:
        answer = self.browser.post(path, data=fields, headers=SAME, follow_redirects=True)
        assert answer.status_code == status, answer.text
        return str(answer.text)


@contextmanager
def pages_for(
    client: Redis,
    role: Role = Role.OPERATOR,
    may_see_payloads: bool = True,
    storage: str | None = None,
) -> Iterator[Pages]:
    found = Pages(TestClient(None, client=("192.0.2.7", 50000)), Viewer("ada", role, may_see_payloads))  # type: ignore[arg-type]
    api = ApiOptions(storage_url=storage)
    site = Site(client, Client(client), QUEUES, "redis://x", "development", api=api)
    app = unwatched(build(site, lambda request: found.viewer))
    with TestClient(app, client=("192.0.2.7", 50000)) as found.browser:
        yield found


def text_of(page: str) -> str:
    """What a page's main part shows, on one line."""
    main = page.partition("<main")[2].partition("</main>")[0] or page
    shown = re.sub(r"<(script|style|textarea)\b.*?</\1>", " ", main, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", shown)).split())
