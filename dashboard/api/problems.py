"""Problem details (RFC 9457): each error of the API as JSON that says what is wrong, and where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from redis.exceptions import RedisError
from starlette.responses import Response

from packmule.coordination.redis.backoff import REDIS_ERRORS, is_transient
from packmule.errors import Conflict, Error, NotFound, Unavailable, UsageError
from packmule.jobs.delivery import ServerFull
from packmule.jobs.storage import FileTooLarge, StorageError, StorageFull, StorageUnavailable
from packmule.plain_text import plain

MEDIA_TYPE = "application/problem+json"

RETRY_AFTER = 2
"""Seconds after which a client may ask again if Redis is away."""

LONGEST_DETAIL = 2_000

_PLACE = re.compile(r" - at `\$(.*)`$", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\[\.\.\.\]")
_FIELD = re.compile(r"(?:missing required|contains unknown) field `(.+)`$", re.DOTALL)
_WORD = re.compile(r"(?<!^)(?=[A-Z])")


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with one part of a request.

    `pointer` names it in the body (RFC 6901), `parameter` in the URL's query, `header` among the headers.
    """

    detail: str
    pointer: str | None = None
    parameter: str | None = None
    header: str | None = None


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request was refused (RFC 9457); `type` stays the same for each kind of error."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[Fault, ...] = ()


class Refused(Error):
    """Ends a request with a problem."""

    def __init__(
        self, status: int, kind: str, detail: str, *faults: Fault, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.problem = problem(status, kind, detail, *faults)
        self.headers = headers or {}


def problem(status: int, kind: str, detail: str, *faults: Fault) -> Problem:
    """The problem of a `kind` such as NoSuchJob.

    >>> problem(404, "NoSuchJob", "no job has the id x").title
    'No such job'
    """
    title = _WORD.sub(" ", kind).capitalize() or HTTPStatus(status).phrase
    return Problem(f"urn:packmule:{kind}", title, status, plain(detail)[:LONGEST_DETAIL], faults)


def answer(found: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The response for a problem."""
    named = {"Retry-After": str(RETRY_AFTER)} if found.status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return Response(
        msgspec.json.encode(found), found.status, {**named, **(headers or {})}, media_type=MEDIA_TYPE
    )


def of(error: Exception) -> Problem | None:
    """The problem that an error of the house or of Redis is; None for a mistake of ours."""
    if isinstance(error, RedisError) or (
        isinstance(error, Unavailable) and not isinstance(error, StorageError)
    ):
        return _of_redis(error)
    for family, status in _FAMILIES:
        if isinstance(error, family):
            return problem(status, type(error).__name__, _OF_STORAGE.get(family) or str(error))
    return _of_redis(error) if isinstance(error, REDIS_ERRORS) else None


_FAMILIES: tuple[tuple[type[Exception], int], ...] = (
    (ServerFull, 503),
    (FileTooLarge, 413),
    (NotFound, 404),
    (StorageFull, 507),
    (StorageUnavailable, 503),
    (StorageError, 422),
    (UsageError, 422),
    (Conflict, 409),
    (Error, 409),
)
"""The statuses of errors, by the first that fits."""

_OF_STORAGE: dict[type[Exception], str] = {
    StorageFull: "there is no space for this file: nothing of it was kept",
    StorageUnavailable: "the storage is away or fails: try again in a moment",
    StorageError: "the storage refuses this file",
}
"""What the storage says may name paths of this machine, so these are said instead."""


def _of_redis(error: Exception) -> Problem | None:
    """That Redis is away, or can't be written to; its own words may name servers, so they stay here."""
    if isinstance(error, Unavailable) or is_transient(error):
        return problem(503, "Unavailable", "Redis is away or takes no writes: try again in a moment")
    said = str(error)
    if "WRONGTYPE" in said:
        return problem(409, "WrongType", "a key that this needs holds something of another type")
    if "Invalid stream ID" in said:
        return problem(422, "InvalidCursor", "no entry has such an id: use the cursor of the page before")
    return None


def malformed(error: Exception) -> Refused:
    """A body that isn't JSON, or isn't what is asked for: says where."""
    if isinstance(error, msgspec.ValidationError):
        detail, pointer = explained(str(error))
        return Refused(422, "InvalidBody", f"the body is not valid: {detail}", Fault(detail, pointer))
    if isinstance(error, RecursionError):
        return Refused(400, "MalformedBody", "the body is nested too deeply")
    return Refused(400, "MalformedBody", f"the body is not JSON: {error}")


def explained(text: str) -> tuple[str, str]:
    """msgspec's words about a value, and a pointer to it.

    >>> explained("Expected `int`, got `str` - at `$.calls[2].copies`")
    ('expected `int`, got `str`', '#/calls/2/copies')
    """
    found = _PLACE.search(text)
    place = "".join(f"/{name or number or '-'}" for name, number in _STEP.findall(found[1])) if found else ""
    words = _PLACE.sub("", text)
    if field := _FIELD.search(words):
        place += "/" + field[1].replace("~", "~0").replace("/", "~1")
    return words[:1].lower() + words[1:], f"#{place}"
