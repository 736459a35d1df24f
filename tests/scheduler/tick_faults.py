"""The scheduler's fault run: three schedulers tick every second while they are killed, frozen and cut off.

    python tests/scheduler/tick_faults.py [faults] [schedules]

There are three lock nodes. Each scheduler reaches them and Redis through proxies that can be cut. At the end
the ledger of each schedule must list every second once, and each enqueued tick must have one job.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from redis import Redis

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.coordination.redis.replies import as_text
from packmule.jobs import keys, schedule_ledger, schedule_store
from packmule.jobs.schedule import Schedule, schedule
from packmule.observe.leadership import Leader, leader
from packmule.testing import private_server
from packmule.tests.coordination.lock_proxy import Proxy
from packmule.tests.fork_server import Forked
from packmule.tests.jobs import sample_jobs

LONGEST_ELECTION = 60.0
READ_AT_ONCE = 200
"""Entries of a ledger that are read at once: more than the seconds between two reads."""


@dataclass
class Scheduling:
    """A scheduler's process, its proxy to the job server, and its proxies to the lock nodes."""

    home: Proxy
    ways: list[Proxy]
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        command = ["packmule.tests.scheduler.run_tick_scheduler", self.home.url]
        command += [way.url for way in self.ways]
        self.process = Forked(command, stderr=subprocess.DEVNULL)


class Crew:
    """Three schedulers, one of them leading, and the faults that can be injected."""

    def __init__(self, client: Redis, server: EmbeddedServer, nodes: list[EmbeddedServer]) -> None:
        self.client = client
        self.nodes = nodes
        self.chance = random.Random()
        self.all: list[Scheduling] = []
        for number in range(3):
            home, *ways = (
                Proxy(server.data_dir / f"{number}-{n}.sock", target.socket_path)
                for n, target in enumerate([server, *nodes])
            )
            each = Scheduling(home, ways)
            each.start()
            self.all.append(each)

    def close(self) -> None:
        for each in self.all:
            each.process.send_signal(signal.SIGCONT)
            each.process.kill()
            each.process.wait()
            for way in (each.home, *each.ways):
                way.close()

    def leading(self) -> tuple[Scheduling, str]:
        """The leading scheduler, and its term."""
        self.until_led()
        found = leader(self.client)
        for each in self.all:
            if found and f".{each.process.pid}." in found.name:
                return each, found.term
        return self.leading()

    def until_led(self, other_than: str = "") -> float:
        """Wait for a leader in a term other than `other_than`; return the seconds that it took."""
        began = time.monotonic()
        found: Leader | None = None
        while found is None or found.term == other_than:
            assert time.monotonic() < began + LONGEST_ELECTION, "nobody leads"
            time.sleep(0.01)
            found = leader(self.client)
        return time.monotonic() - began

    def kill(self) -> float:
        """Kill the leader, and start it again once another leads."""
        led, term = self.leading()
        led.process.kill()
        took = self.until_led(term)
        led.process.wait()
        led.start()
        return took

    def kill_any(self) -> None:
        """Kill any scheduler, and start it again at once."""
        each = self.chance.choice(self.all)
        each.process.kill()
        each.process.wait()
        each.start()

    def stop(self) -> float:
        """Terminate the leader, and start it again once another leads."""
        led, term = self.leading()
        led.process.terminate()
        took = self.until_led(term)
        assert led.process.wait(timeout=60) == 0
        led.start()
        return took

    def freeze(self) -> float:
        """Freeze the leader for longer than its term, and thaw it beside the next leader."""
        led, term = self.leading()
        led.process.send_signal(signal.SIGSTOP)
        try:
            return self.until_led(term)
        finally:
            led.process.send_signal(signal.SIGCONT)

    def freeze_briefly(self) -> None:
        """Freeze the leader for about its term, so that it may still lead or not."""
        led, _ = self.leading()
        led.process.send_signal(signal.SIGSTOP)
        time.sleep(self.chance.uniform(0.1, 3.5))
        led.process.send_signal(signal.SIGCONT)

    def cut_off(self) -> float:
        """Cut the leader off from a majority of the lock nodes, in both directions or only for replies."""
        led, term = self.leading()
        with self._cut(self.chance.sample(led.ways, 2)):
            return self.until_led(term)

    def cut_from_redis(self) -> float:
        """Cut the leader off from the job server, but not from the lock nodes."""
        led, term = self.leading()
        led.home.mode = self.chance.choice(["drop", "swallow", "cut"])
        try:
            return self.until_led(term)
        finally:
            led.home.mode = "pass"

    def cut_one(self) -> None:
        """Cut the leader off from one lock node for a while."""
        led, _ = self.leading()
        with self._cut([self.chance.choice(led.ways)]):
            time.sleep(self.chance.uniform(0.5, 3))

    def kill_node(self) -> None:
        """Kill a lock node; it votes again when no lock that it forgot can still be held."""
        node = self.chance.choice(self.nodes)
        os.kill(node.pid() or 0, signal.SIGKILL)
        time.sleep(self.chance.uniform(0, 1))
        node.ensure()
        time.sleep(3.5)

    @contextmanager
    def _cut(self, ways: list[Proxy]) -> Iterator[None]:
        for way in ways:
            way.mode = self.chance.choice(["drop", "swallow"])
        try:
            yield
        finally:
            for way in ways:
                way.mode = "pass"


def each_second(name: str, number: int) -> Schedule:
    """A schedule that is due every second; every other one skips ticks while its last job is queued."""
    overlap = ("allow", "skip")[number % 2]
    return schedule(name, {"job": sample_jobs.noop.job.name, "cron": "* * * * * *", "overlap": overlap})


class Judge:
    """Compares the enqueued jobs with the ledgers, and collects the contradictions."""

    def __init__(self, client: Redis, schedules: int) -> None:
        self.client = client
        self.schedules = {f"s{number}": each_second(f"s{number}", number) for number in range(schedules)}
        self.upto: dict[str, int] = {}
        self.first: dict[str, int] = {}
        self.broken: list[str] = []
        self.did: Counter[str] = Counter()
        self.jobs: Counter[str] = Counter()

    def put_all(self) -> None:
        for each in self.schedules.values():
            schedule_store.put(self.client, each)

    def update(self) -> None:
        """Empty the queue, as if its jobs had been performed, and read on in the ledgers."""
        with self.client.pipeline() as pipeline:
            pipeline.lrange(keys.queue_key("default"), 0, -1)
            pipeline.delete(keys.queue_key("default"))
            for name in self.schedules:
                pipeline.lrange(schedule_ledger.ticks_key(name), -READ_AT_ONCE, -1)
            waiting, _, *ledgers = pipeline.execute()
        ids = [as_text(id) for id in waiting]
        if ids:
            self.client.delete(*map(keys.job_key, ids))
        self.jobs.update(ids)
        for name, entries in zip(self.schedules, ledgers, strict=True):
            for line in map(msgspec.json.decode, entries):
                self._read(name, line)

    def _read(self, name: str, line: dict[str, int | str]) -> None:
        tick, to = int(line["tick"]), int(line.get("to", line["tick"]))
        upto = self.upto.setdefault(name, tick - 1)
        self.first.setdefault(name, tick)
        if to <= upto:
            return
        if tick != upto + 1:
            self.broken.append(f"{name}: {tick} follows {upto}")
        self.upto[name] = to
        self.did[str(line["did"])] += to - tick + 1
        if line["did"] == "enqueued":
            id = str(line["job"])
            self.jobs[id] -= 1
            if id != self.schedules[name].job_id(tick):
                self.broken.append(f"{name}: tick {tick} has the job {id}")
        elif not line.get("why"):
            self.broken.append(f"{name}: tick {tick} was skipped for no reason")

    def conclude(self, began: int, ended: int) -> list[str]:
        """All contradictions, at the end of the run."""
        late = [name for name in self.schedules if self.first.get(name, ended) > began + 2]
        short = [name for name in self.schedules if self.upto.get(name, 0) < ended]
        odd = [
            f"{id}: {times + 1} jobs" if times > 0 else f"{id}: no job"
            for id, times in self.jobs.items()
            if times
        ]
        return [
            *self.broken,
            *(f"{name} started late" for name in late),
            *(f"{name} stopped" for name in short),
            *odd,
        ]


@dataclass
class Report:
    """The faults, the outcomes of the ticks, and the seconds without a leader."""

    faults: Counter[str]
    ticks: Counter[str]
    seconds: int
    took: list[float]
    broken: list[str]

    def __str__(self) -> str:
        took = sorted(self.took) or [0.0]
        done = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(self.faults.items()))
        ticks = ", ".join(f"{count:,} {did}" for did, count in sorted(self.ticks.items()))
        return (
            f"{self.faults.total()} faults in {self.seconds} s: {done}\n"
            f"ticks: {ticks}\n"
            f"until another led: median {statistics.median(took):.1f} s, "
            f"p99 {took[len(took) * 99 // 100]:.1f} s, longest {took[-1]:.1f} s"
        )


def run(faults: int, schedules: int, seed: int) -> Report:
    """Inject `faults` faults, and judge the ticks of `schedules` schedules."""
    with ExitStack() as closing:
        server, *nodes = [closing.enter_context(private_server()) for _ in range(4)]
        client = closing.enter_context(connect(server.url, Path("unused")))
        crew = Crew(client, server, nodes)
        closing.callback(crew.close)
        crew.chance.seed(seed)
        judge = Judge(client, schedules)
        crew.until_led()
        judge.put_all()
        began = int(client.time()[0])
        kinds: list[Callable[[], float | None]] = [
            crew.kill, crew.kill_any, crew.stop, crew.freeze, crew.freeze_briefly, crew.cut_off, crew.cut_one,
            crew.cut_from_redis, crew.kill_node,
        ]  # fmt: skip
        done: Counter[str] = Counter()
        took: list[float] = []
        for number in range(faults):
            fault = kinds[number] if number < len(kinds) else crew.chance.choice(kinds)
            span = fault()
            done[fault.__name__] += 1
            if span is not None:
                took.append(span)
            judge.update()
            time.sleep(crew.chance.uniform(0.2, 1.0))
        crew.until_led()
        ended = int(client.time()[0])
        deadline = time.monotonic() + 60
        while (
            any((entry.last or 0) < ended for entry in schedule_store.entries(client))
            and time.monotonic() < deadline
        ):
            time.sleep(0.1)
        for each in crew.all:
            each.process.send_signal(signal.SIGSTOP)
        judge.update()
        return Report(done, judge.did, ended - began, took, judge.conclude(began, ended))


def main() -> None:
    """Run, print the report, and exit with 1 if a promise was broken."""
    faults, schedules = (int(text) for text in [*sys.argv[1:], *("500", "100")[len(sys.argv) - 1 :]])
    seed = random.randrange(10**6)
    report = run(faults, schedules, seed)
    print(f"{schedules} schedules, {os.cpu_count()} cores, seed {seed}\n{report}")
    if report.broken:
        sys.exit("broken: " + "; ".join(report.broken[:20]))


if __name__ == "__main__":
    main()
