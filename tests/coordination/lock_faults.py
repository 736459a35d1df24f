"""The locks' fault run: processes count under a lock of five nodes while nodes, holders and clocks fail.

    python tests/coordination/lock_faults.py [events of each kind] [seconds at most]

A minute makes some thirty events of each kind. With libfaketime, at FAKETIME_LIBRARY, one clock jumps.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.testing import private_server
from packmule.tests.coordination.lock_proxy import Proxy

LIBRARY = os.environ.get("FAKETIME_LIBRARY", "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
WORKER = Path(__file__).with_name("lock_worker.py")


@dataclass(frozen=True)
class Report:
    """How often each fault was injected, what the processes recorded, and whether the counters are right."""

    events: dict[str, int]
    noted: dict[str, int]
    writes: int
    lost: int
    plain_writes: int
    plain_lost: int
    stale_refused: int
    tokens_rise: bool


def run(events: int, seconds: float = 600.0, processes: int = 6, writes: int = 20) -> Report:
    """Inject each fault `events` times, or until `seconds` are over, and count lost writes.

    It goes on without faults until there are more than `writes`.
    """
    with ExitStack() as closing:
        servers = [closing.enter_context(private_server()) for _ in range(6)]
        *nodes, home = servers
        proxies = [Proxy(node.data_dir / "proxy.sock", node.socket_path) for node in nodes[:2]]
        for proxy in proxies:
            closing.callback(proxy.close)
        resource = closing.enter_context(redis.Redis.from_url(home.url))
        urls = [*(proxy.url for proxy in proxies), *(node.url for node in nodes[2:])]
        clock = home.data_dir / "clock"
        notes = home.data_dir / "notes"
        workers = [start(name, home, urls, clock, notes) for name in range(processes)]
        closing.callback(lambda: [worker.kill() for worker in workers])
        try:
            done = break_things(events, seconds, nodes, proxies, workers, resource, clock)
            wait_for(lambda: int(resource.get("fenced") or 0) > writes)
        finally:
            resource.set("stop", 1)
        for worker in workers:
            worker.wait(60)
        output = [line.split() for line in notes.read_text().splitlines()]
        assert all(worker.returncode == 0 for worker in workers), "a process failed"
        return judge(done, output, resource)


def start(
    name: int, home: EmbeddedServer, urls: list[str], clock: Path, notes: Path
) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    if name == 0 and Path(LIBRARY).exists():
        clock.write_text("+0")
        environment |= {
            "LD_PRELOAD": LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    command = [sys.executable, str(WORKER), str(name), home.url, *urls]
    with notes.open("ab") as file:
        return subprocess.Popen(command, env=environment, stdout=file)


def break_things(
    events: int,
    seconds: float,
    nodes: list[EmbeddedServer],
    proxies: list[Proxy],
    workers: list[subprocess.Popen[bytes]],
    resource: redis.Redis,
    clock: Path,
) -> dict[str, int]:
    """Break a minority of nodes, the holder and the clock concurrently; returns how often each."""

    def stop_nodes(sent: signal.Signals) -> None:
        broken = random.sample(nodes, random.choice((1, 2)))
        for node in broken:
            os.kill(node.pid(), sent)
        time.sleep(random.uniform(0.02, 0.4))
        for node in broken:
            if sent == signal.SIGSTOP:
                os.kill(int((node.data_dir / "server.pid").read_text()), signal.SIGCONT)
            node.ensure()

    def disturb(mode: str) -> None:
        broken = random.sample(proxies, random.choice((1, 2)))
        for proxy in broken:
            proxy.mode = mode
        time.sleep(random.uniform(0.02, 0.4))
        for proxy in broken:
            proxy.mode = "pass"

    def freeze() -> None:
        name = random.randrange(len(workers))
        resource.set(f"freeze:{name}", 1)
        wait_for(lambda: not resource.exists(f"freeze:{name}"))
        token = resource.get("pm:fenced:{fenced}")
        wait_for(lambda: resource.get("pm:fenced:{fenced}") != token)
        wait_for(lambda: "\nState:\tT" in Path(f"/proc/{workers[name].pid}/status").read_text())
        os.kill(workers[name].pid, signal.SIGCONT)

    def move_clock() -> None:
        clock.write_text(f"{random.choice(('+', '-'))}{random.randrange(100_000)}")
        time.sleep(0.2)

    groups: list[dict[str, Callable[[], None]]] = [
        {
            "paused": lambda: stop_nodes(signal.SIGSTOP),
            "killed": lambda: stop_nodes(signal.SIGKILL),
            "slow": lambda: disturb("slow"),
            "reply swallowed": lambda: disturb("swallow"),
            "connection cut": lambda: disturb("cut"),
        },
        {"holder frozen": freeze},
        {"clock moved": move_clock} if clock.exists() else {},
    ]
    ends = time.monotonic() + seconds
    done: dict[str, int] = {}
    failed: list[Exception] = []

    def drive(faults: dict[str, Callable[[], None]]) -> None:
        try:
            for _ in range(events):
                for kind, fault in faults.items():
                    if time.monotonic() > ends or failed:
                        return
                    fault()
                    done[kind] = done.get(kind, 0) + 1
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=drive, args=(group,)) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return done


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "a process does not go on"
        time.sleep(0.01)


def judge(done: dict[str, int], noted: list[list[str]], resource: redis.Redis) -> Report:
    """Compare what the processes recorded with what is stored."""
    writes = sorted((int(line[1]), int(line[2])) for line in noted if line[0] == "wrote")
    counts = Counter(line[0] for line in noted)
    plain = counts["plain"] + counts["late"]
    assert not [line for line in noted if line[0] == "child" and line[1] != "0"], "a forked child failed"
    return Report(
        events=done,
        noted=dict(counts),
        writes=len(writes),
        lost=len(writes) - int(resource.get("fenced") or 0),
        plain_writes=plain,
        # One that ended after its lock may have undone those of others.
        plain_lost=0 if counts["late"] else plain - int(resource.get("plain") or 0),
        stale_refused=counts["Overtaken"],
        tokens_rise=all(low < high for (_, low), (_, high) in pairwise(writes)),
    )


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 600.0
    begun = time.monotonic()
    report = run(events, seconds)
    print(f"{time.monotonic() - begun:.0f} s, {os.cpu_count()} cores, 6 processes, 5 nodes")
    for name, value in vars(report).items():
        print(f"{name:16} {value}")
    if report.lost or report.plain_lost or not report.tokens_rise:
        sys.exit("an update was lost, or a stale write came through")


if __name__ == "__main__":
    main()
