"""The jobs of the model: one of each kind of limit. Nobody performs them; the test decides how each ends."""

from __future__ import annotations

from packmule import job


@job
def plain(key: str) -> None: ...


@job
def tick() -> None: ...


@job(singleton=True)
def alone(key: str) -> None: ...


@job(singleton="{key}", retries=1, retry_intervals=[5])
def alone_by_key(key: str) -> None: ...


@job(singleton=True, singleton_policy="skip")
def skips(key: str) -> None: ...


@job(singleton=True, singleton_policy="replace")
def replaces(key: str) -> None: ...


@job(concurrency=2)
def two_at_once(key: str) -> None: ...


@job(rate="2/h burst 1 by {key}")
def rated(key: str) -> None: ...


@job(fair="{key}")
def fair(key: str) -> None: ...


@job(concurrency=1, fair="{key}")
def fair_slot(key: str) -> None: ...


@job(concurrency="5 cost {size}", fair="{key}")
def weighed(key: str, size: int = 2) -> None: ...


@job(concurrency=1, rate="2/h burst 1 by {key}")
def slot_and_rate(key: str) -> None: ...
