"""`packmule flow`: list flows, draw one, and run its failed nodes again."""

from __future__ import annotations

import dataclasses
import time

import click

from packmule.jobs import keys
from packmule.terminal.app import App
from packmule.terminal.audit import Audited
from packmule.terminal.parameters import BatchId, FlowId, json_option
from packmule.terminal.say import say

REFRESH = 0.5
"""Seconds between two looks at a flow that is followed."""

SHARE = 0.1
"""Of its time that following spends reading, at most: a large flow takes a while."""


@click.group()
def flow() -> None:
    """List, draw and retry flows of jobs.

    Use `packmule batch` to wait for, pause and cancel them.
    """


@flow.command("list")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Look at this many batches."
)
@json_option
@click.pass_obj
def flow_list(app: App, limit: int, json: bool) -> None:
    """List the flows among the latest batches, the newest first."""
    from packmule.jobs.flow_graph import latest
    from packmule.terminal import show
    from packmule.terminal.batch import COLUMNS, facts_of, row_of

    found = latest(app.client, limit)
    if json:
        show.as_json([facts_of(state) for state in found])
    else:
        show.table(("flow", *COLUMNS[1:]), [row_of(state) for state in found], "no flows", ids="flow")


@flow.command("show")
@click.argument("id", type=FlowId())
@click.option("--follow", is_flag=True, help="Redraw it as it changes, until it has ended.")
@json_option
@click.pass_obj
def flow_show(app: App, id: str, follow: bool, json: bool) -> None:
    """Draw one flow.

    Each node is below the nodes that it comes after; a large flow has one line per layer. With a job's id, it
    draws the jobs that this job waits for by `after` or RQ's depends_on, and the jobs that wait for it.
    """
    from packmule.jobs import reader
    from packmule.jobs.batch_info import flow_info
    from packmule.jobs.flow_graph import around, read
    from packmule.terminal import show
    from packmule.terminal.flow_drawing import drawn

    if not app.client.exists(keys.batch_key(id)) and reader.read_if_there(app.client, id):
        jobs = around(app.client, id)
        if json:
            show.as_json({"job": id, "nodes": [dataclasses.asdict(node) for node in jobs]})
        else:
            show.out.print(drawn(app.client, None, jobs, show.out.width))
        return
    if follow and not json:
        _follow(app, id)
        return
    state, nodes = read(app.client, id)
    if json:
        show.as_json(flow_info(state, nodes))
    else:
        show.out.print(drawn(app.client, state, nodes, show.out.width))


@flow.command("retry", cls=Audited)
@click.argument("id", type=BatchId())
@click.pass_obj
def flow_retry(app: App, id: str) -> int:
    """Run failed nodes of a flow again.

    Canceled nodes that come after them run, too. Exit with 1 if there are none.
    """
    from packmule.jobs.flow import Flow
    from packmule.jobs.flow_graph import read

    read(app.client, id)
    count = Flow.at(id, app.client).retry()
    say(f"{id}: {count:,} nodes run again")
    return 0 if count else 1


def _follow(app: App, id: str) -> None:
    from rich.live import Live

    from packmule.jobs.flow_graph import read
    from packmule.terminal import show
    from packmule.terminal.flow_drawing import drawn

    with Live(console=show.out, auto_refresh=False, vertical_overflow="crop") as page:
        while True:
            began = time.monotonic()
            state, nodes = read(app.client, id)
            if show.out.is_terminal or state.ended is not None:
                page.update(drawn(app.client, state, nodes, show.out.width), refresh=True)
            if state.ended is not None:
                break
            time.sleep(max(REFRESH, (time.monotonic() - began) / SHARE))
    if not show.out.is_terminal:
        show.out.line()  # which the library ends the last picture with on terminals alone
