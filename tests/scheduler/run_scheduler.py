"""A scheduler as a process, for tests: run_scheduler.py URL TERM (seconds)."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from packmule.coordination.redis.connection import connect
from packmule.scheduler.scheduler import Scheduler

logging.basicConfig(level=logging.INFO)
with connect(sys.argv[1], Path("unused")) as client:
    Scheduler(client, term=float(sys.argv[2])).run()
