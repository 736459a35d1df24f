"""Flows: jobs that wait for each other, kept as a batch with edges between its jobs, the nodes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import groupby
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from redis import Redis

from packmule.coordination.redis.scripts import Script
from packmule.errors import Conflict
from packmule.jobs import current, delivery, durable, keys, wire
from packmule.jobs.batch import KEEP, NESTED, Batch, Settings
from packmule.jobs.client import Client
from packmule.jobs.context import running
from packmule.jobs.entry import JOBS_A_TRIP
from packmule.jobs.flow_parts import Parts
from packmule.jobs.flow_plan import InvalidFlow, OnFailure, Plan, flat
from packmule.jobs.handed import Handed
from packmule.jobs.handle import JobHandle, JobHandles
from packmule.jobs.job import Prepared
from packmule.jobs.reader import NoSuchJob
from packmule.jobs.spans import Span

LONGEST_NAME = 40
"""Characters of the name of a node that another added; a longer one is hashed."""

MOST_ADDED = 1000
"""Edges that a running node adds in one call."""

_advance = Script("jobs", "advance_flow")


class FlowStarted(Conflict, RuntimeError):
    """A flow starts once; after that, only its running nodes add to it."""


class Flow(Batch):
    """A flow of jobs, which is sent to the workers by `start`, or at the end of a `with` block.

    A node begins when all nodes that it comes `after` have ended as required. The arguments are those of
    `Batch.create`. If the block raises, nothing is sent. A flow whose `id` was chosen can be started again by
    adding the same nodes in the same order: it exists once.

    >>> with Flow("import") as flow:  # doctest: +SKIP
    ...     rows = flow.add(fetch.call("a.csv"))
    ...     flow.add(store.call(flow.result(rows)), after=rows)
    ...     flow.add(alarm.call(), after=rows, on_failure="run")
    >>> flow.wait().counts  # doctest: +SKIP
    Counts(total=3, done=3, failed=0, canceled=0)
    """

    def __init__(
        self,
        name: str = "",
        *,
        on_complete: Prepared | None = None,
        on_success: Prepared | None = None,
        collect: bool = False,
        keep: Span = KEEP,
        id: str | None = None,
        client: Client | Redis | None = None,
    ) -> None:
        self.client = Client(client) if isinstance(client, Redis) else client or Client.default()
        super().__init__(self.client, id or keys.new_job_id())
        self._chosen = id
        self._settings = Settings(name, on_complete, on_success, collect, keep)
        self._settings.written()  # which checks them
        self._plan: Plan | None = Plan(self.id, self.client, is_chosen=id is not None)
        self._outer: str | None = None

    @overload
    def add(self, part: Prepared, after: After = (), on_failure: OnFailure = "stop") -> JobHandle: ...

    @overload
    def add(self, part: F, after: After = (), on_failure: OnFailure = "stop") -> F: ...

    @overload
    def add(self, part: Parts, after: After = (), on_failure: OnFailure = "stop") -> JobHandles: ...

    def add(self, part: Any, after: Any = (), on_failure: OnFailure = "stop") -> Any:
        """Add a part, and return what others may come `after`: a job's handle, the last of parts, or a flow.

        `after` names nodes of this flow: what `add` returned, some of it in a list, or a mapping of it to
        what its failure means. That is `on_failure`: "stop" cancels this node and all that come after it
        unless the other finishes; with "go on" this one begins however the other ends; with "run" it handles
        the other's failure, and is skipped unless one of those before it fails. Raises `InvalidFlow`, and
        what `Client.enqueue` does.
        """
        plan = self._plan or self._open_plan()
        ends = plan.place(part, plan.edges_to(after, on_failure))
        if plan.is_open:
            self._send_added(plan)
        if isinstance(part, Flow):
            return part
        handles = JobHandles(JobHandle(plan.id_of(name), self.client) for name in ends)
        return handles[0] if isinstance(part, Prepared) else handles

    def result(self, *nodes: str | Sequence[str]) -> Any:
        """A placeholder, among a call's arguments, for what `nodes` return: one value, or a list of several.

        The call comes after these nodes, even if `after` doesn't name them.
        """
        is_list = len(nodes) != 1 or not isinstance(nodes[0], str)
        return Handed([str(id) for id in flat(nodes)], is_list)

    def start(self) -> Self:
        """Send the flow, all or nothing, and return it. Raises what `Client.enqueue` does.

        If the process dies during this, the flow never begins, and a scheduler cancels it some minutes later.
        """
        if self._outer:
            raise FlowStarted(f"flow {self.id} is a part of flow {self._outer}, and starts with it")
        plan = self._planned()
        if not plan.parents:
            raise InvalidFlow("the flow has no nodes: add at least one")
        self._plan = None
        try:
            self._write(plan, None)
            self.seal()
        except BaseException:
            if self._chosen is None:  # otherwise another may be starting it, or will
                with suppress(Exception):
                    self.cancel()
            raise
        return self

    def retry(self) -> int:
        """Run failed nodes again, and canceled ones after them; return how many failed ones run.

        Nodes that somebody canceled run again too. Finished nodes stay as they are.
        """
        from packmule.jobs import control  # noqa: PLC0415  it loads RQ, which starting a flow does without

        count = 0
        for state in ("f", "c"):
            ids = [id for page in self._jobs(state) for id in page]
            for id in sorted(ids, key=lambda id: (len(id), id)):  # those in front first
                if id.startswith(NESTED):
                    count += Flow.at(id.removeprefix(NESTED), self.client).retry()
                    continue
                with suppress(
                    control.NotRetried, NoSuchJob
                ):  # behind those that failed, or not kept any more
                    control.retry(self.redis, id)
                    count += 1
            while _advance(self.redis, [self._key, keys.PARENTS], [self.id, wire.time_text(time.time())]):
                pass
        return count

    def be_part_of(self, outer: str) -> None:
        """Become a part of the flow called `outer`, once. Raises `InvalidFlow`."""
        if self._outer or self._plan is None or self._plan.nested or self.id == outer:
            raise InvalidFlow(
                f"flow {self.id} can't be a part of flow {outer}: a flow can be a part once, before it "
                "starts, and one level deep"
            )
        if not self._plan.parents:
            raise InvalidFlow("the flow has no nodes: add at least one")
        self._outer = outer

    @classmethod
    def at(cls, id: str, client: Client | Redis | None = None) -> Flow:
        """The flow called `id`, which was started before."""
        flow = cls(client=client)
        flow.id, flow._key, flow._plan = id, keys.batch_key(id), None
        return flow

    @classmethod
    def current(cls) -> Flow | None:
        """The flow that the running job is in, or is the callback of; None without one."""
        id = current.batch_id()
        return cls.at(id) if id else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.start()

    def _open_plan(self) -> Plan:
        """A plan of nodes that the running node adds.

        If it runs again, it adds them under the same names, so that they are there once. Those that it adds
        within a step have names of their own, since a later run doesn't add them again.
        """
        job = running()
        prefix = f"{self.id}-"
        if job is None or not job.id.startswith(prefix):
            return self._planned()
        step = durable.inside() or ""
        within = f"{sha256(step.encode()).hexdigest()[:8]}_" if step else ""
        first = f"{job.id.removeprefix(prefix)}_{within}"
        before = (job.added or {}).get(step, 0)

        def name_of(number: int) -> str:
            name = f"{first}{before + number}"
            return name if len(name) <= LONGEST_NAME else sha256(name.encode()).hexdigest()[:LONGEST_NAME]

        return Plan(self.id, self.client, name_of, is_open=True)

    def _send_added(self, plan: Plan) -> None:
        job = running()
        if job is not None:
            step, added = durable.inside() or "", job.added or {}
            job.added = {**added, step: added.get(step, 0) + len(plan.parents)}
        entries = dict(zip(plan.parents, plan.entries, strict=True))
        for _, some in groupby(plan.parents, plan.parents.__getitem__):
            names = list(some)
            letters = plan.parents[names[0]]
            if len(letters) > MOST_ADDED:
                raise InvalidFlow(
                    f"a node that a running node adds can come after at most {MOST_ADDED} others, not "
                    f"{len(letters)}"
                )
            at_once = min(JOBS_A_TRIP, MOST_ADDED // max(1, len(letters)))
            for first in range(0, len(names), at_once):
                page = names[first : first + at_once]
                delivery.add_nodes(
                    self.redis,
                    self.id,
                    page,
                    [entries[name] for name in page],
                    letters,
                    plan.taken & letters.keys(),
                )

    def _planned(self) -> Plan:
        if self._plan is None:
            raise FlowStarted(f"flow {self.id} has started: only its running nodes add to it")
        return self._plan

    def _write(self, plan: Plan, outer: str | None) -> None:
        """Send all of it but the seal, with which it begins."""
        fields, callbacks = self._settings.written(self._chosen)
        self.client.create_batch(self.id, outer, [*fields, "start", "p"], callbacks)
        nested = [(flow, flow._planned()) for flow in plan.nested]
        for flow, its_plan in nested:
            flow._plan = None
            flow._write(its_plan, self.id)
        delivery.deliver(self.redis, plan.entries, plan.is_durable)
        delivery.write_edges(self.redis, self.id, *plan.fields())
        for flow, _ in nested:
            flow.seal()


F = TypeVar("F", bound=Flow)
After = str | Flow | Sequence[Any] | Mapping[Any, OnFailure]
Part = Prepared | Parts | Flow
