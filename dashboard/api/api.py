"""The HTTP API under `/api/v1`: which operation answers a request, and which web pages may ask."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, Router

from packmule.dashboard.api import (
    batches,
    bounces,
    bulk,
    bulk_mail,
    enqueueing,
    errors,
    events,
    files,
    flows,
    jobs,
    new_flows,
    openapi,
    pipelines,
    problems,
    queues,
    said,
    schedules,
    steering,
    streams,
    workers,
)
from packmule.dashboard.api.endpoint import Endpoint, respond
from packmule.dashboard.api.options import ApiOptions
from packmule.dashboard.api.service import Service

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from packmule.dashboard.site import Site

ENDPOINTS: tuple[Endpoint, ...] = (
    *enqueueing.ENDPOINTS,
    *jobs.ENDPOINTS,
    *steering.ENDPOINTS,
    *bulk.ENDPOINTS,
    *said.ENDPOINTS,
    *streams.ENDPOINTS,
    *files.ENDPOINTS,
    *batches.ENDPOINTS,
    *bulk_mail.ENDPOINTS,
    *bounces.ENDPOINTS,
    *new_flows.ENDPOINTS,
    *pipelines.ENDPOINTS,
    *flows.ENDPOINTS,
    *queues.ENDPOINTS,
    *schedules.ENDPOINTS,
    *errors.ENDPOINTS,
    *workers.ENDPOINTS,
    *events.ENDPOINTS,
)

PREFIX = "/api/v1"

_ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID"
_SHOWN_HEADERS = "ETag, Location, RateLimit, RateLimit-Policy, Retry-After"


def mount(site: Site, options: ApiOptions) -> Mount:
    """The route of the whole API.

    >>> Starlette(routes=[mount(site, ApiOptions())])  # doctest: +SKIP
    """
    service = Service(site, options)
    by_path: defaultdict[str, dict[str, Endpoint]] = defaultdict(dict)
    for each in ENDPOINTS:
        by_path[each.path][each.method] = each
    document = openapi.document(ENDPOINTS, PREFIX)
    # Names may have a slash in them, so a path without a name goes first, and then the longest one.
    paths = sorted(by_path, key=lambda path: ("{" in path, -path.count("/") if "{" in path else 0))
    routes = [Route(path.replace("}", ":path}"), _Resource(by_path[path], service)) for path in paths]
    routes.append(Route("/openapi.json", _Document(document)))
    router = Router(routes, redirect_slashes=False, default=_nowhere)
    return Mount(PREFIX, _Origins(router, options.origins) if options.origins else router)


class _Resource:
    """What is at one path: an operation for each method."""

    def __init__(self, operations: dict[str, Endpoint], service: Service) -> None:
        self.operations = operations
        self.service = service
        names = {*operations, "OPTIONS"} | ({"HEAD"} if "GET" in operations else set())
        self.allowed = ", ".join(sorted(names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        method = "GET" if request.method == "HEAD" else request.method
        operation = self.operations.get(method)
        if operation:
            response = await respond(operation, self.service, request)
        elif method == "OPTIONS":
            response = Response(status_code=204, headers={"Allow": self.allowed})
        else:
            found = problems.problem(405, "MethodNotAllowed", f"{method} is not for this: use {self.allowed}")
            response = problems.answer(found, {"Allow": self.allowed})
        await response(scope, receive, send)


class _Document:
    """The description of the API, which is no secret."""

    def __init__(self, document: bytes) -> None:
        self.document = document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = Response(self.document, 200, {"Cache-Control": "no-cache"}, "application/json")
        if scope["method"] not in ("GET", "HEAD"):
            found = problems.problem(405, "MethodNotAllowed", "use GET")
            response = problems.answer(found, {"Allow": "GET, HEAD"})
        await response(scope, receive, send)


class _Origins:
    """Lets the pages of some origins read answers; none unless the settings name them."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self.app = app
        self.origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = dict(scope["headers"]).get(b"origin", b"").decode("latin-1")
        if origin not in self.origins:
            await self.app(scope, receive, send)
            return
        headers = [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-methods", b"GET, POST, PUT, DELETE"),
            (b"access-control-allow-headers", _ALLOWED_HEADERS.encode()),
            (b"access-control-expose-headers", _SHOWN_HEADERS.encode()),
            (b"access-control-max-age", b"600"),
            (b"vary", b"Origin"),
        ]

        async def with_origin(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]  # type: ignore[misc]
            await send(message)

        await self.app(scope, receive, with_origin)  # type: ignore[arg-type]


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    found = problems.problem(404, "NoSuchPath", f"the API has nothing here: see {PREFIX}/openapi.json")
    await problems.answer(found)(scope, receive, send)
