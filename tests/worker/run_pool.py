"""A pool of workers in a process of its own, for tests: run_pool.py URL PROCESSES [NAME=VALUE ...].

Most names are the pool's own options; `earlier`, `frozen`, `idle`, `interval` (of its duties), `long`,
`patience` (with jobs that were interrupted) and `ready` (for an isolated process) are times that it is built
with. Images share `image_memory` bytes with others of that storage. The system refuses the first
`refused_forks` of its processes, `files` are open already, and `lost` is the share of replies that are lost.
The main thread stays with each isolated job for `stay` seconds, and with several for none.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import sys
from pathlib import Path
from typing import Any

from packmule.coordination.redis.connection import connect, lock_clients
from packmule.jobs import context, registry
from packmule.jobs.client import Client
from packmule.jobs.host_shares import HostMemory, Shares
from packmule.tests.worker import (
    bad_jobs,  # noqa: F401  registers jobs
    batch_jobs,  # noqa: F401  registers jobs
    callback_jobs,  # noqa: F401  registers jobs
    durable_jobs,  # noqa: F401  registers jobs
    executor_jobs,  # noqa: F401  registers jobs
    flow_jobs,  # noqa: F401  registers jobs
    isolated_jobs,  # noqa: F401  registers jobs
    limited_jobs,  # noqa: F401  registers jobs
    mail_jobs,  # noqa: F401  registers jobs
    pipeline_jobs,  # noqa: F401  registers jobs
    pool_jobs,  # noqa: F401  registers jobs
    step_jobs,  # noqa: F401  registers jobs
    talking_jobs,  # noqa: F401  registers jobs
    weighted_jobs,  # noqa: F401  registers jobs
)
from packmule.tests.worker.lost_replies import lost_replies
from packmule.worker import deadlines
from packmule.worker.options import WorkerOptions
from packmule.worker.pool import autoscale as scaling
from packmule.worker.pool import enforcement, pool, upkeep
from packmule.worker.process import completer, fetcher, worker
from packmule.worker.process.executors import following
from packmule.worker.process.executors import fork as fork_executor

url, processes, *options = sys.argv[1:]
values = dict(option.split("=") for option in options)
logging.basicConfig(level=logging.INFO, format="%(process)d %(message)s")
Client(
    *lock_clients([url], None, Path())
).make_default()  # one that doesn't connect yet, since Redis may be away
if "mail" in values:
    from packmule.jobs.email import Ledger, Mailer

    registry.defer(registry.READY)
    (nodes,) = lock_clients([url], None, Path())
    context.provide(Mailer(values["mail"], "mule@example.org"), Ledger(nodes))
if "storage" in values:
    from packmule.coordination.cache.cache import Cache
    from packmule.jobs.input_limits import InputLimits
    from packmule.jobs.outgoing.door import Allowed
    from packmule.jobs.pipelines.staging import remove_leftovers
    from packmule.jobs.storage import Storage
    from packmule.jobs.storage.temporary import Remover

    registry.defer(registry.READY)
    (cached,) = lock_clients([url], None, Path())
    limits = InputLimits(file_bytes=50_000_000, attachment_bytes=5_000_000, pixels=50_000_000)
    storage = Storage(values["storage"])
    allowed = Allowed(values.get("allow", "").split(","))
    remover = Remover(lambda: storage.remove_unfinished() + remove_leftovers(storage, cached))
    context.provide(storage, limits, Cache(cached, "jobs"), remover, allowed)
    if "image_memory" in values:
        context.provide(HostMemory(int(values["image_memory"]), Path(values["storage"])))
wanted: dict[str, Any] = {
    name: int(values[name])
    for name in ("threads", "tasks", "most", "max_jobs", "max_memory", "job_log_level")
    if name in values
}
if "unknown_for" in values:
    wanted["unknown_for"] = float(values["unknown_for"])
if "isolated" in values:
    wanted["isolated"] = Shares.of_pool(int(values["isolated"]))
for name in ("machine", "release"):
    if name in values:
        wanted[name] = os.environ[name.upper()] = values[name]
autoscale = None
if "autoscale" in values:
    least, most = values["autoscale"].split(":")
    autoscale = int(least), int(most)
following.KILL_EARLIER = float(values.get("earlier", following.KILL_EARLIER))
following.READY_SECONDS = float(values.get("ready", following.READY_SECONDS))
if "patience" in values:
    for each in (deadlines, following):
        each.OVERRUN_SECONDS = each.STOP_SECONDS = float(values["patience"])
enforcement.FROZEN_SECONDS = float(values.get("frozen", enforcement.FROZEN_SECONDS))
if "stay" in values:
    fork_executor.STAY_SECONDS = float(values["stay"])
    worker.STAY_SECONDS = 0.0
completer.LONG_SECONDS = float(values.get("long", completer.LONG_SECONDS))
scaling.IDLE_SECONDS = float(values.get("idle", scaling.IDLE_SECONDS))
if "interval" in values:
    upkeep.INTERVAL = upkeep.RESCUE_INTERVAL = upkeep.DEPENDENTS_INTERVAL = float(values["interval"])
if "files" in values:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(int(values["files"]))]
refusals = iter(range(int(values.get("refused_forks", 0))))
fork = os.fork


class Together(fetcher.ClaimSize):
    """Claims of one size, however long their jobs take."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.size = int(values["together"])

    def learn(self, jobs: int, seconds: float) -> None:
        """The size stays."""


if "together" in values:
    fetcher.ClaimSize = Together  # type: ignore[misc]


def fork_unless_refused() -> int:
    if next(refusals, None) is not None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    return fork()


os.fork = fork_unless_refused
lost_replies(float(values.get("lost", 0))).__enter__()
sys.exit(
    pool.Pool(
        lambda: connect(url, Path()),
        values.get("queues", "high,default,low").split(","),
        int(processes),
        WorkerOptions(burst=values.get("burst") == "1", **wanted),
        grace=float(values.get("grace", 25)),
        autoscale=autoscale,
    ).run()
)
