"""Bulk actions by HTTP: count what a filter means, act on all of it, watch that, stop it, undo deletions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import Meta

from packmule.dashboard.acting import sender
from packmule.dashboard.api.endpoint import Call, Endpoint, Reply, endpoint
from packmule.dashboard.api.idempotency import Repeat, idempotency
from packmule.dashboard.api.problems import Fault, Refused
from packmule.dashboard.api.scopes import Scope
from packmule.dashboard.bulk import beginning, performing, record
from packmule.dashboard.bulk.beginning import LONGEST_REASON, within, without_values
from packmule.dashboard.bulk.counting import counted
from packmule.dashboard.bulk.kept import Copies
from packmule.dashboard.bulk.record import Bulk, NoSuchBulk, NotNow
from packmule.dashboard.pages.job_values import readable
from packmule.jobs import acts, filter_text
from packmule.jobs.acts import ACTS
from packmule.jobs.filter_text import ARGUMENT, InvalidWord
from packmule.jobs.job_filter import InvalidFilter, JobFilter

Act = Annotated[str, Meta(extra_json_schema={"enum": list(ACTS)})]
FilterText = Annotated[
    str,
    Meta(
        description="Words as in the dashboard's search box: `name:shop.report status:failed since:2h`.",
        max_length=filter_text.LONGEST,
    ),
]
Instant = Annotated[float, Meta(description="Unix seconds: the `at` of a dry run at most an hour old.")]


class BulkWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An act, and a filter that says which jobs are meant; `all` has to be true for an empty one."""

    act: Act
    filter: FilterText
    all: bool = False


class NewBulk(BulkWanted, frozen=True, forbid_unknown_fields=True):
    """An act on all jobs that a filter means at the instant `at`, or now; the `reason` is for the audit."""

    at: Instant | None = None
    reason: Annotated[str, Meta(max_length=LONGEST_REASON)] = ""


class BulkCount(msgspec.Struct, frozen=True):
    """What an act would meet now: `count` jobs, or more if it `is_partial`, and ids of some.

    Spans such as `2h` in the filter end `at` that instant; give it when the act begins.
    """

    act: str
    filter: str
    at: float
    count: int
    is_partial: bool
    examples: list[str]


class BulkInfo(msgspec.Struct, frozen=True):
    """A bulk action. Times are Unix seconds.

    `phase` is `act` or `undo`; `state` is `running`, `stopping`, `stopped`, `done`, `failed`, or `lost` if
    the process that performed it has died, which `resume` mends. It has met `matched` jobs, and `done` says
    to how many it was done; `refused` counts the others by reason. Of a deletion `undone` jobs were put back,
    and others can be until `undo_until`. Values of arguments in `filter` need the scope `payloads`.
    """

    id: str
    act: str
    filter: str
    at: float
    who: str
    reason: str
    began: float
    ended: float | None
    phase: str
    state: str
    found: int
    matched: int
    done: int
    refused: Mapping[str, int]
    undone: int
    not_undone: Mapping[str, int]
    undo_until: float | None
    fault: str


class Latest(msgspec.Struct, frozen=True):
    """How many at most."""

    limit: Annotated[int, Meta(ge=1, le=record.MOST)] = 20


@endpoint("POST", "/bulk-actions/count", Scope.ACT, body=BulkWanted, answer=BulkCount)
def count_bulk_action(call: Call) -> BulkCount:
    """Count the jobs that an act would meet, and name some; nothing is done."""
    body, now = call.body, time.time()
    wanted = _wanted(call, now)
    site = call.service.site
    found = counted(site.client, body.act, wanted, site.queues)
    return BulkCount(body.act, body.filter, now, found.count, found.is_partial, found.examples)


@endpoint("POST", "/bulk-actions", Scope.ACT, body=NewBulk, answer=BulkInfo, status=202, may=(409,),
          takes_key=True)  # fmt: skip
def begin_bulk_action(call: Call) -> Reply:
    """Begin an act on all jobs that fit; it goes on in the dashboard's process.

    With an `Idempotency-Key` the same request within a day answers the same action.
    """
    body: NewBulk = call.body
    client, now = call.service.client, time.time()
    key = idempotency(call)
    if key and (before := key.begin(client)):
        return _begun(call, before.ids[0])
    at = within(now if body.at is None else body.at, now)
    wanted = _wanted(call, at)
    if wanted.is_empty and not body.all:
        text = "an empty filter means all jobs: say all: true if that is meant"
        raise Refused(422, "InvalidFilter", text, Fault(text, "#/all"))
    if key and _is_there(call, key.name):
        id = key.name  # begun by the same request, whose process died before it could keep its answer
        with suppress(NotNow):
            performing.begin(client, id, call.service.site.queues)
    else:
        id = beginning.begin(
            call.request, body.act, body.filter, at, reason=body.reason, id=key.name if key else None
        )
    if key:
        key.end(client, Repeat([id], []))
    return _begun(call, id)


@endpoint("GET", "/bulk-actions", Scope.READ, query=Latest, answer=list[BulkInfo])
def bulk_actions(call: Call) -> list[BulkInfo]:
    """List the latest bulk actions, the newest first; those of the pages too."""
    return [_info(call, each, None) for each in record.latest(call.service.client, call.query.limit)]


@endpoint("GET", "/bulk-actions/{id}", Scope.READ, answer=BulkInfo, may=(404,))
def read_bulk_action(call: Call) -> BulkInfo:
    """Read one bulk action: how far it is, and what was refused why."""
    return _read(call)


@endpoint(
    "POST", "/bulk-actions/{id}/stop", Scope.ACT, answer=BulkInfo, action="bulk stop", may=(404, 409)
)  # fmt: skip
def stop_bulk_action(call: Call) -> BulkInfo:
    """Stop a bulk action after the jobs at hand."""
    record.stop(call.service.client, call.path["id"])
    return _read(call)


@endpoint(
    "POST", "/bulk-actions/{id}/resume", Scope.ACT, answer=BulkInfo, action="bulk go on", may=(404, 409)
)  # fmt: skip
def resume_bulk_action(call: Call) -> BulkInfo:
    """Go on with a bulk action that was stopped, failed, or lost its process."""
    performing.begin(call.service.client, call.path["id"], call.service.site.queues, _by(call))
    return _read(call)


@endpoint(
    "POST", "/bulk-actions/{id}/undo", Scope.ACT, answer=BulkInfo, action="bulk undo", may=(404, 409)
)  # fmt: skip
def undo_bulk_action(call: Call) -> BulkInfo:
    """Put back what a bulk action has deleted, within an hour of that."""
    performing.begin_undo(call.service.client, call.path["id"], _by(call))
    return _read(call)


def _wanted(call: Call, at: float) -> JobFilter:
    """The filter in the body, which may look for payloads if the asker may see them. Raises `Refused`."""
    body: BulkWanted = call.body
    try:
        fields = {each.field for each in filter_text.words(body.filter)}
        hidden = sorted(each for each in fields if each == "error" or each.startswith(ARGUMENT))
        if hidden and not call.asker.may(Scope.PAYLOADS):
            raise Refused(403, "MissingScope", f"a filter by {hidden[0]} needs the scope payloads")
        wanted = readable(body.filter, call.asker.viewer, at)
        acts.statuses_of(body.act, wanted)
    except (InvalidWord, InvalidFilter) as error:
        raise Refused(422, "InvalidFilter", str(error), Fault(str(error), "#/filter")) from None
    return wanted


def _is_there(call: Call, id: str) -> bool:
    try:
        record.read(call.service.client, id)
    except NoSuchBulk:
        return False
    return True


def _begun(call: Call, id: str) -> Reply:
    found = _info(call, record.read(call.service.client, id), None)
    return call.made(found, f"/bulk-actions/{id}", 202)


def _by(call: Call) -> performing.By:
    return performing.By(call.asker.name, sender(call.request))


def _read(call: Call) -> BulkInfo:
    client, id = call.service.client, call.path["id"]
    found, left = record.read(client, id), 0.0
    if found.act == "delete" and found.phase == "act" and found.is_over and found.copied:
        left = Copies(client, record.copies_key(id)).seconds_left()
    return _info(call, found, time.time() + left if left else None)


def _info(call: Call, found: Bulk, undo_until: float | None) -> BulkInfo:
    is_lost = found.state in ("running", "stopping") and not found.is_performed
    return BulkInfo(
        id=found.id,
        act=found.act,
        filter=found.text if call.asker.may(Scope.PAYLOADS) else without_values(found.text),
        at=found.at,
        who=found.who,
        reason=found.reason,
        began=found.began,
        ended=found.ended,
        phase=found.phase,
        state="lost" if is_lost else found.state,
        found=found.found,
        matched=found.matched,
        done=found.done,
        refused=found.refused,
        undone=found.undone,
        not_undone=found.not_undone,
        undo_until=undo_until,
        fault=found.fault,
    )


ENDPOINTS: tuple[Endpoint, ...] = (
    count_bulk_action, begin_bulk_action, bulk_actions, read_bulk_action, stop_bulk_action,
    resume_bulk_action, undo_bulk_action,
)  # fmt: skip
