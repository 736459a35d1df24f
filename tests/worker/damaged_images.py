"""Damaged images by the hundred in one isolated process: it goes on, and its memory doesn't grow.

    python tests/worker/damaged_images.py [images of each kind]

A worker performs them one after the other. Their damage is that of `tests/jobs/image_fuzz.py`.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from packmule.coordination.redis.connection import connect
from packmule.jobs import keys
from packmule.jobs.client import Client
from packmule.testing import private_server
from packmule.tests.jobs.image_fuzz import damaged, sources
from packmule.tests.worker.isolated_jobs import spoil
from packmule.tests.worker.pools import children_of, ended, pool, until
from packmule.units import MIB
from packmule.worker.kernel import resident_memory


@dataclass
class Found:
    """What became of the images of one kind, and in which processes; their MiB by tenths of the images."""

    failed: int = 0
    processes: set[int] = field(default_factory=set)
    sizes: list[float] = field(default_factory=list)


def run(count: int) -> dict[str, Found]:
    """Let one worker perform `count` damaged images of each kind; what became of them."""
    with ExitStack() as stack:
        server = stack.enter_context(private_server())
        client = stack.enter_context(connect(None, server.data_dir))
        Client(client).make_default()
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = stack.enter_context(pool(server, ready=60, storage=place))
        until(lambda: client.scard(keys.WORKERS) == 1)
        (worker,) = children_of(running.pid)
        report = {}
        for kind, data in sources().items():
            found = report[kind] = Found()
            for part in range(10):
                names = []
                for seed in range(part * count // 10, (part + 1) * count // 10):
                    names.append(f"{kind} {seed}")
                    (place / names[-1]).write_bytes(damaged(data, seed))
                infos = [ended(client, id) for id in spoil.enqueue_many([(name,) for name in names])]
                found.failed += sum(info.status == "failed" for info in infos)
                (isolated,) = children_of(worker)
                found.processes.add(isolated)
                found.sizes.append(resident_memory(isolated) / MIB)
        return report


if __name__ == "__main__":
    for kind, found in run(int(sys.argv[1]) if len(sys.argv) > 1 else 500).items():
        sizes = " ".join(f"{size:.0f}" for size in found.sizes)
        print(f"{kind}: {found.failed} failed, processes {found.processes}, MiB {sizes}")
