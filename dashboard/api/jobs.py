"""Jobs by HTTP: search, read one, and wait for its end."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from packmule.dashboard.api.endpoint import Call, Endpoint, endpoint
from packmule.dashboard.api.problems import Fault, Refused
from packmule.dashboard.api.scopes import Scope
from packmule.dashboard.api.shown import ShownJob, as_shown, shown
from packmule.dashboard.api.spans import SpanText, seconds_up_to
from packmule.jobs import registry
from packmule.jobs.arguments import schema
from packmule.jobs.job_filter import STATUSES, InvalidFilter, JobFilter
from packmule.jobs.search import InvalidPage
from packmule.observe.steps import StepInfo, steps_of

LONGEST_WAIT = 60.0
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two looks at a job that is awaited."""

Status = Annotated[str, Meta(extra_json_schema={"enum": list(STATUSES)})]


class Search(msgspec.Struct, frozen=True):
    """Which jobs, and which page of them."""

    name: Annotated[str, Meta(description="A function's dotted name, or its end.")] | None = None
    queue: str | None = None
    status: Status | None = None
    error: Annotated[str, Meta(description="The class of the error, without its module.")] | None = None
    since: Annotated[datetime, Meta(tz=True)] | None = None
    until: Annotated[datetime, Meta(tz=True)] | None = None
    arg: Annotated[list[str], Meta(description="`name=value`; several have to fit all.")] = []
    id: Annotated[str, Meta(description="How the id begins.")] | None = None
    fingerprint: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    cursor: Annotated[str, Meta(description="That of the page before.")] | None = None


class JobPage(msgspec.Struct, frozen=True):
    """Jobs that fit, the newest first.

    The next page begins at the `cursor`, if there is one: a page may be short and have one. The search has
    looked back to the Unix time `back_to`, or at all that is kept if that is null. It `is_partial` if a queue
    has more jobs that wait or run than it looks at.
    """

    jobs: list[ShownJob]
    cursor: str | None
    back_to: float | None
    is_partial: bool


class Step(msgspec.Struct, frozen=True):
    """A step, sleep or wait of a job: `at` is when it ended or began, or until when it waits."""

    kind: str
    name: str
    state: str
    at: float | None
    value: Any


class Waiting(msgspec.Struct, frozen=True):
    """How long to wait: seconds, or a text such as 45s."""

    timeout: Annotated[float, Meta(ge=0, le=LONGEST_WAIT)] | SpanText = 30.0

    def seconds(self) -> float:
        """How many seconds that is. Raises `Refused`."""
        return seconds_up_to(LONGEST_WAIT, self.timeout, "timeout", in_query=True)


class JobTypeInfo(msgspec.Struct, frozen=True):
    """A registered function, and its arguments as a JSON schema; none if the function takes anything."""

    job: str
    arguments: dict[str, Any]


@endpoint("GET", "/jobs", Scope.READ, query=Search, answer=JobPage)
def search(call: Call) -> JobPage:
    """Search jobs, the newest first; all that is given has to fit.

    A filter by arguments needs the scope `payloads`.
    """
    asked: Search = call.query
    if (asked.arg or asked.error) and not call.asker.may(Scope.PAYLOADS):
        name = "arg" if asked.arg else "error"
        raise Refused(403, "MissingScope", f"a search by {name} needs the scope payloads")
    if asked.arg and not call.asker.key:  # whose values are masked, and could be guessed
        raise Refused(403, "NoToken", "a search by arg needs a token")
    service = call.service
    try:
        page = service.site.jobs.search(filter_of(asked), asked.limit, asked.cursor)
    except InvalidFilter as error:
        raise Refused(422, "InvalidFilter", str(error), Fault(str(error), parameter="status")) from None
    except InvalidPage as error:
        raise Refused(422, "InvalidPage", str(error), Fault(str(error), parameter="cursor")) from None
    jobs = [shown(each, call.asker) for each in page.jobs]
    return JobPage(jobs, page.cursor, page.back_to, page.is_partial)


def filter_of(asked: Search) -> JobFilter:
    """The filter that a query means. Raises `InvalidFilter` and `Refused`."""
    args = {}
    for each in asked.arg:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise Refused(422, "InvalidFilter", "arg: write name=value", Fault("name=value", parameter="arg"))
        args[name] = value
    return JobFilter.of(asked, args)


@endpoint(
    "GET", "/jobs/{id}", Scope.READ, answer=ShownJob, thing="job", takes_token=True, has_etag=True, may=(404,)
)  # fmt: skip
async def read_job(call: Call) -> ShownJob:
    """Read one job: its status, times, progress, and if the token may see them arguments and result."""
    return shown(await call.service.read(call.path["id"]), call.asker)


@endpoint(
    "GET", "/jobs/{id}/wait", Scope.READ, query=Waiting, answer=ShownJob, thing="job", takes_token=True,
    may=(404,),
)  # fmt: skip
async def wait_for_job(call: Call) -> ShownJob:
    """Wait until the job has ended, or for `timeout`, and read it then: look at its status."""
    began = time.monotonic()
    with call.service.waiting(call.query.seconds()) as timeout:
        while True:
            info = await call.service.read(call.path["id"])
            waited = time.monotonic() - began
            if info.has_ended or waited >= timeout or await call.request.is_disconnected():
                return shown(info, call.asker)
            pause = min(max(FIRST_PAUSE, waited / 10), LONGEST_PAUSE)
            await asyncio.sleep(min(pause, timeout - waited))


@endpoint("GET", "/jobs/{id}/steps", Scope.READ, answer=list[Step], may=(404,))
async def steps(call: Call) -> list[Step]:
    """List the steps that a job remembers, and what it waits for. Values need the scope `payloads`."""
    id = call.path["id"]
    await call.service.read(id)
    found: list[StepInfo] = list(await call.service.in_thread(steps_of, call.service.client, id))
    sees = call.asker.may(Scope.PAYLOADS)
    return [
        Step(each.kind, each.name, each.state, each.at, as_shown(each.value, call.asker) if sees else None)
        for each in found
    ]


@endpoint("GET", "/job-types", Scope.ENQUEUE, answer=list[JobTypeInfo])
def job_types(call: Call) -> list[JobTypeInfo]:
    """List the functions that can be enqueued, with their arguments as JSON schemas."""
    return [JobTypeInfo(name, schema(registry.find(name).arguments)) for name in registry.names()]


ENDPOINTS: tuple[Endpoint, ...] = (search, read_job, wait_for_job, steps, job_types)
