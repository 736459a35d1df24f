"""The tools that only read: queues, jobs, their logs, errors, workers, schedules, batches, limits."""

from __future__ import annotations

import dataclasses
from itertools import islice
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from packmule.dashboard.mcp import holding
from packmule.dashboard.mcp.tools import Desk, tool
from packmule.jobs import batch_state, cluster, flow_graph, queues, reader, registry, watch
from packmule.jobs import schedule_ledger as ledger
from packmule.jobs import schedule_store as store
from packmule.jobs.batch import Batch
from packmule.jobs.batch_info import batch_info, flow_info
from packmule.jobs.job_filter import STATUSES, JobFilter
from packmule.jobs.masking import masked, masked_call, masked_job, masked_result
from packmule.jobs.reader import JobInfo
from packmule.jobs.schedule_info import schedule_info, with_ticks
from packmule.jobs.search import search
from packmule.observe import audit, blocked, errors, statistics
from packmule.observe.queue_info import queue_infos
from packmule.observe.scale import scales
from packmule.observe.steps import steps_of

Limit = Annotated[int, Meta(ge=1, le=100)]
Status = Annotated[str, Meta(extra_json_schema={"enum": list(STATUSES)})]


class Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which jobs."""

    name: Annotated[str, Meta(description="A function's dotted name, or its end.")] | None = None
    queue: str | None = None
    status: Status | None = None
    error: Annotated[str, Meta(description="The class of the error, such as TimeoutError.")] | None = None
    since: Annotated[float, Meta(description="Unix seconds.")] | None = None
    until: Annotated[float, Meta(description="Unix seconds.")] | None = None
    args: Annotated[dict[str, str], Meta(description="Arguments by name, as texts.")] = {}
    limit: Limit = 20
    cursor: Annotated[str, Meta(description="That of the page before.")] | None = None


class JobId(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job."""

    id: str


class Logs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job's log, from a level on; its last lines."""

    id: str
    level: Literal["debug", "info", "warning", "error", "critical"] = "debug"
    last: Limit = 50


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something by its name."""

    name: str


class BatchId(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A batch or flow."""

    id: str


class Fingerprint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An error."""

    fingerprint: str


class States(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Errors in which state."""

    state: Literal["open", "resolved", "ignored", "all"] = "open"
    limit: Limit = 20


class Some(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many."""

    limit: Limit = 20


class Hours(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of how many hours."""

    hours: Annotated[int, Meta(ge=1, le=192)] = 1


@tool()
def overview(desk: Desk, asked: Any) -> Any:
    """Show the whole at a glance: the server, each queue with its depth and age, workers, open errors."""
    return {
        "server": cluster.server(desk.client),
        "queues": scales(desk.client, _queues(desk)).queues,
        "workers": len(cluster.workers(desk.client)),
        "open errors": len(errors.read_all(desk.client, ("open",))),
    }


@tool()
def list_queues(desk: Desk, asked: Any) -> Any:
    """List queues with their numbers of jobs by status, whether they are paused, and their rates."""
    return {"queues": queue_infos(desk.client, _queues(desk)), "rates": queues.rates(desk.client)}


@tool(Search)
def search_jobs(desk: Desk, asked: Search) -> Any:
    """Search jobs, the newest first; all that is given has to fit. Secrets in arguments are hidden."""
    page = search(desk.client, JobFilter.of(asked, asked.args), asked.limit, asked.cursor, desk.queues)
    shown = [_brief(each) for each in page.jobs]
    return {"jobs": shown, "cursor": page.cursor, "looked back to": page.back_to}


@tool(JobId)
def show_job(desk: Desk, asked: JobId) -> Any:
    """Show all that is known of a job: arguments, times, attempts, progress, result, error, steps, waits."""
    info = reader.read(desk.client, asked.id)
    steps = [each._asdict() for each in steps_of(desk.client, asked.id)]
    wait = blocked.wait_of(desk.client, asked.id)
    return {**_whole(info), "steps": masked(steps), "wait": wait}


@tool(Logs)
def job_logs(desk: Desk, asked: Logs) -> Any:
    """Read the last lines of a job's log."""
    found = watch.logs(desk.client, asked.id, asked.level)
    lines = [each._asdict() for each in found[-asked.last :]]
    return {"lines": masked(lines), "earlier": found.dropped + len(found) - len(lines)}


@tool(JobId)
def job_output(desk: Desk, asked: JobId) -> Any:
    """Read what a job emitted, the last 100 chunks."""
    found = watch.output(desk.client, asked.id)
    chunks = list(found.kept())
    return {"chunks": masked(chunks[-100:]), "earlier": found.dropped + max(0, len(chunks) - 100)}


@tool()
def job_types(desk: Desk, asked: Any) -> Any:
    """List the functions that are registered here, with their queues and arguments."""
    return [
        {"job": each.name, "queue": each.options.queue or "default", "call": str(each.signature)}
        for each in registry.types()
    ]


@tool(States)
def list_errors(desk: Desk, asked: States) -> Any:
    """List errors, failures of the same cause counted together, the last seen first."""
    states = errors.STATES if asked.state == "all" else (asked.state,)
    return errors.read_all(desk.client, states)[: asked.limit]


@tool(Fingerprint)
def show_error(desk: Desk, asked: Fingerprint) -> Any:
    """Show one error: its counts by hour, a traceback, and the last jobs that failed of it."""
    error, traceback, jobs = errors.read(desk.client, asked.fingerprint)
    return {"error": error, "traceback": traceback, "jobs": jobs[:50]}


@tool()
def list_workers(desk: Desk, asked: Any) -> Any:
    """List the registered workers, and what each does."""
    return cluster.workers(desk.client)


@tool()
def list_schedules(desk: Desk, asked: Any) -> Any:
    """List schedules with their next ticks."""
    return [_schedule(schedule_info(each)) for each in store.entries(desk.client)]


@tool(Named)
def show_schedule(desk: Desk, asked: Named) -> Any:
    """Show one schedule, and what became of its last 20 ticks."""
    entry = store.entry(desk.client, asked.name)
    return _schedule(with_ticks(entry, ledger.read(desk.client, asked.name, 20)))


@tool(Some)
def list_batches(desk: Desk, asked: Some) -> Any:
    """List the latest batches and flows, the newest first."""
    return [batch_info(each) for each in batch_state.latest(desk.client, asked.limit)]


@tool(BatchId)
def show_batch(desk: Desk, asked: BatchId) -> Any:
    """Show one batch or flow: its counts, its failed jobs, and the nodes of a flow."""
    failed = list(islice(Batch(desk.client, asked.id).failed(), 50))
    try:
        found: Any = flow_info(*flow_graph.read(desk.client, asked.id))
    except flow_graph.NotAFlow:
        found = batch_info(batch_state.read(desk.client, asked.id))
    return {**msgspec.to_builtins(found), "failed jobs": failed}


@tool(Some)
def list_limits(desk: Desk, asked: Some) -> Any:
    """Show which limits block jobs: the largest groups that wait, and who holds slots."""
    return blocked.waiting(desk.client, _queues(desk), asked.limit)


@tool(Hours)
def show_statistics(desk: Desk, asked: Hours) -> Any:
    """Show what was performed in the last hours by type of job: counts, failures, waits and run times."""
    found = statistics.by(statistics.hours(desk.client, asked.hours), statistics.type_of)
    lines = [statistics.summary(name, each) for name, each in found.items()]
    return [each._asdict() for each in sorted(lines, key=lambda each: -each.performed)]


@tool(Some)
def list_audit(desk: Desk, asked: Some) -> Any:
    """List the last actions of operators: who did what, from where, and when."""
    return [each._asdict() for each in list(audit.read(desk.client))[-asked.limit :]]


def _queues(desk: Desk) -> list[str]:
    return queues.names(desk.client, desk.queues)


def _brief(info: JobInfo) -> dict[str, Any]:
    args, kwargs = masked_job(info)
    names = ("id", "name", "status", "queue", "created_at", "started_at", "ended_at", "attempts", "unread")
    return {
        **{name: getattr(info, name) for name in names},
        "args": args,
        "kwargs": kwargs,
        "reason": info.reason,
    }


def _whole(info: JobInfo) -> dict[str, Any]:
    args, kwargs = masked_job(info)
    found = {**dataclasses.asdict(info), "args": args, "kwargs": kwargs}
    return {**found, "result": masked_result(info), "description": masked(info.description)}


def _schedule(info: Any) -> Any:
    found = masked(msgspec.to_builtins(info))
    if called := info.schedule:
        args, kwargs = masked_call(called.job, called.args, called.kwargs)
        found["schedule"] |= {"args": args, "kwargs": kwargs}
    return found


TOOLS = (
    overview, list_queues, search_jobs, show_job, job_logs, job_output, job_types, list_errors, show_error,
    list_workers, list_schedules, show_schedule, list_batches, show_batch, list_limits, show_statistics,
    list_audit, *holding.TOOLS,
)  # fmt: skip
