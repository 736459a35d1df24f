"""The callbacks' fault run: jobs with RQ's callbacks, while workers and pools are killed.

    python tests/worker/callback_faults.py [kills with SIGKILL] [seconds at most]

Some two kills are made a second. Bodies and callbacks write to a file. Of each job the outcome is recorded
once (a job with a retry has two), each recorded outcome calls back at least once, no body runs after its
callback, and a callback runs again only where a process was killed.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from rq import Callback, Queue, Retry
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.coordination.redis.connection import connect
from packmule.jobs import keys
from packmule.testing import private_server
from packmule.tests.worker.limit_faults import Crowd

HERE = "packmule.tests.worker.callback_jobs"
KINDS = ("plain", "single", "limited", "isolated", "retried")
BACKLOG = 8
SETTLE_SECONDS = 60


@dataclass
class Report:
    """How many jobs of which kinds ended, and what went wrong."""

    kills: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    repeated: int = 0
    """Callbacks that ran again."""


def run(kills: int, seconds: float, seed: int = 1) -> Report:
    """Enqueue jobs until there were `kills`, or for `seconds`; then let them end."""
    dice = random.Random(seed)
    report = Report()
    with ExitStack() as stack:
        server = stack.enter_context(private_server())
        client = stack.enter_context(connect(None, server.data_dir))
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        crowd = Crowd(server, place / "log", "workers")
        stack.callback(crowd.close)
        queue = Queue("default", connection=client, serializer=JSONSerializer)
        jobs: list[tuple[str, Job]] = []
        ends_at = time.monotonic() + seconds
        while crowd.kills < kills and time.monotonic() < ends_at:
            while queue.count < BACKLOG:
                jobs.append(enqueue(queue, dice.choice(KINDS), str(place / "ledger")))
            time.sleep(0.4)
            crowd.break_something(dice)
        report.kills = crowd.kills
        report.wrong += [f"a pool ended by itself: {pool}" for pool in crowd.ended_pools]
        ends_at = time.monotonic() + SETTLE_SECONDS
        while not all(is_settled(client, job) for _, job in jobs) and time.monotonic() < ends_at:
            time.sleep(0.2)
        judge(client, jobs, (place / "ledger").read_text().splitlines(), report)
    return report


def enqueue(queue: Queue, kind: str, path: str) -> tuple[str, Job]:
    noted = Callback(f"{HERE}.noted")
    retry = Retry(max=1, interval=0) if kind == "retried" else None
    options = {"on_success": noted, "on_failure": noted, "retry": retry, "result_ttl": -1}
    return kind, queue.enqueue(f"{HERE}.{kind}_under_fire", path, **options)


def is_settled(client: Redis, job: Job) -> bool:
    status, due = client.hmget(job.key, "status", "callback_due")
    return status in (b"finished", b"failed") and due is None


def judge(client: Redis, jobs: list[tuple[str, Job]], ledger: list[str], report: Report) -> None:
    for kind, job in jobs:
        told = [line.partition(" ")[0] for line in ledger if line.endswith(job.id)]
        status = job.get_status(refresh=True).value
        outcomes = [result.type.name for result in job.results()]
        callbacks = told.count("callback")
        is_dead = client.hget(job.key, "crash") is not None and status == "failed" and kind != "retried"
        report.ended[f"{kind}: {'failed after 3 deaths' if is_dead else status}"] += 1
        wanted = 2 if kind == "retried" and not is_dead else 1
        report.repeated += max(0, callbacks - wanted)
        if not is_settled(client, job):
            report.wrong.append(f"{job.id} ({kind}) has not settled: {status}")
        elif len(outcomes) != wanted or callbacks < wanted:
            report.wrong.append(f"{job.id} ({kind}): {outcomes}, {told}")
        elif "callback" in told and kind != "retried" and "body" in told[told.index("callback") :]:
            report.wrong.append(f"{job.id} ({kind}) ran again after its callback: {told}")
    left = [key.decode() for key in client.scan_iter("pm:holders:*")]
    report.wrong += [f"{key} is left" for key in left]
    if client.llen(keys.QUARANTINE):
        report.wrong += [text.decode() for text in client.lrange(keys.QUARANTINE, 0, 4)]


if __name__ == "__main__":
    given = [*sys.argv[1:], *["60", "600"][len(sys.argv) - 1 :]]
    found = run(int(given[0]), float(given[1]))
    print(f"{found.kills} kills; {sum(found.ended.values())} jobs: {dict(found.ended)}")
    print(f"{found.repeated} callbacks ran again")
    print("\n".join(found.wrong) or "nothing was wrong")
    sys.exit(1 if found.wrong else 0)
