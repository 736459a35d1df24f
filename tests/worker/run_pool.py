"""A pool of workers in a process of its own, for tests: run_pool.py URL PROCESSES [NAME=VALUE ...].

Most names are the pool's own options; `frozen` and `idle` are seconds for two of its constants.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import bad_jobs  # noqa: F401  registers jobs
import batch_jobs  # noqa: F401  registers jobs
import gated_jobs  # noqa: F401  registers jobs
import lane_jobs  # noqa: F401  registers jobs
import pool_jobs  # noqa: F401  registers jobs

import worker.autoscale
import worker.pool
from coordination.connection import connect
from jobs import registry
from jobs.producer import Producer

url, processes, *options = sys.argv[1:]
values = dict(option.split("=") for option in options)
logging.basicConfig(level=logging.INFO, format="%(process)d %(message)s")
registry.use(Producer(connect(url, Path())).enqueue)
wanted: dict[str, Any] = {
    name: int(values[name])
    for name in ("threads", "tasks", "most", "max_jobs", "max_memory")
    if name in values
}
if "autoscale" in values:
    least, most = values["autoscale"].split(":")
    wanted["autoscale"] = int(least), int(most)
worker.pool.FROZEN_SECONDS = float(values.get("frozen", worker.pool.FROZEN_SECONDS))
worker.autoscale.IDLE_SECONDS = float(values.get("idle", worker.autoscale.IDLE_SECONDS))
sys.exit(
    worker.pool.Pool(
        lambda: connect(url, Path()),
        values.get("queues", "high,default,low").split(","),
        int(processes),
        grace=float(values.get("grace", 25)),
        burst=values.get("burst") == "1",
        **wanted,
    ).run()
)
