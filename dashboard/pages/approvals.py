"""Approvals: the jobs that await a signal, with a form for each to send it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.live.shared import shared
from packmule.dashboard.pages.job_values import call_text
from packmule.dashboard.pages.paging import MOST_BYTES, page_of, small
from packmule.dashboard.pages.rendering import render
from packmule.jobs.steps import ANSWER
from packmule.observe.awaiting import awaiting

MOST = 100


@shared
def approvals(request: Request) -> Response:
    """`/approvals`: the jobs that await a signal, the next to end its wait first."""
    site, sees = request.app.state.site, request.state.viewer.may_see_payloads
    found, is_partial = awaiting(site.client, site.queues, MOST)
    rows = [
        {
            "job": each.job,
            "signal": each.signal,
            "since": each.since,
            "until": each.until,
            "text": call_text(each.job) if sees else "",
            "is_answer": (each.job.waits or "").startswith(ANSWER),
        }
        for each in found
    ]

    def of_rows(size: int) -> Response:
        return render(request, "approvals.html", page=page_of(rows, request, size), is_partial=is_partial)

    return small(of_rows, MOST_BYTES, "approvals")


ROUTES = [Route("/approvals", approvals, methods=["GET"], name="approvals")]
