"""`packmule schedule`: what is enqueued when, and what happened at each tick."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from packmule.terminal.app import App
from packmule.terminal.audit import Audited
from packmule.terminal.parameters import assignments, complete_calls, complete_queues, json_option
from packmule.terminal.say import complain, say

if TYPE_CHECKING:
    from packmule.jobs.schedule import Schedule

MOST_TICKS = 1000


@click.group()
def schedule() -> None:
    """Add, list, show, pause and remove schedules of jobs."""


@schedule.command("list")
@json_option
@click.pass_obj
def schedule_list(app: App, json: bool) -> None:
    """List schedules with their next ticks.

    The reason for a faulty schedule is shown below the table.
    """
    from packmule.jobs.schedule_info import next_tick, schedule_info
    from packmule.jobs.schedule_store import entries
    from packmule.terminal import show

    found = entries(app.client)
    if json:
        show.as_json([schedule_info(each) for each in found])
        return
    rows = [
        (
            each.name,
            each.schedule.timing if each.schedule else "-",
            each.schedule.job if each.schedule else "-",
            each.schedule.owner if each.schedule else "-",
            each.state,
            show.ago(next_tick(each)),
        )
        for each in found
    ]
    show.table(("schedule", "when", "calls", "owner", "state", "next"), rows, "no schedules", cut="calls")
    if faults := [(each.name, each.fault) for each in found if each.state == "faulty"]:
        show.out.print()
        show.table(("faulty", "because"), faults, "", show.NARROW)


@schedule.command("show")
@click.argument("name")
@click.option(
    "--limit",
    type=click.IntRange(1, MOST_TICKS),
    default=20,
    show_default=True,
    help="Show at most this many ticks.",
)
@json_option
@click.pass_obj
def schedule_show(app: App, name: str, limit: int, json: bool) -> None:
    """Show one schedule and its last ticks.

    A tick was enqueued, or skipped for the reason shown.
    """
    import msgspec

    from packmule.jobs import schedule_ledger
    from packmule.jobs.masking import masked_call
    from packmule.jobs.schedule_info import next_tick, tick_text, with_ticks
    from packmule.jobs.schedule_store import entry
    from packmule.terminal import show

    found = entry(app.client, name)
    ticks = schedule_ledger.read(app.client, name, limit)
    if json:
        show.as_json(with_ticks(found, ticks))
        return
    said = msgspec.to_builtins(found.schedule) if found.schedule else {}
    if found.schedule:
        app.load_if_possible()  # whose annotations say which arguments are secrets
        args, kwargs = masked_call(found.schedule.job, found.schedule.args, found.schedule.kwargs)
        said |= {name: value for name, value in {"args": args, "kwargs": kwargs}.items() if value}
    tz = found.schedule.tz if found.schedule else "UTC"
    instants = {each: tick_text(said[each], tz) for each in ("at", "start", "end") if each in said}
    for flag in ("name", "paused", "cron", "every", "tz", "job", "owner"):
        said.pop(flag, None)
    said |= {each: show.json_text(said[each]) for each in said if isinstance(said[each], dict | list)}
    show.facts(
        {
            "schedule": found.name,
            "state": f"faulty: {found.fault}" if found.state == "faulty" else found.state,
            "when": found.schedule.timing if found.schedule else None,
            "calls": found.schedule.job if found.schedule else None,
            "owner": found.schedule.owner if found.schedule else None,
            **said,
            **instants,
            "next": show.moment(next_tick(found)),
            "last job": found.job,
        }
    )
    show.out.print()
    rows = [
        (
            tick_text(each.get("tick"), tz) + (f" to {tick_text(each['to'], tz)}" if "to" in each else ""),
            each.get("did", "-"),
            each.get("job") or each.get("why") or "",
            each.get("why", "") if each.get("job") else "",
        )
        for each in ticks
    ]
    show.table(("tick", "was", "job or reason", ""), rows, "no tick yet")


@schedule.command("add", cls=Audited)
@click.argument("name")
@click.argument("job", shell_complete=complete_calls)
@click.argument("arguments", metavar="[NAME=VALUE]...", nargs=-1)
@click.option(
    "--cron", metavar="EXPRESSION", help='When: "30 2 * * *", or six fields, the first for seconds.'
)
@click.option("--every", metavar="SPAN", help="Or how often: 30s, 5m, 1h30m.")
@click.option("--at", metavar="TIME", help="Or once: 2026-12-01T08:00, in the time zone --tz.")
@click.option("--tz", metavar="ZONE", help="The time zone, such as Europe/Madrid.  [default: UTC]")
@click.option(
    "--queue",
    metavar="NAME",
    shell_complete=complete_queues,
    help="Enqueue on this queue.  [default: the job's own queue]",
)
@click.option(
    "--misfire",
    type=click.Choice(["skip", "once", "all"]),
    help="What to do with ticks missed while no scheduler ran.  [default: once]",
)
@click.option("--window", metavar="SPAN", help="Ignore missed ticks that are older.  [default: 1h]")
@click.option(
    "--overlap",
    type=click.Choice(["allow", "skip", "wait", "cancel"]),
    help="What to do at a tick while the last job waits or runs.  [default: allow]",
)
@click.option("--jitter", metavar="SPAN", help="Enqueue at a random time within this span after a tick.")
@click.option("--start", metavar="TIME", help="No tick before this.")
@click.option("--end", metavar="TIME", help="No tick after this.")
@click.option("--paused", is_flag=True, default=None, help="Add it paused.")
@click.option("--replace", is_flag=True, help="Change the existing schedule of that name.")
@click.pass_obj
def schedule_add(
    app: App, /, name: str, job: str, arguments: tuple[str, ...], replace: bool, **given: Any
) -> None:
    """Add the schedule NAME, which enqueues JOB at its ticks.

    A VALUE is as in `packmule enqueue call`; `{tick}` in one becomes the tick.
    """
    from packmule.jobs import registry, schedule_store
    from packmule.jobs.schedule import schedule as made
    from packmule.jobs.schedule_info import tick_text
    from packmule.jobs.schedule_jobs import check

    app.load_jobs()
    table = {option: value for option, value in given.items() if value is not None}
    kwargs = assignments("NAME=VALUE", arguments, registry.find(job))
    found = made(name, {**table, "job": job, "kwargs": kwargs})
    tick = check(found, app.jobs_on(app.client), time.time())
    said = schedule_store.put(app.client, found, replace)
    done = {"new": "added", "changed": "changed", "same": "unchanged"}[said]
    is_paused = schedule_store.entry(app.client, name).state == "paused"
    then = (
        f"paused until packmule schedule resume {name}" if is_paused else f"next {tick_text(tick, found.tz)}"
    )
    say(f"{name} {done}: {found.timing}, {then}")


@schedule.command("pause", cls=Audited)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def schedule_pause(app: App, names: tuple[str, ...]) -> None:
    """Pause schedules; deploys don't resume them.

    Jobs that are already enqueued go on.
    """
    from packmule.jobs.schedule_store import pause

    done = pause(app.client, *names)
    for name in names:
        say(f"{name} {'paused' if name in done else 'was already paused'}")


@schedule.command("resume", cls=Audited)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def schedule_resume(app: App, names: tuple[str, ...]) -> None:
    """Resume schedules from now on.

    This also brings back removed schedules that code or a file still declares.
    """
    from packmule.jobs.schedule_store import resume

    done = resume(app.client, *names)
    for name in names:
        say(f"{name} {'resumed' if name in done else 'was not paused'}")


@schedule.command("remove", cls=Audited)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def schedule_remove(app: App, names: tuple[str, ...]) -> None:
    """Remove schedules; deploys don't bring them back."""
    from packmule.jobs.schedule_store import remove

    for name, owner in remove(app.client, *names).items():
        stays = (
            ""
            if owner == "operator"
            else f"; the {owner} still declares it: packmule schedule resume {name} brings it back"
        )
        say(f"{name} removed{stays}")


@schedule.command("run", cls=Audited)
@click.argument("name")
@click.pass_obj
def schedule_run(app: App, name: str) -> None:
    """Enqueue one job of a schedule now and print its id.

    Its ticks don't change.
    """
    from packmule.jobs.schedule_jobs import run_now

    found = _readable(app, name)
    app.load_jobs()
    ids = run_now(found, app.jobs_on(app.client))
    if ids.held:
        complain(f"job {ids[0]} is an equal one and still pending: nothing was enqueued")
    say(ids[0])


@schedule.command("next")
@click.argument("name")
@click.argument("count", type=click.IntRange(1, MOST_TICKS), default=5)
@json_option
@click.pass_obj
def schedule_next(app: App, name: str, count: int, json: bool) -> None:
    """Print the next COUNT (5) ticks of a schedule, even if it is paused."""
    from packmule.jobs.schedule_info import next_ticks, tick_text
    from packmule.terminal import show

    found = _readable(app, name)
    texts = [tick_text(each, found.tz) for each in next_ticks(found, int(time.time()), count)]
    if json:
        show.as_json(texts)
        return
    for text in texts:
        say(text)


def _readable(app: App, name: str) -> Schedule:
    from packmule.jobs.schedule import InvalidSchedule
    from packmule.jobs.schedule_store import entry

    found = entry(app.client, name)
    if found.schedule is None:
        raise InvalidSchedule(f"schedule {name} can't be read: {found.fault}")
    return found.schedule
