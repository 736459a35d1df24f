"""An operation of the API: what it takes and answers, what it needs, and the path of a request through it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from packmule.dashboard.acting import acting
from packmule.dashboard.api import problems
from packmule.dashboard.api.admission import Asker
from packmule.dashboard.api.bodies import body_of, query_of
from packmule.dashboard.api.problems import Refused
from packmule.dashboard.api.scopes import Scope
from packmule.dashboard.api.service import Service

log = logging.getLogger("packmule.api")

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with another status than usual, or with headers."""

    value: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """One request that was let in: `path` has the names in its path, `query` and `body` what it asks for."""

    service: Service
    request: Request
    asker: Asker
    path: Mapping[str, str]
    query: Any
    body: Any
    audited: dict[str, Any] = field(default_factory=dict)
    """What the audit keeps of it beside the names in the path."""

    def made(self, value: Any, path: str, status: int = 201) -> Reply:
        """The answer that names what was made, whose `path` in the API is its `Location`."""
        return Reply(value, status, {"Location": f"{self.request.scope.get('root_path', '')}{path}"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An operation: `do` answers a call. `endpoint` makes it of a function, which documents it."""

    method: str
    path: str
    scope: Scope | None
    do: Callable[[Call], Any]
    query: type[Any] | None = None
    body: type[Any] | None = None
    takes: str = JSON
    answer: Any = None
    status: int = 200
    media_type: str = JSON
    thing: str = ""
    takes_token: bool = False
    has_etag: bool = False
    action: str = ""
    may: tuple[int, ...] = ()
    takes_key: bool = False

    @property
    def name(self) -> str:
        """Its name in the description of the API."""
        return str(getattr(self.do, "__name__", ""))

    @property
    def said(self) -> str:
        """Its documentation."""
        return inspect.cleandoc(self.do.__doc__ or "")


def endpoint(
    method: str,
    path: str,
    scope: Scope | None,
    *,
    query: type[Any] | None = None,
    body: type[Any] | None = None,
    takes: str = JSON,
    answer: Any = None,
    status: int = 200,
    media_type: str = JSON,
    thing: str = "",
    takes_token: bool = False,
    has_etag: bool = False,
    action: str = "",
    may: tuple[int, ...] = (),
    takes_key: bool = False,
) -> Callable[[Callable[[Call], Any]], Endpoint]:
    """Make an operation of a function or coroutine of a `Call`.

    `thing` is `job` or `batch` if a token may be bound to the `id` in its path, and `takes_token` lets such a
    token be in the query. `action` is its name in the audit. `may` are the statuses of problems that aren't
    those of every operation. It `takes_key` if it can be sent again under an `Idempotency-Key`.
    """

    def made(do: Callable[[Call], Any]) -> Endpoint:
        return Endpoint(
            method, path, scope, do, query, body, takes, answer, status, media_type,
            thing, takes_token, has_etag, action, may, takes_key,
        )  # fmt: skip

    return made


async def respond(operation: Endpoint, service: Service, request: Request) -> Response:
    """Answer a request for `operation`; whatever goes wrong is a problem in its answer."""
    headers: dict[str, str] = {}
    try:
        asker = Asker("everybody", frozenset())
        if operation.scope is not None:
            asker = await service.admission.of(request, operation.takes_token)
            headers = service.admission.headers(asker)
            thing = f"{operation.thing}:{request.path_params['id']}" if operation.thing else None
            asker.check(operation.scope, thing)
        query = query_of(request, operation.query) if operation.query else None
        body = await body_of(request, operation.body) if operation.body else None
        call = Call(service, request, asker, request.path_params, query, body)
        request.state.viewer = asker.viewer
        found = await _done(operation, call)
        if not isinstance(found, Response):
            found = _written(operation, found, request)
    except Refused as refusal:
        found = problems.answer(refusal.problem, refusal.headers)
    except ClientDisconnect:
        return Response(status_code=400)
    except Exception as error:
        problem = problems.of(error)
        if problem is None:
            log.exception("%s %s failed", operation.method, operation.path)
            problem = problems.problem(500, "InternalError", "a mistake of Packmule's: its log says which")
        found = problems.answer(problem)
    found.headers.update(headers)
    return found


async def _done(operation: Endpoint, call: Call) -> Any:
    if inspect.iscoroutinefunction(operation.do):
        return await operation.do(call)
    if operation.action:
        return await run_in_threadpool(_acted, operation, call)
    return await run_in_threadpool(operation.do, call)


def _acted(operation: Endpoint, call: Call) -> Any:
    """Do what changes something, through the door that keeps the audit."""
    with acting(call.request, operation.action, **call.path) as call.audited:
        return operation.do(call)


def _written(operation: Endpoint, found: Any, request: Request) -> Response:
    reply = found if isinstance(found, Reply) else Reply(found, operation.status)
    headers = {"Cache-Control": "no-store", **reply.headers}
    if reply.value is None:
        return Response(status_code=reply.status, headers=headers)
    content = msgspec.json.encode(reply.value, enc_hook=str)
    if operation.has_etag:
        tag = f'"{blake2b(content, digest_size=12).hexdigest()}"'
        headers |= {"ETag": tag, "Cache-Control": "private, no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
    return Response(content, reply.status, headers, JSON)
