"""The scheduler: promotion beside RQ's, ticks among many schedules, and the cost of an idle leader.

    python benchmarks/scheduling.py [jobs] [schedules] [seconds at rest]

Jobs that are all due at once are promoted while a pool of two processes performs them. RQ's scheduler gets a
twentieth of them, and no worker runs beside it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bench_jobs
from harness import arguments, client_of, machine
from redis import Redis
from rq import Queue
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, schedule_store
from packmule.jobs.client import Client
from packmule.jobs.options import Options
from packmule.jobs.schedule import schedule
from packmule.observe import events
from packmule.observe.leadership import leader
from packmule.scheduler.scheduler import Scheduler
from packmule.scheduler.schedules.periodic_enqueuer import PeriodicEnqueuer
from packmule.testing import private_server
from packmule.worker.pool.pool import Pool

RQ_SHARE = 20
SLOW_US = 1000
LATE_JOBS = 300


def promotion(server: EmbeddedServer, count: int) -> tuple[float, float]:
    """Jobs promoted per second, and the longest script call meanwhile in milliseconds."""
    client = client_of(server)
    client.flushall()
    Client(client).send(bench_jobs.noop.job, [((), {})] * count, Options(delay=0.0))
    child = os.fork()
    if not child:
        os._exit(Pool(lambda: client_of(server), ["default"], 2).run())
    leader = Scheduler(client)
    client.config_set("slowlog-log-slower-than", SLOW_US)
    client.slowlog_reset()
    leader.leadership.hold()
    began = time.perf_counter()
    while client.zcard(keys.registry_key("scheduled", "default")):
        leader.step()
    rate = count / (time.perf_counter() - began)
    slow = [entry["duration"] for entry in client.slowlog_get(128) if entry["command"].startswith(b"EVALSHA")]
    while client.zcard(keys.registry_key("finished", "default")) < count:
        time.sleep(0.05)
    os.kill(child, 15)
    os.waitpid(child, 0)
    leader.leadership.resign()
    leader.leadership.close()
    return rate, max(slow, default=SLOW_US) / 1000


def rqs_promotion(server: EmbeddedServer, count: int) -> float:
    """Jobs that RQ's scheduler promotes per second."""
    client = client_of(server)
    client.flushall()
    queue = Queue("default", client, serializer=JSONSerializer)
    due = datetime.now(UTC) - timedelta(seconds=1)
    for _ in range(count):
        queue.enqueue_at(due, bench_jobs.noop.job.name)
    rqs = RQScheduler([queue], client, serializer=JSONSerializer)
    rqs.acquire_locks()
    rqs.prepare_registries()
    began = time.perf_counter()
    rqs.enqueue_scheduled_jobs()
    return count / (time.perf_counter() - began)


def ticks(server: EmbeddedServer, count: int) -> tuple[float, float, float]:
    """Milliseconds of a round among `count` schedules with one tick due, and of a round with none.

    The third value is the ticks decided per second when all of them are due at once.
    """
    client = client_of(server)
    client.flushall()
    for number in range(count):
        schedule_store.put(client, schedule(f"s{number}", {"job": bench_jobs.noop.job.name, "every": "1h"}))
    enqueuer = PeriodicEnqueuer(Client(client))
    leader = Scheduler(client, enqueuer=enqueuer)
    leader.leadership.hold()
    term = leader.leadership.check()
    for _ in range(count // 100 + 2):  # each is checked once after it was put
        enqueuer.round(term)
    spans = []
    for due in (["s5"], []):
        for name in due:
            client.zadd(schedule_store.NEXT, {name: time.time() - 1})
            client.hset(schedule_store.state_key(name), "last", int(time.time()) - 3700)
        began = time.perf_counter()
        enqueuer.round(term)
        spans.append((time.perf_counter() - began) * 1000)
    assert client.llen("rq:queue:default") == 1
    enqueuer.ahead += 3600
    began = time.perf_counter()
    while client.llen("rq:queue:default") <= count:
        leader.leadership.hold()
        enqueuer.round(leader.leadership.check())
    rate = count / (time.perf_counter() - began)
    leader.leadership.resign()
    leader.leadership.close()
    return spans[0], spans[1], rate


def lateness(server: EmbeddedServer) -> dict[str, tuple[float, float]]:
    """How late jobs of ours and of RQ's are promoted without load: median and p99 in milliseconds."""
    client = client_of(server)
    client.flushall()
    queue = Queue("default", client, serializer=JSONSerializer)
    jobs = Client(client)
    due = {}
    with running(server):
        for _ in range(LATE_JOBS):
            span = random.uniform(0.1, 3)
            (id,) = jobs.send(bench_jobs.noop.job, [((), {})], Options(delay=span))
            due[id] = "ours", client.zscore("rq:scheduled:default", id)
            job = queue.enqueue_in(timedelta(seconds=1 + span), bench_jobs.noop.job.name)
            due[job.id] = "RQ's, due a second later or more", client.zscore("rq:scheduled:default", job.id)
            time.sleep(0.01)
        while client.zcard("rq:scheduled:default"):
            time.sleep(0.1)
    late: dict[str, list[float]] = {}
    for event in events.read(client, only=events.EventFilter(types=["promoted"])):
        whose, at = due[event.job]
        late.setdefault(whose, []).append(1000 * (event.at - at))
    return {
        whose: (statistics.median(spans), sorted(spans)[len(spans) * 99 // 100])
        for whose, spans in late.items()
    }


def idle(server: EmbeddedServer, seconds: float) -> tuple[float, float]:
    """Commands per second of a leader with three empty queues and a schedule, and its share of a core."""
    client = client_of(server)
    client.flushall()
    client.sadd(keys.QUEUES, *(f"rq:queue:{name}" for name in ("high", "default", "low")))
    schedule_store.put(client, schedule("s", {"job": bench_jobs.noop.job.name, "every": "1h"}))
    with running(server) as process:
        time.sleep(5)
        spent = cpu(process)
        sent = commands(client, seconds)
        spent = cpu(process) - spent
    return sent / seconds, spent / seconds


@contextlib.contextmanager
def running(server: EmbeddedServer) -> Iterator[int]:
    """Start a scheduler as a process, wait until it leads, and yield its process id."""
    client = client_of(server)
    process = os.fork()
    if not process:
        own = client_of(server)
        Scheduler(own, enqueuer=PeriodicEnqueuer(Client(own))).run()
        os._exit(0)
    while leader(client) is None:
        time.sleep(0.01)
    yield process
    os.kill(process, signal.SIGTERM)
    os.waitpid(process, 0)


def commands(client: Redis, seconds: float) -> int:
    """Commands that the server receives in that time, without those that scripts call."""
    count, ends_at = 0, time.monotonic() + seconds
    with client.monitor() as monitor:
        while (left := ends_at - time.monotonic()) > 0:
            if monitor.connection.can_read(timeout=left):
                count += monitor.next_command()["client_type"] != "lua"
    return count


def cpu(process: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(jobs: int, schedules: int, idle_seconds: float) -> None:
    """Measure and print everything."""
    logging.disable(logging.CRITICAL)
    with private_server() as server:
        print(f"{machine('rq', client=client_of(server))}\n")
        rate, longest = promotion(server, jobs)
        print(f"promoted, {jobs:,} due at once: {rate:,.0f} per second, longest script call {longest:.1f} ms")
        few = jobs // RQ_SHARE
        print(f"by RQ's scheduler, {few:,}: {rqs_promotion(server, few):,.0f} per second")
        due, none, rate = ticks(server, schedules)
        print(f"a tick among {schedules:,} schedules: {due:.1f} ms; a round without one: {none:.1f} ms")
        print(f"all of them due at once: {rate:,.0f} ticks per second")
        for whose, (median, most) in sorted(lateness(server).items()):
            print(f"{whose}: promoted {median:.1f} ms late without load, p99 {most:.1f} ms")
        trips, share = idle(server, idle_seconds)
        print(f"an idle leader: {trips:.2f} commands per second, {share:.2%} of a core")


if __name__ == "__main__":
    main(*arguments(100_000, 10_000, 60.0))
