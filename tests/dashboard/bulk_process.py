"""Performs a bulk action until it is killed, for a test: `bulk_process FOLDER ID`."""

from __future__ import annotations

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
    do = acts.ACTS["retry"].do

    def slow(redis: Redis, some: Any) -> Any:
        done = do(redis, some)
        time.sleep(0.05)
        return done

    acts.ACTS["retry"] = acts.ACTS["retry"]._replace(do=slow)  # type: ignore[index]
    with connect(None, Path(folder)) as client:
        performing.begin(client, id)
        while True:
            time.sleep(1)
