"""`packmule top`: a live page of queues, job types, workers and slow jobs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from packmule.coordination.readable import readable
from packmule.terminal.app import App

if TYPE_CHECKING:
    from redis import Redis
    from rich.console import RenderableType

    from packmule.observe.days import Days
    from packmule.observe.statistics import Statistics, Summary

PERIODS = {"5m": 5, "15m": 15, "1h": 60, "24h": 24 * 60, "7d": 7 * 24 * 60}
DAYS = {"8d": 8, "30d": 30, "90d": 90}
"""Periods of whole days and this one so far, of which Redis keeps a record."""

ORDERS = {"runs": "performed", "time": "seconds", "failures": "failed"}
REFRESH = 1.0


@click.command()
@click.option(
    "--period",
    type=click.Choice([*PERIODS, *DAYS]),
    default="5m",
    show_default=True,
    help="Cover this period.",
)
@click.option(
    "--by",
    "order",
    type=click.Choice(list(ORDERS)),
    default="runs",
    show_default=True,
    help="Sort types by this.",
)
@click.option("--once", is_flag=True, help="Print the page once.")
@click.option("--json", "json", is_flag=True, help="Print the page once, as one JSON object.")
@click.pass_obj
def top(app: App, period: str, order: str, once: bool, json: bool) -> None:
    """Show live what is running and what ran recently.

    Press q or Ctrl-C to quit.
    """
    from packmule.terminal import show

    if json:
        show.as_json(_found(app, period, order))
    elif once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        show.out.print(_page(_found(app, period, order), period, 1000))
    else:
        _live(app, period, order)


def _live(app: App, period: str, order: str) -> None:
    from rich.live import Live

    from packmule.terminal import show

    with _keys(), Live(console=show.out, screen=True, auto_refresh=False) as page:
        while True:
            page.update(_page(_found(app, period, order), period, show.out.height), refresh=True)
            if readable([sys.stdin], REFRESH) and os.read(sys.stdin.fileno(), 64).lower()[:1] in (
                b"q",
                b"\x1b",
                b"",
            ):
                return


@contextmanager
def _keys() -> Iterator[None]:
    """Read keys as they are pressed, without showing them; Ctrl-C still interrupts."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _found(app: App, period: str, order: str) -> dict[str, Any]:
    from packmule.jobs import queues, reader
    from packmule.observe import statistics
    from packmule.terminal import show_job

    client = app.client
    by_queue, by_type = _counted(client, period)
    hours = max(1, PERIODS.get(period, statistics.MOST_HOURS * 60) // 60)
    rates = statistics.rates(client)
    depths = queues.depths(client, list(dict.fromkeys([*app.queues(), *by_queue])))
    ages = queues.ages(client, list(depths))
    types = [statistics.summary(name, each) for name, each in by_type.items()]
    slowest = statistics.slowest(client, 10, hours)
    return {
        "at": time.time(),
        "period": period,
        "queues": [
            {
                "queue": name,
                "waiting": counts["queued"],
                "age": ages.get(name),
                "running": counts["started"],
                "scheduled": counts["scheduled"],
                "per_second": round(rates.get(name, 0.0), 2),
                **_part(statistics.summary(name, by_queue.get(name, statistics.Statistics()))),
            }
            for name, counts in depths.items()
        ],
        "types": [each._asdict() for each in sorted(types, key=lambda one: -getattr(one, ORDERS[order]))],
        "workers": [
            {"worker": name, "seconds": round(spent, 6)}
            for name, spent in statistics.busiest(client, 10, hours)
        ],
        "slowest": [
            {"job": id, "seconds": round(spent, 6), "calls": show_job.called(job) if job else ""}
            for (id, spent), job in zip(slowest, reader.read_many(client, [*dict(slowest)]), strict=True)
        ],
    }


def _counted(client: Redis, period: str) -> tuple[dict[str, Statistics], dict[str, Statistics]]:
    """What was performed, by queue and by type."""
    from packmule.observe import statistics

    if period in DAYS:
        days = _days(client)
        return days.look(DAYS[period], "queue").parts, days.look(DAYS[period], "type").parts
    count = PERIODS[period]
    found = (
        statistics.minutes(client, count) if count <= 60 else statistics.hours(client, count // 60)  # noqa: PLR2004
    )
    return statistics.by(found, statistics.queue_of), statistics.by(found, statistics.type_of)


@cache
def _days(client: Redis) -> Days:
    """The one reader of this server's past, so that a live page reads it once."""
    from packmule.observe.days import Days

    return Days(client)


def _part(found: Summary) -> dict[str, Any]:
    names = ("performed", "failed", "wait_p50", "wait_p95")
    return {name: getattr(found, name) for name in names}


def _page(found: dict[str, Any], period: str, height: int) -> RenderableType:
    from rich.console import Group

    from packmule.units import span

    lately = ", the last 8d" if DAYS.get(period, 0) > DAYS["8d"] else ""
    room = max(3, (height - 16) // 3)
    queues = [
        (
            *(each["queue"], each["waiting"], span(each["age"])),
            *(each[name] for name in ("running", "scheduled", "per_second", "performed", "failed")),
            *(span(each["wait_p50"]), span(each["wait_p95"])),
        )
        for each in found["queues"]
    ]
    types = [
        (
            *(each["name"], each["performed"], each["failed"], each["retried"]),
            *(span(each[name]) for name in ("seconds", "run_p50", "run_p95", "run_p99", "wait_p95")),
        )
        for each in found["types"][:room]
    ]
    workers = [(each["worker"], span(each["seconds"])) for each in found["workers"][:room]]
    slowest = [(each["job"], span(each["seconds"]), each["calls"]) for each in found["slowest"][:room]]
    return Group(
        _titled(
            f"queues, the last {period}",
            queues,
            *("queue", "waiting", "oldest", "running", "due", "per s", "done", "failed"),
            *("wait p50", "wait p95"),
        ),
        _titled(
            "job types",
            types,
            *("type", "done", "failed", "retried", "time", "run p50", "run p95", "run p99", "wait p95"),
        ),
        _titled(f"busiest workers{lately}", workers, "worker", "time"),
        _titled(f"slowest jobs{lately}", slowest, "job", "time", "calls"),
    )


def _titled(title: str, rows: list[tuple[Any, ...]], *columns: str) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    if not rows:
        return Text(f"{title}: none yet\n", style="dim")
    return Group(Text(title, style="bold"), _grid(columns, rows), "")


def _grid(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> RenderableType:
    from packmule.terminal import show

    if columns[0] == "job":
        return show.grid(columns, rows, show.out.width, shorten="calls", ids="job")
    return show.grid(columns, rows, show.out.width, cut=columns[0])
