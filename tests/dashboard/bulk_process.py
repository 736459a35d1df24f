"""Performs a bulk action, in whose third chunk it is to be killed, for a test: `bulk_process FOLDER ID`."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Any

from redis import Redis

from packmule.coordination.redis.connection import connect
from packmule.dashboard.bulk import performing
from packmule.jobs import acts

if __name__ == "__main__":
    folder, id = sys.argv[1:]
    do, calls = acts.ACTS["retry"].do, itertools.count(1)

    def stuck(redis: Redis, some: Any) -> Any:
        done = do(redis, some)
        while next(calls) >= 3:
            time.sleep(1)
        return done

    acts.ACTS["retry"] = acts.ACTS["retry"]._replace(do=stuck)  # type: ignore[index]
    with connect(None, Path(folder)) as client:
        performing.begin(client, id)
        while True:
            time.sleep(1)
