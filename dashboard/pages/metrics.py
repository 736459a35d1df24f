"""Metrics: what was performed in each hour of the last days, and how long it waited and ran."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from packmule.dashboard.live.shared import shared
from packmule.dashboard.pages.paging import choice, page_of, small
from packmule.dashboard.pages.rendering import render
from packmule.observe import statistics
from packmule.observe.day_record import PARTS
from packmule.observe.days import KEPT_DAYS, At, Days
from packmule.observe.statistics import Statistics, Summary

PERIODS = {"24h": 0, "8d": 8, "30d": 30, "90d": KEPT_DAYS}
"""The whole days before this one that a period has; the first has the last hours alone."""

HOURS = 24
LONGEST_NAME = 2000
MOST_OF_PARTS = 25_000
"""Bytes of the list of queues or types."""

_making = threading.Lock()


class Asked(NamedTuple):
    """What an address asks for: a period, its parts, and the `name` of one of them; "" for all together."""

    period: str
    by: str
    name: str


class Found(NamedTuple):
    """Each part as a line, the sum of what was asked for, and that by hour and by day, the oldest first."""

    parts: list[Summary]
    total: Summary
    hours: Sequence[At]
    days: Sequence[At]


@shared
def metrics(request: Request) -> Response:
    """`/metrics`: queues or types of jobs, and the hours of one of them or of all."""
    asked = _asked(request)
    found = _found(request, asked)

    def of_rows(size: int) -> Response:
        return render(
            request,
            "metrics.html",
            **asked._asdict(),
            periods=tuple(PERIODS),
            page=page_of(found.parts, request, size),
            total=found.total,
            lines=(found.days or found.hours)[::-1],
            is_by_day=bool(found.days),
        )

    return small(of_rows, MOST_OF_PARTS, "parts")


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
    if not PERIODS[asked.period]:
        return _lately(request, asked)
    state = request.app.state
    with _making:
        if not hasattr(state, "days"):
            state.days = Days(state.site.client)
    found = state.days.look(PERIODS[asked.period], asked.by, asked.name)
    return Found(_lines(found.parts), statistics.summary(asked.name, found.total), found.hours, found.days)


def _lately(request: Request, asked: Asked) -> Found:
    """The last hours, in which each queue and type is counted by its name."""
    part, name = PARTS[asked.by], asked.name
    hours: list[tuple[int, Statistics]] = []
    parts: dict[str, list[Statistics]] = {}
    for at, counted in statistics.each_hour(request.app.state.site.client, HOURS):
        groups = statistics.by(counted, part)
        for each, found in groups.items():
            parts.setdefault(each, []).append(found)
        hours.append((at, statistics.combined(found for each, found in groups.items() if name in ("", each))))
    return Found(
        _lines({each: statistics.combined(some) for each, some in parts.items()}),
        statistics.summary(name, statistics.combined(each for _, each in hours)),
        [(at, statistics.summary(name, each)) for at, each in hours],
        [],
    )


def _lines(parts: dict[str, Statistics]) -> list[Summary]:
    lines = [statistics.summary(name, each) for name, each in parts.items()]
    return sorted(lines, key=lambda each: (-each.performed, each.name))


ROUTES = [
    Route("/metrics", metrics, name="metrics"),
    Route("/metrics/data", metrics_data, name="metrics_data"),
]
