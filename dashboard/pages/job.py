"""The page of one job: what it is, what became of it, what it says, and what can be done with it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from redis import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.dashboard.live.changes import topic
from packmule.dashboard.live.shared import shared
from packmule.dashboard.pages import job_past
from packmule.dashboard.pages.job_values import seconds
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.previews.preview import preview
from packmule.dashboard.rights import HIDDEN
from packmule.dashboard.viewer import Viewer
from packmule.jobs import keys, masking, reader, registry, said, watch
from packmule.jobs.email import calls
from packmule.jobs.reader import JobInfo, NoSuchJob
from packmule.observe import waits
from packmule.observe.blocked import wait_of
from packmule.observe.tracebacks import without_values

MOST_LINES, MOST_CHUNKS = 200, 200
"""Lines of the log and chunks of the output that a page shows, the last ones."""

MOST_AROUND = 20

ACTS = {
    "retry": ("failed", "stopped", "canceled"),
    "cancel": ("queued", "started", "scheduled", "deferred"),
    "run": ("scheduled",),
    "delete": ("queued", "scheduled", "deferred", "finished", "failed", "stopped", "canceled"),
}
"""What can be done with a job, and in which statuses; `control` has the last word."""


@shared
def job(request: Request) -> Response:
    """`/jobs/<id>`: the job."""
    return page(request)


def page(request: Request, status: int = 200, signal: Mapping[str, str] | None = None) -> Response:
    """The page of the job in the request; `signal` is a signal's form as it was sent, with its fault."""
    site, viewer = request.app.state.site, request.state.viewer
    id = request.path_params["id"]
    info = reader.read(site.client, id)
    level = request.query_params.get("level", "debug")
    values = {
        "job": info,
        "topic": topic("job", info.id),
        "sees": viewer.may_see_payloads,
        "acts": [
            name for name, at in ACTS.items() if info.status in at and not (name == "run" and info.waits)
        ],
        "created": seconds(info.created_at),
        "enqueued": seconds(info.enqueued_at),
        "started": seconds(info.started_at),
        "ended": seconds(info.ended_at),
        "waits": _waits(site.client, info, viewer),
        "awaited": waits.signal_of(info),
        "signal": {"fault": "", "data": "", **(signal or {})},
        "preview_of": partial(preview, site, info),
        "is_answer": (info.waits or "").startswith("signal:step:"),
        "level": level if level in said.LEVELS else "debug",
        "levels": [*said.LEVELS],
        "mails": _mails(site.client, info) if viewer.may_see_payloads else [],
        **_around(site.client, info),
        **job_past.past(site.client, info, viewer),
        **_payloads(site.client, info, viewer, level if level in said.LEVELS else "debug"),
    }
    return render(request, "job.html", status, **values)


def _waits(client: Redis, info: JobInfo, viewer: Viewer) -> str | None:
    """What the job waits for, in words."""
    if info.status == "queued":
        found = wait_of(client, info.id)
        if found and found.group and not viewer.may_see_payloads:  # the keys of limits are made of arguments
            found = replace(found, group=replace(found.group, lacks=f"a limit, {HIDDEN}"))
        return (waits.of_queued(found) or waits.of_turn(client, info)) if found else None
    return waits.of_steps(info) or waits.of_deferred(client, info)


def _around(client: Redis, info: JobInfo) -> dict[str, Any]:
    """The batch or flow that the job is part of, and the jobs in front of it and behind it; in one trip."""
    members = ("SRANDMEMBER", keys.dependencies_key(info.id), MOST_AROUND)
    behind = ("SRANDMEMBER", keys.dependents_key(info.id), MOST_AROUND)
    fields, parents, children = pipelined(
        client, [("HMGET", keys.job_key(info.id), "batch", "group", "unique", "meta"), members, behind], None
    )
    batch, group, unique, _ = (as_text(each or b"") for each in fields or (b"", b"", b"", b""))
    callback = batch.endswith(" callback")
    batch = batch.removesuffix(" callback")
    return {
        "batch": batch,
        "is_callback": callback,
        "is_flow": bool(batch) and pipelined(client, [("HEXISTS", keys.batch_key(batch), "start")], 0) == [1],
        "group": group,
        "unique": unique,
        "parents": sorted(map(as_text, parents or ())),
        "children": sorted(map(as_text, children or ())),
    }


def _mails(client: Redis, info: JobInfo) -> list[tuple[str, str, str, float, float]]:
    """Recipients of an e-mail job with their states: address, state, reply, and the times of both."""
    if info.name != calls.NAME:
        return []
    with suppress(NoSuchJob):
        found = calls.mails_of_job(client, info.id)[:MOST_AROUND]
        return [(each.recipient, each.state, each.reply, each.changed, each.due) for each in found]
    return []


def _payloads(client: Redis, info: JobInfo, viewer: Viewer, level: str) -> dict[str, Any]:
    """What only some may see; none of it is there for the others."""
    if not viewer.may_see_payloads:
        error = without_values(info.error) if info.error else None
        reason = info.error_type if info.error else None
        return {"args": [], "kwargs": {}, "result": None, "error": error, "reason": reason, "log": [],
                "dropped": 0, "output": [], "output_dropped": 0}  # fmt: skip
    positional, named = masking.masked_job(info)
    args, kwargs = _named(info.name, positional, named)
    lines, output, chunks = watch.Logs(), watch.output(client, info.id), []
    with suppress(NoSuchJob):  # its key is no log, or the job expired a moment ago
        lines = watch.logs(client, info.id, level)
    with suppress(NoSuchJob):
        chunks = list(output.kept())
    return {
        "args": args,
        "kwargs": kwargs,
        "result": masking.masked_result(info),
        "error": info.error,
        "reason": info.reason,
        "log": lines[-MOST_LINES:],
        "dropped": lines.dropped + max(0, len(lines) - MOST_LINES),
        "output": _joined(chunks[-MOST_CHUNKS:]),
        "output_dropped": output.dropped + max(0, len(chunks) - MOST_CHUNKS),
    }


def _named(name: str, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """A call's arguments with the names that the function gives to positional ones, if it is known here."""
    job = registry.get(name)
    if job is None:
        return args, kwargs
    names = [
        each.name
        for each in job.signature.parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    return args[len(names) :], dict(zip(names, args, strict=False)) | kwargs


def _joined(chunks: list[Any]) -> list[Any]:
    """Chunks of output; texts next to each other are one, as they would be printed."""
    found: list[Any] = []
    for chunk in chunks:
        if isinstance(chunk, str) and found and isinstance(found[-1], str):
            found[-1] += chunk
        else:
            found.append(chunk)
    return found


ROUTES = [Route("/jobs/{id:path}", job, methods=["GET"], name="job")]
