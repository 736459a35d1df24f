"""Instructions that the server executes per job, as `valgrind` counts them: the same on a busy machine.

    python benchmarks/instructions.py [jobs]

A claim acknowledges the jobs of the claim before. Of all instructions, "commands" are those of the commands
that a script calls, without their way in and out of Lua, "the file" those that write the append-only file,
and "memory" those that allocate and free, wherever they are called. Instructions are not time: a job of a
claim of one takes longer than they say, because the caches have lost meanwhile what it needs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import bench_jobs
from harness import arguments, machine, table
from redis import ConnectionError as Refused
from redis import Redis

from packmule.coordination.redis import compact, embedded_server
from packmule.jobs.client import Client
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import finished

Counter = Callable[[Callable[[], object]], dict[str, int]]

ALL = "PROGRAM TOTALS"
PARTS = {
    "commands": ("call'2",),
    "the file": ("feedAppendOnlyFile",),
    "memory": ("malloc", "realloc", "free"),
}
"""The server's functions whose instructions, with those of what they call, make up a part."""

MOST_IN_CLAIM = 64
CHUNK = 500
FEW = 128


@contextmanager
def counted_server() -> Iterator[tuple[Redis, Counter]]:
    """A client of a server under valgrind, and what counts its instructions by function during a call."""
    with tempfile.TemporaryDirectory(prefix="packmule-") as name:
        folder = Path(name)
        options = {
            "dir": name,
            "port": 0,
            "unixsocket": folder / "sock",
            "appendonly": "yes",
            "save": "",
            "hz": 1,
            **compact.SETTINGS,
        }
        server = subprocess.Popen(
            [
                "valgrind",
                "--tool=callgrind",
                "--instr-atstart=no",
                f"--callgrind-out-file={folder / 'counts'}",
                embedded_server._binary(),
                *(str(word) for key, value in options.items() for word in (f"--{key}", value)),
            ],
            env=compact.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def control(*words: str) -> None:
            command = ["callgrind_control", *words, str(server.pid)]
            subprocess.run(command, check=True, capture_output=True)

        def count(call: Callable[[], object]) -> dict[str, int]:
            control("--instr=on")
            call()
            control("--instr=off")
            control("--dump")
            newest = max(folder.glob("counts.*"), key=lambda path: int(path.suffix[1:]))
            command = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(newest)]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            lines = re.findall(r"^ *([\d,]+) \([ \d.]+%\)  (?:\S+:)?(.+?)(?: \[.*)?$", text, re.MULTILINE)
            # The largest come first; a name may stand for several functions.
            return {name: int(number.replace(",", "")) for number, name in reversed(lines)}

        try:
            client = Redis(unix_socket_path=str(folder / "sock"))
            while True:
                try:
                    client.ping()
                    break
                except Refused:
                    if server.poll() is not None:
                        sys.exit("the server did not start under valgrind")
                    time.sleep(0.1)
            yield client, count
        finally:
            server.kill()
            server.wait()


def enqueue(client: Redis, count: int, at_once: int) -> None:
    """Enqueue no-op jobs, `at_once` a call."""
    send = Client(client).send
    for _ in range(0, count, at_once):
        send(bench_jobs.noop.job, [((), {})] * at_once)


def perform(claims: Claims, count: int, most: int) -> None:
    """Claim `count` jobs, `most` at once, and acknowledge each as finished."""
    outcomes: list[Outcome] = []
    while count > 0 or outcomes:
        jobs: list[Claimed] = claims.finish_and_claim(claims.next_id(), outcomes, min(most, count)).jobs
        now = time.time()
        outcomes = [finished(job, b"null", now, now) for job in jobs]
        count -= len(jobs)


def main(count: int) -> None:
    """Count for each way that a job goes, and print a table."""
    if not shutil.which("valgrind"):
        sys.exit("valgrind is not installed: no instructions are counted")
    count -= count % MOST_IN_CLAIM
    in_chunks = CHUNK * (count // CHUNK + 1)
    with counted_server() as (client, counted):
        print(f"{machine('redis', client=client)}; {count:,} jobs\n")
        claims = Claims(client, "w1", Strict(["default"]))
        enqueue(client, FEW, 1)
        perform(claims, FEW, 1)  # the scripts are loaded now
        ways: dict[str, tuple[int, Callable[[], object]]] = {
            "enqueue one": (count, lambda: enqueue(client, count, 1)),
            f"claims of {MOST_IN_CLAIM}": (count, lambda: perform(claims, count, MOST_IN_CLAIM)),
            f"enqueue {CHUNK} at once": (in_chunks, lambda: enqueue(client, in_chunks, CHUNK)),
            "claims of 1": (count, lambda: perform(claims, count, 1)),
        }
        rows = [(name, *_shown(counted(way), jobs)) for name, (jobs, way) in ways.items()]
    table(("the server's instructions", "a job", *PARTS), rows)


def _shown(counts: dict[str, int], jobs: int) -> Iterator[str]:
    """The instructions of a job, and what share of them each part has."""
    yield f"{counts[ALL] / jobs:,.0f}"
    for names in PARTS.values():
        yield f"{sum(counts[name] for name in names) / counts[ALL]:.0%}"


if __name__ == "__main__":
    main(*arguments(640))
