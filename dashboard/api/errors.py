"""Errors by HTTP, failures of the same cause: list, read, resolve, ignore, reopen, and retry their jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from packmule.dashboard.api.endpoint import Call, Endpoint, endpoint
from packmule.dashboard.api.scopes import Scope
from packmule.dashboard.api.steering import Acts, NotDone
from packmule.observe import errors as source
from packmule.observe.errors import STATES, ErrorInfo, State


class Wanted(msgspec.Struct, frozen=True):
    """Errors in which states, with the counts of how many hours."""

    state: Literal["open", "resolved", "ignored", "all"] = "open"
    hours: Annotated[int, Meta(ge=1, le=source.HOURS)] = 24


class ErrorShown(msgspec.Struct, frozen=True):
    """An error with the counts of 7 days, one of its tracebacks, and the last jobs that failed of it."""

    error: ErrorInfo
    traceback: str | None
    jobs: list[str]


class ErrorState(msgspec.Struct, frozen=True):
    """An error's state now, and before."""

    fingerprint: str
    state: State
    before: State


@endpoint("GET", "/errors", Scope.READ, query=Wanted, answer=list[ErrorInfo])
def errors(call: Call) -> list[ErrorInfo]:
    """List errors, the last seen first. Their texts need the scope `payloads`."""
    asked: Wanted = call.query
    states = STATES if asked.state == "all" else (asked.state,)
    return [_shown(each, call) for each in source.read_all(call.service.client, states, asked.hours)]


@endpoint("GET", "/errors/{fingerprint}", Scope.READ, answer=ErrorShown, may=(404,))
def read_error(call: Call) -> ErrorShown:
    """Read one error. Its text and traceback need the scope `payloads`."""
    error, traceback, jobs = source.read(call.service.client, call.path["fingerprint"])
    return ErrorShown(_shown(error, call), traceback if call.asker.may(Scope.PAYLOADS) else None, jobs)


@endpoint(
    "POST", "/errors/{fingerprint}/resolve", Scope.ACT, answer=ErrorState, action="errors resolve", may=(404,)
)  # fmt: skip
def resolve(call: Call) -> ErrorState:
    """Mark an error as resolved: if it comes again, it is open again."""
    return _marked(call, "resolved")


@endpoint(
    "POST", "/errors/{fingerprint}/ignore", Scope.ACT, answer=ErrorState, action="errors ignore", may=(404,)
)  # fmt: skip
def ignore(call: Call) -> ErrorState:
    """Ignore an error: it is counted, and tells nobody."""
    return _marked(call, "ignored")


@endpoint(
    "POST", "/errors/{fingerprint}/reopen", Scope.ACT, answer=ErrorState, action="errors reopen", may=(404,)
)  # fmt: skip
def reopen(call: Call) -> ErrorState:
    """Open an error again that was resolved or ignored."""
    return _marked(call, "open")


@endpoint(
    "POST", "/errors/{fingerprint}/retry", Scope.ACT, answer=Acts, action="errors retry", may=(404,)
)  # fmt: skip
def retry(call: Call) -> Acts:
    """Run the jobs again that failed of an error, the last 1,000 at most."""
    done = source.retry(call.service.client, call.path["fingerprint"])
    call.audited.update(done=len(done.jobs), refused=len(done.refused))
    return Acts(done.jobs, [NotDone(id, reason) for id, reason in done.refused.items()])


def _marked(call: Call, state: State) -> ErrorState:
    fingerprint = call.path["fingerprint"]
    return ErrorState(fingerprint, state, source.mark(call.service.client, fingerprint, state))


def _shown(error: ErrorInfo, call: Call) -> ErrorInfo:
    return error if call.asker.may(Scope.PAYLOADS) else replace(error, text="")


ENDPOINTS: tuple[Endpoint, ...] = (errors, read_error, resolve, ignore, reopen, retry)
