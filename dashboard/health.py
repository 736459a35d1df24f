"""Health: whether the dashboard answers, and Redis, too; for probes, without a login."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


def health(request: Request) -> Response:
    """`/health`: 200 if Redis answers, else 503."""
    request.app.state.site.client.ping()
    return PlainTextResponse("ok\n")


ROUTES = [Route("/health", health, name="health")]
