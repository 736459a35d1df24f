"""Queues: all of them in numbers, and each with what waits in it; pausing, limiting and purging them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.coordination.limits.rate import InvalidRate, Rate
from packmule.dashboard.acting import acting, go
from packmule.dashboard.forms import fields
from packmule.dashboard.live.shared import shared
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.overview import attention, situation
from packmule.dashboard.pages.paging import MOST_BYTES, asked, choice, order, page_of, small
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import needs
from packmule.dashboard.viewer import Role
from packmule.jobs import cluster
from packmule.jobs import queues as source
from packmule.jobs.filter_text import word
from packmule.observe import statistics
from packmule.observe.situation import QueueState
from packmule.plain_text import plain

TABS = ("all", "paused", "limited", "no workers", "failed")

ROWS = 30
"""Queues on a page."""

PARTS = 20
"""Types of jobs, and workers, that a queue's page shows."""

MOST_OF_PARTS = 20_000
"""Bytes of either list."""

HOURS = 24
"""Over which its types of jobs are counted."""

LONGEST_RATE = 100

PURGE_SECONDS = 10.0
"""How long a request deletes; what is left is for the next one."""

_ORDERS: dict[str, Callable[[QueueState], Any]] = {
    "need": attention,
    "name": lambda queue: queue.name,
    "waiting": lambda queue: queue.counts["queued"],
    "running": lambda queue: queue.counts["started"],
    "blocked": lambda queue: queue.counts["blocked"],
    "later": lambda queue: queue.counts["scheduled"] + queue.counts["deferred"],
    "failed": lambda queue: queue.counts["failed"],
    "oldest": lambda queue: queue.oldest or 0.0,
    "in": lambda queue: queue.per_second_in or 0.0,
    "out": lambda queue: queue.per_second_out,
    "workers": lambda queue: queue.workers,
}


@shared
def queues(request: Request) -> Response:
    """`/queues`: all queues, or those in a state or with some words in their names."""
    found = situation(request)
    words = asked(request).lower().split()
    fitting = [each for each in found.queues if all(word in each.name.lower() for word in words)]
    counts = Counter(state for each in fitting for state in _states(each))
    state = choice(request, "state", TABS)
    sort, key, is_reversed = order(request, _ORDERS, "need")
    rows = sorted([each for each in fitting if state in _states(each)], key=key, reverse=is_reversed)
    values: dict[str, Any] = {
        "tabs": [(tab, counts[tab]) for tab in TABS],
        "state": state,
        "sort": sort,
        "asked": asked(request),
        "known": len(found.queues),
        "at": int(time.time()),
    }

    def of_rows(size: int) -> Response:
        return render(request, "queue_list.html", **values, page=page_of(rows, request, size))

    return small(of_rows, MOST_BYTES, "list", size=ROWS)


@shared
def queue(request: Request) -> Response:
    """`/queues/{name}`: a queue, its types of jobs and its workers; with `?ask=purge` it asks first."""
    return _page(request, _known(request))


def _page(
    request: Request, name: str, status: int = 200, rate: str | None = None, fault: str = ""
) -> Response:
    client = request.app.state.site.client
    state = next((each for each in situation(request).queues if each.name == name), None)
    if state is None:
        raise _no_such(name)
    of_queue = {key: each for key, each in statistics.hours(client, HOURS).items() if key[0] == name}
    types = [
        statistics.summary(kind, each) for kind, each in statistics.by(of_queue, statistics.type_of).items()
    ]
    types.sort(key=lambda each: (-each.performed, each.name))
    serving = [each for each in cluster.workers(client) if name in each["queues"].split(",")]
    serving.sort(key=lambda each: (each["state"] == "vanished", each["name"]))
    values: dict[str, Any] = {
        "queue": state,
        "at": int(time.time()),
        "of_types": len(types),
        "of_workers": len(serving),
        "asks": request.query_params.get("ask") == "purge",
        "rate": (state.rate or "") if rate is None else rate,
        "fault": fault,
        "longest_rate": LONGEST_RATE,
        "hours": HOURS,
        "jobs_word": word("queue", name),
    }

    def of_rows(size: int) -> Response:
        return render(request, "queue.html", status, **values, types=types[:size], workers=serving[:size])

    return small(of_rows, MOST_OF_PARTS, "types", "workers", size=PARTS)


@needs(Role.OPERATOR)
def pause(request: Request) -> Response:
    """`POST /queues/{name}/pause`: keep workers from taking its jobs."""
    name = _known(request)
    with acting(request, "queue pause", queue=name):
        changed = source.pause(request.app.state.site.client, name)
    told = f"{name} is paused." if changed else f"{name} was already paused."
    return go(request, _back(request, name), told)


@needs(Role.OPERATOR)
def resume(request: Request) -> Response:
    """`POST /queues/{name}/resume`: let workers take its jobs again."""
    name = _known(request)
    with acting(request, "queue resume", queue=name):
        changed = source.resume(request.app.state.site.client, name)
    told = f"{name} is resumed." if changed else f"{name} was not paused."
    return go(request, _back(request, name), told)


@needs(Role.OPERATOR)
def limit(request: Request) -> Response:
    """`POST /queues/{name}/limit`: limit how many of its jobs start per interval; nothing lifts the limit."""
    name, text = _known(request), fields(request).get("rate", "").strip()
    try:
        rate = Rate.parse(text[:LONGEST_RATE]) if text else None
    except InvalidRate as error:
        return _page(request, name, 400, text[:LONGEST_RATE], f"{error}")
    with acting(request, "queue limit", queue=name, rate=str(rate) if rate else "none"):
        source.set_rate(request.app.state.site.client, name, rate)
    told = f"{name} is limited to {rate}." if rate else f"{name} has no rate limit."
    return go(request, address(request, "queue", name=name), told)


@needs(Role.OPERATOR)
def purge(request: Request) -> Response:
    """`POST /queues/{name}/purge`: delete its jobs that have not started."""
    name, client = _known(request), request.app.state.site.client
    until = time.monotonic() + PURGE_SECONDS
    with acting(request, "queue purge", queue=name) as subject:
        deleted = subject["deleted"] = source.purge(client, name, PURGE_SECONDS)
    told = f"{name}: {deleted:,} {'job is' if deleted == 1 else 'jobs are'} deleted."
    if time.monotonic() >= until:
        told += " There may be more: purge again."
    return go(request, address(request, "queue", name=name), told)


def _states(each: QueueState) -> set[str]:
    """The tabs under which a queue is found."""
    found = {
        "all": True,
        "paused": each.is_paused,
        "limited": each.rate is not None,
        "no workers": each.lacks_workers,
        "failed": each.counts["failed"] > 0,
    }
    return {name for name, is_so in found.items() if is_so}


def _back(request: Request, name: str) -> str:
    """The page on which somebody pressed the button."""
    back = fields(request).get("back", "")
    if back == "queue":
        return address(request, "queue", name=name)
    return address(request, "queues" if back == "queues" else "overview")


def _known(request: Request) -> str:
    site, name = request.app.state.site, str(request.path_params["name"])
    if name not in site.queues and name not in source.names(site.client):
        raise _no_such(name)
    return name


def _no_such(name: str) -> HTTPException:
    return HTTPException(404, f"There is no queue {plain(name):.200}.")


ROUTES = [
    Route("/queues", queues, name="queues"),
    Route("/queues/{name:path}/pause", pause, methods=["POST"], name="queue_pause"),
    Route("/queues/{name:path}/resume", resume, methods=["POST"], name="queue_resume"),
    Route("/queues/{name:path}/limit", limit, methods=["POST"], name="queue_limit"),
    Route("/queues/{name:path}/purge", purge, methods=["POST"], name="queue_purge"),
    Route("/queues/{name:path}", queue, name="queue"),
]
