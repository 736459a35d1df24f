"""No-op jobs for the throughput benchmark, importable by every worker process."""

from __future__ import annotations

from jobs import job


@job
def noop() -> None:
    pass
