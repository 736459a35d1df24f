"""The fault run of durable work: steps, waits, signals and flows, while workers, the server and leaders fail.

    python tests/worker/durable_faults.py [worker kills] [server kills] [frozen leaders] [frozen pools]

Workers and the server are killed with SIGKILL. A leader is frozen for longer than its term, and a pool in
a step for longer than its lease. Some replies are lost, so that the scripts are sent again. At the end
each step must have had its effect once, unless its process was struck in between: then the next run does
it again, or was told that its end is unknown. A run that lost its job has no further effect. Each signal
was taken once, each node ran with the results of those in front of it, each flow has counted exactly, and
at rest no sleeper is late.
"""

from __future__ import annotations

import itertools
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
from packmule.jobs import control, keys, reader
from packmule.jobs.batch_state import Counts
from packmule.jobs.client import Client
from packmule.observe.leadership import leader
from packmule.testing import private_server
from packmule.tests.fork_server import Forked
from packmule.tests.pace import pace
from packmule.tests.worker import durable_jobs
from packmule.tests.worker.limit_faults import POOLS, PROCESSES, Crowd
from packmule.tests.worker.lost_replies import lost_replies
from packmule.tests.worker.pools import children_of

ORDERS, FLOWS, KEYS = 24, 4, 3
"""How many orders and flows are under way at any time, and how many of the orders may not run at once."""

BETWEEN = 0.15, 0.45
"""Seconds between two faults."""

FROZEN_SECONDS = 5.0
POOL_FROZEN_SECONDS = keys.LEASE_SECONDS + 2.0
LOST = 0.2
"""The share of replies that are lost."""

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
    stale: list[str] = field(default_factory=list)
    """What runs had done that had lost their jobs, besides the step that each was in."""
    latest_sleeper: float = 0.0
    second: float = 1.0
    """How long a second was, as `tests/pace.py` has it, while they slept."""
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
            "stale",
            "ended_pools",
        )
        late = ["latest_sleeper"] if self.latest_sleeper > self.second else []
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
            self.order(self.dice.choice(("order", "order_isolated", "order_async", "order_alone")))
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

    def order(self, kind: str) -> str:
        """Enqueue an order of this kind; its name."""
        self.number += 1
        case = f"order{self.number}"
        more = (f"key{self.dice.randrange(KEYS)}",) if kind == "order_alone" else ()
        made = getattr(durable_jobs, kind).options(
            job_id=case, priority=self.dice.choice((0, 0, 10, 90, -90))
        )
        until_available(lambda: made.enqueue(self.place, case, *more))
        self.orders[case] = kind
        self.unsent[case] = [1, 2]
        self.report.orders += 1
        return case

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
        """Check a flow that has ended, or run those of its nodes again that died too often.

        One that goes on behind such a node has failed too, since it takes a result that is none.
        """
        failed = until_available(lambda: list(flow.failed()))
        infos = [until_available(lambda id=id: reader.read(self.client, id)) for id in failed]
        died = [info.id for info in infos if info.deaths >= MOST_DEATHS]
        if died:
            self.report.deaths_retried += len(died)
            lacking = [info.id for info in infos if (info.reason or "").startswith("InvalidCall: ")]
            for id in (*died, *lacking):
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


class Frozen:
    """Pools that are frozen while a worker of theirs runs a step, and thaw when others have its job."""

    def __init__(self, crowd: Crowd, work: Work, ledger: Path) -> None:
        self.crowd, self.work, self.ledger = crowd, work, ledger
        self.thaws_at: dict[int, float] = {}
        """When the workers go on."""

    def freeze(self) -> bool:
        """Freeze the pool that begins an order; whether one did in time. One pool at least goes on."""
        if len(self.thaws_at) > (POOLS - 2) * PROCESSES:
            return False
        mine, deadline = self.work.order("order"), time.monotonic() + 5
        while time.monotonic() < deadline:
            last = self.ledger.read_text().splitlines()[-1:]
            case, _, *_, parent, _ = last[0].split() if last else ("", "", "0", "")
            if case == mine and (pid := int(parent)) in {pool.pid for pool, _ in self.crowd.pools}:
                os.killpg(pid, signal.SIGSTOP)
                workers = children_of(pid)
                self.crowd.frozen.update(workers)
                self.thaws_at |= dict.fromkeys(workers, time.monotonic() + POOL_FROZEN_SECONDS)
                threading.Timer(POOL_FROZEN_SECONDS, os.killpg, [pid, signal.SIGCONT]).start()
                return True
            time.sleep(0.002)
        return False

    def wait(self) -> None:
        """Wait until all have gone on for a while."""
        time.sleep(max(0.0, 1.0 + max(self.thaws_at.values(), default=0.0) - time.monotonic()))


def run(kills: int, server_kills: int, freezes: int, frozen_pools: int, seed: int = 1) -> Report:
    """Let the work go on until all faults have struck, and judge it."""
    dice = random.Random(seed)
    faults = ["worker killed"] * kills + ["server killed"] * server_kills + ["leader frozen"] * freezes
    dice.shuffle(faults)
    faults += ["pool frozen"] * frozen_pools  # which come first
    with ExitStack() as stack:
        server = stack.enter_context(private_server())
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (place / "ledger").touch()
        client = stack.enter_context(connect(None, server.data_dir))
        Client(client).make_default()
        crowd = Crowd(
            server, Path(os.environ.get("DURABLE_FAULTS_LOG", place / "log")), "kills", f"lost={LOST}"
        )
        stack.callback(crowd.close)
        leaders = Leaders(server, client)
        stack.callback(leaders.close)
        work = Work(client, place, dice)
        frozen = Frozen(crowd, work, place / "ledger")
        stack.enter_context(lost_replies(LOST))
        next_fault = time.monotonic() + 2.0
        while faults:
            work.more()
            work.go_on()
            if time.monotonic() > next_fault:
                next_fault = time.monotonic() + dice.uniform(*BETWEEN)
                _strike(faults.pop(), crowd, leaders, frozen, work.report.faults)
            time.sleep(0.02)
        deadline = time.monotonic() + LONGEST_END
        while (work.orders or work.flows) and time.monotonic() < deadline:
            work.go_on()
            time.sleep(0.05)
        work.report.unended = [*work.orders, *work.flows]
        frozen.wait()
        work.report.ended_pools = crowd.ended_pools
        _judge(work, crowd, frozen, place)
        with pace() as second:
            work.report.latest_sleeper, work.report.second = _latest_sleeper(), second()
        return work.report


def _strike(fault: str, crowd: Crowd, leaders: Leaders, frozen: Frozen, faults: Counter[str]) -> None:
    if fault == "pool frozen":
        happened = frozen.freeze()
    elif fault == "leader frozen":
        happened = until_available(leaders.freeze)
    elif fault == "server killed":
        crowd.kill_server()
        happened = True
    else:
        crowd.replace_ended()
        pools = [pool for pool, _ in crowd.pools]
        workers = [pid for pool in pools for pid in children_of(pool.pid) if pid not in crowd.frozen]
        happened = bool(workers)
        if workers:
            crowd.strike(random.choice(workers))
    faults[fault if happened else f"no {fault}"] += 1


def _judge(work: Work, crowd: Crowd, frozen: Frozen, place: Path) -> None:
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
            continue
        living = [each for each in seen if not each.processes & crowd.frozen]
        if not all(each.processes & crowd.struck.keys() for each in living[:-1]):
            report.doubled.append(f"{case} {what}: {seen}")
    report.stale = _stale(effects, frozen.thaws_at)
    for case in work.ended_orders:
        report.missing += [
            f"{case} {what}" for what in ("pay", "pack", "ship") if (case, what) not in effects
        ]
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


def _stale(effects: dict[tuple[str, str], list[Effect]], thaws_at: dict[int, float]) -> list[str]:
    """The orders that a worker packed behind the payment in which it was frozen."""
    found = []
    for case, pid in itertools.product(sorted({case for case, _ in effects}), thaws_at):
        did = sorted(
            (each.at, what)
            for what in ("paying", "pay", "pack")
            for each in effects.get((case, what), ())
            if pid in each.processes
        )
        before = [what for at, what in did if at < thaws_at[pid]][-1:]
        behind = [what for at, what in did if at > thaws_at[pid]][:2]
        if before == ["paying"] and behind == ["pay", "pack"]:
            found.append(f"{case} by {pid}")
    return found


def _latest_sleeper() -> float:
    """How late the latest of many sleepers is, once nothing is broken any more."""
    handles = [durable_jobs.sleeper.enqueue(1 + 2 * n / SLEEPERS) for n in range(SLEEPERS)]
    return max(handle.result(timeout=60) for handle in handles)


def main() -> None:
    """Run it, print what happened, and fail if something is broken."""
    faults = (*map(int, sys.argv[1:]), *(50, 4, 4, 2)[len(sys.argv) - 1 :])
    begun = time.monotonic()
    report = run(*faults, seed=int(begun))
    print(f"{time.monotonic() - begun:.0f} s, {os.cpu_count()} cores")
    for name, value in vars(report).items():
        shown = {"jobs": len(value), "times": value.total()} if name == "unknown" else value
        print(f"{name:14} {dict(shown) if isinstance(shown, Counter) else shown}")
    if report.broken():
        sys.exit(f"broken: {', '.join(report.broken())}")


if __name__ == "__main__":
    main()
