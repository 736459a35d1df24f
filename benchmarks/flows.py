"""Flows beside as many plain jobs: throughput of two worker processes, and bytes a node.

    python benchmarks/flows.py [nodes] [rounds]

Each round measures every kind once, in turn, on an emptied private server. What is timed is the work, from
the first job to the last; the sending is a column of its own. So is what server and workers compute for a
job, which depends less on what else the machine does. All nodes of "wide" stand side by side behind one,
"layers" has a hundred layers of which each node comes after two of the one before, and "chains" are a
hundred one behind another, side by side.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import bench_jobs
from harness import PROCESSES, arguments, client_of, in_a_pool, machine, rate, ratio, spent, table
from redis import Redis

from packmule import Batch, Flow, chain, group
from packmule.coordination.redis.replies import pipelined
from packmule.jobs.client import Client
from packmule.testing import private_server

LAYERS = 100


def plain(nodes: int) -> None:
    """As many jobs without edges."""
    bench_jobs.noop.enqueue_many([()] * nodes)


def batched(nodes: int) -> None:
    """As many jobs in a batch."""
    with Batch.create() as batch:
        bench_jobs.noop.options(batch=batch.id).enqueue_many([()] * nodes)


def wide(nodes: int) -> None:
    """All side by side, behind one and in front of one."""
    call = bench_jobs.noop.call()
    chain(call, group(*[call] * (nodes - 2)), call).enqueue()


def layered(nodes: int) -> None:
    """Layers in which each node comes after two of the one before."""
    call, width = bench_jobs.noop.call(), nodes // LAYERS
    with Flow() as flow:
        above = [flow.add(call) for _ in range(width)]
        for _ in range(LAYERS - 1):
            above = [flow.add(call, after=[above[n], above[n - 1]]) for n in range(width)]


def chains(nodes: int) -> None:
    """Chains side by side."""
    call = bench_jobs.noop.call()
    group(*[chain(*[call] * LAYERS)] * (nodes // LAYERS)).enqueue()


KINDS: dict[str, Callable[[int], None]] = {
    "plain jobs": plain,
    "a batch": batched,
    "a flow, wide": wide,
    "a flow, layers": layered,
    "a flow, chains": chains,
}


def bytes_used(client: Redis) -> int:
    """What all keys take."""
    keys = list(client.scan_iter(count=1000))
    return sum(pipelined(client, [("MEMORY", "USAGE", key, "SAMPLES", 0) for key in keys], 0))


def main(nodes: int, rounds: int) -> None:
    """Measure and print."""
    sending, working, costs = ({name: [] for name in KINDS} for _ in range(3))
    sizes: dict[str, float] = {}
    with private_server() as server, client_of(server) as client:
        Client(client).make_default()
        for _ in range(rounds):
            for name, send in KINDS.items():
                client.flushall()
                sending[name].append(rate(nodes, partial(send, nodes)))
                sizes[name] = bytes_used(client) / nodes
                began = sum(spent(client))
                working[name].append(rate(nodes, partial(in_a_pool, server)))
                costs[name].append((sum(spent(client)) - began) / nodes * 1e6)
                assert client.zcard("rq:finished:default") == nodes
        print(
            f"{machine(client=client)}; {nodes:,} jobs, {PROCESSES} worker processes; "
            f"medians of {rounds} rounds\n"
        )
    rows = [
        (
            name,
            f"{statistics.median(working[name]):,.0f}",
            f"{ratio(working[name], working['plain jobs']):.0%}",
            f"{statistics.median(costs[name]):.0f} µs",
            f"{statistics.median(sending[name]):,.0f}",
            f"{sizes[name]:,.0f}",
        )
        for name in KINDS
    ]
    table(("", "jobs/s", "share", "processor time", "sent a second", "bytes a job"), rows)


if __name__ == "__main__":
    main(*arguments(10_000, 3))
