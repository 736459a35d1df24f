"""No-op jobs for the throughput benchmark, importable by every worker process."""

from __future__ import annotations

from packmule import job


@job
def noop() -> None:
    pass


@job
def free(key: int) -> None:
    pass


@job(rate="10000/s burst 100000")
def rated(key: int) -> None:
    pass


@job(rate="10000/s burst 100000 by {key}")
def rated_by_key(key: int) -> None:
    pass


@job(concurrency=100_000)
def slotted(key: int) -> None:
    pass


@job(fair="{key}")
def fair(key: int) -> None:
    pass


@job(queue="low", rate="1/h burst 1 by {key}")
def seldom(key: int) -> None:
    pass
