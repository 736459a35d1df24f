"""`packmule status`: queues, workers, scheduler and server at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from packmule.terminal.app import App
from packmule.terminal.parameters import json_option
from packmule.terminal.say import program

if TYPE_CHECKING:
    from packmule.observe.leadership import Leader


@click.command()
@json_option
@click.pass_obj
def status(app: App, json: bool) -> None:
    """Show queues, workers, the leading scheduler and the server.

    Stopped jobs count as failed.
    """
    from packmule.jobs import cluster, keys, reader
    from packmule.jobs.schedule_store import entries
    from packmule.observe.leadership import candidates, leader
    from packmule.observe.memory import MemoryMark
    from packmule.terminal import show, show_job
    from packmule.terminal.banner import server_text
    from packmule.terminal.queue import depths_by_queue, show_queues

    found = depths_by_queue(app)
    workers = cluster.workers(app.client)
    server = cluster.server(app.client)
    used, allowed = MemoryMark(app.client, app.settings.memory_high_water).usage()
    server |= {"memory_bytes": used, "memory_allowed_bytes": allowed or None}
    leads, running = leader(app.client), candidates(app.client)
    faulty = sum(each.state == "faulty" for each in entries(app.client))
    if json:
        of_jobs = {"queues": found, "workers": workers, "server": server}
        show.as_json({**of_jobs, "leader": leads, "schedulers": running, "faulty_schedules": faulty})
        return
    no_more = ": workers take no jobs until memory is free" if app.client.exists(keys.FULL) else ""
    bound = f" of {allowed >> 20} MiB" if allowed else ", unlimited"
    show.facts(
        {
            "server": f"{server_text(app)}, up {show.age(server['up_seconds'])}",
            "clients": server["clients"],
            "memory": f"{used / 2**20:.1f} MiB{bound}{no_more}",
            "leader": _leading(leads, running)
            or f"no scheduler is running; start one with: {program()} scheduler",
            "schedules": f"{faulty:,} faulty; {program()} schedule list shows why" if faulty else None,
            "workers": _disagreement(cluster.disagreeing(workers)),
        }
    )
    show.out.print()
    show_queues(found)
    show.out.print()
    if any(each["current_job"] for each in workers):
        app.load_if_possible()  # which says what of their arguments is secret
    jobs = reader.read_many(app.client, [each["current_job"] for each in workers])
    rows = [
        (
            each["name"],
            each["state"] + (", quiet" if each["quiet"] else ""),
            each["done"],
            each["failed"],
            str(each["queues"]).replace(",", ", "),
            show_job.about(each["current_job"], job),
        )
        for each, job in zip(workers, jobs, strict=True)
    ]
    columns = ("worker", "state", "done", "failed", "queues", "job")
    empty = f"no worker is running; start one with: {program()} worker"
    show.table(columns, rows, empty, shorten="job")


def _leading(leads: Leader | None, running: int) -> str | None:
    from packmule.terminal import show

    if leads is None:
        return None
    others = f"; {running - 1} more on standby" if running > 1 else ""
    return f"{leads.name}, elected {show.distance(leads.since)}, term {leads.term}{others}"


def _disagreement(queues: dict[str, list[str]]) -> str | None:
    if not queues:
        return None
    (first, second, *_) = next(iter(queues.values()))
    named = f"queue {next(iter(queues))}" if len(queues) == 1 else f"queues {', '.join(queues)}"
    return (
        f"{first} and {second} know different jobs for the {named}: a deploy is under way, or two "
        "applications share a database, which RQ's fixed keys don't allow: give each its own database"
    )
