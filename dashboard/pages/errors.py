"""Errors: failures of the same cause, how often they happen, and what to do about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.acting import acting, go
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.paging import MOST_BYTES, asked, choice, order, page_of, small
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import needs
from packmule.dashboard.viewer import Role
from packmule.jobs import reader
from packmule.observe import errors as source
from packmule.observe import tracebacks
from packmule.observe.errors import ErrorInfo, State

TABS = ("open", "resolved", "ignored", "all")
JOBS = 20
"""Failed jobs that an error's page shows."""

MOST_OF_JOBS = 12_000
"""Bytes of their list, beside which a traceback has room."""

MOST_REASONS = 3
"""Reasons that a message names of jobs which can't run again."""

MARKS: dict[str, State] = {"resolve": "resolved", "ignore": "ignored", "reopen": "open"}

_ORDERS: dict[str, Callable[[ErrorInfo], Any]] = {
    "last": lambda error: error.last_at or 0.0,
    "first": lambda error: error.first_at or 0.0,
    "day": lambda error: sum(error.hours),
    "total": lambda error: error.total,
    "job": lambda error: (error.job, error.type),
}


def errors(request: Request) -> Response:
    """`/errors`: errors in a state, the last seen first, with the failures of each hour of a day."""
    found = source.read_all(request.app.state.site.client)
    state, text = choice(request, "state", TABS), asked(request)
    words = text.lower().split()
    may_see = request.state.viewer.may_see_payloads
    fitting = [each for each in found if all(word in _words(each, may_see) for word in words)]
    counts = Counter[str](each.state for each in fitting)
    sort, key, is_reversed = order(request, _ORDERS, "-last")
    rows = sorted([each for each in fitting if state in (each.state, "all")], key=key, reverse=is_reversed)
    tabs = [(tab, counts[tab] if tab != "all" else len(fitting)) for tab in TABS]
    hourly = [sum(counted) for counted in zip(*(each.hours for each in rows), strict=True)]

    def of_rows(size: int) -> Response:
        return render(
            request,
            "errors.html",
            page=page_of(rows, request, size),
            tabs=tabs,
            state=state,
            sort=sort,
            asked=text,
            known=len(found),
            most=source.MOST,
            hourly=hourly,
        )

    return small(of_rows, MOST_BYTES, "list")


def error(request: Request) -> Response:
    """`/errors/{fingerprint}`: one error: its counts, an example, and the jobs that failed of it."""
    client = request.app.state.site.client
    found, traceback, ids = source.read(client, request.path_params["fingerprint"])
    latest = list(dict.fromkeys(ids))
    read = list(zip(latest, reader.read_many(client, latest[:JOBS]), strict=False))
    jobs = [(id, job) for id, job in read if job is not None]
    if traceback is not None and not request.state.viewer.may_see_payloads:
        traceback = tracebacks.without_values(traceback)

    def of_rows(size: int) -> Response:
        return render(
            request,
            "error_group.html",
            error=found,
            traceback=traceback,
            jobs=jobs[:size],
            kept=len(latest),
        )

    return small(of_rows, MOST_OF_JOBS, "jobs", size=JOBS)


@needs(Role.OPERATOR)
def mark(request: Request) -> Response:
    """`POST /errors/{fingerprint}/{mark}`: resolve, ignore or reopen an error."""
    fingerprint, wanted = request.path_params["fingerprint"], request.path_params["mark"]
    if wanted not in MARKS:
        raise HTTPException(404)
    client, state = request.app.state.site.client, MARKS[wanted]
    source.read(client, fingerprint)  # an unknown one is no act
    with acting(request, f"errors {wanted}", fingerprints=[fingerprint]):
        before = source.mark(client, fingerprint, state)
    done = f"was already {state}" if before == state else f"is {state}"
    return go(request, address(request, "error", fingerprint=fingerprint), f"The error {done}.")


@needs(Role.OPERATOR)
def retry(request: Request) -> Response:
    """`POST /errors/{fingerprint}/retry`: run the jobs again that failed of it last."""
    fingerprint, client = request.path_params["fingerprint"], request.app.state.site.client
    source.read(client, fingerprint)
    with acting(request, "errors retry", fingerprint=fingerprint) as subject:
        retried = source.retry(client, fingerprint)
        subject.update(jobs=len(retried.jobs), refused=len(retried.refused))
    count, refused = len(retried.jobs), list(retried.refused.values())
    said = f"{count:,} {'job runs' if count == 1 else 'jobs run'} again."
    if not count and not refused:
        said = "None of its jobs can be retried: they have run since, or are no longer kept."
    if refused:
        more = f", and {len(refused) - MOST_REASONS:,} more" if len(refused) > MOST_REASONS else ""
        said += f" {len(refused):,} can't: {'; '.join(refused[:MOST_REASONS])}{more}."
    return go(request, address(request, "error", fingerprint=fingerprint), said)


def _words(error: ErrorInfo, may_see: bool) -> str:
    """Where a search looks: what the viewer sees of the error."""
    shown = (error.fingerprint, error.type, error.where, error.job, *error.queues, *error.releases)
    return " ".join([*shown, error.text if may_see else ""]).lower()


ROUTES = [
    Route("/errors", errors, name="errors"),
    Route("/errors/{fingerprint}", error, name="error"),
    Route("/errors/{fingerprint}/retry", retry, methods=["POST"], name="retry_error"),
    Route("/errors/{fingerprint}/{mark}", mark, methods=["POST"], name="mark_error"),
]
