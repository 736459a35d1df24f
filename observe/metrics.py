"""Metrics: counters and the present state, in Prometheus's text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.counters.histogram import upper_bound
from packmule.jobs import batch_state, cluster, keys
from packmule.observe import statistics
from packmule.observe.leadership import candidates, leader
from packmule.observe.queue_info import queue_infos
from packmule.observe.scale import scales_of
from packmule.plain_text import plain_lines

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 3600.0)

STATUSES = {name: name for name in ("queued", *keys.REGISTRIES)} | {"blocked": "behind"}
"""Each status of jobs by its label, and the field of a `QueueInfo` that counts it."""

Labels = Mapping[str, str]


def exposition(client: Redis, queues: list[str]) -> str:
    """All metrics of the server, of `queues`, and of every type of job that was performed.

    >>> print(exposition(client, ["default"]))  # doctest: +SKIP
    # HELP packmule_jobs Jobs by queue and status.
    # TYPE packmule_jobs gauge
    packmule_jobs{queue="default",status="queued"} 0
    ...
    """
    return "\n".join([*_gauges(client, queues), *_counters(client)]) + "\n"


def _gauges(client: Redis, queues: list[str]) -> Iterator[str]:
    yield from _head(
        "packmule_jobs", "gauge", "Jobs by queue and status; blocked ones wait for others or for a limit."
    )
    infos = queue_infos(client, queues)
    for queue, info in infos.items():
        for status, field in STATUSES.items():
            yield _line("packmule_jobs", {"queue": queue, "status": status}, getattr(info, field))
    yield from _head("packmule_queue_paused", "gauge", "Whether workers take no jobs of a queue.")
    for queue, info in infos.items():
        yield _line("packmule_queue_paused", {"queue": queue}, int(info.paused))
    yield from _head("packmule_queue_age_seconds", "gauge", "How long the next job of a queue has waited.")
    workers = [each for each in cluster.workers(client) if each["state"] != "vanished"]
    wanted = scales_of(client, infos, workers)
    for queue, scale in wanted.queues.items():
        yield _line("packmule_queue_age_seconds", {"queue": queue}, scale.oldest)
    memory = client.info("memory")
    for name, help, value in (
        ("packmule_workers", "Registered workers that have not vanished.", len(workers)),
        (
            "packmule_workers_busy",
            "Workers that run a job.",
            sum(each["state"] == "busy" for each in workers),
        ),
        (
            "packmule_places",
            "Plain functions that workers can run at once.",
            sum(max(1, each["threads"]) for each in workers),
        ),
        ("packmule_leader", "Whether a scheduler leads.", int(leader(client) is not None)),
        ("packmule_schedulers", "Schedulers that run, the leader included.", candidates(client)),
        (
            "packmule_wanted_processes",
            "Processes that would begin all that waits within 10 s.",
            wanted.processes,
        ),
        ("packmule_quarantine", "Records that were set aside.", _length(client)),
        ("packmule_batches_running", "Batches that have not ended, of the latest hundred.", _running(client)),
        ("packmule_redis_memory_bytes", "Memory that the server uses.", memory["used_memory"]),
        (
            "packmule_redis_memory_limit_bytes",
            "The server's maxmemory, 0 for none.",
            memory.get("maxmemory", 0),
        ),
    ):
        yield from _head(name, "gauge", help)
        yield _line(name, {}, value)


def _length(client: Redis) -> int:
    try:
        return int(client.llen(keys.QUARANTINE))
    except ResponseError:
        return 0  # the key holds another type


def _running(client: Redis) -> int:
    return sum(state.ended is None for state in batch_state.latest(client, 100))


def _counters(client: Redis) -> Iterator[str]:
    found = statistics.totals(client)
    yield from _head("packmule_executions_total", "counter", "Executions by how they ended.")
    for (queue, kind), each in found.items():
        for outcome in ("finished", "failed", "stopped", "retried"):
            labels = {"queue": queue, "type": kind, "outcome": outcome}
            yield _line("packmule_executions_total", labels, getattr(each, outcome))
    yield from _head("packmule_run_seconds", "histogram", "Time that jobs ran.")
    for (queue, kind), each in found.items():
        labels = {"queue": queue, "type": kind}
        yield from _histogram("packmule_run_seconds", labels, each.runs, each.seconds)
    yield from _head(
        "packmule_wait_seconds",
        "histogram",
        "Time from enqueue to the first start; its sum is within 20 percent.",
    )
    for (queue, kind), each in found.items():
        total = sum(count * upper_bound(number) for number, count in each.waits.items())
        yield from _histogram("packmule_wait_seconds", {"queue": queue, "type": kind}, each.waits, total)


def _histogram(name: str, labels: Labels, counts: Mapping[int, int], total: float) -> Iterator[str]:
    for bound in BOUNDS:
        under = sum(count for number, count in counts.items() if upper_bound(number) <= bound)
        yield _line(f"{name}_bucket", {**labels, "le": f"{bound:g}"}, under)
    count = sum(counts.values())
    yield _line(f"{name}_bucket", {**labels, "le": "+Inf"}, count)
    yield _line(f"{name}_sum", labels, round(total, 6))
    yield _line(f"{name}_count", labels, count)


def _head(name: str, kind: str, help: str) -> tuple[str, str]:
    return f"# HELP {name} {help}", f"# TYPE {name} {kind}"


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


def _escaped(text: str) -> str:
    return plain_lines(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
