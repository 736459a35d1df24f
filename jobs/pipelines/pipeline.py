"""Pipelines: named lists of steps, each a job that reads the uploaded file or what an earlier step wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal

from redis import Redis

from packmule.jobs.client import Client
from packmule.jobs.delivery import BatchClosed
from packmule.jobs.flow import Flow
from packmule.jobs.handed import Handed
from packmule.jobs.handle import JobHandle
from packmule.jobs.job import JobFunction, Prepared
from packmule.jobs.options import Options
from packmule.jobs.output_path import OUT, filled
from packmule.jobs.pipelines.checks import EXAMPLE, InvalidPipeline, check_members, check_step, is_name
from packmule.jobs.pipelines.publishing import LONGEST_DESCRIPTION, settle, the_end
from packmule.jobs.pipelines.staging import note, staging_of
from packmule.jobs.pipelines.steps import SOURCE, OnFailure, Step, step

MOST_STEPS = 100

EDGES: Mapping[OnFailure, Literal["stop", "go on"]] = {"stop": "stop", "continue": "go on"}


class Pipeline:
    """A named list of steps, that `enqueue` sends as a flow for one file. Raises `InvalidPipeline`.

    When all steps are done, what they wrote appears at once, with a manifest, in
    `results/<pipeline>/<file's name>/<flow>`; if one fails, nothing does.
    """

    def __init__(self, name: str, *steps: Step | JobFunction[..., Any]) -> None:
        if not is_name(name):
            raise InvalidPipeline(
                f"{name[:80]!r} can't name a pipeline: use 1 to 64 letters, digits, - and _"
            )
        self.name = name
        self.steps = tuple(each if isinstance(each, Step) else step(each) for each in steps)
        if not 0 < len(self.steps) <= MOST_STEPS:
            raise InvalidPipeline(f"pipeline {name} has {len(self.steps)} steps: give 1 to {MOST_STEPS}")
        above: dict[str, Step] = {}
        for each in self.steps:
            check_step(name, each, above)
            above[each.name] = each

    def enqueue(self, source: str, *, id: str | None = None, client: Client | Redis | None = None) -> Flow:
        """Send `source`, a path in the storage, through the pipeline, and return the flow.

        With an `id` that was chosen, it is there once, however often it is sent. Raises what `Flow.start`
        does.
        """
        flow = self.flow(source, id, client)
        note(flow.redis, flow.id)
        try:
            return flow.start()
        except BatchClosed:
            if id is None or not flow.state().is_sealed:
                raise
            return flow  # somebody else has started it meanwhile, and it is over

    def flow(self, source: str, id: str | None = None, client: Client | Redis | None = None) -> Flow:
        """The flow for `source`, which is yet to be started."""
        shown = PurePosixPath(source).name
        flow = Flow(f"{self.name}: {shown}", collect=True, on_complete=settle.prepare(), id=id, client=client)
        staging = staging_of(flow.id)
        nodes: dict[str, tuple[Step, JobHandle]] = {}
        in_front = self._in_front()
        for each in self.steps:
            edges = {nodes[name][1]: EDGES[nodes[name][0].on_failure] for name in in_front[each.name]}
            reads: str | Handed = source
            if each.in_front:
                read, handle = nodes[each.in_front]
                edges[handle] = "stop"
                inner = each.reads.partition("/")[2]
                known = f"{staging}/{read.name}/{filled(inner, source)}" if inner else None
                reads = known or read.known_output(staging, source) or flow.result(handle)["path"]
            out = each.output(staging, source)
            arguments = {**each.arguments, SOURCE: reads, **({OUT: out} if out else {})}
            options = each.options.over(Options(description=f"{each.name}: {shown}"[:LONGEST_DESCRIPTION]))
            nodes[each.name] = each, flow.add(Prepared(each.job, ((), arguments), options), edges)
        called = {each.name: each.job.name for each in self.steps}
        may_fail = [each.name for each in self.steps if each.on_failure == "continue"]
        flow.add(
            the_end(source, self.name, called, may_fail),
            {nodes[name][1]: EDGES[nodes[name][0].on_failure] for name in self._last()},
        )
        return flow

    def check(self, client: Client) -> None:
        """Raise an error if `client` couldn't send it, or if a job that it makes of members isn't there."""
        for each in self.steps:
            check_members(each)
        self.flow(EXAMPLE, client=client)

    def _in_front(self) -> dict[str, list[str]]:
        """The names of the steps that come right before each."""
        found: dict[str, list[str]] = {}
        for each in self.steps:
            before = list(found)[-1:] if each.after is None else each.after
            found[each.name] = [*dict.fromkeys([*before, *([each.in_front] if each.in_front else [])])]
        return found

    def _last(self) -> list[str]:
        """The names of the steps whose ends decide whether all of it is published.

        Others are known by what comes behind them: a failure that stops the pipeline cancels that, unless
        that may fail itself.
        """
        in_front = self._in_front()
        behind = {name: [each for each in self.steps if name in in_front[each.name]] for name in in_front}
        return [
            each.name
            for each in self.steps
            if not behind[each.name]
            or (each.on_failure == "stop" and all(one.on_failure == "continue" for one in behind[each.name]))
        ]
