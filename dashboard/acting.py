"""Acting: the door through which pages, the API and rq-dashboard change something; it keeps the audit."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from packmule.dashboard import messages
from packmule.observe import audit
from packmule.plain_text import plain

logger = logging.getLogger(__name__)

UNRECORDED = "packmule.unrecorded"


@contextmanager
def acting(request: Request, action: str, **subject: Any) -> Iterator[dict[str, Any]]:
    """Record in the audit what the block does: by whom, from where, and how it ended.

    `action` is what the command line calls it. The block may add to the subject that it gets. Arguments of
    jobs and other secrets don't belong there. A block that fails is recorded with its error's name, as a part
    may be done; what is wrong with a form is to be found before the block.

    >>> with acting(request, "job cancel", id=id) as subject:  # doctest: +SKIP
    ...     subject["status"] = control.cancel(client, id)
    """
    told = dict(subject)
    try:
        yield told
    except Exception as error:
        _record(request, action, told | {"error": type(error).__name__})
        raise
    _record(request, action, told)


def _record(request: Request, action: str, subject: dict[str, Any]) -> None:
    viewer = request.state.viewer
    try:
        audit.record(request.app.state.site.client, action, subject, viewer.name, sender(request))
    except RedisError as error:
        request.scope[UNRECORDED] = True
        logger.error("%s by %s was done, but not recorded: %s", action, plain(viewer.name), plain(error))


def sender(request: Request) -> str:
    """Where a request comes from: the client's address, as the guard knows it."""
    return request.client.host if request.client else ""


def go(request: Request, path: str, message: str) -> Response:
    """The answer to a form that has done its act: on to the page `path`, which shows `message` once.

    `path` is one of the site's own, such as `url(...)` gives.

    >>> return go(request, request.url_for("job", id=id).path, "Canceled.")  # doctest: +SKIP
    """
    if request.scope.get(UNRECORDED):
        message += " It could not be recorded in the audit log."
    answer = RedirectResponse(path, status_code=303)
    messages.leave(request, answer, message)
    return answer
