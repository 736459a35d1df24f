"""Limits per host: each machine has slots of its own, and jobs wait in one line for whichever has room."""

from __future__ import annotations

import inspect
import os
import signal
import time
from contextlib import ExitStack

import pytest
from redis import Redis

from packmule import InvalidCall
from packmule.jobs import keys, queues, slots
from packmule.jobs.limits import InvalidLimit, job_limits
from packmule.observe import waits
from packmule.observe.blocked import waiting
from packmule.scheduler.maintenance.repair import GroupRepair, OrphanRepair
from packmule.tests.worker import pool_jobs, weighted_jobs
from packmule.tests.worker.pools import children_of, ended, lines, pool, until
from packmule.tests.worker.weighted_jobs import MOST, decode_on_host, on_host, two_a_host
from packmule.worker.order import Strict
from packmule.worker.process import outcome, performer
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.rescue import rescue

pytestmark = pytest.mark.usefixtures("produce")

KEY = f"{weighted_jobs.__name__}.decode_on_host"
BLOCKED = keys.blocked_key(KEY)


class Hosts:
    """Workers on three hosts, of whom each has a call at a time: `a1` and `a2` are on host a."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.workers = {
            name: Claims(client, name, Strict(["default"]), machine=name[0])
            for name in ("a1", "a2", "b1", "b2", "c1")
        }

    def claim(self, worker: str, *finished: Claimed, most: int = 10) -> list[Claimed]:
        claims = self.workers[worker]
        outcomes = [performer.finished(job, b"1", 1.0, 2.0) for job in finished]
        claim = claims.finish_and_claim(claims.next_id(), outcomes, most)
        assert claim.stale == []
        return claim.jobs

    def taken(self, host: str, key: str = KEY) -> int:
        name = keys.key_of_host(key, host)
        return self.client.hlen(keys.holders_key(name)) + int(
            self.client.hget(keys.weights_key(name), "") or 0
        )


@pytest.fixture
def hosts(client: Redis) -> Hosts:
    return Hosts(client)


def ids(jobs: list[Claimed]) -> list[str]:
    return [job.id for job in jobs]


def test_each_host_has_its_own_budget(client, hosts):
    first, second, third, fourth = (decode_on_host.enqueue(size) for size in (60, 40, 70, 30))
    assert ids(hosts.claim("a1")) == [first, second]
    assert hosts.claim("a2") == []
    running = hosts.claim("b1")
    assert ids(running) == [third, fourth]
    assert (hosts.taken("a"), hosts.taken("b"), hosts.taken("c")) == (100, 100, 0)
    hosts.claim("b1", *running, most=0)
    assert (hosts.taken("a"), hosts.taken("b")) == (100, 0)


def test_the_same_slots_without_a_cost(client, hosts):
    enqueued = [two_a_host.enqueue(str(number)) for number in range(5)]
    key = f"{weighted_jobs.__name__}.two_a_host"
    assert ids(hosts.claim("a1")) == enqueued[:2]
    running = hosts.claim("b1")
    assert ids(running) == enqueued[2:4]
    assert hosts.claim("a2") == hosts.claim("b2") == []
    assert (hosts.taken("a", key), hosts.taken("b", key)) == (2, 2)
    assert ids(hosts.claim("b1", running[0])) == enqueued[4:]


def test_a_job_that_does_not_fit_is_taken_first_where_it_does(client, hosts):
    decode_on_host.enqueue(90)
    hosts.claim("a1")
    large, small = decode_on_host.enqueue(20), decode_on_host.enqueue(5)
    other = pool_jobs.add.enqueue(1)
    assert ids(hosts.claim("a1")) == [other]  # and holds up no other job
    assert client.zcard(BLOCKED) == 1
    assert ids(hosts.claim("b1", most=1)) == [large]
    assert ids(hosts.claim("a2")) == [small]


def test_a_large_job_waits_in_front_of_small_ones_until_some_host_has_room(client, hosts):
    for _ in "ab":
        decode_on_host.enqueue(60)
    on_a, on_b = hosts.claim("a1", most=1), hosts.claim("b1", most=1)
    large = decode_on_host.enqueue(90, "large")
    small = [decode_on_host.enqueue(10, f"tenant {number}") for number in range(4)]
    for worker in ("a1", "b1", "a2", "b2"):
        assert hosts.claim(worker) == []
    (taken,) = hosts.claim("b1", *on_b, most=1)
    assert taken.id == large
    found = [*hosts.claim("a1"), *hosts.claim("b2"), *hosts.claim("a2")]
    assert sorted(ids(found)) == sorted(small)
    assert hosts.taken("b") in (90, 100)
    hosts.claim("a1", *on_a)


def test_an_idle_worker_is_woken_where_a_job_fits(client, hosts):
    commands = client.pubsub()
    commands.psubscribe("rq:pubsub:*")
    commands.get_message(timeout=5)
    for name in ("b1", "c1"):
        client.sadd(keys.workers_key("default"), keys.worker_key(name))
    decode_on_host.enqueue(50)
    hosts.claim("a1")
    woken = [commands.get_message(timeout=5)["channel"] for _ in "bc"]  # they may have been idle since before
    assert sorted(woken) == [b"rq:pubsub:b1", b"rq:pubsub:c1"]
    filling = decode_on_host.enqueue(90)
    assert ids(hosts.claim("c1")) == [filling]
    for worker in ("b1", "c1", "a2"):
        assert hosts.claim(worker) == []
    large = decode_on_host.enqueue(60)
    assert hosts.claim("a1") == []
    assert commands.get_message(timeout=5)["channel"] == b"rq:pubsub:b1"
    assert ids(hosts.claim("b1")) == [large]
    decode_on_host.enqueue(60)
    assert hosts.claim("a1") == []
    assert commands.get_message(timeout=0.2) is None  # no host has room


def test_a_paused_queue_or_another_queue_is_offered_nothing(client, hosts):
    decode_on_host.options(queue="low").enqueue(90)
    for each in hosts.workers.values():
        each.order = Strict(["low"])
    (running,) = hosts.claim("a1")
    large = decode_on_host.options(queue="low").enqueue(90)
    assert hosts.claim("a1") == []
    queues.pause(client, "low")
    assert hosts.claim("b1") == []
    queues.resume(client, "low")
    hosts.workers["c1"].order = Strict(["default"])
    assert hosts.claim("c1") == []
    assert client.zcard(BLOCKED) == 1
    assert ids(hosts.claim("b1")) == [large]
    hosts.claim("a1", running)


@pytest.mark.parametrize("verdict", ["died", "vanished", "overran", "returned", "stopped"])
def test_a_worker_that_is_lost_gives_its_hosts_slots_back(client, hosts, verdict):
    id = decode_on_host.enqueue(90)
    (running,) = hosts.claim("a1")
    assert client.hget(keys.job_key(id), "slots_host") == b"a"
    rescue(client, "a1", verdict, "why", [running.execution])
    assert client.keys("pm:holders:*") == client.keys("pm:weights:*") == []
    other = decode_on_host.enqueue(90, "b")
    assert ids(hosts.claim("a2")) == ([other] if verdict == "stopped" else [id])
    assert hosts.taken("a") == 90


def test_an_attempt_may_fail_on_one_host_and_run_again_on_another(client, hosts):
    id = decode_on_host.enqueue(90)
    for worker in ("a1", "b1"):
        (running,) = hosts.claim(worker)
        assert (running.id, hosts.taken(worker[0])) == (id, 90)
        claims = hosts.workers[worker]
        claims.finish_and_claim(claims.next_id(), [outcome.failed(running, "x", 1.0, 2.0)], 0)
        assert hosts.taken(worker[0]) == 0


def test_a_claim_that_is_sent_again_takes_the_hosts_slots_once(client, hosts):
    id = decode_on_host.enqueue(60)
    claims = hosts.workers["a1"]
    first = claims.finish_and_claim("c1", [], 1).jobs
    assert claims.finish_and_claim("c1", [], 1).jobs == first
    assert ids(first) == [id]
    assert hosts.taken("a") == 60


def test_a_job_that_was_deleted_while_it_ran_gives_its_slots_back(client, hosts):
    id = decode_on_host.enqueue(60)
    running = hosts.claim("a1")
    client.delete(keys.job_key(id))
    hosts.claim("a1", *running)
    assert client.keys("pm:holders:*") == client.keys("pm:weights:*") == []


def test_slots_of_holders_that_are_gone_are_repaired(client, hosts):
    name = keys.key_of_host(KEY, "a")
    client.hset(keys.holders_key(name), mapping={f"job{n}": "gone 1" for n in range(3)})
    client.hset(keys.weights_key(name), mapping={**{f"job{n}": 29 for n in range(3)}, "": 87})
    hosts.workers = {"a1": hosts.workers["a1"]}
    id = decode_on_host.enqueue(60)
    assert hosts.claim("a1") == []
    until(lambda: OrphanRepair(client).repair() >= 0 and client.exists(keys.holders_key(name)) == 0)
    assert ids(hosts.claim("a1")) == [id]


@pytest.mark.parametrize("lost", ["pm:hosted", BLOCKED])
def test_a_group_whose_line_is_lost_waits_in_it_again(client, hosts, lost):
    decode_on_host.enqueue(90)
    hosts.claim("a1")
    large = decode_on_host.enqueue(20)
    assert hosts.claim("a1") == []
    others = [decode_on_host.enqueue(20, tenant) for tenant in "xyz"]
    assert hosts.claim("a1") == []
    client.delete(lost)
    GroupRepair(client).repair()
    assert client.llen(keys.queue_key("default")) <= 2  # the first that waited, and the first in a new line
    assert hosts.claim("a1") == []
    assert client.zcard(BLOCKED) == 1 + len(others)
    assert sorted(ids(hosts.claim("b1"))) == sorted([large, *others])


def test_a_slot_of_a_host_is_released_by_hand(client, hosts):
    id = decode_on_host.enqueue(90)
    hosts.claim("a1")
    other = decode_on_host.enqueue(60, "b")
    assert hosts.claim("a2") == []
    assert slots.release_slot(client, keys.key_of_host(KEY, "a"), id, force=True) == "a1"
    assert hosts.taken("a") == 0
    assert ids(hosts.claim("a2")) == [other]


def test_limits_show_who_holds_slots_of_which_host_and_who_waits_for_some(client, hosts):
    on_a, on_b = decode_on_host.enqueue(90), decode_on_host.enqueue(80)
    hosts.claim("a1", most=1)
    hosts.claim("b1", most=1)
    later = decode_on_host.enqueue(70)
    assert hosts.claim("a1") == hosts.claim("b1") == []
    found = waiting(client, ["default"], 5)
    shown = {(each.key, each.job, each.slots) for each in found.holders}
    assert shown == {(f"{KEY}@a", on_a, 90), (f"{KEY}@b", on_b, 80)}
    (group,) = found.groups
    assert (group.job, group.waits_for, group.lacks) == (later, "slot", KEY)
    assert waits.of_group(group, []) == f"room on a host for {KEY}"
    assert waits.of_limit(group.limits[-1]) == f"100 at a time per host, the first takes 70: {KEY}"


@pytest.mark.parametrize("key", ["pm:hosted", "pm:host-idle", BLOCKED, f"pm:turn:{KEY}"])
def test_keys_of_another_type_stop_nobody(client, hosts, key):
    client.rpush(key, "a list")
    first = decode_on_host.enqueue(90)
    assert ids(hosts.claim("a1")) == [first]
    client.delete(key)
    client.rpush(key, "a list")
    second = decode_on_host.enqueue(90)
    assert hosts.claim("a1") == []
    found = hosts.claim("b1") or hosts.claim("b1")
    assert ids(found) == [second]


def test_members_that_make_no_sense_stop_nobody(client, hosts):
    decode_on_host.enqueue(90)
    hosts.claim("a1")
    client.zadd("pm:host-idle", {"": 1, "no line feed": 1, "\n\n\n": 1, b"\xff\n\xff": 1, "b\nnobody": 1})
    client.sadd("pm:hosted", "", "unknown", b"\xff", "x" * 300)
    client.zadd("pm:blocked:unknown", {"no line feed": 1})
    second = decode_on_host.enqueue(90)
    assert hosts.claim("a1") == []
    assert ids(hosts.claim("b1")) == [second]


def test_a_limit_for_a_host_that_makes_no_sense_is_one_of_all(client, hosts):
    for text in ("5", "null", '"HOST"', "[]", '["host"]'):
        id = decode_on_host.enqueue(5)
        client.hset(keys.job_key(id), "limits", f'[["slots","{KEY}",100,5,{text}]]')
    assert len(hosts.claim("a1")) == 5
    assert client.hlen(keys.holders_key(KEY)) == 5


@pytest.mark.parametrize(
    "text",
    [
        "5 by host",
        "5 by {host} per host",
        "5 per host by {host}",
        "5 by host cost {a}",
        "5 by {host} per host cost {a}",
    ],
)
def test_a_machine_is_not_mistaken_for_an_argument(text):
    def weighed(a: int, host: str) -> None: ...

    with pytest.raises(InvalidLimit, match=r"'per host' for a limit per machine, or with 'by \{host}'"):
        job_limits("weighed", inspect.signature(weighed), None, "wait", text, None, None)


@pytest.mark.parametrize(
    "text", ["5 per {host}", "5 per machine", "per host", "0 per host", "5 per host 3", "x per host"]
)
def test_what_is_no_limit_of_a_host_is_refused(text):
    def weighed(a: int, host: str) -> None: ...

    with pytest.raises(InvalidLimit, match="for each machine, such as '5 per host'"):
        job_limits("weighed", inspect.signature(weighed), None, "wait", text, None, None)


def test_a_cost_above_a_hosts_budget_is_refused_at_the_enqueue(client):
    with pytest.raises(InvalidCall, match="concurrency allows at most 100: the job could never run"):
        decode_on_host.enqueue(101)


def test_budgets_are_kept_while_workers_and_pools_are_killed(server, client, tmp_path):
    """Never more than a host's budget runs there, on three pools of two hosts, and all jobs end."""
    path = tmp_path / "notes"
    sizes = [(37 * number) % 90 + 10 for number in range(60)]
    killed: dict[int, float] = {}
    host_of: dict[int, str] = {}
    with ExitStack() as stack:
        for machine in ("a", "b", "b"):
            process = stack.enter_context(pool(server, 2, machine=machine))
            host_of[process.pid] = machine
        until(lambda: client.scard(keys.WORKERS) == 6)
        jobs = [on_host.enqueue(str(path), size, str(number), 0.03) for number, size in enumerate(sizes)]
        for count in (4, 20, 36):
            until(lambda count=count: len(lines(path)) >= count)
            until(lambda: children_of(next(iter(host_of))))
            child = children_of(next(iter(host_of)))[0]
            killed[child] = time.monotonic()
            os.kill(child, signal.SIGKILL)
        assert {ended(client, id).status for id in jobs} == {"finished"}
    running: dict[str, dict[str, tuple[int, int]]] = {"a": {}, "b": {}}
    used = set()
    for line in lines(path):
        what, name, size, parent, pid, at = line.split()
        host = host_of[int(parent)]
        here = running[host]
        used.add(host)
        here.pop(name, None)
        for each in [each for each, (by, _) in here.items() if killed.get(by, float("inf")) < float(at)]:
            del here[each]
        if what == "+":
            here[name] = int(pid), int(size)
        assert sum(size for _, size in here.values()) <= MOST
    assert used == {"a", "b"}
    assert client.keys("pm:holders:*") == client.keys("pm:weights:*") == []
