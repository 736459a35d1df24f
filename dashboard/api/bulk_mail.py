"""Bulk sends by HTTP: check a list, send a mail to each of its recipients, read counts and results."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response, StreamingResponse

from packmule.dashboard.api.endpoint import Call, Endpoint, Reply, endpoint
from packmule.dashboard.api.enqueueing import JsonOptions
from packmule.dashboard.api.json_options import JsonJobOptions
from packmule.dashboard.api.problems import Fault, Refused, explained
from packmule.dashboard.api.scopes import Scope
from packmule.errors import UsageError
from packmule.jobs.email.bulk.counts import Progress, latest, progress_of
from packmule.jobs.email.bulk.mail import BulkContent, MailFields
from packmule.jobs.email.bulk.plan import Plan, Report, Templating, planned
from packmule.jobs.email.bulk.recipients import MAX_BAD
from packmule.jobs.email.bulk.results import as_csv, results_of
from packmule.jobs.email.bulk.send import enqueue
from packmule.jobs.email.bulk.table import Listed, given, reading
from packmule.jobs.email.ledger import GIVE_UP_AFTER, OnUnknown
from packmule.jobs.email.templating.rendering import SHIPPED, InvalidTemplate, Renderer
from packmule.jobs.options import OPTION_NAMES, Options, refuse_unknown

MOST_ROWS = 10_000
"""Recipients in a request's body; a longer list is uploaded first."""

UPLOADS = "uploads"
"""The folder of the storage whose lists may be sent to: others may be secret."""

AT_ONCE = 2
"""Lists that one process reads at a time."""

_reading = threading.BoundedSemaphore(AT_ONCE)


class NewBulk(BulkContent, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mail to each recipient of a list.

    `recipients` is the path of an uploaded file, or a list of objects; their values are variables of the
    subject and the template. The other fields are those of `send_bulk`.
    """

    recipients: str | Annotated[list[dict[str, Any]], Meta(max_length=MOST_ROWS)]
    key: str | None = None
    column: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    max_bad: Annotated[float, Meta(ge=0, le=1)] = MAX_BAD
    on_unknown: OnUnknown = "park"
    give_up_after: Annotated[float, Meta(ge=0)] = GIVE_UP_AFTER
    options: JsonOptions = msgspec.field(default_factory=dict)


class Limited(msgspec.Struct, frozen=True):
    """How many at most."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20


class NewSend(msgspec.Struct, frozen=True):
    """A bulk send that was enqueued; `id` is also that of its batch, which pauses, resumes and cancels it.

    `sent_before` of the list's `recipients` got the mail earlier under this key, and get nothing.
    """

    id: str
    key: str
    rows: int
    recipients: int
    duplicates: int
    bad: int
    sent_before: int


@endpoint("POST", "/mail/bulk", Scope.ENQUEUE, body=NewBulk, answer=NewSend, status=201, may=(404, 409, 413))
async def send(call: Call) -> Reply:
    """Send a mail to each recipient of a list, in chunks that are jobs of one batch.

    With the same list, mail and `key` it can be sent again: whoever got the mail gets nothing.
    """
    body: NewBulk = call.body
    options = _options(body)
    policy = {"on_unknown": body.on_unknown, "give_up_after": body.give_up_after}

    def enqueued() -> NewSend:
        with _planned(call) as plan:
            made = enqueue(plan, call.service.site.jobs, options, policy)
            found, before = plan.report.checked, plan.report.before
            return NewSend(
                made.id,
                plan.report.key,
                found.rows,
                found.recipients,
                found.duplicates,
                found.bad,
                before.sent,
            )

    found = await call.service.in_thread(enqueued)
    return call.made(found, f"/mail/bulk/{found.id}")


@endpoint("POST", "/mail/bulk/preview", Scope.PAYLOADS, body=NewBulk, answer=Report, may=(404, 413))
def preview(call: Call) -> Report:
    """Check a list and make three of its mails; nothing is sent."""
    _options(call.body)
    with _planned(call) as plan:
        return plan.report


@endpoint("GET", "/mail/bulk", Scope.READ, query=Limited, answer=list[Progress])
def sends(call: Call) -> list[Progress]:
    """List the latest bulk sends, the newest first."""
    return [_shown(call, each) for each in latest(call.service.client, call.query.limit)]


@endpoint("GET", "/mail/bulk/{id}", Scope.READ, answer=Progress, thing="batch", has_etag=True, may=(404,))
def read_send(call: Call) -> Progress:
    """Read how far a bulk send is: how many mails are in which state, the rate and the time left."""
    return _shown(call, progress_of(call.service.client, call.path["id"]))


@endpoint("GET", "/mail/bulk/{id}/results", Scope.PAYLOADS, media_type="text/csv", may=(404,))
def results(call: Call) -> Response:
    """Read what became of each recipient as CSV, in the order of the list."""
    found = results_of(call.service.client, call.path["id"])
    headers = {"Cache-Control": "no-store", "Content-Disposition": 'attachment; filename="results.csv"'}
    return StreamingResponse(as_csv(found), media_type="text/csv; charset=utf-8", headers=headers)


def _shown(call: Call, found: Progress) -> Progress:
    """What the asker may see: a subject is part of the payload."""
    if call.asker.may(Scope.PAYLOADS):
        return found
    return msgspec.structs.replace(found, subject="", source="")


@contextmanager
def _planned(call: Call) -> Iterator[Plan]:
    body: NewBulk = call.body
    options = call.service.options
    if not _reading.acquire(blocking=False):
        raise Refused(
            503,
            "TooManyLists",
            f"{AT_ONCE} lists are being read: try again in a moment",
            headers={"Retry-After": "5"},
        )
    try:
        mail = {
            name: value for name in MailFields.__optional_keys__ if (value := getattr(body, name)) is not None
        }
        templating = Templating(Renderer(options.templates), options.mail_from)
        with (
            _listed(call) as listed,
            planned(
                listed, (body.subject, body.body, mail), templating, call.service.client,
                key=body.key, column=body.column, max_bad=body.max_bad,
            ) as plan,
        ):  # fmt: skip
            yield plan
    except InvalidTemplate as error:
        text = _without_folders(str(error), options.templates)
        raise Refused(422, "InvalidTemplate", text, Fault(text, "#/template")) from None
    finally:
        _reading.release()


def _without_folders(text: str, templates: str | None) -> str:
    """What an error says, less the paths of this machine."""
    for folder in (templates, str(SHIPPED)):
        text = text.replace(folder, "the templates folder") if folder else text
    return text


@contextmanager
def _listed(call: Call) -> Iterator[Listed]:
    body: NewBulk = call.body
    if not isinstance(body.recipients, str):
        with given(body.recipients) as listed:
            yield listed
        return
    storage, most = call.service.storage, call.service.options.max_file_bytes
    if storage is None:
        raise Refused(409, "NoStorage", "this dashboard has no storage: set PACKMULE_STORAGE")
    path = PurePosixPath(body.recipients)
    if path.parts[:1] != (UPLOADS,):
        raise Refused(
            422, "NotUploaded", "recipients: give the path of an uploaded file, or a list of objects",
            Fault("not the path of an upload", "#/recipients"),
        )  # fmt: skip
    with (
        storage.read(body.recipients, most) as file,
        reading(path.name, file, encoding=body.encoding, sheet=body.sheet) as listed,
    ):
        yield listed


def _options(body: NewBulk) -> Options | None:
    """The options of the chunks' jobs. Raises `Refused`."""
    if not body.options:
        return None
    try:
        refuse_unknown(body.options, OPTION_NAMES)
        return Options(**msgspec.convert(body.options, JsonJobOptions))
    except msgspec.ValidationError as error:
        detail, pointer = explained(str(error))
        fault = Fault(detail, f"#/options{pointer[1:]}")
        raise Refused(422, "InvalidOption", f"options: {detail}", fault) from None
    except UsageError as error:
        raise Refused(422, type(error).__name__, str(error), Fault(str(error), "#/options")) from None


ENDPOINTS: tuple[Endpoint, ...] = (send, preview, sends, read_send, results)
