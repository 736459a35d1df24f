"""A scheduler of the fault run: run_tick_scheduler.py URL NODE_URL ..."""

from __future__ import annotations

import sys
from pathlib import Path

from packmule.coordination.redis.connection import connect, lock_clients
from packmule.jobs.client import Client
from packmule.scheduler.scheduler import Scheduler
from packmule.scheduler.schedules.periodic_enqueuer import PeriodicEnqueuer
from packmule.tests.jobs import sample_jobs  # noqa: F401  registers jobs

url, *nodes = sys.argv[1:]
with connect(url, Path("unused"), socket_timeout=5) as client:
    enqueuer = PeriodicEnqueuer(Client(client))
    Scheduler(client, lock_clients(nodes, url, Path("unused")), enqueuer).run()
