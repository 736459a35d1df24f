"""Mails meet the rest: real workers that freeze, die, stop or lose Redis, and other kinds of jobs."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from packmule import Batch, chain, result
from packmule.jobs import control, keys, queues, reader
from packmule.jobs.email import email, send_bulk
from packmule.jobs.email.calls import mails_of_job
from packmule.jobs.email.ledger.reader import MailFilter, search
from packmule.jobs.email.ledger.run import FRESH
from packmule.jobs.email.outcome import State
from packmule.jobs.storage import Storage
from packmule.tests.jobs.mail_server import BODY, DOT, HANG_UP, Gate, MailServer
from packmule.tests.network import server_frozen
from packmule.tests.worker import flow_jobs, mail_jobs
from packmule.tests.worker.mail_faults import jobs_of
from packmule.tests.worker.pools import children_of, ended, pool, until

ADA, BOB, EVE = "ada@example.org", "bob@example.org", "eve@example.org"
GREETING = b"220 mail.test ESMTP\r\n"
QUEUED = b"250 2.0.0 queued\r\n"

pytestmark = pytest.mark.usefixtures("produce")


def unknown(client: Redis) -> list[str]:
    return [each.recipient for each in search(client, MailFilter([State.UNKNOWN])).mails]


def end_lease(client: Redis) -> None:
    """Let time pass for the only worker's lease, which nobody renews now."""
    ((name, _),) = client.zrange(keys.LEASES, 0, -1, withscores=True)
    client.zadd(keys.LEASES, {name: 1})


# Processes that freeze or die


def test_a_worker_that_was_frozen_past_its_lease_does_not_send_what_another_has_sent(server, client):
    gate = Gate(b"250 2.1.0 fine\r\n")
    with MailServer({"MAIL": [None, gate]}) as post, pool(server, 1, mail=post.url) as frozen:
        assert ended(client, email.enqueue(EVE, "s", "t")).status == "finished"  # Redis knows the script now
        mail = email.enqueue(ADA, "s", "t", on_unknown="resend")
        until(gate.is_reached.is_set)
        until(lambda: [each.state for each in mails_of_job(client, mail)] == [State.SENDING])
        os.killpg(frozen.pid, signal.SIGSTOP)
        frozen_at = time.monotonic()
        end_lease(client)
        with pool(server, 1, mail=post.url, interval=0.1) as other:
            assert ended(client, mail).status == "finished"
            other.terminate()
            other.wait(60)
        assert post.recipients == [EVE, ADA]
        until(lambda: time.monotonic() - frozen_at > FRESH)
        gate.may_pass.set()
        os.killpg(frozen.pid, signal.SIGCONT)
        until(lambda: post.commands.count("DATA") == 3)
        assert ended(client, email.enqueue(BOB, "s", "t")).status == "finished"
        assert post.recipients == [EVE, ADA, BOB]
        assert [each.state for each in mails_of_job(client, mail)] == ["accepted"]


def test_a_worker_that_was_frozen_within_a_body_does_not_end_what_another_has_sent(server, client, tmp_path):
    Storage(str(tmp_path)).write_bytes("uploads/1/a.bin", os.urandom(4 << 20))
    gate = Gate(b"")  # the server reads no further, so the body fills the buffers
    with (
        MailServer({BODY: [None, gate]}, extensions=("PIPELINING",)) as post,
        pool(server, 1, mail=post.url, storage=tmp_path) as frozen,
    ):
        assert ended(client, email.enqueue(EVE, "s", "t")).status == "finished"
        mail = email.enqueue(ADA, "s", "t", on_unknown="resend", attachments=["uploads/1/a.bin"])
        until(gate.is_reached.is_set)
        os.killpg(frozen.pid, signal.SIGSTOP)
        frozen_at = time.monotonic()
        end_lease(client)
        with pool(server, 1, mail=post.url, storage=tmp_path, interval=0.1) as other:
            assert ended(client, mail).status == "finished"
            other.terminate()
            other.wait(60)
        assert post.recipients == [EVE, ADA]
        until(lambda: time.monotonic() - frozen_at > FRESH)
        os.killpg(frozen.pid, signal.SIGCONT)
        gate.may_pass.set()
        assert ended(client, email.enqueue(BOB, "s", "t")).status == "finished"
        assert post.recipients == [EVE, ADA, BOB]
        assert [each.state for each in mails_of_job(client, mail)] == ["accepted"]


def test_a_mail_that_is_sent_again_stays_unknown_if_its_worker_dies_before_it_can(server, client):
    gate = Gate(GREETING)
    with (
        MailServer({DOT: [HANG_UP], "greeting": [None, gate]}) as post,
        pool(server, 1, mail=post.url) as pid,
    ):
        mail = email.enqueue(ADA, "s", "t", on_unknown="resend")
        until(lambda: reader.read(client, mail).status == "scheduled")
        assert unknown(client) == [ADA]
        control.run_now(client, mail)
        until(gate.is_reached.is_set)
        queues.pause(client, "high")
        (worker,) = children_of(pid.pid)
        os.kill(worker, signal.SIGKILL)
        until(lambda: unknown(client) == [ADA])
        queues.resume(client, "high")
        assert ended(client, mail).result["accepted"] == [ADA]
        assert (post.recipients, unknown(client)) == ([ADA], [])


def single(recipients: list[str], client: Redis) -> str:
    return str(email.enqueue(recipients[-1], "s", "t"))


def bulk(recipients: list[str], client: Redis) -> str:
    (id,) = jobs_of(client, send_bulk([{"email": to} for to in recipients], "s", "t", key="k").id)
    return id


@pytest.mark.parametrize(("enqueue", "before"), [(single, 0), (single, 1), (bulk, 1), (bulk, 20)])
def test_a_mail_is_not_unknown_if_its_worker_dies_while_a_connection_opens(server, client, enqueue, before):
    """Neither are those that were marked `before`, on a connection that the server then closed."""
    gate, everybody = Gate(GREETING), [f"p{number}@example.org" for number in range(50)]
    hang_up = [*[None] * before, HANG_UP] if before else []
    greetings = [None, gate] if before else [gate]
    with (
        MailServer({"MAIL": hang_up, "greeting": greetings}) as post,
        pool(server, 1, mail=post.url) as process,
    ):
        if before:
            assert ended(client, single([EVE], client)).status == "finished"
        broken = enqueue(everybody, client)
        until(gate.is_reached.is_set)
        assert not search(client, MailFilter([State.SENDING])).mails
        (worker,) = children_of(process.pid)
        os.kill(worker, signal.SIGKILL)
        info = ended(client, broken)
        assert (info.status, info.deaths, unknown(client)) == ("finished", 1, [])
        wanted = everybody if enqueue is bulk else everybody[-1:]
        assert Counter(post.recipients) == Counter([*wanted, *[EVE] * bool(before)])


def test_mails_that_were_sent_and_not_acknowledged_run_again_and_send_nothing(server, client):
    gate = Gate(QUEUED)
    with MailServer({DOT: [None] * 9 + [gate]}) as post:
        mails = [email.enqueue(f"p{number}@example.org", "s", "t") for number in range(12)]
        with pool(server, 1, mail=post.url, together=12) as process:
            until(gate.is_reached.is_set)
            (worker,) = children_of(process.pid)
            os.kill(worker, signal.SIGKILL)
            gate.may_pass.set()
            assert [ended(client, each).status for each in mails] == [
                *["finished"] * 9,
                "failed",  # it was being sent
                *["finished"] * 2,
            ]
        assert sorted(post.recipients) == sorted(f"p{number}@example.org" for number in range(12))
        assert unknown(client) == ["p9@example.org"]


def test_mails_behind_one_that_takes_long_go_to_another_worker(server, client):
    gate = Gate(QUEUED)
    with MailServer({DOT: [gate]}) as post, pool(server, 1, mail=post.url, together=8):
        mails = [email.enqueue(f"p{number}@example.org", "s", "t") for number in range(8)]
        until(gate.is_reached.is_set)
        with pool(server, 1, mail=post.url):
            assert [ended(client, each).status for each in mails[1:]] == ["finished"] * 7
        gate.may_pass.set()
        assert ended(client, mails[0]).status == "finished"
        assert len(post.recipients) == 8


def test_mails_wait_while_redis_is_away_for_longer_than_a_lease(server, client):
    gate = Gate(QUEUED)
    with MailServer({DOT: [gate]}) as post, pool(server, 2, mail=post.url):
        mails = [email.enqueue(to, "s", "t") for to in (ADA, BOB, EVE)]
        until(gate.is_reached.is_set)
        with server_frozen(server):
            gate.may_pass.set()
            until(lambda: post.recipients)
            time.sleep(keys.LEASE_SECONDS + 1)  # the lease has no other clock
        assert [ended(client, each).status for each in mails] == ["finished"] * 3
        assert sorted(post.recipients) == [ADA, BOB, EVE]


# Two who send the same


@pytest.mark.parametrize("ends", ["finished", "canceled"])
def test_two_workers_with_one_key_send_one_mail(server, client, ends):
    gate = Gate(QUEUED)
    with MailServer({DOT: [gate]}) as post, pool(server, 2, mail=post.url):
        first = email.enqueue(ADA, "s", "t", key="order-7")
        until(gate.is_reached.is_set)
        second = email.enqueue(ADA, "s", "t", key="order-7")
        until(lambda: reader.read(client, second).status == "scheduled")
        assert f"job {first} sends this mail, too" in reader.read(client, second).error
        if ends == "finished":
            gate.may_pass.set()
            assert ended(client, first).status == "finished"
            control.run_now(client, second)
            assert ended(client, second).result["accepted"] == [ADA]
        else:
            assert control.cancel(client, first, timeout=60) == "stopped"
            control.run_now(client, second)
            assert ended(client, second).error_type.endswith("MailUnknown")
        assert post.recipients == [ADA]


def test_a_unique_mail_is_sent_once_however_often_it_is_enqueued(server, client):
    with MailServer() as post:
        ids = {str(email.options(unique=True).enqueue(ADA, "s", "t")) for _ in range(5)}
        assert len(ids) == 1
        with pool(server, 2, mail=post.url):
            assert ended(client, ids.pop()).status == "finished"
        assert post.recipients == [ADA]


# Other kinds of jobs, and of producers


def by_stock_rq(client: Redis) -> str:
    queue = Queue("high", connection=client, serializer=JSONSerializer)
    return queue.enqueue("packmule.jobs.email.email", ADA, "s", "t").id


def by_async_producer(client: Redis) -> str:
    return str(asyncio.run(email.aenqueue(ADA, "s", "t")))


@pytest.mark.parametrize(
    "enqueue",
    [
        by_stock_rq,
        by_async_producer,
        lambda _: mail_jobs.alone.enqueue(ADA),
        lambda _: mail_jobs.awaited.enqueue(ADA),
    ],
    ids=["stock RQ", "async producer", "singleton", "async job"],
)
def test_whoever_sends_a_mail_sends_it_once_and_does_not_after_its_worker_died(
    server, client, enqueue: Callable[[Redis], str]
):
    gate = Gate(QUEUED)
    with MailServer({DOT: [None, gate]}) as post, pool(server, 1, mail=post.url) as process:
        assert ended(client, enqueue(client)).result["accepted"] == [ADA]
        broken = enqueue(client)
        until(gate.is_reached.is_set)
        (worker,) = children_of(process.pid)
        os.kill(worker, signal.SIGKILL)
        gate.may_pass.set()
        info = ended(client, broken)
        assert (info.status, info.deaths) == ("failed", 1)
        assert info.error_type.endswith("MailUnknown")
        assert post.recipients == [ADA, ADA]


def test_a_mail_is_a_node_of_a_flow_and_a_callback_of_a_batch(server, client):
    with MailServer() as post, pool(server, 2, mail=post.url):
        flow = chain(email.call(ADA, "s", "t"), flow_jobs.shown.call(result)).enqueue()
        told = email.prepare(EVE, "all is sent", "t")
        with Batch.create(on_complete=told, on_success=told) as batch:
            for to in (ADA, BOB, BOB):
                email.options(batch=batch.id).enqueue(to, "news", "t")
        assert flow.wait(60).counts.done == 2
        assert "'accepted': ['ada@example.org']" in reader.read(client, f"{flow.id}-1").result
        assert batch.wait(60).counts.done == 3
        until(partial(_has, post, 5))
        assert sorted(post.recipients) == [ADA, ADA, BOB, EVE, EVE]


def _has(post: MailServer, mails: int) -> bool:
    return len(post.recipients) >= mails
