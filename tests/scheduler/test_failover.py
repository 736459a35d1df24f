"""Three schedulers that are killed and frozen: every tick is enqueued once, or skipped as the ledger says."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sample_jobs
from redis import Redis

import scheduler
from coordination.connection import connect
from coordination.server import EmbeddedServer
from jobs import wire
from scheduler import book
from scheduler.leader import TERM, leader
from scheduler.schedule import schedule

ROOT = Path(scheduler.__file__).parents[1]
PROGRAM = """
import sys
from pathlib import Path
sys.path.append("tests/jobs")
import sample_jobs
from coordination.connection import connect, lock_clients
from jobs.producer import Producer
from scheduler import Scheduler
from scheduler.ticks import Ticker

url, *nodes = sys.argv[1:]
with connect(url, Path("unused"), socket_timeout=5) as client:
    Scheduler(client, lock_clients(nodes, url, Path("unused")), Ticker(client, Producer(client))).run()
"""
SCHEDULES = 20
SECONDS = float(os.environ.get("PACKMULE_TEST_FAILOVER_SECONDS", "12"))
FAILOVER = 5.0


class Crew:
    """Three schedulers, one of them leading, and what can be done to them."""

    def __init__(self, client: Redis, urls: list[str]) -> None:
        self.client = client
        self.urls = urls
        self.processes = [self.start() for _ in range(3)]

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", PROGRAM, *self.urls], cwd=ROOT)

    def leading(self) -> int | None:
        """Which of them leads."""
        found = leader(self.client)
        return next(
            (n for n, each in enumerate(self.processes) if found and f".{each.pid}." in found.name), None
        )

    def until_led(self, other_than: str = "") -> float:
        """Wait for a leader in a term other than that; how long it took."""
        began = time.monotonic()
        while (found := leader(self.client)) is None or found.term == other_than:
            assert time.monotonic() < began + 30, "nobody leads"
            time.sleep(0.01)
        return time.monotonic() - began

    def kill(self) -> float:
        """Kill the leader, and start another in its place; how long until one led."""
        number, term = self.leading(), getattr(leader(self.client), "term", "")
        if number is None:
            return 0.0
        self.processes[number].kill()
        took = self.until_led(term)
        self.processes[number].wait()
        self.processes[number] = self.start()
        return took

    def freeze(self) -> float:
        """Freeze the leader for longer than its term, and let it go on beside the next."""
        number, term = self.leading(), getattr(leader(self.client), "term", "")
        if number is None:
            return 0.0
        self.processes[number].send_signal(signal.SIGSTOP)
        try:
            return self.until_led(term)
        finally:
            self.processes[number].send_signal(signal.SIGCONT)

    def stop(self) -> float:
        """Stop the leader in order, and start another."""
        number, term = self.leading(), getattr(leader(self.client), "term", "")
        if number is None:
            return 0.0
        self.processes[number].terminate()
        took = self.until_led(term)
        assert self.processes[number].wait(timeout=10) == 0
        self.processes[number] = self.start()
        return took


@pytest.fixture
def crew(server: EmbeddedServer, client: Redis) -> Iterator[Crew]:
    crew = Crew(client, [server.url])
    yield crew
    for process in crew.processes:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def put_all(client: Redis) -> None:
    for number in range(SCHEDULES):
        policy = ("allow", "skip")[number % 2]
        table = {"job": sample_jobs.noop.job.name, "cron": "* * * * * *", "overlap": policy}
        book.put(client, schedule(f"s{number}", table))


def check_all(client: Redis, began: int) -> int:
    """That each tick since stands in the ledger once, and its job was enqueued once; how many there were."""
    listed = Counter(wire.text(id) for id in client.lrange(wire.queue_key("default"), 0, -1))
    assert not [id for id, times in listed.items() if times > 1]
    enqueued = 0
    for number in range(SCHEDULES):
        lines = book.ledger(client, f"s{number}")
        told = [tick for line in lines for tick in range(line["tick"], line.get("to", line["tick"]) + 1)]
        assert told == list(range(told[0], told[-1] + 1)), "a tick is missing or told twice"
        assert told[0] <= began + 2
        jobs = [line["job"] for line in lines if line["did"] == "enqueued"]
        assert [id for id in jobs if not listed.pop(id, 0)] == []
        assert all(line.get("why") for line in lines if line["did"] == "skipped")
        enqueued += len(jobs)
    assert not listed, "a job of no tick"
    return enqueued


def test_every_tick_is_enqueued_once_or_skipped_though_leaders_are_killed_and_frozen(client, server, crew):
    crew.until_led()
    put_all(client)
    began = int(client.time()[0])
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    took = []
    while time.time() < began + SECONDS:
        fault = chance.choice([crew.kill, crew.freeze, crew.stop])
        took.append(fault())
        time.sleep(chance.uniform(0.3, 1.2))
    crew.until_led()
    ended = int(client.time()[0])
    deadline = time.monotonic() + 20
    while any((entry.last or 0) < ended for entry in book.entries(client)):
        assert time.monotonic() < deadline, "the ticks stand still"
        time.sleep(0.05)
    for process in crew.processes:
        process.send_signal(signal.SIGSTOP)
    enqueued = check_all(client, began)
    print(
        f"seed {seed}: {len(took)} faults, longest without a leader {max(took):.1f} s, "
        f"{enqueued} jobs of {SCHEDULES} schedules in {ended - began} s"
    )
    assert enqueued > SCHEDULES / 2 * SECONDS / 2
    assert max(took) < FAILOVER + 2  # on a machine that others keep busy
    assert TERM < FAILOVER


def test_leadership_moves_at_once_on_a_clean_stop(client, server, crew):
    crew.until_led()
    time.sleep(1.5)  # the others have begun to ask
    assert crew.stop() < TERM / 2


def test_a_minority_of_lock_nodes_away_changes_nothing(client, spare_server):
    nodes = [spare_server() for _ in range(3)]
    crew = Crew(client, [nodes[0].url, *(node.url for node in nodes)])
    try:
        with connect(nodes[0].url, Path("unused")) as own:
            crew.client = own
            crew.until_led()
            put_all(own)
            nodes[2].stop()
            crew.kill()
            began = int(own.time()[0])
            deadline = time.monotonic() + 20
            while any((entry.last or 0) < began + 2 for entry in book.entries(own)):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            for process in crew.processes:
                process.send_signal(signal.SIGSTOP)
            assert check_all(own, began) > 0
    finally:
        for process in crew.processes:
            process.kill()
            process.wait()
