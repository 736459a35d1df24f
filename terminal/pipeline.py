"""`packmule pipeline`: list, show and check pipelines, and run one for files."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packmule.terminal.app import App
from packmule.terminal.audit import Audited
from packmule.terminal.parameters import json_option
from packmule.terminal.say import complain, say
from packmule.terminal.waiting import longest_wait, wait_options

if TYPE_CHECKING:
    from packmule.jobs.flow import Flow
    from packmule.jobs.pipelines import Pipeline, Step


@click.group()
def pipeline() -> None:
    """List, show, check and run pipelines of file jobs."""


@pipeline.command("list")
@json_option
@click.pass_obj
def pipeline_list(app: App, json: bool) -> None:
    """List the pipelines of PACKMULE_PIPELINES and of your modules."""
    from packmule.terminal import show

    found = sorted(app.pipelines().values(), key=lambda each: each.name)
    if json:
        show.as_json([_facts(each) for each in found])
        return
    rows = [(each.name, ", ".join(step.name for step in each.steps)) for each in found]
    show.table(("pipeline", "steps"), rows, "no pipelines", cut="steps")


@pipeline.command("show")
@click.argument("name")
@json_option
@click.pass_obj
def pipeline_show(app: App, name: str, json: bool) -> None:
    """Show the steps of one pipeline."""
    from packmule.jobs.pipelines.pipeline_file import find
    from packmule.terminal import show

    facts = _facts(find(app.pipelines(), name))
    if json:
        show.as_json(facts)
        return
    steps = facts["steps"]
    rows = [tuple(str(each[column]) for column in ("step", "job", "reads", "on_failure")) for each in steps]
    show.table(("step", "job", "reads", "on failure"), rows, "")


@pipeline.command("check")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.pass_obj
def pipeline_check(app: App, file: Path | None) -> None:
    """Check the pipelines in a file.

    Without FILE, check all known pipelines. Nothing is enqueued.
    """
    from redis import Redis

    from packmule.jobs.pipelines.pipeline_file import check, read_pipelines

    found = app.pipelines()
    if file is not None:
        found = read_pipelines(file)
    check(found, app.jobs_on(Redis()))  # it never connects
    say(f"ok, {len(found)}: {', '.join(sorted(found))}" if found else "ok, none")


@pipeline.command("run", cls=Audited)
@click.argument("name")
@click.argument("sources", metavar="FILE...", nargs=-1, required=True)
@partial(wait_options, help="Wait for each; exit 1 if one fails.", goes_on="the flows go on")
@click.option("--json", "json", is_flag=True, help="With --wait: print JSON.")
@click.pass_obj
def pipeline_run(app: App, name: str, sources: tuple[str, ...], wait: bool, json: bool) -> int:
    """Run files through a pipeline, and print the id of each flow.

    Each FILE is copied into the storage; store:PATH names one that is there already, and a URL is passed
    unchanged to the steps that read it.
    """
    from packmule.jobs.pipelines.pipeline_file import find
    from packmule.terminal.enqueue import stored

    found = find(app.pipelines(), name)
    jobs = app.jobs_on(app.client)
    found.check(jobs)  # before anything is copied
    paths = [each if "://" in each else stored(app, each) for each in sources]
    flows = [found.enqueue(path, client=jobs) for path in paths]
    if wait:
        return _awaited(app, found, list(zip(sources, paths, flows, strict=True)), json)
    for flow in flows:
        say(flow.id)
    return 0


def _awaited(app: App, pipeline: Pipeline, sent: list[tuple[str, str, Flow]], json: bool) -> int:
    """Follow flows to their ends, and say what became of each file; 0 if all is published, else 1."""
    from packmule.jobs.pipelines.outcome import outcome
    from packmule.terminal import show
    from packmule.terminal.follow import follow_to_end

    found, longest = [], longest_wait()
    deadline = time.monotonic() + (float("inf") if longest is None else longest)
    for source, path, flow in sent:
        try:
            state = follow_to_end(app.client, flow.id, deadline - time.monotonic())
        except TimeoutError:
            raise TimeoutError(
                f"{source} has not finished after {longest:g} s, and continues: packmule batch wait {flow.id}"
            ) from None
        is_done, text = outcome(app.storage, app.client, pipeline.name, path, state)
        manifest, reason = (text, None) if is_done else (None, text)
        found.append({"source": source, "flow": flow.id, "manifest": manifest, "reason": reason})
        if not json:
            (say if is_done else complain)(f"{source}: {text}")
    if json:
        show.as_json(found)
    return 0 if all(each["manifest"] for each in found) else 1


def _facts(found: Pipeline) -> dict[str, Any]:
    return {"pipeline": found.name, "steps": [_step_facts(each) for each in found.steps]}


def _step_facts(each: Step) -> dict[str, Any]:
    return {
        "step": each.name,
        "job": each.job.name,
        "reads": each.reads,
        "after": each.after if each.after is None else [*each.after],
        "on_failure": each.on_failure,
        "arguments": dict(each.arguments),
    }
