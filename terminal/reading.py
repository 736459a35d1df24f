"""The commands for jobs and queues, `status`, and the check of the settings."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from packmule.terminal.app import App
from packmule.terminal.audited import Audited
from packmule.terminal.parameters import Duration, complete_queues

if TYPE_CHECKING:
    from packmule.observe.blocked import Wait
    from packmule.scheduler.leader import Leader

STATUSES = ("queued", "started", "scheduled", "finished", "failed", "stopped", "deferred", "canceled")
MOST_AT_ONCE = 1_000_000


@click.group()
def job() -> None:
    """Look at jobs, cancel them and let them run again."""


@job.command("show")
@click.argument("id")
@click.option("--traceback", is_flag=True, help="The whole traceback of a failure.")
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def job_show(app: App, id: str, traceback: bool, json: bool) -> None:
    """Show one job: its arguments, what it waits for, progress, result or error."""
    from packmule.jobs import reader
    from packmule.observe.blocked import wait_of
    from packmule.terminal import show

    record = reader.read(app.client, id)
    wait = wait_of(app.client, id)
    if json:
        show.as_json({**dataclasses.asdict(record), "wait": wait})
    else:
        show.job(record, traceback, _waits_for(wait) if wait else None)


def _waits_for(wait: Wait) -> str | None:
    """What a job waits for, in words; nothing where it is only its turn."""
    from packmule.terminal.limits import waits_for

    reasons = ["its queue, which is paused"] if wait.is_paused else []
    if wait.paused_batch:
        reasons.append(f"batch {wait.paused_batch}, which is paused")
    if wait.before:
        reasons.append(f"{wait.before:,} of its group")
    if wait.group and (wait.before or wait.group.waits_for != "turn"):
        reasons.append(("the first for " if wait.before else "") + waits_for(wait.group, wait.holders))
    if wait.rate:
        reasons.append(f"its queue's rate, {wait.rate}")
    return "; ".join(reasons) or None


@job.command("list")
@click.option("--queue", metavar="NAME", shell_complete=complete_queues, help="[default: all]")
@click.option("--status", type=click.Choice(STATUSES), help="[default: all]")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="For each queue and status."
)
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def job_list(app: App, queue: str | None, status: str | None, limit: int, json: bool) -> None:
    """List jobs by queue and status; those that were stopped are among the failed, as RQ keeps them."""
    from packmule.jobs import reader, wire
    from packmule.jobs.client import known_queue
    from packmule.terminal import show

    queues = [known_queue(queue, app.queues())] if queue else app.queues()
    statuses = [status] if status else ["queued", *wire.REGISTRIES]
    found = [
        record
        for name in queues
        for each in statuses
        for id in reader.ids(app.client, name, each, limit)
        if (record := reader.read_if_there(app.client, id))
    ]
    if json:
        show.as_json(found)
        return
    rows = [
        (each.id, show.status(each.status), each.queue, each.name, each.ended_at or each.created_at)
        for each in found
    ]
    show.table(("job", "status", "queue", "calls", "since"), rows, "no jobs")


@job.command("cancel", cls=Audited)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--timeout",
    type=Duration(),
    default=5.0,
    show_default=True,
    help="How long a running one may take to end.",
)
@click.pass_obj
def job_cancel(app: App, ids: tuple[str, ...], timeout: float) -> int:
    """Cancel jobs that wait, stop those that run; exit 1 if one had ended before."""
    from packmule.jobs.cancel import cancel

    statuses = [cancel(app.client, id, timeout) for id in ids]
    for id, status in zip(ids, statuses, strict=True):
        click.echo(f"{id} {status}")
    return 0 if set(statuses) <= {"canceled", "stopped"} else 1


@job.command("retry", cls=Audited)
@click.argument("ids", metavar="[ID...]", nargs=-1)
@click.option(
    "--failed",
    metavar="QUEUE",
    shell_complete=complete_queues,
    help="All failed jobs of a queue, a million at most.",
)
@click.pass_obj
def job_retry(app: App, ids: tuple[str, ...], failed: str | None) -> int:
    """Let jobs run again that failed, were stopped or canceled; exit 1 if one can't."""
    from packmule.jobs import reader
    from packmule.jobs.client import known_queue
    from packmule.jobs.requeue import NotRequeued, requeue

    if bool(ids) == bool(failed):
        raise click.UsageError("name the jobs, or a queue with --failed")
    refused = 0
    if failed:
        ids = tuple(reader.ids(app.client, known_queue(failed, app.queues()), "failed", MOST_AT_ONCE))
    for id in ids:
        try:
            requeue(app.client, id)
            click.echo(f"{id} queued")
        except (NotRequeued, reader.NoSuchJob) as error:
            click.echo(f"packmule: {error}", err=True)
            refused += 1
    return 1 if refused else 0


@job.command("wait")
@click.argument("id")
@click.option("--timeout", type=Duration(), help="Give up after this long, with exit code 1.")
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def job_wait(app: App, id: str, timeout: float | None, json: bool) -> int:
    """Wait until a job has ended; exit 1 if it failed."""
    from packmule.terminal.follow import follow_one

    return follow_one(app.client, id, "job", json, timeout)


@click.group()
def queue() -> None:
    """Look at queues, pause, resume and purge them."""


@queue.command("list")
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def queue_list(app: App, json: bool) -> None:
    """How many jobs each queue has, by status, and whether it is paused; stopped ones count as failed."""
    from packmule.terminal import show

    found = _queues(app)
    if json:
        show.as_json(found)
        return
    _show_queues(found)


@queue.command("pause", cls=Audited)
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_queues)
@click.pass_obj
def queue_pause(app: App, names: tuple[str, ...]) -> None:
    """Let no worker take jobs from these queues; what runs goes on, and what comes waits."""
    from packmule.jobs.client import known_queue
    from packmule.jobs.pause import pause

    for name in [known_queue(name, app.queues()) for name in names]:
        click.echo(f"{name} {'paused' if pause(app.client, name) else 'was paused already'}")


@queue.command("resume", cls=Audited)
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_queues)
@click.pass_obj
def queue_resume(app: App, names: tuple[str, ...]) -> None:
    """Let workers go on with these queues."""
    from packmule.jobs.client import known_queue
    from packmule.jobs.pause import resume

    for name in [known_queue(name, app.queues()) for name in names]:
        click.echo(f"{name} {'resumed' if resume(app.client, name) else 'was not paused'}")


@queue.command("purge", cls=Audited)
@click.argument("name", shell_complete=complete_queues)
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.pass_obj
def queue_purge(app: App, name: str, yes: bool) -> None:
    """Delete all jobs that wait in a queue; those that run or are scheduled stay."""
    from packmule.jobs.client import known_queue
    from packmule.jobs.purge import purge

    known_queue(name, app.queues())
    if not yes:
        click.confirm(f"Delete all jobs that wait in {name}?", abort=True)
    click.echo(f"{name}: {purge(app.client, name):,} jobs deleted")


@queue.command("limit", cls=Audited)
@click.argument("name", shell_complete=complete_queues)
@click.argument("rate")
@click.pass_obj
def queue_limit(app: App, name: str, rate: str) -> None:
    """Let jobs of a queue begin as RATE says: 100/m, 5/30s, "10/s burst 1"; the word none lifts it."""
    from packmule.coordination.limits.rate import InvalidRate, Rate
    from packmule.jobs.client import known_queue
    from packmule.jobs.queue_rate import limit

    try:
        wanted = None if rate == "none" else Rate.parse(rate)
    except InvalidRate as error:
        raise click.BadParameter(str(error), param_hint="RATE") from None
    limit(app.client, known_queue(name, app.queues()), wanted)
    click.echo(f"{name} {'has no rate' if wanted is None else f'lets {wanted} begin'}")


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

    found = _queues(app)
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
    _show_queues(found)
    show.out.print()
    rows = [
        (each["name"], each["state"], each["queues"], each["current_job"], each["done"], each["failed"])
        for each in workers
    ]
    show.table(
        ("worker", "state", "queues", "job", "done", "failed"), rows, "no worker is running: packmule worker"
    )


@click.command()
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def check(app: App, json: bool) -> int:
    """Check the settings, and that Redis, storage and mail server can be reached."""
    from packmule.terminal.check import check as run

    return run(app.settings, app.load_jobs, lambda: app.client, app.storage, json)


def _leading(leads: Leader | None, running: int) -> str | None:
    from packmule.scheduler.schedules.cron import shown

    if leads is None:
        return None
    others = f"; {running - 1} more stand by" if running > 1 else ""
    return f"{leads.name}, term {leads.term}, since {shown(int(leads.since))}{others}"


def _queues(app: App) -> dict[str, dict[str, int | bool]]:
    """Of each queue its jobs by status, those `behind` others of their group, and whether it is `paused`."""
    from packmule.jobs import reader
    from packmule.jobs.pause import paused
    from packmule.observe.blocked import behind

    depths = reader.depths(app.client, app.queues())
    waiting = behind(app.client, list(depths))
    names = paused(app.client)
    return {
        queue: {"queued": counts["queued"], "behind": waiting[queue], **counts, "paused": queue in names}
        for queue, counts in depths.items()
    }


def _show_queues(found: dict[str, dict[str, int | bool]]) -> None:
    from packmule.terminal import show

    columns = next(iter(found.values()), {}).keys()
    rows = [
        (queue, *(("no", "yes")[each] if isinstance(each, bool) else each for each in facts.values()))
        for queue, facts in found.items()
    ]
    show.table(("queue", *columns), rows, "no queues")
