"""How far one plain job travels through the code: moves between files, and files visited.

    python benchmarks/journey.py

A move is a call or a return from one file to another, on the thread that enqueues and performs. Starting
and stopping the worker are left out: the figures are those of one job more, in a worker that claims one at
a time.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import bench_jobs
from harness import table

import packmule
from packmule import Client
from packmule.config import Settings
from packmule.testing import private_server
from packmule.worker.options import WorkerOptions
from packmule.worker.order import Strict
from packmule.worker.process.worker import Worker
from packmule.worker.registration import Registration
from packmule.worker.scoreboard import Scoreboard

ROOT = Path(packmule.__file__).parent
OURS = tuple(f"{ROOT}/{room}/" for room in ("coordination", "jobs", "observe", "worker"))
JOBS = 10


def visits(jobs: int, client: Client) -> Counter[str]:
    """How often each file is entered while `jobs` jobs are enqueued one by one and performed."""
    entered: Counter[str] = Counter()
    last = ""

    def follow(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal last
        now = frame if event == "call" else frame.f_back if event == "return" else None
        path = now.f_code.co_filename if now else ""
        if path != last and path.startswith(OURS):
            last = path
            entered[str(Path(path).relative_to(ROOT))] += 1

    redis, name, queues = client.redis, "journey", ["default"]
    options, registration = WorkerOptions(most=1, burst=True), Registration(redis, name, queues)
    worker = Worker(redis, name, queues, Strict(queues), options, registration, Scoreboard.of_worker(1, 1))
    sys.setprofile(follow)
    try:
        for _ in range(jobs):
            client.enqueue(bench_jobs.noop)
        worker.run()
    finally:
        sys.setprofile(None)
    return entered


def main() -> None:
    """Print the files that one job passes, the most visited first."""
    with private_server() as server, Client(Settings(data_dir=server.data_dir)) as client:
        visits(1, client)  # what is done once in a process
        few, many = visits(1, client), visits(1 + JOBS, client)
    each = {path: (many[path] - few[path]) / JOBS for path in many if many[path] - few[path] >= JOBS}
    rows = [(path, f"{count:.1f}") for path, count in sorted(each.items(), key=lambda item: -item[1])]
    table(("file", "visits a job"), rows)
    print(summary(each))
    worker = {path: count for path, count in each.items() if path.startswith("worker/")}
    print(f"of these under worker/: {summary(worker)}")


def summary(visits: Mapping[str, float]) -> str:
    """How many moves and files these are."""
    return f"{sum(visits.values()):.0f} moves between {len(visits)} files"


if __name__ == "__main__":
    main()
