"""The gallery: every piece that pages are made of, on one page, to look at."""

from __future__ import annotations

import math
import time
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.pages.rendering import render, templates

STATUSES = (
    *("queued", "started", "finished", "failed", "stopped", "scheduled", "deferred", "blocked", "canceled"),
    *("paused", "quiet", "vanished", "idle", "busy"),
)
COUNTS = {"queued": 1204, "started": 8, "blocked": 40, "scheduled": 310, "deferred": 12, "failed": 3}
NASTY = '<img src=x onerror="window.hit=1">\x1b[2J\u202e"\'' + "x" * 300

TRACEBACK = """Traceback (most recent call last):
  File "/srv/.venv/lib/python3.13/site-packages/packmule/worker/process/performer.py", line 88, in perform
    result = call()
  File "/srv/shop/reports.py", line 12, in report
    rows = fetch(month)
  File "/srv/.venv/lib/python3.13/site-packages/requests/api.py", line 73, in get
    return request("get", url)
  File "/srv/.venv/lib/python3.13/site-packages/requests/sessions.py", line 703, in send
    r = adapter.send(request)
ConnectionError: the bank doesn't answer <script>window.hit=1</script>
"""

TEMPLATE = Path(__file__).with_suffix(".html").read_text()


def gallery(request: Request) -> Response:
    """`/gallery`: only in tests."""
    waves = [round(50 + 40 * math.sin(n / 5) + n % 7, 1) for n in range(60)]
    return render(
        request,
        templates.from_string(TEMPLATE),
        statuses=STATUSES,
        counts=COUNTS,
        nasty=NASTY,
        now=time.time(),
        waves=waves,
        traceback=TRACEBACK,
    )


ROUTES = [Route("/gallery", gallery, name="gallery")]
