"""The batches' fault run: batches under load, while workers, pools and the server are killed.

    python tests/worker/batch_faults.py [worker kills] [server kills]

At its end each batch must have counted each of its jobs once, and have enqueued each callback once.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.drill import job_states
from packmule.jobs import reader
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.scheduler.scheduler import Scheduler
from packmule.testing import private_server
from packmule.tests.fork_server import Forked
from packmule.tests.worker import batch_jobs
from packmule.tests.worker.pools import children_of, is_alive

POOLS, PROCESSES, JOBS = 2, 2, 150
RUNNING_BATCHES = 4
SECONDS_BETWEEN = 0.2
LONGEST_END = 60.0


def start(server: EmbeddedServer, log: Path) -> subprocess.Popen[bytes]:
    """A pool in a session of its own."""
    command = ["packmule.tests.worker.run_pool", server.url, str(PROCESSES), "grace=2"]
    with log.open("ab") as output:
        return Forked(command, start_new_session=True, stderr=output)


def kill_server(server: EmbeddedServer) -> None:
    """Kill it, and start it on the data that it left."""
    pid = server.pid()
    if pid:
        os.kill(pid, signal.SIGKILL)
        while is_alive(pid):
            time.sleep(0.005)
    server.ensure()


def fill(notes: Path, number: int) -> Batch:
    """A batch with its jobs, sealed; each call is made again while the server is unavailable."""
    callback = batch_jobs.report.prepare(str(notes), str(number))
    batch = retry_until_available(lambda: Batch.create(str(number), on_complete=callback))
    for part in range(3):
        ids = [f"b{number}-{part}-{n}" for n in range(JOBS // 3)]
        for id in ids:
            # A chosen id makes it safe to enqueue again.
            retry_until_available(
                lambda id=id: batch_jobs.nap.options(batch=batch.id, job_id=id, retries=3).enqueue(0.01)
            )
    retry_until_available(batch.seal)
    return batch


def retry_until_available(call):
    """Repeat a call until the server answers."""
    while True:
        try:
            return call()
        except RedisError:
            time.sleep(0.05)


def strike(
    server: EmbeddedServer, pools: list[subprocess.Popen[bytes]], server_share: float, dice: random.Random
) -> str:
    """Kill the server or a worker; which."""
    if dice.random() < server_share:
        kill_server(server)
        return "server"
    workers = [pid for pool in pools for pid in children_of(pool.pid)]
    if not workers:
        return "nobody"
    with suppress(ProcessLookupError):
        os.kill(dice.choice(workers), signal.SIGKILL)
    return "worker"


def run(worker_kills: int, server_kills: int, seed: int = 1) -> tuple[list[str], dict[str, object]]:
    """What was broken, and what was done."""
    dice = random.Random(seed)
    faults: Counter[str] = Counter()
    with ExitStack() as stack:
        server = stack.enter_context(private_server())
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        client = stack.enter_context(connect(None, server.data_dir))
        Client(client).make_default()
        pools = [start(server, place / "log") for _ in range(POOLS)]
        stack.callback(lambda: [end(pool) for pool in pools])
        scheduler = Scheduler(client)
        batches: list[Batch] = []
        running: list[Batch] = []
        struck_at = 0.0
        while (wanted := faults["worker"] + faults["server"] < worker_kills + server_kills) or running:
            with suppress(RedisError):
                scheduler.step()
                running = [batch for batch in running if batch.state().ended is None]
            if wanted and len(running) < RUNNING_BATCHES:
                batches.append(fill(place / "notes", len(batches)))
                running.append(batches[-1])
            if wanted and time.monotonic() - struck_at > SECONDS_BETWEEN:
                struck_at = time.monotonic()
                faults[strike(server, pools, server_kills / (worker_kills + server_kills), dice)] += 1
            if not wanted and time.monotonic() - struck_at > LONGEST_END:
                break
            time.sleep(0.02)
        broken = [f"batch {batch.state().name} never ended" for batch in running]
        broken += miscounted(client, batches) + miscalled(client, place / "notes", len(batches))
        return broken, {"batches": len(batches), "jobs": JOBS * len(batches), "faults": dict(faults)}


def miscounted(client: Redis, batches: list[Batch]) -> list[str]:
    """The batches whose counts are not those of their jobs' records."""
    found = []
    for number, batch in enumerate(batches):
        ids = [f"b{number}-{part}-{n}" for part in range(3) for n in range(JOBS // 3)]
        ended = Counter(state.status for state in job_states.states(client, ids).values())
        counts = batch.state().counts
        if counts.total != JOBS or counts.pending or counts.done != ended["finished"]:
            found.append(f"batch {number}: {counts}, and in the records {dict(ended)}")
    return found


def miscalled(client: Redis, notes: Path, count: int) -> list[str]:
    """The batches whose callback did not run, or was enqueued twice."""
    deadline = time.monotonic() + LONGEST_END
    ran: set[str] = set()
    while time.monotonic() < deadline and len(ran) < count:
        time.sleep(0.2)
        ran = {line.partition(":")[0] for line in notes.read_text().splitlines()} if notes.exists() else set()
    # One that was in flight at a kill runs again, but there is one job of it.
    jobs = Counter(
        str(record.args[1])
        for id in reader.ids(client, "default", "finished", 1_000_000)
        if "-" not in id  # the ids of the batch's jobs were chosen
        and (record := reader.read_if_there(client, id))
        and record.name == "packmule.tests.worker.batch_jobs.report"
    )
    never = [f"batch {number} was never called back" for number in range(count) if str(number) not in ran]
    return never + [
        f"batch {name} was called back {times} times" for name, times in jobs.items() if times > 1
    ]


def end(pool: subprocess.Popen[bytes]) -> None:
    """Kill a pool with its children."""
    with suppress(ProcessLookupError):
        os.killpg(pool.pid, signal.SIGKILL)
    pool.wait()


def main() -> None:
    """Run, print, and exit with 1 if something was broken."""
    worker_kills, server_kills = (int(text) for text in [*sys.argv[1:], "200", "20"][:2])
    if len(sys.argv) == 2:
        server_kills = worker_kills // 10
    begun = time.monotonic()
    broken, done = run(worker_kills, server_kills, seed=int(begun))
    print(f"{time.monotonic() - begun:.0f} s, {os.cpu_count()} cores, {POOLS} pools of {PROCESSES}: {done}")
    if broken:
        sys.exit("broken: " + "; ".join(broken))


if __name__ == "__main__":
    main()
