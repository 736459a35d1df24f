"""Searching a million finished jobs: a page's time by filter, and what the index costs.

    python benchmarks/search.py [jobs]

The jobs' records, results and registry are written as they are at their end. One job in a hundred has failed,
and as many wait or are canceled in each list and registry of each queue. "busy" is the processor time of a
page, here and in the server together, which other work on the machine changes less.
"scan of the records" reads them all, as a search without an index would.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import msgspec
from harness import arguments, client_of, machine, table
from redis import Redis

from packmule.jobs import keys, wire
from packmule.jobs.job_filter import JobFilter, look
from packmule.jobs.places import places
from packmule.jobs.search import search
from packmule.testing import private_server

NAMES = ("shop.jobs.report", "shop.jobs.invoice", "shop.mail.send", "shop.rarely.clean")
QUEUES = ("high", "default", "low")
CLAIM = 64
RUNS = 100


def fill(client: Redis, count: int) -> float:
    """Write `count` ended jobs; the bytes of the index for each."""
    began, ids = time.time() - count / 1000, keys.new_job_ids(count)
    for key in QUEUES:
        client.sadd(keys.QUEUES, keys.queue_key(key))
    for first in range(0, count, CLAIM):
        with client.pipeline(transaction=False) as pipeline:
            for number in range(first, min(first + CLAIM, count)):
                _end(pipeline, ids[number], number, began + number / 1000)
            at = int((began + (first + CLAIM) / 1000) * 1000)
            for state, groups in _entries(ids, first, count).items():
                fields = {
                    "n": sum(len(each) - keys.INDEX_HEAD for each in groups),
                    "e": msgspec.msgpack.encode(groups),
                }
                pipeline.xadd(keys.INDEXES[state], fields, id=f"{at}-0")
            pipeline.execute()
    sizes = [client.memory_usage(key, samples=0) or 0 for key in keys.INDEXES.values()]
    return sum(sizes) / count


def fill_waiting(client: Redis, each: int) -> None:
    """Write so many jobs for each list and registry of jobs that have not ended, or were canceled."""
    now = time.time()
    for queue in QUEUES:
        for place in places(client, [queue], ("queued", "scheduled", "deferred", "canceled")):
            if place.key.endswith(("1", "2")):  # no job has a priority
                continue
            for first in range(0, each, CLAIM):
                ids = keys.new_job_ids(min(CLAIM, each - first))
                with client.pipeline(transaction=False) as pipeline:
                    for number, id in enumerate(ids):
                        _wait(pipeline, id, place.statuses[0], queue, now - first - number)
                    if place.kind == "list":
                        pipeline.rpush(place.key, *ids)
                    else:
                        pipeline.zadd(place.key, dict.fromkeys(ids, now + first))
                    pipeline.execute()


def _wait(pipeline: Redis, id: str, status: str, queue: str, at: float) -> None:
    said = wire.time_text(at)
    record = {
        "status": status, "origin": queue, "description": NAMES[0], "created_at": said, "enqueued_at": said,
        "timeout": "180", "data": wire.encode_call(NAMES[0], (), {"month": "2026-12"}),
    }  # fmt: skip
    pipeline.hset(keys.job_key(id), mapping=record)


def _what(number: int) -> tuple[str, str, bool]:
    name = NAMES[3] if number % 50_000 == 7 else NAMES[number % 3]
    return name, QUEUES[number % 7 % 3], number % 100 == 99


def _end(pipeline: Redis, id: str, number: int, at: float) -> None:
    name, queue, has_failed = _what(number)
    status, ended = "failed" if has_failed else "finished", wire.time_text(at)
    month = f"2026-{number % 11 + 1:02}"
    record = {
        "status": status, "origin": queue, "description": name, "created_at": ended, "enqueued_at": ended,
        "started_at": ended, "ended_at": ended, "worker_name": "w1", "timeout": "180",
        "data": wire.encode_call(name, (), {"month": month}),
    }  # fmt: skip
    pipeline.hset(keys.job_key(id), mapping=record)
    pipeline.zadd(keys.registry_key(status, queue), {id: at + 86_400})
    error = {"type": 2, "exc_string": wire.error_text("ValueError: no such month")}
    pipeline.xadd(keys.results_key(id), error if has_failed else {"type": 1, "return_value": wire.NO_RESULT})


def _entries(ids: list[str], first: int, count: int) -> dict[str, list[list[str]]]:
    states: dict[str, dict[tuple[str, str, str], list[str]]] = {}
    for number in range(first, min(first + CLAIM, count)):
        name, queue, has_failed = _what(number)
        groups = states.setdefault("failed" if has_failed else "finished", {})
        key = (name, queue, "ValueError" if has_failed else "")
        groups.setdefault(key, [*key]).append(ids[number])
    return {state: list(groups.values()) for state, groups in states.items()}


def scan(client: Redis, wanted: JobFilter) -> int:
    """How many jobs fit, by a look at each record."""
    found = 0
    cursor = None
    while cursor != 0:
        cursor, part = client.scan(cursor or 0, match=keys.job_key("*"), count=1000)
        ids = [key.decode().removeprefix(keys.job_key("")) for key in part]
        found += len(look(client, ids, wanted, wanted.statuses))
    return found


def milliseconds(client: Redis, page: Callable[[], object]) -> tuple[float, float, float]:
    """The median and the 99th percentile of RUNS calls, and how long one kept a processor busy."""
    times = []
    busy = _busy(client)
    for _ in range(RUNS):
        began = time.perf_counter()
        page()
        times.append((time.perf_counter() - began) * 1000)
    busy = (_busy(client) - busy) * 1000 / RUNS
    return statistics.median(times), statistics.quantiles(times, n=100)[98], busy


def _busy(client: Redis) -> float:
    used = client.info("cpu")
    return time.process_time() + float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def main(count: int) -> None:
    """Measure pages, and print a table."""
    with private_server() as server, client_of(server) as client:
        print(f"{machine('redis', client=client)}; {count:,} ended jobs")
        print(f"{fill(client, count):.0f} bytes of the index for each\n")
        fill_waiting(client, count // 100)
        last = time.time() - 60
        filters = {
            "all": JobFilter(),
            "name": JobFilter(name="report"),
            "a rare name": JobFilter(name="clean"),
            "queue": JobFilter(queue="low"),
            "queued": JobFilter(status="queued"),
            "finished": JobFilter(status="finished"),
            "failed": JobFilter(status="failed"),
            "error and queue": JobFilter(error="ValueError", queue="low"),
            "no such error": JobFilter(error="KeyError"),
            "name and argument": JobFilter(name="report", args={"month": "2026-11"}),
            "an argument that none has": JobFilter(args={"month": "13"}),
            "name, queue, error and argument": JobFilter(
                "invoice", "high", None, "ValueError", args={"month": "2026-03"}
            ),
            "id prefix": JobFilter(id="abc"),
            "until 1 min ago": JobFilter(until=last),
            "name, status, queue and times": JobFilter("send", "low", "finished", None, last - 300, last),
        }
        rows = []
        for name, wanted in filters.items():
            page = search(client, wanted)
            middle, worst, busy = milliseconds(client, lambda wanted=wanted: search(client, wanted))  # type: ignore[misc]
            back = f"{time.time() - page.back_to:,.0f} s" if page.back_to else "all"
            rows.append((name, str(len(page.jobs)), f"{middle:.1f}", f"{worst:.1f}", f"{busy:.1f}", back))
        began = time.perf_counter()
        scan(client, JobFilter(name="clean"))
        rows.append(
            ("scan of the records", "", f"{(time.perf_counter() - began) * 1000:,.0f}", "", "", "all")
        )
        table(("a page of 50 by", "jobs", "ms p50", "p99", "busy", "looked back"), rows)


if __name__ == "__main__":
    main(*arguments(100_000))
