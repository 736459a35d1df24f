"""A failover: the primary becomes a replica or falls silent, and the name leads to the new primary."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, ResponseError

import packmule
from packmule.coordination.locks.redlock import Redlock
from packmule.coordination.redis.backoff import is_transient
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.connection_kinds import Replica, Retries, TcpConnection, Unanswered
from packmule.coordination.redis.scripts import Script
from packmule.coordination.streams.pubsub import MISSED, Subscriber, publish
from packmule.coordination.streams.stream import Stream
from packmule.tests.pace import pace

NOWHERE = Path("/nonexistent/never-used-with-a-url")
SOON = 10.0
"""Seconds after which work goes on at the new primary."""


def until(condition, seconds: float = 60.0) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, "it never came true"
        time.sleep(0.02)
    return time.monotonic() - began


def test_a_client_leaves_a_primary_that_became_a_replica(pair):
    lead = Script("scheduler", "lead")
    with connect(pair.name.url, NOWHERE) as client, Redis.from_url(pair.second.url) as second:
        client.set("before", "1")
        lead(client, ["leader"], ["me", 1, 60_000])
        pair.demote()
        client.set("after", "1")
        assert second.get("after") == b"1"
        client.connection_pool.disconnect()
        pair.name.target = pair.first.socket_path
        client.get("before")  # a connection to the replica again
        pair.name.target = pair.second.socket_path
        assert lead(client, ["leader"], ["you", 2, 60_000]) == 1
        assert second.hget("leader", "name") == b"you"
        with client.pipeline(transaction=False) as pipeline:
            assert pipeline.set("a", "1").get("a").execute(raise_on_error=False) == [True, b"1"]


def test_a_script_of_a_client_that_is_not_ours_finds_the_new_primary_the_next_time(pair):
    lead = Script("scheduler", "lead")
    with Redis.from_url(pair.name.url) as client:
        assert lead(client, ["leader"], ["me", 1, 60_000]) == 1
        pair.demote()
        with pytest.raises(ReadOnlyError):
            lead(client, ["leader"], ["you", 2, 60_000])
        assert lead(client, ["leader"], ["you", 2, 60_000]) == 1


def test_a_client_of_nothing_but_a_replica_says_so(pair):
    with connect(pair.name.url, NOWHERE) as client:
        pair.name.target = pair.second.socket_path
        client.connection_pool.disconnect()
        with pytest.raises(Replica, match=r"127.0.0.1:\d+ is a read-only replica: name its primary"):
            client.set("a", "1")
        with pytest.raises(packmule.Unavailable, match="read-only replica"):
            connect(pair.name.url, NOWHERE)


def test_the_refusal_of_a_script_on_an_old_redis_is_a_replicas_too():
    refusal = b"-ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as near:
                while near.recv(65_536):
                    near.sendall(refusal)

        server = threading.Thread(target=serve)
        server.start()
        port = listener.getsockname()[1]
        connection = TcpConnection(port=port, retry=Retries(NoBackoff(), 0), driver_info=None, protocol=2)
        connection.connect()
        connection.send_command("EVALSHA", "1", 0)
        with pytest.raises(Replica):
            connection.read_response()
        assert connection._sock is None
        server.join()


@pytest.mark.parametrize(
    ("refusal", "passes"),
    [
        ("-OOM command not allowed when used memory > 'maxmemory'.", True),
        ("-MISCONF Redis is configured to save RDB snapshots", True),
        ("-WRONGTYPE Operation against a key", False),
    ],
)
def test_a_refusal_in_a_script_on_an_old_redis_may_pass_as_one_outside_does(refusal, passes):
    error = ResponseError(f"Error running script (call to f_1): @user_script:1: {refusal}")
    assert is_transient(error) == passes


def test_an_answer_that_never_comes_is_an_error_after_the_timeout(pair):
    with connect(pair.name.url, NOWHERE, socket_timeout=3.0) as client:
        client.ping()
        pair.silence()
        with pytest.raises(Unanswered, match="no answer in time") as failed:
            client.set("a", "1")
        assert isinstance(failed.value, packmule.Unavailable)
        client.set("a", "1")
    with Redis.from_url(pair.second.url) as second:
        assert second.get("a") == b"1"


def test_no_client_waits_for_ever_for_an_answer(pair):
    with connect(pair.name.url, NOWHERE) as client, pace() as second:
        client.ping()
        pair.silence()
        began = time.monotonic()
        with pytest.raises(packmule.Unavailable):
            client.set("a", "1")
        assert time.monotonic() - began < SOON * second()


@pytest.mark.parametrize("fault", ["demote", "silence"])
def test_locks_are_granted_by_the_new_primary(pair, fault):
    with connect(pair.name.url, NOWHERE) as client, pace() as second:
        locks = Redlock([client], longest_ttl=3.0)
        until(lambda: not locks.faults())
        locks.acquire("a", ttl=3.0, wait=60).release()
        getattr(pair, fault)()
        with locks.acquire("b", ttl=3.0, wait=SOON * second()), Redis.from_url(pair.second.url) as new:
            assert new.exists("pm:lock:b")
        locks.close()


@pytest.mark.parametrize("fault", ["demote", "silence"])
def test_subscribers_and_followers_go_on_at_the_new_primary(pair, fault):
    with (
        connect(pair.name.url, NOWHERE) as client,
        Subscriber(client, ["news"]) as subscriber,
        pace() as second,
    ):
        stream = Stream(client, "numbers", max_entries=100)
        stream.append([1])
        assert subscriber.wait(60) is MISSED
        getattr(pair, fault)()

        def heard() -> bool:
            with Redis.from_url(pair.second.url) as new:
                publish(new, "news", "ok")
            message = subscriber.wait(0.2)
            return message is not None and message is not MISSED and message.value == "ok"

        until(heard, 2 * SOON * second())
        until(lambda: _appended(stream), SOON * second())
        assert [each.value for each in stream.read("0")] == [1, 2]


def _appended(stream: Stream) -> bool:
    try:
        stream.append([2])
    except packmule.Unavailable:
        return False
    return True
