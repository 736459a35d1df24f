"""What rq-dashboard's pages show, read in a few round trips; what can't be read is left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from redis import Redis

from packmule.coordination.redis.replies import UNREADABLE, as_text, pipelined
from packmule.dashboard.rights import HIDDEN
from packmule.dashboard.viewer import Viewer
from packmule.jobs import cluster, keys, queues, reader, wire
from packmule.jobs.masking import masked, masked_result
from packmule.jobs.reader import JobInfo
from packmule.plain_text import plain, plain_lines

REGISTRIES = ("queued", *keys.REGISTRIES)
MAX_PER_PAGE = 200
MAX_DEPENDENCIES = 100
WINDOW = 10
"""Pages that are linked beside the current one."""


class Page(NamedTuple):
    """Which jobs of a queue are looked at."""

    queue: str
    registry: str
    per_page: int
    order: str
    number: int

    @classmethod
    def of(cls, queue: str, registry: str, per_page: str, order: str, number: str) -> Page:
        """With what an address says, clamped."""
        return cls(
            queue,
            registry if registry in REGISTRIES else "queued",
            clamped(per_page, 1, MAX_PER_PAGE),
            "dsc" if order == "dsc" else "asc",
            clamped(number, 1, 10**9),
        )


def clamped(text: str, least: int, most: int) -> int:
    """A number from an address between two bounds; what is none is the least.

    >>> clamped("1e9", 1, 200), clamped("-1", 1, 200), clamped("9" * 300, 1, 200)
    (1, 1, 200)
    """
    if not text.isascii() or not text.isdigit():
        return least
    return most if len(text) > len(str(most)) else max(least, min(int(text), most))


def queue_counts(client: Redis, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """The jobs in each status, by queue."""
    return queues.depths(client, sorted(names))


def page_of_ids(client: Redis, page: Page) -> tuple[int, list[str]]:
    """How many jobs there are in all, and the ids of those on a page. Two trips."""
    is_list = page.registry == "queued"
    places = keys.queue_keys(page.queue) if is_list else (keys.registry_key(page.registry, page.queue),)
    lengths = pipelined(client, [("LLEN" if is_list else "ZCARD", key) for key in places], 0)
    total = sum(lengths)
    first = (page.number - 1) * page.per_page
    if page.order == "dsc":
        first = total - first - page.per_page
    wanted, last = [], min(first + page.per_page, total)
    first = max(first, 0)
    for key, length in zip(places, lengths, strict=True):
        if first < length and last > 0:
            wanted.append(("LRANGE" if is_list else "ZRANGE", key, max(first, 0), last - 1))
        first, last = first - length, last - length
    ids = [as_text(id) for some in pipelined(client, wanted, ()) for id in some]
    if page.registry == "started":  # RQ writes `<job id>:<execution id>`
        ids = [id.rpartition(":")[0] or id for id in ids]
    return total, ids[::-1] if page.order == "dsc" else ids


def jobs_of(client: Redis, ids: Sequence[str], viewer: Viewer) -> list[dict[str, Any]]:
    """What a list of jobs shows; one that can't be read is there with its id. One trip."""
    found = reader.read_many(client, ids)
    return [_row(info, viewer) if info else _unreadable(id) for id, info in zip(ids, found, strict=True)]


def _row(info: JobInfo, viewer: Viewer) -> dict[str, Any]:
    return {
        "id": info.id,
        "created_at": iso(info.created_at),
        "started_at": iso(info.started_at),
        "ended_at": iso(info.ended_at),
        "exc_info": _error(info, viewer),
        "description": _description(info, viewer),
    }


def _unreadable(id: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("created_at", "started_at", "ended_at", "exc_info"))
    return {"id": id, **nothing, "description": "no record of a job, or none that can be read"}


def job(client: Redis, id: str, viewer: Viewer) -> dict[str, Any]:
    """What the page of a job shows. Three trips. Raises `NoSuchJob`."""
    info = reader.read(client, id)
    meta, waited_for = pipelined(
        client,
        [("HGET", keys.job_key(id), "meta"), ("SRANDMEMBER", keys.dependencies_key(id), MAX_DEPENDENCIES)],
        None,
    )
    result: Any = masked_result(info) if viewer.may_see_payloads else HIDDEN
    shown = {
        **_row(info, viewer),
        "enqueued_at": iso(info.enqueued_at),
        "origin": plain(info.queue),
        "status": info.status,
        "result": result,
        "result_text": plain_lines(json.dumps(result, indent=2, ensure_ascii=False, default=str)),
        "metadata": _metadata(meta) if viewer.may_see_payloads else HIDDEN,
    }
    if waited_for:
        ids = [as_text(each).rpartition(":")[2].strip() for each in waited_for]
        there = pipelined(client, [("EXISTS", keys.job_key(each)) for each in ids], 0)
        shown["depends_on"] = ids
        shown["depends_on_status"] = ["active" if each else "expired" for each in there]
    return shown


def _metadata(meta: bytes | None) -> str:
    try:
        return json.dumps(masked(msgspec.json.decode(meta or b"{}")), ensure_ascii=False, default=str)
    except UNREADABLE:
        return "can't be read"


def _description(info: JobInfo, viewer: Viewer) -> str:
    """RQ's description may hold arguments."""
    return plain(info.description or info.name) if viewer.may_see_payloads else plain(info.name)


def _error(info: JobInfo, viewer: Viewer) -> str | None:
    if not info.error:
        return None
    return plain_lines(info.error if viewer.may_see_payloads else f"{info.error_type}: {HIDDEN}")


def workers(client: Redis, viewer: Viewer) -> list[dict[str, Any]]:
    """The registered workers, each with the job that it performs. Three trips."""
    found = cluster.workers(client)
    ids = list(dict.fromkeys(each["current_job"] for each in found if each["current_job"]))
    current = dict(zip(ids, jobs_of(client, ids, viewer), strict=True))
    rows = [
        {
            "name": plain(each["name"]),
            "pid": each["pid"],
            "queues": [plain(name) for name in each["queues"].split(",")],
            "state": each["state"],
            "current_job": _current(current[each["current_job"]]) if each["current_job"] else "idle",
            "last_heartbeat": iso(each["last_heartbeat"]),
            "birth_date": iso(each["since"]),
            "successful_job_count": each["done"],
            "failed_job_count": each["failed"],
        }
        for each in found
    ]
    return sorted(rows, key=lambda row: (str(row["state"]), row["queues"], str(row["name"])))


def _current(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "job_id": row["id"],
        "description": row["description"],
        "created_at": row["created_at"],
        "call_string": row["description"],
    }


def iso(text: str | None) -> str | None:
    """RQ's text of a time as rq-dashboard's scripts read it; None for what is no time.

    >>> iso("2026-11-30T08:00:00.000000Z")
    '2026-11-30T08:00:00+00:00'
    """
    try:
        seconds = wire.time_seconds(text or "")
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError):
        return None
