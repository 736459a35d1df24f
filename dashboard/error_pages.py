"""Error pages: what can go wrong with a request, in words; a page for people, a line for programs."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from redis import exceptions as redis_errors
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from packmule.dashboard.api import problems
from packmule.dashboard.pages.rendering import render
from packmule.errors import Conflict, Error, NotFound, Unavailable, UsageError
from packmule.plain_text import plain, plain_lines

logger = logging.getLogger(__name__)

REDIS_SAYS: tuple[tuple[type[Exception], str], ...] = (
    (
        redis_errors.OutOfMemoryError,
        "Redis is full: nothing can be changed until it has room. Delete ended jobs, or raise its maxmemory.",
    ),
    (
        redis_errors.ReadOnlyError,
        "Redis is a read-only replica: nothing can be changed until the primary is found.",
    ),
    (redis_errors.ResponseError, "Redis refused this page's request: {}"),
    (
        redis_errors.RedisError,
        "Redis can't be reached. `packmule check` tests the connection; reload this page when Redis is back.",
    ),
)
"""What Redis's errors mean for somebody who looks at a page."""

RETRY_AFTER = 5
"""Seconds after which a program may ask again, when Redis could not answer."""

PASSING = ("MISCONF", "NOREPLICAS", "MASTERDOWN", "LOADING", "BUSY", "READONLY", "OOM")
"""How errors of a server begin that can serve again later."""

WRONG_TYPE = "WRONGTYPE"
WRITTEN_BY_ANOTHER = (
    "A key that this page needs has the wrong type. Another program writes to this Redis database: give "
    "Packmule a database of its own."
)

TITLES = {
    400: "Bad request",
    401: "Log in first",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Not possible now",
    413: "Too large",
    421: "Wrong host",
    500: "Something went wrong",
    503: "Unavailable",
}

TEXTS = {
    404: "There is no such page.",
    405: "This address doesn't accept that kind of request.",
    413: "What you sent is larger than this page accepts.",
    500: "The log of the dashboard has the details.",
}


def status_of(error: Exception) -> int:
    """The HTTP status that says what kind an error of ours or of Redis is.

    >>> status_of(NotFound("there is no job x"))
    404
    """
    if isinstance(error, HTTPException):
        return error.status_code
    kinds: tuple[tuple[type[Exception], int], ...] = (
        (NotFound, 404),
        (UsageError, 400),
        (Unavailable, 503),
        (Conflict, 409),
        (Error, 409),
        (redis_errors.ConnectionError, 503),
        (redis_errors.TimeoutError, 503),
        (redis_errors.ReadOnlyError, 503),
        (redis_errors.OutOfMemoryError, 503),
    )
    if isinstance(error, redis_errors.ResponseError) and str(error).startswith(PASSING):
        return 503
    if WRONG_TYPE in str(error) and isinstance(error, redis_errors.ResponseError):
        return 409
    return next((status for kind, status in kinds if isinstance(error, kind)), 500)


def words_for(error: Exception) -> str:
    """What is wrong and what helps, for the person who meets it."""
    if isinstance(error, HTTPException):
        usual = HTTPStatus(error.status_code).phrase
        told = "" if error.detail in ("", usual) else error.detail
        return told or TEXTS.get(error.status_code, usual)
    if isinstance(error, Unavailable) and isinstance(error, redis_errors.RedisError):
        return f"Redis can't be reached: {error}. `packmule check` tests the connection."
    if isinstance(error, Error):
        return str(error)
    if WRONG_TYPE in str(error):
        return WRITTEN_BY_ANOTHER
    return next((words for kind, words in REDIS_SAYS if isinstance(error, kind)), TEXTS[500]).format(error)


def answer(request: Request, error: Exception) -> Response:
    """The page, or for a program the line or the API's problem, that says what is wrong."""
    status = status_of(error)
    headers = dict(getattr(error, "headers", None) or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED and request.method == "OPTIONS":
        allowed = {"OPTIONS", *headers.get("Allow", "").split(", ")} - {""}
        return Response(status_code=204, headers={"Allow": ", ".join(sorted(allowed))})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("Retry-After", str(RETRY_AFTER))
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        request.state.broken = error
        logger.error("%s %s: %s", request.method, plain(_path(request)), told(error))
    words = words_for(error)
    if request.scope["path"].removeprefix(request.scope["root_path"]).startswith("/api/"):
        kind = HTTPStatus(status).phrase.title().replace(" ", "").replace("-", "")
        return problems.answer(problems.problem(status, kind, words), headers)
    if "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse(plain_lines(words) + "\n", status, headers)
    values: dict[str, Any] = {"title": TITLES.get(status, HTTPStatus(status).phrase), "words": words}
    page = render(request, "error.html", status, **values)
    page.headers.update(headers)
    return page


def _path(request: Request) -> str:
    """The path of a request without the secret of a one-time link."""
    path: str = request.scope["path"]
    secret = request.path_params.get("secret")
    return path.replace(secret, "...") if secret else path


def told(error: BaseException) -> str:
    """An error with its traceback for a log: each line is plain, and none begins where a record does."""
    import traceback  # noqa: PLC0415  only if something broke

    lines = plain_lines("".join(traceback.format_exception(error)).rstrip())
    return "\n  " + lines.replace("\n", "\n  ")


async def _answered(request: Request, error: Exception) -> Response:
    """Without a thread: while Redis is away, pages hold them all."""
    return answer(request, error)


HANDLERS: dict[Any, Any] = dict.fromkeys(
    (HTTPException, Error, redis_errors.RedisError, Exception), _answered
)
