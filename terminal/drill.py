"""`packmule drill`: kill, stop and freeze workers and Redis under load, and check the promises."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packmule.terminal.app import App
from packmule.terminal.say import say

if TYPE_CHECKING:
    from packmule.drill.plan import Plan
    from packmule.drill.verdict import Verdict


MOST_LOAD = 2
"""The load per core above which a report says that the machine may have made jobs late."""


@click.command()
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), help="Drill for this long.  [default: 1]"
)
@click.option("--kills", type=click.IntRange(min=0), default=0, help="Inject this many SIGKILLs instead.")
@click.option("--terms", type=click.IntRange(min=0), default=0, help="Inject this many SIGTERMs.")
@click.option(
    "--freezes", type=click.IntRange(min=0), default=0, help="Inject this many SIGSTOPs of some seconds."
)
@click.option(
    "--redis-kills", type=click.IntRange(min=0), default=0, help="Kill or restart Redis this many times."
)
@click.option(
    "--outages",
    type=click.IntRange(min=0),
    default=0,
    help="Freeze Redis or cut the network this many times.",
)
@click.option(
    "--pools",
    type=click.IntRange(min=2),
    default=3,
    show_default=True,
    help="Run this many pools of workers.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Run this many processes per pool.",
)
@click.option("--seed", type=int, help="Repeat the faults of an earlier drill.  [default: random]")
@click.option(
    "--here", is_flag=True, help="Use the settings' Redis, which is never killed, instead of a private one."
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
@click.pass_obj
def drill(
    app: App,
    minutes: float | None,
    kills: int,
    terms: int,
    freezes: int,
    redis_kills: int,
    outages: int,
    pools: int,
    processes: int,
    seed: int | None,
    here: bool,
    as_json: bool,
) -> int:
    """Kill workers and Redis under load, and check the promises.

    No job may be lost, stuck or wrongly recorded.
    """
    import secrets

    from packmule.drill import job_states
    from packmule.drill.plan import Plan

    counts = {"kill": kills, "term": terms, "freeze": freezes, "redis": redis_kills, "outage": outages}
    if minutes is not None and any(counts.values()):
        raise click.UsageError("give --minutes or numbers of faults, not both")
    if here and app.settings.redis_url is None:
        raise click.UsageError("--here needs a server of your own: set PACKMULE_REDIS_URL")
    if here and (redis_kills or outages):
        option = "--redis-kills" if redis_kills else "--outages"
        raise click.UsageError(f"{option} can't be used with --here: your own server is never killed")
    if here and job_states.is_used(app.client):
        raise click.UsageError("another drill is running on this server: wait until it has ended")
    seed = secrets.randbelow(10**6) if seed is None else seed
    plan = Plan((minutes or 1.0) * 60, counts, pools, processes, seed)
    return _run(app, plan, here, as_json)


def _run(app: App, plan: Plan, here: bool, as_json: bool) -> int:
    """Run a drill on a private server, or `here` on the settings'; 1 if a promise was broken.

    Only then is the evidence kept on disk, and the report says where.
    """
    import msgspec

    from packmule.coordination.redis.embedded_server import EmbeddedServer
    from packmule.drill import job_states
    from packmule.drill.drill import Drill
    from packmule.drill.interruption import held_back

    with held_back() as let_through:
        folder = Path(tempfile.mkdtemp(prefix="packmule-drill-"))
        server = None if here else EmbeddedServer(folder / "data")
        if server:
            app.settings = replace(app.settings, redis_url=None, data_dir=server.data_dir)
        began = time.monotonic()
        broken: list[str] = []
        try:
            run = Drill(app.client, app.settings, plan, folder, server)
            if here:
                job_states.clear(app.client, ())  # what a killed drill has left
            try:
                with progress(let_through) as update:
                    verdict = run.run(update)
            finally:
                if here:
                    job_states.clear(app.client, run.known_ids())
            broken = verdict.broken
            if broken:
                (folder / "verdict.json").write_bytes(msgspec.json.encode(verdict))
                (folder / "faults.json").write_bytes(msgspec.json.encode(run.injector.faults))
            faults = Counter(fault.kind for fault in run.injector.faults)
            evidence = folder if broken else None
            report(verdict, faults, time.monotonic() - began, plan.seed, evidence, as_json)
        finally:
            if server:
                app.client.close()
                server.stop()
            if not broken:
                shutil.rmtree(folder)
    return 1 if broken else 0


def report(
    verdict: Verdict, faults: Counter[str], seconds: float, seed: int, evidence: Path | None, as_json: bool
) -> None:
    """Print the findings of the drill, and where its evidence is if it was kept."""
    from packmule.drill.verdict import LIMITS, percentile
    from packmule.terminal import show

    counts = {
        "acknowledged": verdict.acknowledged,
        "completed": verdict.completed,
        "lost": len(verdict.lost),
        "stuck": len(verdict.stuck),
        "failed": len(verdict.failed),
        "failed by a third death": len(verdict.gave_up),
        "wrongly recorded": len(verdict.misrecorded),
        "in flight at a fault": verdict.in_flight,
        "duplicated": len(verdict.duplicated),
        "duplicated without a fault": len(verdict.excess),
        "without their callback": len(verdict.uncalled),
        "singletons at once": len(verdict.overlapping),
        "beyond their slots": len(verdict.crowded),
        "beyond their rate": len(verdict.hasty),
    }
    recovery = {
        name: {"jobs": len(spans), **{f"p{p}": percentile(spans, p) for p in (50, 99)}, "max": max(spans)}
        for name, spans in verdict.recoveries.items()
        if spans
    }
    if as_json:
        facts: dict[str, Any] = {name.replace(" ", "_"): count for name, count in counts.items()}
        facts |= {"faults": faults, "recovery": recovery, "seconds": seconds, "seed": seed}
        show.as_json({**facts, "broken": verdict.broken, "evidence": str(evidence) if evidence else None})
        return
    rows = [(name, f"{count:,}") for name, count in counts.items()]
    show.table(("jobs", ""), rows, "")
    show.out.print()
    show.table(("fault", "times"), sorted(faults.items()), "no fault was injected")
    show.out.print()
    show.table(
        ("jobs ran again after", "jobs", "p50", "p99", "max", "promised"),
        [
            (
                name,
                row["jobs"],
                *(f"{row[column]:.2f} s" for column in ("p50", "p99", "max")),
                f"{LIMITS[name]:g} s",
            )
            for name, row in recovery.items()
        ],
        "no job was interrupted",
    )
    show.out.print()
    for sentence in verdict.broken:
        say(f"broken: {sentence}")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if verdict.late and load > MOST_LOAD * cores:
        say(f"This machine has a load of {load:.0f} on {cores} cores, which may have made jobs late.")
    kept = f"A promise was broken: see {evidence}" if evidence else "Every promise was kept"
    show.out.print(f"{kept} ({seconds:.0f} s, --seed {seed}).")


@contextmanager
def progress(let_through: Callable[[], None]) -> Iterator[Callable[[str], None]]:
    """A status line on standard error, shown only on a terminal; yields what changes its text.

    That also calls `let_through`: a drill can end there.
    """
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from packmule.terminal import show

    columns = (TextColumn("drill"), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=show.err, disable=not show.err.is_terminal, transient=True) as bars:
        task = bars.add_task("")

        def update(text: str) -> None:
            bars.update(task, description=text)
            let_through()

        yield update
