"""This checkout beside another one, for example the commit before a change, in turns in one run.

    python benchmarks/beside.py ../other-checkout [jobs] [rounds]

The other checkout needs its environment (`make .venv/.dev`). Each round measures every figure of each
checkout once, by its own code and on its own private server. The ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from harness import by_turns, machine, rate, ratio, table

from packmule import Client, job

ONE_BY_ONE = 5_000
LATENCIES = 500
BULKS = 7
"""Bulk enqueues of which the median counts, since one takes less time than a machine's moods last."""
FIGURES = (
    ("enqueue one by one, a second", 0),
    ("enqueue in bulk, a second", 0),
    ("perform, two workers, a second", 0),
    ("enqueue to start, p50 in ms", 3),
    ("memory of the pool, PSS in MiB", 1),
)
HERE = Path(__file__).parents[1]


@job
def noop() -> None:
    pass


@job
def stamp() -> float:
    return time.time()


def measure(jobs: int) -> list[float]:
    """The figures of the checkout whose interpreter runs this."""
    from packmule.coordination.redis.connection import connect
    from packmule.testing import private_server

    with private_server() as server, connect(None, server.data_dir) as redis:
        client = Client(redis)
        client.send(noop.job, [((), {})])  # loads the scripts
        one_by_one = rate(ONE_BY_ONE, lambda: [client.send(noop.job, [((), {})]) for _ in range(ONE_BY_ONE)])
        bulks = []
        for _ in range(BULKS):
            redis.flushall()
            bulks.append(rate(jobs, lambda: client.send(noop.job, [((), {})] * jobs)))
        bulk = statistics.median(bulks)
        took = _burst(server.data_dir)
        assert redis.zcard("rq:finished:default") == jobs
        performed = jobs / (took - _burst(server.data_dir))
        with _workers(server.data_dir) as pool:
            waits = [_wait(client) for _ in range(LATENCIES)]
            memory = _memory(pool.pid)
            pool.terminate()
    return [one_by_one, bulk, performed, 1000 * statistics.median(waits), memory]


def _workers(data_dir: Path, *options: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PACKMULE_DATA_DIR": str(data_dir), "PACKMULE_MODULES": "beside"}
    command = [
        str(Path(sys.executable).with_name("packmule")),
        "worker",
        "--processes",
        "2",
        "--no-scheduler",
        *options,
    ]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def _burst(data_dir: Path) -> float:
    """Seconds until the queue is empty, with those in which the workers start."""
    began = time.perf_counter()
    with _workers(data_dir, "--burst") as pool:
        pool.wait()
    return time.perf_counter() - began


def _wait(client: Client) -> float:
    """Seconds from an enqueue to the start of its job in an idle worker."""
    began = time.time()
    started = client.send(stamp.job, [((), {})])[0].result(timeout=10)
    time.sleep(0.002)
    return float(started) - began


def _memory(pid: int) -> float:
    """MiB of a process and its children, shared pages divided among those who share them."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for each in (pid, *children):
        rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
        total += int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:")))
    return total / 1024


def main(other: Path, jobs: int, rounds: int) -> None:
    """Measure both checkouts and print."""

    def figures(checkout: Path) -> list[float]:
        python = checkout / ".venv" / "bin" / "python"
        environment = {**os.environ, "PYTHONPATH": str(HERE / "benchmarks")}
        code = f"import json, beside; print(json.dumps(beside.measure({jobs})))"
        reply = subprocess.run([python, "-c", code], env=environment, check=True, stdout=subprocess.PIPE)
        found: list[float] = json.loads(reply.stdout)
        return found

    found = by_turns({"other": lambda: figures(other.resolve()), "this": lambda: figures(HERE)}, rounds)
    print(f"{machine('rq', 'redis')}; {jobs:,} jobs, medians of {rounds} rounds\n")
    rows = []
    for number, (name, digits) in enumerate(FIGURES):
        ours = [each[number] for each in found["this"]]
        theirs = [each[number] for each in found["other"]]
        shown = [f"{statistics.median(each):,.{digits}f}" for each in (theirs, ours)]
        rows.append((name, *shown, f"{ratio(ours, theirs):.3f}"))
    table(("", "other", "this", "ratio"), rows)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("give the other checkout: python benchmarks/beside.py ../other-checkout [jobs] [rounds]")
    numbers = [int(word) for word in sys.argv[2:]]
    main(Path(sys.argv[1]), *(numbers + [40_000, 5][len(numbers) :]))
