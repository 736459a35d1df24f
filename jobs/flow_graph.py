"""A flow as Redis has it now: its nodes in layers, how each stands, and what it comes after."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.errors import NotFound
from packmule.jobs import batch_state, keys, wire
from packmule.jobs.batch import NESTED
from packmule.jobs.batch_state import NoSuchBatch, State
from packmule.jobs.flow_plan import LETTERS

WORDS = {"d": "done", "f": "failed", "c": "canceled", "s": "skipped"}
PENDING = {"started": "running", "queued": "queued", "scheduled": "scheduled", "deferred": "waits"}
"""What a node that has not ended does, by its job's status."""

ON_FAILURE = {letter: word for word, letter in LETTERS.items()}

RQ_WORDS = {**PENDING, "finished": "done", "failed": "failed", "stopped": "failed", "canceled": "canceled"}

PAGE, MOST_AROUND = 2000, 1000


class NoSuchFlow(NoSuchBatch):
    """No flow has that id: it never existed, or it ended longer ago than it was kept."""


class NotAFlow(NotFound, LookupError):
    """A batch has no edges."""


@dataclass(frozen=True, slots=True)
class Node:
    """A job of a flow, or a flow within it, at one moment.

    `state` is done, failed, canceled or skipped, or else running, queued, scheduled or waits. `calls` is what
    the job's record says that it calls, "" if that is gone. `after` has the names of the nodes in front, and
    what the failure of each means.
    """

    job: str
    name: str
    state: str
    calls: str
    after: dict[str, str]
    layer: int


def read(client: Redis, id: str) -> tuple[State, list[Node]]:
    """The flow `id`, and its nodes from the first layer to the last. Raises `NoSuchFlow` and `NotAFlow`."""
    try:
        state = batch_state.read(client, id)
    except NoSuchBatch as error:
        raise NoSuchFlow(str(error).replace("batch", "flow", 1)) from None
    key = keys.batch_key(id)
    if pipelined(client, [("HEXISTS", key, "start")], 0) != [1]:
        raise NotAFlow(f"batch {id} is not a flow: see packmule batch show {id}")
    states = _hash(client, f"{key}:jobs")
    after: dict[str, dict[str, str]] = {name.removeprefix(f"{id}-"): {} for name in states}
    behind: defaultdict[str, list[str]] = defaultdict(list)
    for chunk, text in _hash(client, f"{key}:children").items():
        parent = chunk.rpartition("/")[0]
        for child in text.split():
            if child[1:] in after and parent in after:
                after[child[1:]][parent] = ON_FAILURE.get(child[0], "stop")
                behind[parent].append(child[1:])
    layers = _layers(after, behind)
    jobs = {name: name if name.startswith(NESTED) or name in states else f"{id}-{name}" for name in after}
    found = _records(client, list(jobs.values()))
    nodes = []
    for name in sorted(after, key=lambda name: (layers[name], len(name), name)):
        status, calls = found.get(jobs[name], ("", ""))
        word = WORDS.get(states[jobs[name]]) or PENDING.get(status, "waits")
        calls = f"flow {name.removeprefix(NESTED)}" if name.startswith(NESTED) else calls
        nodes.append(Node(jobs[name], name, word, calls, after[name], layers[name]))
    return state, nodes


def around(client: Redis, id: str) -> list[Node]:
    """The jobs that the job `id` waits for as RQ's do, those that wait for it, and so on: 1,000 at most."""
    after: dict[str, dict[str, str]] = {id: {}}
    behind: defaultdict[str, list[str]] = defaultdict(list)
    found = [id]
    for job in found:
        in_front, waiting = (
            _members(client, key(job)) for key in (keys.dependencies_key, keys.dependents_key)
        )
        for parent, child in (*((each, job) for each in in_front), *((job, each) for each in waiting)):
            new = {parent, child} - after.keys()
            if len(after) + len(new) > MOST_AROUND or parent in after.get(child, ()):
                continue
            found += new
            after.update({each: {} for each in new})
            after[child][parent] = "stop"
            behind[parent].append(child)
    layers, records = _layers(after, behind), _records(client, list(after))
    return [
        Node(job, job, RQ_WORDS.get(records[job][0], "done"), records[job][1], after[job], layers[job])
        for job in sorted(after, key=lambda job: (layers[job], job))
    ]


def in_front_of(client: Redis, id: str) -> tuple[str, int] | list[tuple[str, str]]:
    """What a deferred job waits for: a flow and how many of its nodes, or jobs with their statuses."""
    flow = as_text(client.hget(keys.job_key(id), "batch") or b"")
    if flow and id.startswith(f"{flow}-"):
        (numbers,) = pipelined(client, [("HGET", f"{keys.batch_key(flow)}:nodes", id[len(flow) + 1 :])], None)
        return flow, wire.whole(as_text(numbers or b"").partition(" ")[0])
    jobs = _members(client, keys.dependencies_key(id))
    return [(job, status) for job, (status, _) in _records(client, jobs).items() if status != "finished"]


def latest(client: Redis, limit: int) -> list[State]:
    """The flows among the latest `limit` batches that are still kept, the newest first."""
    found = batch_state.latest(client, limit)
    are = pipelined(client, [("HEXISTS", keys.batch_key(state.id), "start") for state in found], 0)
    return [state for state, is_flow in zip(found, are, strict=True) if is_flow]


def _layers(after: dict[str, dict[str, str]], behind: dict[str, list[str]]) -> dict[str, int]:
    """In which layer each node is, from 1: behind all that it comes after."""
    layers = dict.fromkeys(after, 1)
    waits = {name: len(parents) for name, parents in after.items()}
    ready = [name for name, count in waits.items() if not count]
    for name in ready:
        for child in behind.get(name, ()):
            layers[child] = max(layers[child], layers[name] + 1)
            waits[child] -= 1
            if not waits[child]:
                ready.append(child)
    return layers


def _records(client: Redis, jobs: list[str]) -> dict[str, tuple[str, str]]:
    """The status and the description of each job."""
    found = {}
    for first in range(0, len(jobs), PAGE):
        page = jobs[first : first + PAGE]
        replies = pipelined(client, [("HMGET", keys.job_key(id), "status", "description") for id in page], [])
        for id, reply in zip(page, replies, strict=True):
            status, calls = (as_text(value or b"") for value in (reply or (None, None)))
            found[id] = status, calls
    return found


def _members(client: Redis, key: str) -> list[str]:
    (found,) = pipelined(client, [("SRANDMEMBER", key, MOST_AROUND)], [])
    return [as_text(each) for each in found or ()]


def _hash(client: Redis, key: str) -> dict[str, str]:
    """A hash of text; empty if somebody made another type of it."""
    try:
        return {as_text(field): as_text(value) for field, value in client.hscan_iter(key, count=PAGE)}
    except ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        return {}
