"""How long commands take from start to end, beside an interpreter that does nothing.

python benchmarks/start_up.py [rounds]

`packmule` is the script of this environment. The server has finished jobs and no worker.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from bench_jobs import noop
from harness import arguments, by_turns, client_of, machine, table

from packmule.config import child_environment
from packmule.jobs.client import Client
from packmule.testing import private_server

JOBS = 1_000


def seconds(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """How long a command takes, and how long it computes."""
    before, began = os.times(), time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(words, env=environment, check=True, **quiet)
    took, after = time.perf_counter() - began, os.times()
    return took, sum(after[2:4]) - sum(before[2:4])


def main(rounds: int) -> None:
    """Measure and print."""
    packmule = str(Path(sys.executable).with_name("packmule"))
    with private_server() as server, client_of(server) as client:
        Client(client).enqueue_many(noop, [{}] * JOBS)
        environment = child_environment(PACKMULE_REDIS_URL=server.url)
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "packmule --help": [packmule, "--help"],
            "packmule status": [packmule, "status"],
            "packmule job list": [packmule, "job", "list"],
        }
        timed = {name: partial(seconds, words, environment) for name, words in commands.items()}
        for command in timed.values():
            command()  # writes the compiled modules
        figures = by_turns(timed, rounds)
        print(f"{machine('click', client=client)}; {JOBS:,} jobs wait; {rounds} rounds\n")
    rows = []
    for name, values in figures.items():
        took, computed = zip(*values, strict=True)
        shown = min(took), statistics.median(took), statistics.median(computed)
        rows.append((name, *(f"{1000 * each:.0f} ms" for each in shown)))
    table(("", "least", "median", "of the processor"), rows)


if __name__ == "__main__":
    main(*arguments(20))
