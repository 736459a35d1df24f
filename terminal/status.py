"""`packmule status`: queues, workers, scheduler and server at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from packmule.terminal.app import App
from packmule.terminal.parameters import json_option

if TYPE_CHECKING:
    from packmule.observe.leadership import Leader


@click.command()
@json_option
@click.pass_obj
def status(app: App, json: bool) -> None:
    """Show queues, workers, the leading scheduler and the server.

    Stopped jobs count as failed.
    """
    from packmule.jobs import cluster, keys
    from packmule.jobs.schedule_store import entries
    from packmule.observe.leadership import candidates, leader
    from packmule.observe.memory import MemoryMark
    from packmule.terminal import show
    from packmule.terminal.banner import server_text
    from packmule.terminal.queue import depths_by_queue, show_queues
    from packmule.units import span

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
    no_more = ": workers take no jobs until some is free" if app.client.exists(keys.FULL) else ""
    bound = f" of {allowed >> 20} MiB" if allowed else ", unlimited"
    show.facts(
        {
            "server": f"{server_text(app)}, up {span(server['up_seconds'])}",
            "clients": server["clients"],
            "memory": f"{used / 2**20:.1f} MiB{bound}{no_more}",
            "leader": _leading(leads, running)
            or "no scheduler is running; start one with: packmule scheduler",
            "schedules": f"{faulty:,} faulty; packmule schedule list shows why" if faulty else None,
        }
    )
    show.out.print()
    show_queues(found)
    show.out.print()
    rows = [
        (
            each["name"],
            (each["current_job"] or each["state"]) + (", quiet" if each["quiet"] else ""),
            each["done"],
            each["failed"],
            str(each["queues"]).replace(",", ", "),
        )
        for each in workers
    ]
    columns = ("worker", "job or state", "done", "failed", "queues")
    show.table(columns, rows, "no worker is running; start one with: packmule worker")


def _leading(leads: Leader | None, running: int) -> str | None:
    from packmule.terminal import show

    if leads is None:
        return None
    others = f"; {running - 1} more on standby" if running > 1 else ""
    return f"{leads.name}, elected {show.ago(leads.since)}, term {leads.term}{others}"
