"""Pub/sub: a subscriber reconnects by itself, and learns when it may have missed something."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import redis

from packmule.coordination.redis.connection import connect
from packmule.coordination.streams import pubsub
from packmule.coordination.streams.pubsub import LARGEST_MESSAGE, MISSED, Message, Subscriber, publish
from packmule.tests.losing_proxy import LosingProxy


@pytest.fixture
def subscriber(client):
    with Subscriber(client, ["news"]) as listening:
        assert listening.wait(60) is MISSED
        yield listening


def hear(subscriber, seconds=60.0):
    """The next message."""
    deadline = time.monotonic() + seconds
    while (message := subscriber.wait(0.5)) is None:
        assert time.monotonic() < deadline
    return message


def subscribers(client):
    return [each for each in client.client_list(_type="pubsub") if int(each["sub"])]


def test_a_subscription_begins_with_missed_and_then_gets_messages_in_order(client, subscriber):
    for n in range(50):
        assert publish(client, "news", {"n": n, "text": "größer"}) == 1
    assert [subscriber.wait(60) for _ in range(50)] == [
        Message("news", {"n": n, "text": "größer"}) for n in range(50)
    ]
    assert subscriber.wait(0) is None


def test_several_channels_and_patterns_are_one_subscription(client):
    with Subscriber(client, ["a", "b"], patterns=["progress:*"]) as subscriber:
        assert subscriber.wait(60) is MISSED
        for channel in ("a", "progress:7", "b"):
            publish(client, channel, 1)
        assert [subscriber.wait(60).channel for _ in range(3)] == ["a", "progress:7", "b"]
        assert subscriber.wait(0.05) is None
    with pytest.raises(ValueError, match="needs a channel"):
        Subscriber(client)


def test_a_message_that_is_not_json_is_dropped_and_counted(client, subscriber):
    for data in (b"", b"{", b"\xff", b'"\xff"', b"1 2", b"[" * 100_000):
        client.publish("news", data)
    publish(client, "news", None)
    assert subscriber.wait(60) == Message("news", None)
    assert subscriber.dropped == 6
    with pytest.raises(TypeError):
        publish(client, "news", object())
    with pytest.raises(ValueError, match="at most 16,000 bytes"):
        publish(client, "news", "x" * LARGEST_MESSAGE)


def test_waiting_ends_in_time(subscriber):
    begun = time.monotonic()
    assert subscriber.wait(0.2) is None
    assert 0.2 <= time.monotonic() - begun < 20


def test_a_disconnected_subscriber_reconnects_and_gets_missed(client, subscriber):
    for _ in range(3):
        publish(client, "news", 1)
        assert hear(subscriber) == Message("news", 1)
        client.client_kill_filter(_type="pubsub")
        publish(client, "news", "lost")
        assert hear(subscriber) is MISSED
        publish(client, "news", 2)
        assert hear(subscriber) == Message("news", 2)


def test_a_restart_of_the_server_causes_missed(spare_server):
    server = spare_server()
    with connect(None, server.data_dir) as client, Subscriber(client, ["news"]) as subscriber:
        assert subscriber.wait(60) is MISSED
        os.kill(server.pid(), signal.SIGKILL)
        assert hear(subscriber) is MISSED
        publish(client, "news", 1)
        assert hear(subscriber) == Message("news", 1)


def test_a_subscriber_waits_while_there_is_no_server_and_then_reconnects(spare_server, tmp_path, caplog):
    server = spare_server()
    path = tmp_path / "proxy.sock"
    proxy = LosingProxy(path, server.socket_path)
    try:
        through = redis.Redis.from_url(proxy.url)
        with through, connect(None, server.data_dir) as client, Subscriber(through, ["news"]) as subscriber:
            assert subscriber.wait(60) is MISSED
            proxy.close()
            path.unlink()
            begun = time.monotonic()
            assert subscriber.wait(1.0) is None
            assert time.monotonic() - begun < 20
            assert caplog.text.count("can't subscribe to news") == 1  # and not once a try
            proxy = LosingProxy(path, server.socket_path)
            assert hear(subscriber) is MISSED
            publish(client, "news", 1)
            assert hear(subscriber) == Message("news", 1)
    finally:
        proxy.close()


def test_a_slow_reader_is_disconnected_by_the_server_and_gets_missed(client, subscriber):
    text = "x" * (LARGEST_MESSAGE - 2)
    sent = 0
    while publish(client, "news", text):
        sent += 1
        assert sent < 2000, "32 MB, and the sockets' buffers hold less than one"
    deadline = time.monotonic() + 60
    while client.info("memory")["used_memory"] > 32 * 2**20:  # what others have left is freed by and by
        assert time.monotonic() < deadline
    while (message := subscriber.wait(60)) is not MISSED:
        assert message is not None
    publish(client, "news", "on")
    assert hear(subscriber) == Message("news", "on")


def test_closing_wakes_a_waiting_reader_and_ends_iteration(client):
    subscriber = Subscriber(client, ["news"])
    heard = []
    reading = threading.Thread(target=lambda: heard.extend(subscriber))
    reading.start()
    while not subscribers(client):
        time.sleep(0.01)
    begun = time.monotonic()
    subscriber.close()
    reading.join(60)
    assert time.monotonic() - begun < 20  # a wait takes a minute
    assert heard in ([MISSED], [])
    assert subscriber.wait(5) is None
    subscriber.close()
    while subscribers(client):
        assert time.monotonic() - begun < 60


def test_an_error_that_is_not_transient_is_raised(client):
    client.acl_setuser(
        "shy", enabled=True, nopass=True, commands=["+@all"], keys=["*"], channels=["mine"], reset=True
    )
    options = client.connection_pool.connection_kwargs
    shy = redis.Redis(unix_socket_path=str(options["server"].socket_path), username="shy", password="x")
    try:
        with (
            shy,
            Subscriber(shy, ["theirs"]) as subscriber,
            pytest.raises(redis.exceptions.NoPermissionError),
        ):
            subscriber.wait(5)
    finally:
        client.acl_deluser("shy")


def test_a_quiet_server_is_asked_and_an_answer_is_enough(client, monkeypatch):
    def pings() -> int:
        return int(client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"])

    monkeypatch.setattr(pubsub, "QUIET", 0.05)
    monkeypatch.setattr(pubsub, "ANSWER_TIMEOUT", 60.0)
    with Subscriber(client, ["news"]) as quiet:
        assert quiet.wait(60) is MISSED
        asked = pings()
        deadline = time.monotonic() + 60
        while pings() < asked + 3:
            assert quiet.wait(0.2) is None
            assert time.monotonic() < deadline
        publish(client, "news", 1)
        assert quiet.wait(60) == Message("news", 1)
