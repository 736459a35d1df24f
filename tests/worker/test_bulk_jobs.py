"""Bulk sends meet the rest: workers that freeze, are isolated, lose Redis, or send the same list."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest
from redis import Redis

from packmule.jobs import control, keys, reader
from packmule.jobs.email.bulk.counts import Progress
from packmule.jobs.email.bulk.results import chunk_id
from packmule.jobs.email.bulk.send import BulkSend, send_bulk
from packmule.jobs.email.ledger.run import FRESH, MOST_AT_ONCE
from packmule.jobs.options import Options
from packmule.tests.jobs.mail_server import DOT, Gate, MailServer
from packmule.tests.network import server_frozen
from packmule.tests.worker import mail_jobs
from packmule.tests.worker.pools import children_of, ended, pool, until

QUEUED = b"250 2.0.0 queued\r\n"

pytestmark = pytest.mark.usefixtures("produce")


def people(count: int) -> list[dict[str, str]]:
    return [{"email": f"user{n}@example.org", "name": f"N{n}"} for n in range(count)]


def finished(client: Redis, found: BulkSend) -> Progress:
    """How it ended, once chunks that wait for something were run at once."""
    chunks = [chunk_id(found.id, number) for number in range(found.batch.state().counts.total)]

    def is_over() -> bool:
        for id in chunks:
            if reader.read(client, id).status == "scheduled":
                control.run_now(client, id)
        return found.progress().state == "ended"

    until(is_over)
    return found.progress()


def each_once_or_unknown(found: BulkSend, post: MailServer, most: int) -> None:
    """By the server's own log each got the mail once, but for `most` unknown ones, once at most."""
    states = {each.recipient: each.state for each in found.results()}
    got = Counter(post.recipients)
    assert set(states.values()) <= {"accepted", "unknown"}
    assert list(states.values()).count("unknown") <= most
    assert {to: got[to] for to, state in states.items() if state == "accepted" and got[to] != 1} == {}
    assert max(got.values()) == 1


def test_the_same_list_at_once_is_sent_once(server, client):
    with MailServer() as post:
        first = send_bulk(people(1_000), "Hi", "t", key="spring")
        second = send_bulk(people(1_000)[::-1], "Hi", "t", key="spring", options=Options(queue="high"))
        with pool(server, 2, mail=post.url, queues="low"), pool(server, 2, mail=post.url, queues="high"):
            ends = [finished(client, each) for each in (first, second)]
        assert Counter(post.recipients) == Counter(each["email"] for each in people(1_000))
    assert [(each.sent, each.unknown) for each in ends] == [(1_000, 0)] * 2
    for found in (first, second):
        each_once_or_unknown(found, post, 0)


def test_a_chunk_in_a_process_of_its_own_sends_each_mail_once(server, client):
    with MailServer() as post, pool(server, 1, mail=post.url):
        jobs = [mail_jobs.chunk_apart.enqueue(key="spring", rows=people(n)) for n in (40, 60)]
        results = [ended(client, each).result for each in jobs]
        assert results == [{"accepted": 40}, {"accepted": 60}]
        assert Counter(post.recipients) == Counter(each["email"] for each in people(60))
        assert post.connections == 2  # none is shared with a process that has ended


def test_a_chunk_whose_own_process_is_killed_leaves_few_mails_unknown(server, client):
    gate = Gate(QUEUED)
    with MailServer({DOT: [None] * 30 + [gate]}) as post, pool(server, 1, mail=post.url) as process:
        chunk = mail_jobs.chunk_apart.enqueue(key="spring", rows=people(60))
        until(gate.is_reached.is_set)
        (worker,) = children_of(process.pid)
        (isolated,) = children_of(worker)
        os.kill(isolated, signal.SIGKILL)
        gate.may_pass.set()
        info = ended(client, chunk)
        assert info.error_type.endswith("MailUnknown")
        assert max(Counter(post.recipients).values()) == 1
        assert len(post.recipients) >= 60 - MOST_AT_ONCE


def test_a_bulk_send_waits_while_redis_is_away_for_longer_than_a_lease(server, client):
    gate = Gate(QUEUED)
    with MailServer({DOT: [None] * 70 + [gate]}) as post, pool(server, 2, mail=post.url):
        found = send_bulk(people(400), "Hi {{ name }}", "t", key="spring")
        until(gate.is_reached.is_set)
        with server_frozen(server):
            gate.may_pass.set()
            time.sleep(keys.LEASE_SECONDS + 1)  # the lease has no other clock
        assert finished(client, found).sent == 400
        each_once_or_unknown(found, post, 0)


def test_a_worker_that_was_frozen_past_its_lease_sends_nothing_of_its_chunk_again(server, client):
    gate = Gate(QUEUED)
    with MailServer({DOT: [None] * 100 + [gate]}) as post, pool(server, 1, mail=post.url) as frozen:
        found = send_bulk(people(600), "Hi {{ name }}", "t", key="spring")
        until(gate.is_reached.is_set)
        os.killpg(frozen.pid, signal.SIGSTOP)
        frozen_at = time.monotonic()
        ((name, _),) = client.zrange(keys.LEASES, 0, -1, withscores=True)
        client.zadd(keys.LEASES, {name: 1})  # its lease has ended
        with pool(server, 1, mail=post.url, interval=0.1) as other:
            finished(client, found)
            other.terminate()
            other.wait(60)
        until(lambda: time.monotonic() - frozen_at > FRESH)
        gate.may_pass.set()
        os.killpg(frozen.pid, signal.SIGCONT)
        late = send_bulk(people(601)[600:], "Hi", "t", key="late")
        assert finished(client, late).sent == 1  # by the worker that was frozen
        each_once_or_unknown(found, post, MOST_AT_ONCE)
