"""Flows against a plain model of them: random graphs, failures and retries; and flows under SIGKILL."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from packmule import Flow, group
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys
from packmule.jobs.batch_state import Counts
from packmule.jobs.client import Client
from packmule.tests.worker import flow_jobs
from packmule.tests.worker.pools import children_of, lines, pool, until
from packmule.worker.dependents import Dependents
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims
from packmule.worker.process.outcome import failed
from packmule.worker.process.performer import finished

Graph = list[dict[int, str]]
"""The edges of each node: to which before it, and what their failure means."""

HOW = st.sampled_from(["stop", "stop", "go on", "run"])


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph: Graph = []
    for number in range(draw(st.integers(1, 9))):
        parents = draw(st.lists(st.integers(0, number - 1), max_size=3, unique=True)) if number else []
        graph.append({parent: draw(HOW) for parent in parents})
    return graph


def verdict(parents: dict[int, str], states: str) -> str:
    """What becomes of a node whose parents have ended so."""
    stops = [states[parent] for parent, how in parents.items() if how == "stop"]
    wanted = [states[parent] for parent, how in parents.items() if how == "run"]
    if "f" in stops or "c" in stops:
        return "c"
    return "s" if "s" in stops or (wanted and "f" not in wanted) else "runs"


def expected(graph: Graph, fails: set[int], before: str = "") -> str:
    """How each node ends; those that were done before stay so."""
    states = ""
    for number, parents in enumerate(graph):
        found = verdict(parents, states)
        if before and before[number] == "d":
            found = "d"
        elif found == "runs":
            found = "f" if number in fails else "d"
        states += found
    return states


def found(client: Redis, flow: Flow, count: int) -> str:
    ids = [f"{flow.id}-{number}" for number in range(count)]
    return b"".join(client.hmget(f"{keys.batch_key(flow.id)}:jobs", ids)).decode()


def perform(client: Redis, flow: Flow, graph: Graph, fails: set[int], want: int) -> list[int]:
    """Perform all that can be, and check that each was allowed to; the nodes in order."""
    claims = Claims(client, "w1", Strict(["default"]))
    ran: list[int] = []
    outcomes: list[object] = []
    while jobs := claims.finish_and_claim(claims.next_id(), outcomes, want).jobs:
        states = found(client, flow, len(graph))
        outcomes = []
        for job in jobs:
            number = int(job.id.rpartition("-")[2])
            assert all(states[parent] != "p" for parent in graph[number])
            assert verdict(graph[number], states) == "runs"
            ran.append(number)
            ended = failed(job, "no", 1.0, 2.0) if number in fails else finished(job, b"", 1.0, 2.0)
            outcomes.append(ended)
    return ran


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(graphs(), st.lists(st.sets(st.integers(0, 8)), min_size=1, max_size=3), st.integers(1, 4))
def test_each_node_runs_when_and_only_when_its_parents_allow_it(client, graph, failing, want):
    flow = Flow(client=client)
    made: list[str] = []
    for parents in graph:
        made.append(flow.add(flow_jobs.add.call(1), after={made[n]: how for n, how in parents.items()}))
    flow.start()
    states = ""
    for fails in failing:
        if states:
            flow.retry()
        ran = perform(client, flow, graph, fails, want)
        states = expected(graph, fails, states)
        assert found(client, flow, len(graph)) == states
        assert len(ran) == len(set(ran))
        done, failures, canceled = (sum(map(states.count, each)) for each in ("ds", "f", "c"))
        state = flow.state()
        assert state.counts == Counts(len(graph), done, failures, canceled)
        assert state.ended is not None
        assert client.zcard("rq:deferred:default") == client.llen("rq:queue:default") == 0


def has_ended(flows: list[Flow]) -> bool:
    return all(flow.state().ended is not None for flow in flows)


@pytest.mark.usefixtures("produce")
def test_flows_end_exactly_while_their_workers_are_killed(server, client, tmp_path):
    notes, flows = tmp_path / "notes", []
    with pool(server, 2) as process:
        for case in range(3):
            with Flow(str(case), client=client) as flow:
                top = flow.add(flow_jobs.step.call(str(notes), f"{case} top", 0.02))
                calls = [flow_jobs.step.call(str(notes), f"{case} {n}", 0.01) for n in range(30)]
                sides = flow.add(group(*calls), after=top)
                ill = flow.add(flow_jobs.step.call(str(notes), f"{case} ill", 0.0, True), after=sides)
                flow.add(flow_jobs.step.call(str(notes), f"{case} never"), after=ill)
                flow.add(flow_jobs.step.call(str(notes), f"{case} end"), after=ill, on_failure="run")
            flows.append(flow)
        for killed in range(1, 7):
            until(lambda least=killed * 25: len(lines(notes)) > least or has_ended(flows))
            for child in children_of(process.pid)[:1]:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        for flow in flows:
            counts = flow.wait(60).counts
            assert counts == Counts(34, 32, 1, 1), list(flow.failed())
    for case in range(3):
        of_case = [line for line in lines(notes) if line[1:].startswith(f"{case} ")]
        first = {line: position for position, line in reversed(list(enumerate(of_case)))}
        assert f"+{case} never" not in first
        for n in range(30):
            assert first[f"-{case} top"] < first[f"+{case} {n}"]
            assert first[f"-{case} {n}"] < first[f"+{case} ill"]
        assert first[f"-{case} ill"] < first[f"+{case} end"]


def sent(client: Redis, number: int) -> int:
    """How much of the `number`-th flow is there: its nodes, and one more once it is sealed."""
    ids = client.zrange(keys.BATCHES, number, number)
    total, sealed = client.hmget(keys.batch_key(ids[0].decode()), "total", "sealed") if ids else (None, None)
    return int(total or 0) + bool(sealed)


def start_many(server: EmbeddedServer) -> None:
    Client(connect(None, server.data_dir)).make_default()
    flow = Flow("many")
    made = flow.add(flow_jobs.add.call(1))
    for number in range(1500):
        flow.add(flow_jobs.add.call(number), after=made)
    flow.start()


def test_a_flow_whose_producer_is_killed_is_there_whole_or_never_begins(server, client):
    for number, least in enumerate([1, 501, 1001, 1501, 1501, 1502]):
        child = os.fork()
        if not child:
            with suppress(BaseException):
                start_many(server)
            os._exit(0)
        until(lambda number=number, least=least: sent(client, number) >= least)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    claims = Claims(client, "w1", Strict(["default"]))
    outcomes: list[object] = []
    while (claim := claims.finish_and_claim(claims.next_id(), outcomes, 64)).jobs or claim.flows:
        outcomes = [finished(job, b"", 1.0, 2.0) for job in claim.jobs]
        Dependents(client).enqueue_of([], claim.flows)
    ends = set()
    for id in client.zrange(keys.BATCHES, 0, -1):
        state = Flow.at(id.decode(), client).state()
        ends.add(state.is_sealed)
        assert (state.ended is not None) == state.is_sealed
        assert state.counts.pending in (0, state.counts.total)
    assert ends == {True, False}
