"""Acts on many jobs in a process of its own, which tests kill: `act_process.py folder name`."""

from __future__ import annotations

import sys
from pathlib import Path

from packmule.coordination.redis.connection import connect
from packmule.jobs.acts import act
from packmule.jobs.job_filter import JobFilter


def main() -> None:
    """Do the act to all jobs that can be meant, and print what became of them."""
    folder, name = sys.argv[1:]
    with connect(None, Path(folder)) as client:
        acted = act(client, name, JobFilter())
        print(acted.done, sum(acted.refused.values()))


if __name__ == "__main__":
    main()
