"""The plan of a flow: its nodes and edges, checked as they are added, and written for the scripts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from packmule.errors import UsageError
from packmule.jobs import entry, handed
from packmule.jobs.batch import NESTED, Batch
from packmule.jobs.client import Client, known_queue
from packmule.jobs.entry import Entry, EntryWriter
from packmule.jobs.flow_parts import Chain, Group, Parts
from packmule.jobs.handed import Handed
from packmule.jobs.job import Prepared
from packmule.jobs.options import InvalidOption, Options
from packmule.jobs.sending import sending

if TYPE_CHECKING:
    from packmule.jobs.flow import Flow

MOST_NODES = 100_000
MOST_EDGES = 1_000_000

CHILDREN_A_CHUNK = 50
"""Nodes behind another that one field holds, and a script looks at together."""

START = "start"
"""The name of what the first nodes wait for: that the flow begins."""

OnFailure = Literal["stop", "go on", "run"]
LETTERS = {"stop": "s", "go on": "g", "run": "r"}
"""The letter of an edge, by what becomes of a node if the one in front of it fails."""

STOP = LETTERS["stop"]


class InvalidFlow(UsageError, ValueError):
    """Nodes or edges that no flow can have; nothing was sent."""


class Plan:
    """Nodes that are to be sent as the flow `id` by `client`.

    `name_of` makes the name of the n-th node. `parents` has the edges of each node, by its name: the names of
    the nodes in front, with the letters of their edges. If the plan `is_open`, nodes of the flow that it
    doesn't know may be in front of its own. If its id `is_chosen`, an equal plan can be sent again.
    """

    def __init__(
        self,
        id: str,
        client: Client,
        name_of: Callable[[int], str] = str,
        is_open: bool = False,
        is_chosen: bool = False,
    ) -> None:
        self.id = id
        self.client = client
        self.name_of = name_of
        self.is_open = is_open
        self.is_chosen = is_chosen
        self.entries: list[Entry] = []
        self.nested: list[Flow] = []
        self.parents: dict[str, dict[str, str]] = {}
        self.taken: set[str] = set()
        """The names of nodes whose results others take."""
        self.is_durable = False
        self._edges = 0
        self._writers: dict[tuple[str, str], EntryWriter] = {}

    def place(self, part: Any, edges: dict[str, str], is_group: bool = False) -> list[str]:
        """Add a part behind `edges`, which lead to one if it `is_group`; the names of its last nodes.

        Raises `InvalidFlow`.
        """
        match part:
            case Prepared():
                return [self._add_call(part, dict(edges), is_group)]
            case Chain() if part.parts:
                ends: list[str] = []
                for each in part.parts:
                    ends = self.place(each, edges, is_group)
                    edges, is_group = dict.fromkeys(ends, STOP), _ends_in_group(each)
                return ends
            case Group() if part.parts:
                return [name for each in part.parts for name in self.place(each, edges, is_group)]
            case Parts():
                raise InvalidFlow(f"a {type(part).__name__.lower()} has no parts: give at least one")
            case Batch() if callable(getattr(part, "be_part_of", None)):
                return [self._add_flow(cast("Flow", part), dict(edges))]
        raise InvalidFlow(
            f"{part!r:.200} is not a part: give a call such as report.call(42), a chain or group, or a Flow"
        )

    def edges_to(self, after: Any, on_failure: str) -> dict[str, str]:
        """The edges to what a part comes after, as `Flow.add` takes it. Raises `InvalidFlow`."""
        edges: dict[str, str] = {}
        each_with = after.items() if isinstance(after, Mapping) else [(after, on_failure)]
        for some, how in each_with:
            if how not in LETTERS:
                raise InvalidFlow(f"on_failure={how!r}: give one of {', '.join(map(repr, LETTERS))}")
            for id in flat(some):
                name = self.name(id)
                if name in edges:
                    raise InvalidFlow(f"after names node {id} twice")
                edges[name] = LETTERS[how]
        return edges

    def name(self, id: str) -> str:
        """The name of the node `id`. Raises `InvalidFlow` if it is none, or not yet."""
        name = id if id.startswith(NESTED) else id.removeprefix(f"{self.id}-")
        is_one = name in self.parents or (self.is_open and (name != id or id.startswith(NESTED)))
        if not is_one:
            raise InvalidFlow(
                f"no node of flow {self.id} is called {id!r:.200}: add it first, and pass what add() returns"
            )
        return name

    def id_of(self, name: str) -> str:
        """The id of the node `name`."""
        return name if name.startswith(NESTED) else f"{self.id}-{name}"

    def fields(self) -> tuple[list[str], list[str]]:
        """The nodes with their numbers, and the chunks of their children: fields and values in turn."""
        children: defaultdict[str, list[str]] = defaultdict(list)
        for name, parents in self.parents.items():
            for parent, letter in (parents or {START: STOP}).items():
                children[parent].append(letter + name)
        chunks: dict[str, int] = {}
        edges: list[str] = []
        for parent, behind in children.items():
            for first in range(0, len(behind), CHILDREN_A_CHUNK):
                chunks[parent] = chunks.get(parent, 0) + 1
                edges += f"{parent}/{chunks[parent]}", " ".join(behind[first : first + CHILDREN_A_CHUNK])
        numbers = [START, f"0 0 0 0 0 {chunks[START]} 0"]
        for name, parents in self.parents.items():
            wanted = list(parents.values()).count(LETTERS["run"])
            taken = int(name in self.taken)
            numbers += name, f"{len(parents) or 1} 0 0 {wanted} 0 {chunks.get(name, 0)} {taken}"
        return numbers, edges

    def _add_call(self, part: Prepared, edges: dict[str, str], is_group: bool) -> str:
        writer = self._writer(part)
        call = part.call
        if handed.has_handed(*call):
            handed.validate(part.job, *call)
            args, kwargs, takes = handed.without_handed(
                *call, lambda taken: self._names(part, taken, edges), is_group
            )
            if (count := sum(len(take.names) for take in takes)) > handed.MOST_TAKEN:
                raise InvalidFlow(
                    f"{part.job.name}: the call takes {count} results, over the limit of {handed.MOST_TAKEN}"
                )
            self.taken.update(name for take in takes for name in take.names)
            made = writer.write_taking((args, kwargs), handed.encode(takes))
        else:
            (made,) = writer.write_all([call])
        name = self.name_of(len(self.parents))
        self._enter(name, edges)
        id = self.id_of(name)
        own = made.own._replace(call=id) if self.is_chosen else made.own
        self.entries.append(made._replace(id=id, own=own))
        return name

    def _names(self, part: Prepared, taken: Handed, edges: dict[str, str]) -> list[str]:
        """The nodes whose results take a placeholder's place; those that are not in front yet come there."""
        names = list(edges) if taken.nodes is None else [self.name(id) for id in taken.nodes]
        edges.update((name, STOP) for name in names if name not in edges)
        if not 0 < len(names) <= handed.MOST_TAKEN or any(name.startswith(NESTED) for name in names):
            raise InvalidFlow(
                f"{part.job.name}: {taken!r:.100} must come from 1 to {handed.MOST_TAKEN} calls before it"
            )
        return names

    def _add_flow(self, flow: Flow, edges: dict[str, str]) -> str:
        if self.is_open:
            raise InvalidFlow(f"flow {self.id} has started, and takes no more parts")
        flow.be_part_of(self.id)
        name = f"{NESTED}{flow.id}"
        self._enter(name, edges)
        self.nested.append(flow)
        return name

    def _enter(self, name: str, edges: dict[str, str]) -> None:
        self._edges += len(edges)
        if len(self.parents) == MOST_NODES or self._edges > MOST_EDGES:
            raise InvalidFlow(
                f"a flow has {MOST_NODES:,} nodes and {MOST_EDGES:,} edges at most: make several flows, or "
                "a batch"
            )
        self.parents[name] = edges

    def _writer(self, part: Prepared) -> EntryWriter:
        """What writes the calls of one job with the same options. Raises `InvalidOption`, `UnknownQueue`."""
        job = part.job
        key = job.name, repr(part.options)
        found = self._writers.get(key)
        if found is None:
            options = part.options.over(job.options)
            _refuse_unfit(job.name, options, bool(job.limits and job.limits.policy == "skip"))
            self.is_durable = self.is_durable or bool(options.durable)
            with sending(job.name, options.queue) as sent:
                own = options.over(Options(batch=self.id))
                found = EntryWriter(job, own, self.client.max_bytes, sent.trace)
            if self.client.queues is not None:
                known_queue(found.run.queue, self.client.queues)
            more = ("enqueue_at_front", 1) if options.at_front else ()
            found.run = entry.held(found.run, *more)
            self._writers[key] = found
        return found


def _ends_in_group(part: Any) -> bool:
    """Whether what comes behind a part is behind a group, even if that has only one part."""
    while isinstance(part, Chain):
        part = part.parts[-1]
    return isinstance(part, Group)


def flat(nodes: Any) -> Iterator[str]:
    """The ids in what `after` and `result` take: an id, a flow, or some of these. Raises `InvalidFlow`."""
    if isinstance(nodes, str):
        yield nodes
    elif isinstance(nodes, Batch):
        yield f"{NESTED}{nodes.id}"
    elif isinstance(nodes, list | tuple | set | frozenset):
        for each in nodes:
            yield from flat(each)
    else:
        raise InvalidFlow(f"{nodes!r:.200} is not a node: pass what add() returns")


def _refuse_unfit(name: str, options: Options, is_skipped: bool) -> None:
    """Raise `InvalidOption` for options that say when a job runs, or which it is, as its flow does."""
    named = (options.job_id, options.batch, options.after)
    if options.is_scheduled or options.is_unique or named != (None, None, None):
        raise InvalidOption(
            f"{name}: a flow decides when its jobs run and which they are: omit delay, at, after, unique, "
            "debounce, throttle, job_id and batch"
        )
    if is_skipped:
        raise InvalidOption(f"{name}: a singleton with the policy skip can't be in a flow: use wait")
