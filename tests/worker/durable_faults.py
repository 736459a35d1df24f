"""The fault run of durable work: steps, waits, signals and flows, while workers, the server and leaders fail.

    python tests/worker/durable_faults.py [worker kills] [server kills] [frozen leaders]

Workers and the server are killed with SIGKILL; a leader is frozen for longer than its term. At the end each
step must have had its effect once, unless its process was struck in between: then the next run does it again,
or was told that its end is unknown. Each signal was taken once, each node ran with the results of those in
front of it, each flow has counted exactly, and at rest no sleeper is late.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from redis import Redis
from redis.exceptions import RedisError

from packmule import Flow
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.drill import job_states
from packmule.jobs import control, reader
from packmule.jobs.batch_state import Counts
from packmule.jobs.client import Client
from packmule.scheduler.leader import leader
from packmule.testing import private_server
from packmule.tests.fork_server import Forked
from packmule.tests.worker import durable_jobs
from packmule.tests.worker.limit_faults import Crowd
from packmule.tests.worker.pools import children_of

ORDERS, FLOWS, KEYS = 24, 4, 3
"""How many orders and flows are under way at any time, and how many of the orders may not run at once."""

BETWEEN = 0.15, 0.45
"""Seconds between two faults."""

FROZEN_SECONDS = 5.0
LONGEST_END = 120.0
SLEEPERS = 200
MOST_DEATHS = 3
FRONT = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "after x": ("a",)}
"""The nodes of a flow that run, and those in front of which they take the results."""

COUNTS = Counts(total=8, done=6, failed=1, canceled=1)

T = TypeVar("T")


@dataclass
class Report:
    """What was broken how often, and what became of the work."""

    faults: Counter[str] = field(default_factory=Counter)
    orders: int = 0
    flows: int = 0
    deaths_retried: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    """How often a job was told that the end of its last step is unknown."""
    again: int = 0
    """Effects that a run after a struck one had again."""
    unended: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    wrong_results: list[str] = field(default_factory=list)
    wrong_counts: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    latest_sleeper: float = 0.0
    ended_pools: list[str] = field(default_factory=list)

    def broken(self) -> list[str]:
        """The names of what must not be, and was."""
        lists = (
            "unended",
            "doubled",
            "missing",
            "wrong_results",
            "wrong_counts",
            "disordered",
            "ended_pools",
        )
        late = ["latest_sleeper"] if self.latest_sleeper > 1.0 else []
        return [name for name in lists if getattr(self, name)] + late


class Effect(NamedTuple):
    """A line of the ledger: by which process and its parent, and when."""

    processes: set[int]
    at: float


class Leaders:
    """Two schedulers in processes of their own."""

    def __init__(self, server: EmbeddedServer, client: Redis) -> None:
        self.client = client
        command = ["packmule.tests.scheduler.run_tick_scheduler", server.url]
        self.all: list[subprocess.Popen[bytes]] = [
            Forked(command, stderr=subprocess.DEVNULL) for _ in range(2)
        ]

    def freeze(self) -> bool:
        """Freeze the leader for longer than its term; whether there was one."""
        found = leader(self.client)
        for each in self.all:
            if found and f".{each.pid}." in found.name:
                each.send_signal(signal.SIGSTOP)
                threading.Timer(FROZEN_SECONDS, each.send_signal, [signal.SIGCONT]).start()
                return True
        return False

    def close(self) -> None:
        """End them."""
        for each in self.all:
            each.send_signal(signal.SIGCONT)
            each.kill()
            each.wait()


class Work:
    """Orders and flows under way, and what has ended."""

    def __init__(self, client: Redis, place: Path, dice: random.Random) -> None:
        self.client, self.place, self.dice = client, str(place), dice
        self.number = 0
        self.orders: dict[str, str] = {}
        self.flows: dict[str, Flow] = {}
        self.unsent: dict[str, list[int]] = {}
        """The signals that an order has yet to get, by its id."""
        self.sent_twice: set[str] = set()
        self.ended_orders: set[str] = set()
        self.report = Report()

    def more(self) -> None:
        """Keep so many orders and flows under way."""
        while len(self.orders) < ORDERS:
            self._order()
        while len(self.flows) < FLOWS:
            self._flow()

    def go_on(self) -> None:
        """Send signals, and look what has ended; those that died too often are run again."""
        for id in self.dice.sample(sorted(self.unsent), min(len(self.unsent), 4)):
            data = self.unsent[id].pop(0)
            if not self.unsent[id]:
                del self.unsent[id]
            self._until_sent(id, data)
        states = until_available(lambda: job_states.states(self.client, set(self.orders)))
        for id, state in states.items():
            if state.status == "finished":
                self._check(id, self.orders.pop(id))
            elif state.status == "failed":
                self._again(id)
        for id, flow in list(self.flows.items()):
            if until_available(flow.state).ended is not None:
                self._look_at(id, flow)

    def _order(self) -> None:
        self.number += 1
        case = f"order{self.number}"
        kind = self.dice.choice(("order", "order_isolated", "order_async", "order_alone"))
        more = (f"key{self.dice.randrange(KEYS)}",) if kind == "order_alone" else ()
        made = getattr(durable_jobs, kind).options(
            job_id=case, priority=self.dice.choice((0, 0, 10, 90, -90))
        )
        until_available(lambda: made.enqueue(self.place, case, *more))
        self.orders[case] = kind
        self.unsent[case] = [1, 2]
        self.report.orders += 1

    def _until_sent(self, id: str, data: int) -> None:
        handle = Client.default().job(id)
        while True:
            try:
                return handle.signal("go", data)
            except RedisError:
                self.sent_twice.add(id)  # or not, for it may have come
                time.sleep(0.05)

    def _check(self, id: str, kind: str) -> None:
        result = until_available(lambda: reader.read(self.client, id)).result
        if result != [1, 2] and not (id in self.sent_twice and result == [1, 1]):
            self.report.wrong_results.append(f"{kind} {id}: {result}")
        self.ended_orders.add(id)

    def _again(self, id: str) -> None:
        """Run a failed job again, if it died too often or was told of an unknown end."""
        info = until_available(lambda: reader.read(self.client, id))
        if info.status != "failed":
            return
        if "StepUnknown" in (info.error or ""):
            self.report.unknown[id] += 1
        elif info.deaths >= MOST_DEATHS:
            self.report.deaths_retried += 1
        else:
            self.report.wrong_results.append(f"{id}: {info.reason}")
        with suppress(control.NotRetried):
            until_available(lambda: control.retry(self.client, id))

    def _flow(self) -> None:
        self.number += 1
        case = f"flow{self.number}"
        flow = Flow(case, client=Client.default())

        def add(name: str, *front: str, after: str = "", **how: str) -> None:
            taken = [flow.result([made[each] for each in front])] if front else []
            call = durable_jobs.node.call(self.place, case, name, self.dice.uniform(0, 0.1), *taken)
            made[name] = flow.add(call, after=[made[each] for each in (*front, *after.split())], **how)

        made: dict[str, str] = {}
        for name in ("a", "b", "c", "d"):
            add(name, *FRONT[name])
        made["x"] = flow.add(durable_jobs.failing.call(self.place, case, "x"), after=made["a"])
        add("after x", "a", after="x", on_failure="go on")
        add("behind x", after="x")
        add("for b", after="b", on_failure="run")
        try:
            flow.start()
        except RedisError:
            return  # it never begins, or does: nobody has its id
        self.flows[case] = flow
        self.report.flows += 1

    def _look_at(self, case: str, flow: Flow) -> None:
        """Check a flow that has ended, or run those of its nodes again that died too often."""
        failed = until_available(lambda: list(flow.failed()))
        infos = [until_available(lambda id=id: reader.read(self.client, id)) for id in failed]
        died = [info.id for info in infos if info.deaths >= MOST_DEATHS]
        if died:
            self.report.deaths_retried += len(died)
            for id in died:
                with suppress(control.NotRetried):
                    until_available(lambda id=id: control.retry(self.client, id))
            return
        counts = until_available(flow.state).counts
        if counts != COUNTS:
            self.report.wrong_counts.append(f"{case} {flow.id}: {counts}")
        del self.flows[case]


def until_available(call: Callable[[], T]) -> T:
    """Repeat a call until the server answers."""
    while True:
        try:
            return call()
        except RedisError:
            time.sleep(0.05)


def run(kills: int, server_kills: int, freezes: int, seed: int = 1) -> Report:
    """Let the work go on until all faults have struck, and judge it."""
    dice = random.Random(seed)
    faults = ["worker killed"] * kills + ["server killed"] * server_kills + ["leader frozen"] * freezes
    dice.shuffle(faults)
    with ExitStack() as stack:
        server = stack.enter_context(private_server())
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (place / "ledger").touch()
        client = stack.enter_context(connect(None, server.data_dir))
        Client(client).make_default()
        crowd = Crowd(server, Path(os.environ.get("DURABLE_FAULTS_LOG", place / "log")), "kills")
        stack.callback(crowd.close)
        leaders = Leaders(server, client)
        stack.callback(leaders.close)
        work = Work(client, place, dice)
        next_fault = time.monotonic() + 2.0
        while faults:
            work.more()
            work.go_on()
            if time.monotonic() > next_fault:
                next_fault = time.monotonic() + dice.uniform(*BETWEEN)
                _strike(faults.pop(), crowd, leaders, work.report.faults)
            time.sleep(0.02)
        deadline = time.monotonic() + LONGEST_END
        while (work.orders or work.flows) and time.monotonic() < deadline:
            work.go_on()
            time.sleep(0.05)
        work.report.unended = [*work.orders, *work.flows]
        work.report.ended_pools = crowd.ended_pools
        _judge(work, crowd, place)
        work.report.latest_sleeper = _latest_sleeper()
        return work.report


def _strike(fault: str, crowd: Crowd, leaders: Leaders, faults: Counter[str]) -> None:
    if fault == "leader frozen":
        happened = until_available(leaders.freeze)
    elif fault == "server killed":
        crowd.kill_server()
        happened = True
    else:
        crowd.replace_ended()
        workers = [pid for pool, _ in crowd.pools for pid in children_of(pool.pid)]
        happened = bool(workers)
        if workers:
            crowd.strike(random.choice(workers))
    faults[fault if happened else f"no {fault}"] += 1


def _judge(work: Work, crowd: Crowd, place: Path) -> None:
    """Compare the ledger with what must be in it."""
    report = work.report
    effects: dict[tuple[str, str], list[Effect]] = defaultdict(list)
    for line in (place / "ledger").read_text().splitlines():
        case, rest = line.split(" ", 1)
        what, pid, parent, at = rest.rsplit(" ", 3)
        effects[case, what].append(Effect({int(pid), int(parent)}, float(at)))
    for (case, what), seen in effects.items():
        told = report.unknown[case] if what == "ship" else 0
        report.again += len(seen) - 1
        if what == "ship" and len(seen) > 1 + told:
            report.doubled.append(f"{case} {what}: {len(seen)} times, {told} times unknown")
        elif not all(each.processes & crowd.struck.keys() for each in seen[:-1]):
            report.doubled.append(f"{case} {what}: {seen}")
    for case in work.ended_orders:
        report.missing += [f"{case} {what}" for what in ("pay", "ship") if (case, what) not in effects]
    for (case, what), seen in effects.items():
        kind, _, rest = what.partition(":")
        name, _, taken = rest.partition(":")
        if kind != "begin" or name not in FRONT:
            continue
        if taken != ",".join(FRONT[name]):
            report.wrong_results.append(f"{case} {name} took {taken}")
        for front in FRONT[name]:
            if not effects[case, f"end:{front}"] or seen[0].at < effects[case, f"end:{front}"][0].at:
                report.disordered.append(f"{case} {name} before {front}")


def _latest_sleeper() -> float:
    """How late the latest of many sleepers is, once nothing is broken any more."""
    handles = [durable_jobs.sleeper.enqueue(1 + 2 * n / SLEEPERS) for n in range(SLEEPERS)]
    return max(handle.result(timeout=60) for handle in handles)


def main() -> None:
    """Run it, print what happened, and fail if something is broken."""
    kills, server_kills, freezes = (*map(int, sys.argv[1:]), *(50, 4, 4)[len(sys.argv) - 1 :])
    begun = time.monotonic()
    report = run(kills, server_kills, freezes, seed=int(begun))
    print(f"{time.monotonic() - begun:.0f} s, {os.cpu_count()} cores")
    for name, value in vars(report).items():
        shown = {"jobs": len(value), "times": value.total()} if name == "unknown" else value
        print(f"{name:14} {dict(shown) if isinstance(shown, Counter) else shown}")
    if report.broken():
        sys.exit(f"broken: {', '.join(report.broken())}")


if __name__ == "__main__":
    main()
