"""A storage in S3 beside bare boto3: MB/s of uploads and downloads, and how much memory they take.

    python benchmarks/storage.py [megabytes] [runs]

A file (200 MB by default) goes to an S3 server, moto's, in a process of its own on this machine, and comes
back, `runs` times (3 by default) each way, by turns; the median is printed. Each transfer is one of a fresh
process that has sent and read a small file before. Memory is by how much its peak grew. The server takes a
processor for itself, and holds the files in its memory or its temporary files: it, not the network, sets the
pace.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from harness import arguments, by_turns, machine, ratio, table

from packmule.tests.jobs.s3_server import ENVIRONMENT, s3_server

MB = 1_000_000
BUCKET = "benchmark"

TRANSFER = """
import os, resource, sys, time
way, direction, local = sys.argv[1:]
if way == "boto3":
    import boto3
    client = boto3.client("s3")
    up = lambda file, key: client.upload_file(file, "benchmark", key)
    down = lambda key, file: client.download_file("benchmark", key, file)
else:
    from packmule.jobs.storage import Storage
    storage = Storage("s3://benchmark")
    def up(file, key):
        with storage.write(key) as target:
            os.link(file, target)  # a job writes it there
    def down(key, file):
        with storage.read(key) as found:
            pass
small = local + ".small"
open(small, "wb").write(b"x")
up(small, way + "-small")
down(way + "-small", local + ".back")
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
up(local, way) if direction == "up" else down(way, local + ".back")
took = time.perf_counter() - began
print(took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


class Transfer(NamedTuple):
    """MB/s, and by how many MB the peak of memory grew."""

    pace: float
    memory: float


def transfer(way: str, direction: str, local: Path) -> Transfer:
    command = [sys.executable, "-c", TRANSFER, way, direction, str(local)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, kilobytes = map(float, done.stdout.split())
    return Transfer(local.stat().st_size / MB / seconds, kilobytes * 1024 / MB)


def main() -> None:
    megabytes, runs = arguments(200, 3)
    with tempfile.TemporaryDirectory() as folder, s3_server() as port:
        os.environ |= {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        import boto3

        boto3.client("s3").create_bucket(Bucket=BUCKET)
        local = Path(folder) / "file"
        with local.open("wb") as file:
            for _ in range(int(megabytes)):
                file.write(os.urandom(MB))
        print(machine("boto3", "s3fs", "moto"))
        rows = []
        for direction in ("up", "down"):
            ways: dict[str, Callable[[], Transfer]] = {
                way: partial(transfer, way, direction, local) for way in ("boto3", "packmule")
            }
            found = by_turns(ways, int(runs))
            bases = [each.pace for each in found["boto3"]]
            for way, transfers in found.items():
                paces = [each.pace for each in transfers]
                memory = statistics.median(each.memory for each in transfers)
                share = f"{ratio(paces, bases):.0%}"
                rows.append((way, direction, f"{statistics.median(paces):.0f}", share, f"{memory:.0f}"))
        table(("way", "direction", "MB/s", "of boto3", "memory, MB"), rows)


if __name__ == "__main__":
    main()
