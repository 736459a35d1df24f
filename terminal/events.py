"""`packmule events`: what happened to jobs, from what is kept, and as it happens."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from packmule.terminal.app import App
from packmule.terminal.parameters import JobId, Since, complete_queues
from packmule.terminal.say import complain, say

if TYPE_CHECKING:
    from packmule.observe.events import JobEvent


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Print new events as they happen, until Ctrl-C.")
@click.option("--job", "job", type=JobId(), metavar="ID", help="Only events of this job.")
@click.option(
    "--type", "types", multiple=True, metavar="TYPE", help="Only events of this type; can be repeated."
)
@click.option("--queue", metavar="NAME", shell_complete=complete_queues, help="Only events of this queue.")
@click.option(
    "--since", type=Since(), help="Only events after this: 10m (ago), 2026-12-01T08:00, or an event's id."
)
@click.option("--limit", type=click.IntRange(1), help="Only this many of the latest events.")
@click.option("--json", "json", is_flag=True, help="Print one JSON object per line.")
@click.pass_obj
def events(
    app: App,
    follow: bool,
    job: str | None,
    types: tuple[str, ...],
    queue: str | None,
    since: str | None,
    limit: int | None,
    json: bool,
) -> None:
    """Print job events, stored or live.

    Events are enqueued, scheduled, started, finished, failed and so on.
    """
    from collections import deque

    from packmule.observe import events as source

    for each in types:
        if each not in source.TYPES:
            raise click.BadParameter(f"{each!r} is not one of {', '.join(source.TYPES)}", param_hint="--type")
    only = source.EventFilter(job, types, (queue,) if queue else ())
    after = since or ("$" if follow and limit is None else "0")
    if after != "$":
        kept = source.read(app.client, after, only)
        for event in deque(kept, limit) if limit else kept:
            after = event.id
            _show(event, json)
    if not follow:
        return
    for found in source.follow(app.client, after, only):
        if isinstance(found, source.JobEvent):
            _show(found, json)
        else:
            lost = "some" if found.entries is None else f"{found.entries:,} entries of"
            complain(f"{lost} events were trimmed before they were read")


def _show(event: JobEvent, json: bool) -> None:
    from packmule.terminal import show

    if json:
        show.as_json(event._asdict())
        return
    is_live = show.out.is_terminal
    at = datetime.fromtimestamp(event.at).strftime("%H:%M:%S" if is_live else "%Y-%m-%d %H:%M:%S.%f")
    job = show.short_ids([event.job])[event.job] if is_live else event.job
    said = " ".join(f"{name}={value}" for name, value in _details(event))
    parts = (at if is_live else at[:-3], f"{event.type:11}", job, f"{event.queue:10}", event.worker, said)
    say(" ".join(part for part in parts if part).rstrip())


def _details(event: JobEvent) -> list[tuple[str, Any]]:
    """The details, with the duration instead of its two instants."""
    from packmule.terminal import show

    details = dict(event.details)
    try:
        seconds = details.pop("ended") - details.pop("started")
        details["took"] = f"{seconds:.3f}s"
    except (KeyError, TypeError):
        pass
    if isinstance(details.get("due"), float):
        details["due"] = show.ago(details["due"])
    return list(itertools.islice(details.items(), 10))
