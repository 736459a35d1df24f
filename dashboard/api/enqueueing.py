"""Enqueueing by HTTP: one job or many, by the registered name of a function."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from packmule import hooks
from packmule.dashboard.api.deliveries import Delivery
from packmule.dashboard.api.endpoint import Call, Endpoint, Reply, endpoint
from packmule.dashboard.api.idempotency import Repeat, idempotency
from packmule.dashboard.api.json_options import JsonJobOptions
from packmule.dashboard.api.problems import Fault, Refused, explained
from packmule.dashboard.api.scopes import Scope
from packmule.errors import Conflict, NotFound, UsageError
from packmule.jobs import entry
from packmule.jobs.client import UnknownQueue
from packmule.jobs.job_type import JobType
from packmule.jobs.options import OPTION_NAMES, Options, refuse_unknown
from packmule.jobs.registry import NotRegistered
from packmule.jobs.sending import sending

MOST_CALLS = 10_000

JsonOptions = Annotated[
    dict[str, Any], msgspec.Meta(extra_json_schema={"$ref": "#/components/schemas/JobOptions"})
]
Arguments = Annotated[list[Any], msgspec.Meta(description="Arguments by position.")]
NamedArguments = Annotated[dict[str, Any], msgspec.Meta(description="Arguments by name.")]

_OPTION = re.compile(r"(\w+)[=:]")
_UNKNOWN = re.compile(r"no option is called '(\w+)'")
_ARGUMENT = re.compile(r"argument:? '?(\w+)'?")
_POSITION = re.compile(r"calls\[(\d+)\]: ")


class NewJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call of a registered function."""

    job: Annotated[
        str, msgspec.Meta(description="The function's dotted name: `shop.report`.", max_length=500)
    ]
    args: Arguments = []
    kwargs: NamedArguments = {}
    options: JsonOptions = {}


class NewJobs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Many calls of one registered function: each is a list of arguments, or an object of named ones."""

    job: Annotated[str, msgspec.Meta(max_length=500)]
    calls: Annotated[list[list[Any] | dict[str, Any]], msgspec.Meta(min_length=1, max_length=MOST_CALLS)]
    options: JsonOptions = {}


class Enqueued(msgspec.Struct, frozen=True):
    """The id of the job. If it was `held` back, no job was made: it is that of an equal one that is alive."""

    id: str
    held: bool = False


class ManyEnqueued(msgspec.Struct, frozen=True):
    """The ids of the jobs, one a call; `held` are the positions of calls that made none, from 0."""

    ids: list[str]
    held: list[int]


@endpoint(
    "POST", "/jobs", Scope.ENQUEUE, body=NewJob, answer=Enqueued, status=201, may=(404, 409), takes_key=True
)  # fmt: skip
async def enqueue(call: Call) -> Reply:
    """Enqueue one job.

    A request with an `Idempotency-Key` can be sent again within a day: it answers the same job.
    """
    body: NewJob = call.body
    job, options = await asked_for(call, body.job, body.options)
    trace = await _trace(call, job, options, 1)
    try:
        entries = call.service.site.jobs.entries(job, [(body.args, body.kwargs)], options, trace)
    except (UsageError, NotFound) as error:
        raise refused(error, job, [(body.args, body.kwargs)], is_many=False) from None
    ids, held = await sent(call, job, entries, options)
    return call.made(Enqueued(ids[0], bool(held)), f"/jobs/{ids[0]}", 200 if held else 201)


@endpoint(
    "POST", "/jobs/many", Scope.ENQUEUE, body=NewJobs, answer=ManyEnqueued, status=201, may=(404, 409),
    takes_key=True,
)  # fmt: skip
async def enqueue_many(call: Call) -> Reply:
    """Enqueue many jobs of one type, all or, if one call is not valid, none."""
    body: NewJobs = call.body
    return Reply(await enqueued(call, body, {}), 201)


async def enqueued(call: Call, body: NewJobs, more: Mapping[str, Any]) -> ManyEnqueued:
    """Enqueue `body`'s calls, with `more` options. Raises `Refused`."""
    job, options = await asked_for(call, body.job, {**body.options, **more})
    calls = [entry.pair(each) for each in body.calls]
    trace = await _trace(call, job, options, len(calls))
    try:
        entries = await call.service.in_thread(call.service.site.jobs.entries, job, calls, options, trace)
    except (UsageError, NotFound) as error:
        raise refused(error, job, calls, is_many=True) from None
    ids, held = await sent(call, job, entries, options)
    return ManyEnqueued(ids, held)


async def asked_for(call: Call, name: str, given: Mapping[str, Any]) -> tuple[JobType, Options]:
    """The registered job called `name`, and its options under those that were `given`. Raises `Refused`."""
    try:
        job = await call.service.job_type(name)
    except NotRegistered as error:
        fault = Fault(f"no registered job is called {name:.200}", "#/job")
        raise Refused(422, "NotRegistered", str(error), fault) from None
    if not given:
        return job, job.options
    try:
        refuse_unknown(given, OPTION_NAMES)
        options = Options(**msgspec.convert(given, JsonJobOptions))
        return job, options.over(job.options)
    except msgspec.ValidationError as error:
        detail, pointer = explained(str(error))
        where = f"#/options{pointer[1:]}"
        raise Refused(422, "InvalidOption", f"options: {detail}", Fault(detail, where)) from None
    except UsageError as error:
        raise refused(error, job, [], is_many=False) from None


async def sent(
    call: Call, job: JobType, entries: list[entry.Entry], options: Options
) -> tuple[list[str], list[int]]:
    """Deliver `entries`, once for an idempotency key: their ids, and the positions of those held back."""
    key = idempotency(call)
    if key:
        if options.is_debounced or options.job_id:
            raise Refused(
                422, "InvalidKey", "a debounced job, or one with a job_id, takes no Idempotency-Key",
                Fault("leave it out", header="Idempotency-Key"),
            )  # fmt: skip
        before = await call.service.in_thread(key.begin, call.service.client)
        if before:
            return before.ids, before.held
        entries = [
            each._replace(id=key.id_of(number, len(entries)), own=each.own._replace(call=each.id))
            for number, each in enumerate(entries)
        ]
    at_front = options.at_front and not options.is_scheduled
    ordered = entries[::-1] if at_front else entries  # each goes before the one sent earlier
    delivery = Delivery(ordered, bool(options.durable), options.parents if options.after is not None else ())
    try:
        holders = await call.service.deliver(delivery)
    except (NotFound, Conflict) as error:
        raise refused(error, job, [], is_many=False) from None
    ids = [holders.get(each.id, each.id) for each in entries]
    held = [number for number, each in enumerate(entries) if each.id in holders]
    if key:
        await call.service.in_thread(key.end, call.service.client, Repeat(ids, held))
    return ids, held


def refused(error: Exception, job: JobType, calls: Sequence[entry.Call], *, is_many: bool) -> Exception:
    """The problem that an enqueue's error is, with the field that it is about."""
    text = str(error)
    kind = type(error).__name__
    if isinstance(error, Conflict):
        return error
    if isinstance(error, UnknownQueue):
        return Refused(422, kind, text, Fault(text, "#/options/queue"))
    if isinstance(error, NotFound):
        where = "after" if kind == "NoSuchJob" else "batch"
        return Refused(422, kind, text, Fault(text, f"#/options/{where}"))
    option = _OPTION.match(text)
    if unknown := _UNKNOWN.match(text):
        return Refused(422, kind, text, Fault(text, f"#/options/{unknown[1]}"))
    if option and option[1] in OPTION_NAMES:
        return Refused(422, kind, text, Fault(text, f"#/options/{option[1]}"))
    return Refused(422, kind, text, Fault(text, _pointer(text, job, calls, is_many)))


def _pointer(text: str, job: JobType, calls: Sequence[entry.Call], is_many: bool) -> str:
    """Where the argument is that the text of an error names."""
    position = _POSITION.match(text)
    number = int(position[1]) if position else 0
    args, kwargs = calls[number] if number < len(calls) else ((), {})
    found = _ARGUMENT.search(text)
    start = f"#/calls/{number}" if is_many else "#"
    name = found[1] if found else ""
    if name in kwargs or (name and name not in job.signature.parameters):
        return f"{start}/{name}" if is_many else f"#/kwargs/{name}"
    place = list(job.signature.parameters).index(name) if name in job.signature.parameters else -1
    if 0 <= place < len(args):
        return f"{start}/{place}" if is_many else f"#/args/{place}"
    if is_many:
        return start
    return f"#/kwargs/{name}" if name else "#/options" if not calls else "#/args"


async def _trace(call: Call, job: JobType, options: Options, count: int) -> str:
    """The trace that hooks give the jobs; a thread calls them, since they may wait."""

    def traced() -> str:
        with sending(job.name, options.queue, count) as subject:
            return subject.trace

    return await call.service.in_thread(traced) if hooks.enqueuers else ""


ENDPOINTS: tuple[Endpoint, ...] = (enqueue, enqueue_many)
