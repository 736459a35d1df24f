"""The overview: each queue, and whether anything is wrong."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.pages.rendering import render
from packmule.jobs import queues


def overview(request: Request) -> Response:
    """`/`: a card for each queue."""
    site = request.app.state.site
    names = [*dict.fromkeys([*site.queues, *queues.names(site.client)])]
    return render(request, "overview.html", depths=queues.depths(site.client, names))


ROUTES = [Route("/", overview, name="overview")]
