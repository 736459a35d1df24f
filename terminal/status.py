"""`packmule status`: queues, workers, scheduler and server at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from packmule.terminal.app import App

if TYPE_CHECKING:
    from packmule.scheduler.leader import Leader


@click.command()
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def status(app: App, json: bool) -> None:
    """Queues, workers, leading scheduler and server at one glance; stopped jobs count as failed."""
    from packmule.jobs import reader, wire
    from packmule.scheduler.leader import candidates, leader
    from packmule.scheduler.maintenance.memory_limit import MemoryLimit
    from packmule.scheduler.schedules.schedule_store import entries
    from packmule.terminal import show
    from packmule.terminal.queue import depths_by_queue, show_queues

    found = depths_by_queue(app)
    workers = reader.workers(app.client)
    server = reader.server(app.client)
    used, allowed = MemoryLimit(app.client, app.settings.memory_high_water).usage()
    server |= {"memory_bytes": used, "memory_allowed_bytes": allowed or None}
    leads, running = leader(app.client), candidates(app.client)
    faulty = sum(each.state == "faulty" for each in entries(app.client))
    if json:
        told = {"queues": found, "workers": workers, "server": server}
        show.as_json({**told, "leader": leads, "schedulers": running, "faulty_schedules": faulty})
        return
    bound = f"{allowed >> 20} MiB, past which no job is taken" if allowed else "no bound"
    facts = {name: value for name, value in server.items() if not name.startswith("memory")}
    full = ": no job is taken now" if app.client.exists(wire.FULL) else ""
    facts["memory"] = f"{used / 2**20:.1f} MiB of {bound}{full}"
    facts["leader"] = _leading(leads, running) or "no scheduler leads: packmule scheduler"
    facts["schedules"] = f"{faulty:,} faulty: packmule schedule list says why" if faulty else None
    show.facts(facts)
    show.out.print()
    show_queues(found)
    show.out.print()
    rows = [
        (each["name"], each["state"], each["queues"], each["current_job"], each["done"], each["failed"])
        for each in workers
    ]
    show.table(
        ("worker", "state", "queues", "job", "done", "failed"), rows, "no worker is running: packmule worker"
    )


def _leading(leads: Leader | None, running: int) -> str | None:
    from packmule.scheduler.schedules.cron import shown

    if leads is None:
        return None
    others = f"; {running - 1} more stand by" if running > 1 else ""
    return f"{leads.name}, term {leads.term}, since {shown(int(leads.since))}{others}"
