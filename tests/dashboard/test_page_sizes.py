"""No page has more than 60 kB, however much there is and however long its ids and texts are."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest
from redis import Redis

from packmule import Flow
from packmule.coordination.redis.connection import connect
from packmule.dashboard.bulk import record
from packmule.dashboard.pages.pages import ROUTES
from packmule.jobs import keys, wire
from packmule.jobs.client import Client
from packmule.observe import audit
from packmule.testing import private_server
from packmule.tests.dashboard.addresses import Address
from packmule.tests.dashboard.visits import Visit, visiting
from packmule.tests.hostile import FINGERPRINT, Hostile
from packmule.tests.worker import flow_jobs

LONGEST_PAGE = 60_000
LONG = "Somebody's <long> text & more, ünï; " * 8

NO_PAGES = {
    "job_words",
    "metrics_data",
    "output",
    "suppressed_csv",
    "mail_results",
    "mail_caught_html",
    "mail_caught_raw",
    "mail_template_html",
}
"""What scripts and downloads ask for."""

LAYERS, A_LAYER = 10, 100


def write_flow(client: Redis) -> str:
    """A flow of a thousand nodes whose functions are called differently, half of them ended."""
    with Flow(LONG) as flow:
        before: list[str] = []
        for _ in range(LAYERS):
            before = [
                flow.add(flow_jobs.shown.call(), after=before[at : at + 3] or before[-1:])
                if before
                else flow.add(flow_jobs.shown.call())
                for at in range(A_LAYER)
            ]
    with client.pipeline(transaction=False) as pipeline:
        for number, node in enumerate(before):
            pipeline.hset(keys.job_key(node), "description", f"{number} {LONG}")
        for number in range(500):
            pipeline.hset(f"{keys.batch_key(flow.id)}:jobs", f"{flow.id}-{number}", "df"[number % 7 == 0])
        pipeline.execute()
    return flow.id


def write_many(client: Redis) -> None:
    """500 queues, 2,000 workers and 10,000 flows."""
    now = time.time()
    with client.pipeline(transaction=False) as pipeline:
        for number in range(500):
            name = f"tenant-{number:03} {LONG}"[:150]
            pipeline.sadd(keys.QUEUES, keys.queue_key(name))
            pipeline.rpush(keys.queue_key(name), f"{number} {LONG}")
        for number in range(2000):
            name = f"w{number:04} {LONG}"[:150]
            served = ",".join(f"tenant-{each:03}" for each in range(50))
            pipeline.sadd(keys.WORKERS, keys.worker_key(name))
            pipeline.hset(
                keys.worker_key(name), mapping={"state": "busy", "queues": served, "birth": "x" * 300}
            )
            pipeline.zadd(keys.LEASES, {name: now + 9_999})
        for number in range(10_000):
            id = f"f{number:05} {LONG}"[:200]
            record = {
                "name": LONG,
                "created": now,
                "total": "1000",
                "failed": "3",
                "sealed": "1",
                "start": "1",
            }
            pipeline.hset(keys.batch_key(id), mapping=record)
            pipeline.zadd(keys.BATCHES, {id: now + number})
        pipeline.execute()


def write_records(client: Redis) -> None:
    """Long errors, notes, waits for signals, bulk actions, and leaders of each board."""
    now = time.time()
    example = client.hgetall(keys.error_key(FINGERPRINT))
    with client.pipeline(transaction=False) as pipeline:
        for number in range(300):
            pipeline.hset(keys.error_key(f"{number:012x}"), mapping=example)
            pipeline.zadd(keys.ERRORS, {f"{number:012x}": now})
            note = {"job_id": LONG, "reason": LONG * 9, "worker": LONG, "at": wire.time_text(now)}
            pipeline.rpush(keys.QUARANTINE, msgspec.json.encode(note))
            pipeline.zadd(f"pm:top:slowest:{int(now) // 3600}", {f"{number} {LONG}": 5.0 + number})
            pipeline.zadd(f"pm:top:busiest:{int(now) // 3600}", {f"{number} {LONG}": 5.0 + number})
            subject = {"filter": LONG * 3, "name": LONG, "jobs": 7}
            audit.stream(client).append([[now, LONG, "job retry", subject]])
            id = f"waits {number} {LONG}"
            call = wire.encode_call("shop.jobs.ask", [LONG, LONG], {"a" * 99: LONG})
            fields = {"data": call, "status": "deferred", "origin": "default", "waits": f"signal:{LONG} inf"}
            pipeline.hset(keys.job_key(id), mapping={**fields, "created_at": wire.time_text(now)})
            pipeline.zadd(keys.registry_key("deferred", "default"), {id: now})
        pipeline.execute()
    for _ in range(60):
        record.create(client, "retry", LONG, now, 5, False, who=LONG, where=LONG, reason=LONG[:200])


@pytest.fixture(scope="module")
def large() -> Iterator[tuple[Visit, dict[str, str]]]:
    """A large system's site, and what its addresses may name."""
    with private_server() as server, connect(None, server.data_dir) as client:
        Client(client).make_default()
        flow = write_flow(client)
        for number in range(120):
            Hostile(client, f"{number:03} {LONG}").write()
        write_many(client)
        write_records(client)
        some = Hostile(client, f"007 {LONG}")
        names = {
            "job": f"failed {some.job}",
            "flow": flow,
            "batch": f"batch {some.text}",
            "worker": some.worker,
            "error": FINGERPRINT,
            "schedule": f"sound {some.text}",
        }
        with visiting(client) as visit:
            yield visit, names


PAGES = [route for route in ROUTES if "GET" in (route.methods or ()) and route.name not in NO_PAGES]


@pytest.mark.parametrize("route", PAGES, ids=lambda route: route.name)
def test_a_page_of_a_large_system_is_small(large, route):
    visit, names = large
    path = Address("GET", route.path).filled({"": names.get(route.name.removeprefix("edit_"), "x")})
    page = visit.http.get(path, headers={"Accept": "text/html"})
    assert page.status_code in (200, 303, 400, 404), path
    if route.name in names:
        assert page.status_code == 200
    assert len(page.content) <= LONGEST_PAGE, path
