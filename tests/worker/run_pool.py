"""A pool of workers in a process of its own, for tests: run_pool.py URL PROCESSES [NAME=VALUE ...]."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pool_jobs  # noqa: F401  registers the jobs

from coordination.connection import connect
from jobs import registry
from jobs.producer import Producer
from worker.pool import Pool

url, processes, *options = sys.argv[1:]
values = dict(option.split("=") for option in options)
logging.basicConfig(level=logging.INFO, format="%(process)d %(message)s")
registry.use(Producer(connect(url, Path())).enqueue)
sys.exit(
    Pool(
        lambda: connect(url, Path()),
        values.get("queues", "high,default,low").split(","),
        int(processes),
        grace=float(values.get("grace", 25)),
        burst=values.get("burst") == "1",
    ).run()
)
