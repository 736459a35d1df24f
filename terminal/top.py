"""`packmule top`: a live page of queues, types of jobs, workers and slow jobs."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from packmule.terminal.app import App

if TYPE_CHECKING:
    from rich.console import RenderableType

    from packmule.observe.statistics import Summary

PERIODS = {"5m": 5, "15m": 15, "1h": 60, "24h": 24 * 60, "7d": 7 * 24 * 60}
ORDERS = {"runs": "performed", "time": "seconds", "failures": "failed"}
REFRESH = 1.0
UNITS = ((0.001, "us", 1e-6), (1.0, "ms", 1e-3), (120.0, "s", 1.0), (7200.0, "min", 60.0))


@click.command()
@click.option("--period", type=click.Choice(list(PERIODS)), default="5m", show_default=True)
@click.option("--by", "order", type=click.Choice(list(ORDERS)), default="runs", show_default=True)
@click.option("--once", is_flag=True, help="Print it once.")
@click.option("--json", "json", is_flag=True, help="Print it once, as one JSON object.")
@click.pass_obj
def top(app: App, period: str, order: str, once: bool, json: bool) -> None:
    """What is performed now and was lately, live; q or Ctrl-C ends it."""
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
            pressed, _, _ = select.select([sys.stdin], [], [], REFRESH)
            if pressed and os.read(sys.stdin.fileno(), 64).lower()[:1] in (b"q", b"\x1b", b""):
                return


@contextmanager
def _keys() -> Iterator[None]:
    """Keys are read as they are pressed, and not shown; Ctrl-C stays what it is."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _found(app: App, period: str, order: str) -> dict[str, Any]:
    from packmule.jobs import reader
    from packmule.observe import statistics

    client, count = app.client, PERIODS[period]
    found = (
        statistics.minutes(client, count) if count <= 60 else statistics.hours(client, count // 60)  # noqa: PLR2004
    )
    hours = max(1, count // 60)
    rates = statistics.rates(client)
    by_queue = statistics.by(found, statistics.queue_of)
    depths = reader.depths(client, list(dict.fromkeys([*app.queues(), *by_queue])))
    ages = reader.ages(client, list(depths))
    types = [
        statistics.summary(name, each) for name, each in statistics.by(found, statistics.type_of).items()
    ]
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
            {"job": id, "seconds": round(spent, 6)} for id, spent in statistics.slowest(client, 10, hours)
        ],
    }


def _part(found: Summary) -> dict[str, Any]:
    names = ("performed", "failed", "wait_p50", "wait_p95")
    return {name: getattr(found, name) for name in names}


def _page(found: dict[str, Any], period: str, height: int) -> RenderableType:
    from rich.console import Group

    room = max(3, (height - 16) // 3)
    tables = [
        _table(
            f"queues, the last {period}",
            [
                (
                    *(each["queue"], each["waiting"], _span(each["age"])),
                    *(each[name] for name in ("running", "scheduled", "per_second")),
                    *(each["performed"], each["failed"], _span(each["wait_p50"]), _span(each["wait_p95"])),
                )
                for each in found["queues"]
            ],
            *("queue", "waiting", "since", "running", "scheduled", "a second", "performed", "failed"),
            *("wait p50", "p95"),
        ),
        _table(
            "types of jobs",
            [
                (
                    *(each["name"], each["performed"], each["failed"], each["retried"]),
                    *(_span(each[name]) for name in ("seconds", "run_p50", "run_p95", "run_p99", "wait_p95")),
                )
                for each in found["types"][:room]
            ],
            *("type", "performed", "failed", "retried", "time", "run p50", "p95", "p99", "wait p95"),
        ),
        _table(
            "busiest workers",
            [(each["worker"], _span(each["seconds"])) for each in found["workers"][:room]],
            *("worker", "time"),
        ),
        _table(
            "slowest jobs",
            [(each["job"], _span(each["seconds"])) for each in found["slowest"][:room]],
            *("job", "time"),
        ),
    ]
    return Group(*tables)


def _table(title: str, rows: list[tuple[Any, ...]], *columns: str) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from packmule.terminal.show import plain

    if not rows:
        return Text(f"{title}: none yet\n", style="dim")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        # As text, for names may hold what rich takes for markup, or a terminal for commands.
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int | float) else plain(cell)) for cell in row))
    return Group(Text(title, style="bold"), table, "")


def _span(seconds: float | None) -> str:
    """Seconds as people say them: 340 us, 12 ms, 3.4 s, 5 min, 2.5 h.

    >>> _span(0.0123), _span(75), _span(None)
    ('12 ms', '75 s', '-')
    """
    if seconds is None:
        return "-"
    for bound, unit, size in UNITS:
        if seconds < bound:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 3600:,.1f} h"
