"""What a job says, by HTTP: pages of its log and of its output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from packmule.dashboard.api.endpoint import Call, Endpoint, endpoint
from packmule.dashboard.api.problems import Fault, Refused
from packmule.dashboard.api.scopes import Scope
from packmule.jobs import watch
from packmule.jobs.said import LEVELS, UnknownLevel
from packmule.jobs.watch import BEGINNING, InvalidCursor, Watch

Cursor = Annotated[str, Meta(description="That of the page before.")]


class FromCursor(msgspec.Struct, frozen=True):
    """Where a page begins."""

    cursor: Cursor = BEGINNING


class FromLevel(msgspec.Struct, frozen=True):
    """Where a page begins, and from which level on lines are shown."""

    level: Annotated[str, Meta(extra_json_schema={"enum": list(LEVELS)})] = "debug"
    cursor: Cursor = BEGINNING


class LogLine(msgspec.Struct, frozen=True):
    """A line of a job's log: `at` is Unix time, `attempt` counts from 1."""

    at: float
    level: str
    text: str
    fields: Mapping[str, Any]
    attempt: int


class LogPage(msgspec.Struct, frozen=True):
    """The lines from the cursor on that are kept; `dropped` before them are not kept any more."""

    lines: list[LogLine]
    cursor: str
    dropped: int


class OutputPage(msgspec.Struct, frozen=True):
    """The chunks from the cursor on that are kept; `dropped` before them are not kept any more."""

    chunks: list[Any]
    cursor: str
    dropped: int


@endpoint("GET", "/jobs/{id}/logs", Scope.PAYLOADS, query=FromLevel, answer=LogPage, may=(404,))
def logs(call: Call) -> LogPage:
    """Read the lines that are kept of a job's log."""
    asked: FromLevel = call.query
    try:
        found = watch.follow_logs(call.service.client, call.path["id"], asked.level, asked.cursor)
    except UnknownLevel as error:
        raise Refused(422, "UnknownLevel", str(error), Fault(str(error), parameter="level")) from None
    except InvalidCursor as error:
        raise _invalid(error) from None
    lines = [LogLine(*line) for line in found.kept()]
    return LogPage(lines, found.cursor, found.dropped)


@endpoint(
    "GET", "/jobs/{id}/output", Scope.OUTPUT, query=FromCursor, answer=OutputPage, thing="job",
    takes_token=True, may=(404,),
)  # fmt: skip
def output(call: Call) -> OutputPage:
    """Read the chunks that are kept of a job's output."""
    found = output_from(call, call.query.cursor)
    chunks = list(found.kept())
    return OutputPage(chunks, found.cursor, found.dropped)


def output_from(call: Call, cursor: str) -> Watch[Any]:
    """A watch of the output of the job in the path. Raises `Refused`."""
    try:
        return watch.output(call.service.client, call.path["id"], cursor)
    except InvalidCursor as error:
        raise _invalid(error) from None


def _invalid(error: InvalidCursor) -> Refused:
    return Refused(422, "InvalidCursor", str(error), Fault(str(error), parameter="cursor"))


ENDPOINTS: tuple[Endpoint, ...] = (logs, output)
