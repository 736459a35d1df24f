"""Metrics: what was performed in each hour of the last days, and how long it waited and ran."""

from __future__ import annotations

from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from packmule.dashboard.live.shared import shared
from packmule.dashboard.pages.paging import choice, page_of
from packmule.dashboard.pages.rendering import render
from packmule.observe import statistics
from packmule.observe.statistics import MOST_HOURS, Statistics, Summary

PERIODS = {"24h": 24, "7d": 168, "8d": MOST_HOURS}
PARTS = {"queue": statistics.queue_of, "type": statistics.type_of}
LONGEST_NAME = 2000


class Asked(NamedTuple):
    """What an address asks for: a period, its parts, and the `name` of one of them; "" for all together."""

    period: str
    by: str
    name: str


class Found(NamedTuple):
    """Each part as a line, the sum of what was asked for, and the same by hour, the oldest first."""

    parts: list[Summary]
    total: Summary
    hours: list[tuple[int, Summary]]


@shared
def metrics(request: Request) -> Response:
    """`/metrics`: queues or types of jobs, and the hours of one of them or of all."""
    asked = _asked(request)
    found = _found(request, asked)
    return render(
        request,
        "metrics.html",
        **asked._asdict(),
        periods=tuple(PERIODS),
        page=page_of(found.parts, request),
        total=found.total,
        hours=found.hours[::-1],
        days=MOST_HOURS // 24,
    )


def metrics_data(request: Request) -> Response:
    """`/metrics/data`: the hours as lists of the same length, for the charts; spans are in seconds."""
    hours = _found(request, _asked(request)).hours
    fields = ("performed", "failed", "wait_p50", "wait_p95", "run_p50", "run_p95")
    lists: dict[str, list[Any]] = {name: [getattr(each, name) for _, each in hours] for name in fields}
    return JSONResponse({"at": [at for at, _ in hours], **lists})


def _asked(request: Request) -> Asked:
    name = request.query_params.get("name", "")[:LONGEST_NAME]
    return Asked(choice(request, "period", tuple(PERIODS)), choice(request, "by", tuple(PARTS)), name)


def _found(request: Request, asked: Asked) -> Found:
    part = PARTS[asked.by]
    read = statistics.each_hour(request.app.state.site.client, PERIODS[asked.period])
    hours: list[tuple[int, Statistics]] = []
    parts: dict[str, list[Statistics]] = {}
    for at, counted in read:
        groups = statistics.by(counted, part)
        for name, each in groups.items():
            parts.setdefault(name, []).append(each)
        wanted = [each for name, each in groups.items() if asked.name in ("", name)]
        hours.append((at, statistics.combined(wanted)))
    lines = [statistics.summary(name, statistics.combined(each)) for name, each in parts.items()]
    lines.sort(key=lambda each: (-each.performed, each.name))
    return Found(
        lines,
        statistics.summary(asked.name, statistics.combined(each for _, each in hours)),
        [(at, statistics.summary(asked.name, each)) for at, each in hours],
    )


ROUTES = [
    Route("/metrics", metrics, name="metrics"),
    Route("/metrics/data", metrics_data, name="metrics_data"),
]
