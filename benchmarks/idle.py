"""Many idle workers: what they ask of the server at rest, and how many of them a job wakes.

    python benchmarks/idle.py [workers] [seconds]

Each worker is its waiting alone, in this process, with the connections and commands of a worker process.
"""

from __future__ import annotations

import os
import select
import time

import bench_jobs
from harness import arguments, machine
from redis import Redis

from packmule.jobs import keys
from packmule.jobs.client import Client
from packmule.testing import private_server
from packmule.worker.order import Strict
from packmule.worker.process.blocking_wait import IdleWait
from packmule.worker.process.claim import Claims
from packmule.worker.process.performer import finished

JOBS = 500


def main(workers: int, seconds: float) -> None:
    """Start the server and the workers, watch them, and print three lines."""
    with private_server() as server, Redis(unix_socket_path=str(server.socket_path)) as client:
        waits = {name: _idle(client, name) for name in (f"w{number}" for number in range(workers))}
        poller, names = _poller(waits)
        before = _calls(client)
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(left):  # a move that has timed out begins again
                each = waits[names[descriptor]]
                each.arrived()
                each.claims.finish_and_claim(each.claims.next_id(), [], 1)
                each.wait(0)
        at_rest = (_calls(client) - before) / workers / seconds
        print(f"{machine(client=client)}; {workers:,} idle workers\n")
        print(f"at rest: {at_rest:.3f} commands a second and worker, seen for {seconds:g} s")
        wakes, took = _wakes(client, waits, poller, names)
        print(f"wakes a job: {wakes / JOBS:.2f}; enqueue to claimed {1000 * took / JOBS:.2f} ms")


def _idle(client: Redis, name: str) -> IdleWait:
    claims = Claims(client, name, Strict(["default"]))
    claims.finish_and_claim(claims.next_id(), [], 1)
    wake, waker = os.pipe()
    os.close(waker)  # which ends the first wait at once
    waits = IdleWait(client, name, claims, [keys.queue_key("default")], [wake])
    waits.wait()
    os.close(wake)
    waits.wake = []
    return waits


def _calls(client: Redis) -> int:
    """Commands that clients sent, without those inside scripts and our own looks."""
    stats = client.info("commandstats")
    return sum(
        stats[f"cmdstat_{name}"]["calls"] for name in ("blmove", "evalsha") if f"cmdstat_{name}" in stats
    )


def _poller(waits: dict[str, IdleWait]) -> tuple[select.epoll, dict[int, str]]:
    poller, names = select.epoll(), {}
    for name, each in waits.items():
        for waiter in each._waiters:
            poller.register(waiter.connection._sock, select.EPOLLIN)
            names[waiter.connection._sock.fileno()] = name
    return poller, names


def _wakes(
    client: Redis, waits: dict[str, IdleWait], poller: select.epoll, names: dict[int, str]
) -> tuple[int, float]:
    produce = Client(client)
    wakes, took = 0, 0.0
    for _ in range(JOBS):
        began = time.perf_counter()
        produce.send(bench_jobs.noop.job, [((), {})])
        claimed = False
        while not claimed:
            for descriptor, _ in poller.poll(1):
                wakes += 1
                each = waits[names[descriptor]]
                for got in each.arrived().jobs:
                    claimed = True
                    took += time.perf_counter() - began
                    each.claims.finish_and_claim(each.claims.next_id(), [finished(got, b"", 0.0, 0.0)], 0)
                each.wait(0)
    return wakes, took


if __name__ == "__main__":
    main(*arguments(1000, 30.0))
