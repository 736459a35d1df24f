"""Statistics: each execution is counted once, by queue and type, and shown."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest

from packmule.coordination.counters.histogram import percentile
from packmule.jobs import keys, queues, wire
from packmule.observe import metrics, scale, statistics
from packmule.observe.statistics import Statistics
from packmule.tests.command_line import DEADLINE, CommandLine, complaint, environment_in
from packmule.tests.worker import executor_jobs, pool_jobs
from packmule.tests.worker.pools import drained, ended, pool, until
from packmule.worker.order import Strict
from packmule.worker.process import statistics as sent_statistics
from packmule.worker.process.claim import Claims
from packmule.worker.process.outcome import failed
from packmule.worker.process.performer import finished

pytestmark = pytest.mark.usefixtures("produce")


def counted(client) -> dict[tuple[str, str], Statistics]:
    return statistics.minutes(client, 2)


def performed(client, seconds: list[float], ids: list[str] | None = None) -> None:
    """Jobs that ran for so long, those that failed with a minus."""
    claims = Claims(client, "w1", Strict(["default"]))
    for id in ids or [None] * len(seconds):
        pool_jobs.add.options(job_id=id, result_ttl=0, failure_ttl=0).enqueue(1)
    jobs = claims.finish_and_claim(claims.next_id(), [], len(seconds)).jobs
    ended = [
        finished(job, b"1", 1.0, 1.0 + took) if took > 0 else failed(job, "broken", 1.0, 1.0 - took)
        for job, took in zip(jobs, seconds, strict=True)
    ]
    claims.finish_and_claim(claims.next_id(), ended, 0)


def test_each_executors_executions_are_counted_once(server, client, tmp_path):
    pool_jobs.add.enqueue_many([(n,) for n in range(100)])
    pool_jobs.add.options(queue="low").enqueue(1)
    late = executor_jobs.where_async.enqueue(0.15)
    executor_jobs.where_isolated.enqueue()
    pool_jobs.fail.options(retries=1, retry_intervals=(0,)).enqueue(str(tmp_path / "notes"))
    assert drained(server, 2) == 0
    found = counted(client)
    assert found["default", "packmule.tests.worker.pool_jobs.add"].finished == 100
    assert found["low", "packmule.tests.worker.pool_jobs.add"].finished == 1
    assert found["default", "packmule.tests.worker.executor_jobs.where_isolated"].finished == 1
    failing = found["default", "packmule.tests.worker.pool_jobs.fail"]
    assert (failing.performed, failing.failed, failing.retried) == (2, 1, 1)
    slow = found["default", "packmule.tests.worker.executor_jobs.where_async"]
    assert 0.15 <= slow.seconds < DEADLINE
    assert percentile(slow.runs, 0.5) == pytest.approx(slow.seconds, rel=0.11)
    assert sum(found["default", "packmule.tests.worker.pool_jobs.add"].waits.values()) == 100
    assert statistics.hours(client, 2).keys() == statistics.totals(client).keys() == found.keys()
    by_type = statistics.by(found, statistics.type_of)
    assert statistics.summary("add", by_type["packmule.tests.worker.pool_jobs.add"]).performed == 101
    assert statistics.rates(client)["default"] > 0
    assert dict(statistics.slowest(client, 100))[late] == pytest.approx(slow.seconds, abs=0.01)
    assert sum(spent for _, spent in statistics.busiest(client)) > 0.15


def test_a_repeated_or_refused_call_counts_nothing(client):
    pool_jobs.add.enqueue_many([(1,), (2,)])
    claims = Claims(client, "w1", Strict(["default"]))
    first, second = claims.finish_and_claim("c1", [], 2).jobs
    held = dict(claims._held)
    for _ in range(2):
        claims._held = dict(held)
        claims.finish_and_claim("c2", [finished(first, b"2", 1.0, 2.0)], 0)
    assert counted(client)["default", "packmule.tests.worker.pool_jobs.add"].finished == 1
    client.hset(keys.claims_key("w1"), second.id, "somebody else's")
    claims.finish_and_claim("c3", [finished(second, b"2", 1.0, 2.0)], 0)
    assert counted(client)["default", "packmule.tests.worker.pool_jobs.add"].finished == 1
    assert claims._held == {}


def test_statistics_are_sent_once_a_second_and_when_a_worker_leaves(client, monkeypatch):
    assert sent_statistics.INTERVAL == 1.0
    monkeypatch.setattr(sent_statistics, "INTERVAL", DEADLINE)
    pool_jobs.add.enqueue_many([(1,), (2,), (3,)])
    claims = Claims(client, "w1", Strict(["default"]))
    jobs = claims.finish_and_claim("c1", [], 3).jobs

    def finished_so_far() -> int:
        return counted(client)["default", "packmule.tests.worker.pool_jobs.add"].finished

    assert claims.statistics.due_in is None
    claims.finish_and_claim("c2", [finished(jobs[0], b"2", 1.0, 2.0)], 0)
    assert finished_so_far() == 1
    claims.finish_and_claim("c3", [finished(jobs[1], b"2", 1.0, 2.0)], 0)
    claims.finish_and_claim("c4", [finished(jobs[2], b"2", 1.0, 2.0)], 0)
    assert finished_so_far() == 1
    assert 0 < (claims.statistics.due_in or 0) <= sent_statistics.INTERVAL
    claims.send_statistics()
    assert finished_so_far() == 3
    before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    claims.send_statistics()
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == before


def test_the_statistics_of_an_idle_worker_come_within_about_a_second(server, client):
    with pool(server):
        for number in range(3):
            ended(client, pool_jobs.add.enqueue(number))
        until(lambda: counted(client)["default", "packmule.tests.worker.pool_jobs.add"].finished == 3)


def test_a_refused_outcome_is_never_counted_and_others_are_later(client):
    pool_jobs.add.enqueue_many([(1,), (2,)])
    claims = Claims(client, "w1", Strict(["default"]))
    first, second = claims.finish_and_claim("c1", [], 2).jobs
    client.hset(keys.claims_key("w1"), second.id, "somebody else's")
    both = [finished(first, b"2", 1.0, 2.0), finished(second, b"2", 1.0, 2.0)]
    assert claims.finish_and_claim("c2", both, 0).stale == [second.id]
    claims.send_statistics()
    assert counted(client)["default", "packmule.tests.worker.pool_jobs.add"].finished == 1


def test_ever_new_names_do_not_fill_the_memory(client):
    claims = Claims(client, "w1", Strict(["default"]))
    for key in ("minute", "hour"):
        period = 60 if key == "minute" else 3600
        client.hset(
            f"pm:stats:{key}:{client.time()[0] // period}",
            mapping={f"q\x1ft\x1fx{n}": 1 for n in range(20_001)},
        )
    pool_jobs.add.enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    claims.finish_and_claim("c2", [finished(job, b"2", 1.0, 2.0)], 0)
    assert ("default", "packmule.tests.worker.pool_jobs.add") not in counted(client)
    other = counted(client)["default", "other"]
    assert (other.finished, sum(other.runs.values()), other.seconds) == (1, 1, 1.0)
    assert ("default", "packmule.tests.worker.pool_jobs.add") in statistics.totals(client)


def test_garbage_among_the_others_of_a_full_hash_loses_no_outcome(client):
    hour = client.time()[0] // 3600
    full = {f"q\x1ft\x1fx{n}": 1 for n in range(20_001)} | {"default\x1fother\x1fk1": "many"}
    for each in (hour, hour + 1):
        client.hset(f"pm:stats:hour:{each}", mapping=full)
    performed(client, [2.0])
    assert client.zcard("rq:finished:default") == 0, "it is deleted"
    assert [found.finished for found in statistics.totals(client).values()] == [1]


def test_a_type_that_is_known_in_a_full_hash_is_counted_on(client, monkeypatch):
    monkeypatch.setattr(sent_statistics, "INTERVAL", 0.0)
    claims = Claims(client, "w1", Strict(["default"]))
    pool_jobs.add.enqueue_many([(1,), (1,)])
    first, second = claims.finish_and_claim("c1", [], 2).jobs
    claims.finish_and_claim("c2", [finished(first, b"2", 1.0, 2.0)], 0)
    (hour,) = client.keys("pm:stats:hour:*")
    assert 0 < client.ttl(hour) <= 694800
    assert client.ttl("pm:stats:total") == -1
    client.hset(hour, mapping={f"q\x1ft\x1fx{n}": 1 for n in range(20_001)})
    claims.finish_and_claim("c3", [finished(second, b"2", 1.0, 2.5)], 0)
    found = statistics.hours(client, 2)
    assert ("default", "other") not in found
    known = found["default", "packmule.tests.worker.pool_jobs.add"]
    assert (known.finished, len(known.runs), known.seconds) == (2, 2, 2.5)


def test_statistics_are_kept_for_a_while(client):
    performed(client, [2.0])
    for period, kept in (("minute", 7500), ("hour", 694_800)):
        (key,) = client.keys(f"pm:stats:{period}:*")
        assert kept - DEADLINE < client.ttl(key) <= kept
    for key in client.keys("pm:top:*"):
        assert 694_800 - DEADLINE < client.ttl(key) <= 694_800


def test_leaderboards_keep_the_hundred_highest(client):
    hour = client.time()[0] // 3600
    for board in ("busiest", "slowest"):
        for each in (hour, hour + 1):
            client.zadd(f"pm:top:{board}:{each}", {f"other{n}": 10 + n for n in range(100)})
    performed(client, [50.0])
    for board in ("busiest", "slowest"):
        (key,) = (each for each in client.keys(f"pm:top:{board}:*") if client.zscore(each, "other0") is None)
        assert client.zcard(key) == 100


@pytest.mark.parametrize("board", ["busiest", "slowest"])
def test_a_leaderboard_of_another_type_loses_no_other(client, board):
    hour = client.time()[0] // 3600
    for each in (hour, hour + 1):
        client.set(f"pm:top:{board}:{each}", "in the way")
    performed(client, [50.0])
    other = "slowest" if board == "busiest" else "busiest"
    assert client.zcard(f"pm:top:{other}:{client.time()[0] // 3600}") == 1
    assert len(statistics.totals(client)) == 1


def test_the_slowest_run_of_a_job_counts(client):
    for seconds in (2.0, 5.0, 3.0):
        performed(client, [seconds], ["slow"])
    assert statistics.slowest(client) == [("slow", 5.0)]


@pytest.mark.parametrize("is_registered", [True, False])
def test_rqs_counts_of_a_worker_grow_if_it_is_registered(client, is_registered):
    if is_registered:
        client.hset(keys.worker_key("w1"), "birth", "now")
    performed(client, [2.0, -1.5])
    names = ("successful_job_count", "failed_job_count", "total_working_time")
    counts = [b"1", b"1", b"3.5"] if is_registered else [None] * 3
    assert client.hmget(keys.worker_key("w1"), names) == counts


def test_corrupt_keys_lose_statistics_and_nothing_else(server, client):
    for key in ("pm:stats:total", *(f"pm:stats:minute:{client.time()[0] // 60 + n}" for n in range(2))):
        client.set(key, "no hash")
    hour = client.time()[0] // 3600
    client.hset(
        f"pm:stats:hour:{hour}",
        mapping={"default\x1fpool_jobs.add\x1fk1": "many", "odd": "1", "\x1f\x1f": "1"},
    )
    client.set(f"pm:top:busiest:{hour}", "no sorted set")
    id = pool_jobs.add.enqueue(1)
    assert drained(server) == 0
    assert client.hget(keys.job_key(id), "status") == b"finished"
    assert statistics.totals(client) == {}
    assert "packmule.tests.worker.pool_jobs.add" in {kind for _, kind in statistics.hours(client, 2)}


@pytest.fixture
def packmule(server, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url))


LABEL = r'[a-z]+="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"[a-z_]+(\{{{LABEL}(,{LABEL})*\}})? [0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")


def test_metrics_are_in_prometheus_format(client, server):
    pool_jobs.add.enqueue_many([(n,) for n in range(10)])
    assert drained(server) == 0
    client.hincrby("pm:stats:total", 'lo"w\x1fodd\\type\nname\x1fk1', 3)
    lines = metrics.exposition(client, ["default"]).splitlines()
    heads = {}
    for line in lines:
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in heads
            heads[name] = kind
        elif not line.startswith("# HELP "):
            assert SAMPLE.fullmatch(line), line
            name = re.match(r"[a-z_]+", line)[0]
            assert heads.get(name) or heads[re.sub(r"_(bucket|sum|count)$", "", name)] == "histogram"
    labels = 'queue="default",type="packmule.tests.worker.pool_jobs.add"'
    assert f'packmule_executions_total{{{labels},outcome="finished"}} 10' in lines
    assert f'packmule_run_seconds_bucket{{{labels},le="+Inf"}} 10' in lines
    assert f"packmule_run_seconds_count{{{labels}}} 10" in lines
    assert 'packmule_jobs{queue="default",status="finished"} 10' in lines


def test_a_key_of_another_type_takes_no_metrics_away_but_its_own(client, server):
    pool_jobs.add.enqueue_many([(n,) for n in range(10)])
    assert drained(server) == 0
    whole = metrics.exposition(client, ["default"]).count("# TYPE")
    for key in {
        *client.scan_iter("*"),
        keys.BATCHES.encode(),
        keys.LEASES.encode(),
        keys.QUEUE_RATES.encode(),
    }:
        kept = client.dump(key)
        client.delete(key)
        client.set(key, "of another type")
        assert metrics.exposition(client, ["default"]).count("# TYPE") == whole, key
        assert "default" in scale.scales(client, ["default"]).queues, key
        client.delete(key)
        if kept:
            client.restore(key, 0, kept)


def test_the_age_of_the_next_job_is_shown(packmule, client):
    for queue, ago in (("high", 90), ("low", -90), ("odd", None)):
        client.sadd("rq:queues", f"rq:queue:{queue}")
        client.rpush(f"rq:queue:{queue}", queue, "behind")
        enqueued = wire.time_text(time.time() - ago) if ago else "no time"
        client.hset(f"rq:job:{queue}", mapping={"enqueued_at": enqueued})
    client.set("rq:queue:text", "no list")
    ages = queues.ages(client, ["high", "low", "odd", "text", "default"])
    assert ages == {"high": pytest.approx(90, abs=60), "low": 0}
    (line,) = re.findall(
        r'packmule_queue_age_seconds\{queue="high"\} (\S+)', metrics.exposition(client, ["high"])
    )
    assert float(line) == pytest.approx(90, abs=60)
    found = json.loads(packmule.output("top", "--json"))["queues"]
    assert {each["queue"]: each["age"] for each in found}["high"] == pytest.approx(90, abs=60)
    client.hset("rq:job:high", "enqueued_at", wire.time_text(time.time() - 90))
    assert re.search(r"high +2 +(9\d|1[01]\d)(\.\d)? s ", packmule.output("top", "--once"))


def test_metrics_are_served(packmule):
    with packmule.started("metrics", "--serve", "127.0.0.1:0") as process:
        address = re.search(r"http://\S+", process.stderr.readline())[0]
        with urllib.request.urlopen(address, timeout=DEADLINE) as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert b"packmule_workers 0" in response.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address + "x", timeout=DEADLINE)
        process.terminate()
    assert "'9464' is not an address" in complaint(packmule.run("metrics", "--serve", "9464"), 2)


def test_long_names_are_cut_and_others_shown_unchanged(packmule, client):
    long = b'["' + b"x" * 100_000 + b'",null,[],{}]'
    odd = b'["[/x]\x1b[2Jodd",null,[],{}]'
    for id, data in (("a", long), ("b", odd)):
        client.hset(f"rq:job:{id}", mapping={"data": data, "origin": "[/q]", "status": "queued"})
        client.rpush("rq:queue:[/q]", id)
    claims = Claims(client, "w1", Strict(["[/q]"]))
    jobs = claims.finish_and_claim("c1", [], 2).jobs
    claims.finish_and_claim("c2", [finished(job, b"1", 1.0, 2.0) for job in jobs], 0)
    assert max(len(name) for _, name in statistics.totals(client)) <= 200
    page = packmule.output("top", "--once")
    assert r"[/x]\x1b[2Jodd" in page
    assert "[/q]" in page


def test_top_shows_queues_types_workers_and_slow_jobs(packmule, server, client):
    executor_jobs.where.enqueue(0.2)
    assert drained(server) == 0
    page = packmule.output("top", "--once")
    assert re.search(r"executor_jobs\.where +1 +0 +0 +([2-9]\d\d ms|[1-9][\d.]* s)", page)
    assert "busiest workers" in page
    found = json.loads(packmule.output("top", "--json", "--period", "24h", "--by", "time"))
    assert found["types"][0]["name"] == "packmule.tests.worker.executor_jobs.where"
    assert {each["queue"]: each["performed"] for each in found["queues"]}["default"] == 1
    assert found["slowest"][0]["seconds"] >= 0.2


def test_calls_that_are_compressed_are_counted_together(client):
    claims = Claims(client, "w1", Strict(["default"]))
    for number in range(3):
        pool_jobs.fail.enqueue(f"{number}{'x' * 5_000}")
    jobs = claims.finish_and_claim("c1", [], 3).jobs
    assert all(job.data[:1] != b"[" for job in jobs)
    ended = [finished(job, b"2", 1.0, 2.0) for job in jobs]
    claims.statistics.add(ended, {job.execution: job for job in jobs})
    assert len(claims.statistics._groups) == 1
