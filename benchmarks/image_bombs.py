"""What small jobs wait for beside images that take long: enqueue to start, in milliseconds.

    python benchmarks/image_bombs.py [jobs] [rounds]

Each way has a pool of two processes that serves the queue `high` before `default`, and 200 small jobs of
`high`, one after the other, by turns with the other ways, 3 times. *Idle* has nothing beside them. *Bombs*
are legal JPEGs of 10 megapixels in 98 scans, of which each process always performs one. *Damaged* are small
images of all formats as `tests/jobs/image_fuzz.py` makes them, of which some are always waiting.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench_jobs import stamp
from harness import PROCESSES, arguments, by_turns, client_of, machine, table
from PIL import Image
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import context, keys
from packmule.jobs.client import Client
from packmule.jobs.image import image
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import Storage
from packmule.tests.jobs.image_fuzz import damaged, sources
from packmule.tests.jobs.pictures import saved, with_scans
from packmule.worker.options import WorkerOptions
from packmule.worker.pool.pool import Pool

QUEUES = ["high", "default"]
PAUSE = 0.01
MOST_WAITING = 20


@contextmanager
def pool(server: EmbeddedServer) -> Iterator[None]:
    """A pool in a process of its own."""
    child = os.fork()
    if not child:
        logging.disable()
        options = WorkerOptions(job_log_level=100)
        os._exit(Pool(lambda: client_of(server), QUEUES, PROCESSES, options, grace=0).run())
    try:
        yield
    finally:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


def supply(client: Redis, names: list[str], over: threading.Event) -> None:
    """Keep image jobs waiting, each of which is a new one."""
    number = 0
    while not over.wait(PAUSE):
        while int(client.llen(keys.queue_key("default"))) < MOST_WAITING:  # type: ignore[arg-type]
            image.options(result_ttl=0, failure_ttl=1).enqueue(
                names[number % len(names)], [{"width": 100, "quality": 1 + number // len(names) % 100}]
            )
            number += 1


def waits(server: EmbeddedServer, client: Redis, names: list[str], count: int) -> list[float]:
    """What each of the small jobs waited for, beside images of these names."""
    client.flushdb()
    over = threading.Event()
    supplier = threading.Thread(target=supply, args=[client, names, over])
    found = []
    with pool(server):
        stamp.options(queue="high").enqueue().result(timeout=60)
        if names:
            supplier.start()
            while int(client.scard(keys.WORKERS)) < PROCESSES:  # type: ignore[arg-type]
                time.sleep(PAUSE)
            time.sleep(1)  # until each performs one
        for _ in range(count):
            time.sleep(PAUSE)
            began = time.time()
            found.append(1000 * (stamp.options(queue="high").enqueue().result(timeout=60) - began))
        over.set()
        if names:
            supplier.join()
    return found


def percentile(values: list[float], part: float) -> str:
    return f"{sorted(values)[min(len(values) - 1, int(part * len(values)))]:.1f}"


def main() -> None:
    count, rounds = arguments(200, 3)
    folder = Path(tempfile.mkdtemp())
    server = EmbeddedServer(folder / "server")
    try:
        client = client_of(server)
        Client(client).make_default()
        storage = Storage(str(folder / "files"))
        context.provide(storage, InputLimits(10**9, 1, 50_000_000))
        noise = Image.effect_noise((1250, 1000), 90).convert("RGB").resize((3600, 2770))
        storage.write_bytes("bomb.jpg", with_scans(saved(noise, "JPEG", progressive=True), 88))
        fuzzed = []
        for name, data in sources().items():
            for seed in range(20):
                fuzzed.append(f"{name} {seed}")
                storage.write_bytes(fuzzed[-1], damaged(data, seed))
        beside = {"idle": [], "2 bombs at a time": ["bomb.jpg"], "damaged images": fuzzed}
        ways: dict[str, Callable[[], list[float]]] = {
            name: partial(waits, server, client, names, count) for name, names in beside.items()
        }
        found = {
            name: [each for some in rounds for each in some]
            for name, rounds in by_turns(ways, rounds).items()
        }
        print(machine("pillow", client=client))
        columns = ["beside", *(f"p{part}" for part in (50, 90, 99)), "longest", "longer than idle (p99)"]
        idle = float(percentile(found["idle"], 0.99))
        rows = [
            [
                name,
                *(percentile(values, part) for part in (0.5, 0.9, 0.99, 1.0)),
                f"{float(percentile(values, 0.99)) - idle:+.1f}",
            ]
            for name, values in found.items()
        ]
        table(columns, rows)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
