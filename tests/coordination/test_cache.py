"""The cache: one process computes, no invalidated value is returned, crashes and outages do no harm."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections import Counter

import pytest
import redis

from packmule.coordination.cache import link, lookup
from packmule.coordination.cache.cache import Cache, EntryTooLarge, NotCacheable
from packmule.coordination.cache.entry import ID_BYTES, JSON, Entry, unpacked
from packmule.coordination.cache.lease import ANY, Place, take
from packmule.coordination.key_template import InvalidKeyTemplate, UnfitValue
from packmule.coordination.keys import InvalidName
from packmule.coordination.redis.connection import connect
from packmule.tests.coordination import cache_worker

CROWD = 40


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A busy machine isn't a server that is unavailable, in forked processes neither."""
    monkeypatch.setattr(link, "TIMEOUT", 30.0)


@pytest.fixture
def cache(client):
    with Cache(client, "shop") as opened:
        yield opened


def until(condition, seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


def never(*_):
    raise AssertionError("computed")


@pytest.fixture
def counted():
    """Computes 1, 2, 3 ..., the number of calls so far."""
    numbers = iter(range(1, 1000))
    return lambda: next(numbers)


# Keeping


def test_a_computed_value_is_kept_until_it_expires(client, cache, counted):
    assert cache.get_or_compute("a", counted, ttl=60) == 1
    assert cache.get_or_compute("a", never, ttl=60) == 1
    assert cache.get("a") == 1
    assert 30_000 < client.pttl("pm:cache:shop:a") <= 60_000
    assert cache.get_or_compute("b", counted, ttl=0.3) == 2
    until(lambda: not client.exists("pm:cache:shop:b"))
    assert cache.get("b") is None
    assert cache.get_or_compute("b", counted, ttl=60) == 3


@pytest.mark.parametrize(
    "value", [None, False, 0, "", b"", [], {"a": [1, 2.5, None, "größer"]}, b"\x00\xff", 2**70, "\x00"]
)
def test_json_values_and_bytes_come_back_unchanged_and_none_is_a_hit(cache, value):
    assert cache.get_or_compute("a", lambda: value, ttl=60) == value
    again = cache.get_or_compute("a", never, ttl=60)
    assert (again, type(again)) == (value, type(value))
    assert cache.get("a", "nothing") == value


def test_a_miss_returns_the_same_as_a_hit(cache):
    assert cache.get_or_compute("a", lambda: (1, {2: "b"}), ttl=60) == [1, {"2": "b"}]
    assert cache.get("a") == [1, {"2": "b"}]
    assert cache.get_or_compute("b", lambda: bytearray(b"x"), ttl=60) == b"x"


@pytest.mark.parametrize("value", [object(), {1, 2}, {"a": b"b"}, math.nan, [math.inf], "\ud800", {(1,): 2}])
def test_a_value_that_is_not_cacheable_is_refused_and_no_reader_waits(client, cache, value):
    with pytest.raises(NotCacheable, match="keeps bytes and JSON values, not this"):
        cache.get_or_compute("a", lambda: value, ttl=60)
    with pytest.raises(NotCacheable):
        cache.put("a", value, ttl=60)
    assert not client.keys("*")


@pytest.mark.parametrize("key", ["", "a b", "größer", "\ud800", "x" * 10**6, "a:b", "\r\nDEL", "\x00"])
def test_any_text_can_be_a_key_and_a_tag(cache, key):
    assert cache.get_or_compute(key, lambda: "one", ttl=60, tags=[key]) == "one"
    assert cache.get_or_compute(key, never, ttl=60, tags=[key]) == "one"
    assert cache.get(key) == "one"
    cache.invalidate_tag(key)
    assert cache.get(key) is None
    assert cache.put(key, "two", ttl=60)
    cache.invalidate(key)
    assert cache.get(key) is None


@pytest.mark.parametrize("ttl", [0, -1, 1e-9, math.nan, math.inf, "60", None, True])
def test_an_invalid_ttl_is_refused_before_anything_is_computed(cache, ttl):
    with pytest.raises(ValueError, match=r"ttl=.*: give a number of seconds from 0.001"):
        cache.get_or_compute("a", never, ttl=ttl)
    with pytest.raises(ValueError, match="give a number of seconds"):
        cache.put("a", 1, ttl=ttl)
    with pytest.raises(ValueError, match="give a number of seconds"):
        cache.cached(ttl=ttl, key="a")
    if ttl != 0:
        with pytest.raises(ValueError, match=r"stale_ttl=.*: give a number of seconds from 0"):
            cache.get_or_compute("a", never, ttl=1, stale_ttl=ttl if ttl != 1e-9 else -1)


def test_other_invalid_arguments_are_refused_with_advice(client, cache):
    for name in ("", "a b", "größer", "a:b", None):
        with pytest.raises(InvalidName, match="is not a valid name"):
            Cache(client, name)
    for max_bytes in (0, 10**9, 1.5, None):
        with pytest.raises(ValueError, match="whole number from 1 to"):
            Cache(client, "shop", max_bytes=max_bytes)
    with pytest.raises(ValueError, match=r"lease=0: give a number of seconds from 0\.1"):
        Cache(client, "shop", lease=0)
    for tags in ("abc", ["a"] * 17):
        with pytest.raises(ValueError, match="give a list of up to 16 texts"):
            cache.get_or_compute("a", never, ttl=1, tags=tags)
    for key in (None, 1, b"a"):
        with pytest.raises(TypeError, match="a key must be text"):
            cache.get_or_compute(key, never, ttl=1)


def test_a_large_value_is_returned_but_not_stored_and_no_reader_waits(client, cache, counted, caplog):
    sent = client.info("stats")["total_net_input_bytes"]
    large = bytes(1_000_000_000)
    assert cache.get_or_compute("a", lambda: large, ttl=60) is large
    assert cache.get_or_compute("b", lambda: "x" * 2**20, ttl=60) == "x" * 2**20
    assert client.info("stats")["total_net_input_bytes"] - sent < 100_000
    assert caplog.messages == ["the cache shop keeps up to 1048576 bytes per key, so a is computed each time"]
    assert cache.get("a", "nothing") == "nothing"
    client.set("pm:computing:shop:a", "somebody")
    assert cache.get_or_compute("a", counted, ttl=60) == 1
    with pytest.raises(EntryTooLarge, match="a: the cache shop keeps up to 1,048,576 bytes per key"):
        cache.put("a", large, ttl=60)


def test_a_value_at_the_size_limit_is_kept(client):
    with Cache(client, "small", max_bytes=1000) as cache:
        assert cache.put("a", bytes(1000), ttl=60)
        assert len(cache.get("a")) == 1000
        with pytest.raises(EntryTooLarge):
            cache.put("a", "x" * 999, ttl=60)  # and two quotation marks


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"pmc1",
        b"x" * 100,
        b"pmc1" + b"\xff" * 200,
        b"pmc1" + bytes(40) + b"{",
        Entry(bytes(ID_BYTES), JSON, 0, 0, {}, b"[" * 100_000).packed(),
    ],
)
def test_a_foreign_value_is_a_miss_and_is_overwritten(client, cache, stored):
    client.set("pm:cache:shop:a", stored, ex=60)
    assert cache.get("a", "nothing") == "nothing"
    assert cache.get_or_compute("a", lambda: "new", ttl=60) == "new"
    assert cache.get("a") == "new"


def test_a_key_of_another_type_is_left_alone(client, cache, caplog):
    client.hset("pm:cache:shop:a", "b", 1)
    assert cache.get("a", "nothing") == "nothing"
    assert cache.get_or_compute("a", lambda: "new", ttl=60) == "new"
    assert client.hgetall("pm:cache:shop:a") == {b"b": b"1"}
    assert "WRONGTYPE" in caplog.text


def test_every_key_expires(client, cache):
    for number in range(5):
        cache.get_or_compute(f"key {number}", lambda: 1, ttl=0.2, stale_ttl=0.2, tags=["a", "b"])
    assert {key for key in client.keys("*") if client.pttl(key) == -1} == set()  # -2: it has expired
    until(lambda: not client.keys("pm:c*"))
    assert sorted(client.keys("*")) == [b"pm:tag:shop:a", b"pm:tag:shop:b"]


# Invalidating


def test_an_invalidated_key_is_computed_again(cache, counted):
    cache.get_or_compute("a", counted, ttl=60, stale_ttl=60)
    cache.invalidate("a")
    assert cache.get("a") is None
    assert cache.get_or_compute("a", counted, ttl=60) == 2


def test_a_tag_invalidates_exactly_the_values_that_have_it(client, cache, counted):
    for key, tags in {"a": ["x"], "b": ["x", "y"], "c": ["y"], "d": []}.items():
        cache.get_or_compute(key, counted, ttl=60, stale_ttl=60, tags=tags)
    before = client.info("commandstats")
    cache.invalidate_tag("x")
    ran = {name: each["calls"] for name, each in client.info("commandstats").items()}
    assert ran["cmdstat_del"] - before.get("cmdstat_del", {"calls": 0})["calls"] == 1
    assert [cache.get(key) for key in "abcd"] == [None, None, 3, 4]
    assert [cache.get(key, tags=tags) for key, tags in {"b": ["y", "x"], "c": ["y"]}.items()] == [None, 3]
    assert cache.get_or_compute("a", counted, ttl=60, tags=["x"]) == 5
    assert cache.get_or_compute("b", counted, ttl=60, tags=["x", "y"]) == 6
    assert cache.get_or_compute("c", never, ttl=60, tags=["y"]) == 3


def test_a_value_kept_without_a_tag_is_a_miss_for_a_reader_that_names_it(cache, counted):
    cache.get_or_compute("a", counted, ttl=60)
    assert cache.get("a", tags=["x"]) is None
    assert cache.get_or_compute("a", counted, ttl=60, tags=["x"]) == 2
    assert cache.get("a") == 2


def test_a_tag_that_redis_lost_invalidates(client, cache, counted):
    cache.get_or_compute("a", counted, ttl=60, tags=["x"])
    client.delete("pm:tag:shop:x")
    assert cache.get_or_compute("a", counted, ttl=60, tags=["x"]) == 2


def test_a_tag_lives_as_long_as_its_longest_entry(client, cache):
    cache.put("a", 1, ttl=10**6, tags=["x"])
    cache.put("b", 1, ttl=1, tags=["x"])
    assert client.ttl("pm:tag:shop:x") > 10**6


def test_a_tag_that_is_about_to_expire_outlives_a_computation_and_its_value(client, cache):
    cache.put("a", 1, ttl=60, tags=["x"])
    client.expire("pm:tag:shop:x", 100)
    during = []

    def slow():
        during.append(client.ttl("pm:tag:shop:x"))
        client.expire("pm:tag:shop:x", 100)  # as if it had taken an hour
        return 2

    cache.get_or_compute("b", slow, ttl=600, tags=["x"])
    assert during[0] > 3600
    assert client.ttl("pm:tag:shop:x") > 500


@pytest.mark.parametrize("how", ["key", "tag", "put"])
def test_a_value_invalidated_during_its_computation_is_not_kept(client, cache, counted, how):
    def slow():
        {
            "key": lambda: cache.invalidate("a"),
            "tag": lambda: cache.invalidate_tag("x"),
            "put": lambda: cache.put("a", "put", ttl=60, tags=["x"]),
        }[how]()
        return "old"

    assert cache.get_or_compute("a", slow, ttl=60, stale_ttl=60, tags=["x"]) == "old"
    assert client.exists("pm:cache:shop:a") == (how == "put")
    assert not client.exists("pm:computing:shop:a"), "a waiting reader would wait on"
    expected = "put" if how == "put" else 1
    assert cache.get_or_compute("a", counted, ttl=60, tags=["x"]) == expected


def test_a_value_stored_after_a_reader_missed_it_is_not_computed_again(cache, monkeypatch):
    taken = lookup.take

    def late(*args):
        cache.put("a", "another's", ttl=60)
        monkeypatch.setattr(lookup, "take", taken)
        return taken(*args)

    monkeypatch.setattr(lookup, "take", late)
    assert cache.get_or_compute("a", never, ttl=60) == "another's"


def test_a_reader_whose_lease_was_granted_in_a_lost_reply_does_not_wait_for_itself(cache, monkeypatch):
    cache.put("b", "b", ttl=60)  # the server knows the script, and a connection is open
    exchange, lost = link.Link._exchange, []

    def lossy(*args):
        replies = exchange(*args)
        if args[2][0][0] == "EVALSHA" and not lost:
            lost.append(replies)
            raise redis.ConnectionError("the reply is lost")
        return replies

    monkeypatch.setattr(link.Link, "_exchange", lossy)
    monkeypatch.setattr(lookup, "ReleaseListener", never)
    assert cache.get_or_compute("a", lambda: "a", ttl=60) == "a"
    assert lost


@pytest.mark.parametrize("how", ["key", "tag"])
def test_a_reader_after_an_invalidation_does_not_wait_for_an_older_computation(cache, counted, how):
    begun, end, old = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        end.wait(60)
        return "old"

    thread = threading.Thread(
        target=lambda: old.append(cache.get_or_compute("a", slow, ttl=60, tags=["x"])), daemon=True
    )
    thread.start()
    begun.wait(60)
    cache.invalidate("a") if how == "key" else cache.invalidate_tag("x")
    assert cache.get_or_compute("a", counted, ttl=60, tags=["x"]) == 1
    end.set()
    thread.join()
    assert old == ["old"]
    assert cache.get_or_compute("a", never, ttl=60, tags=["x"]) == 1


def test_no_reader_gets_a_value_invalidated_before_it_asked(server, client):
    ends, pipes, processes = time.time() + 3, [], []
    for seed in range(6):
        receiver, sender = cache_worker.forked.Pipe(duplex=False)
        pipes.append(receiver)
        processes.append(cache_worker.run(cache_worker.race, server.data_dir, seed, ends, sender))
        sender.close()
    results = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    assert [old for _, old in results] == [[]] * 6
    assert sum(reads for reads, _ in results) > 100
    assert int(client.get("settled")) > cache_worker.ENOUGH


# One computes


@pytest.mark.parametrize("likely_new", [False, True])
def test_one_of_many_processes_computes_and_all_get_the_value(server, client, likely_new):
    answers = cache_worker.crowd(server.data_dir, CROWD, 0.5, {}, {"ttl": 60, "likely_new": likely_new})
    assert Counter(value for value, _ in answers) == {1: CROWD}
    assert int(client.get("computations")) == 1
    assert not client.exists("pm:computing:race:cold")


def test_a_key_that_is_likely_new_takes_two_calls_whether_it_is_kept_or_not(cache, counted, monkeypatch):
    calls, call = [], cache._link.call
    monkeypatch.setattr(cache._link, "call", lambda *commands: calls.append(commands) or call(*commands))
    for likely_new, cost in ((False, 3 + 1), (True, 2 + 2)):
        cache.get_or_compute(f"a{likely_new}", counted, ttl=60, likely_new=likely_new)
        cache.get_or_compute(f"a{likely_new}", never, ttl=60, likely_new=likely_new)
        assert len(calls) == cost
        calls.clear()


@pytest.mark.parametrize("end", ["computed", "failed"])
def test_a_waiting_reader_is_woken_at_once_and_does_not_spin(client, monkeypatch, end):
    monkeypatch.setattr(link, "TIMEOUT", 30.0)
    monkeypatch.setattr(lookup, "LOOK_AGAIN", 600.0)
    begun, found = threading.Event(), []

    def slow():
        begun.set()
        until(lambda: client.pubsub_numsub("pm:computed:shop:a")[0][1] == 1)
        time.sleep(0.3)
        return 1 // (end == "computed")

    with Cache(client, "shop", lease=600) as cache:
        reader = threading.Thread(
            target=lambda: begun.wait(60) and found.append(cache.get_or_compute("a", lambda: 2, ttl=60)),
            daemon=True,
        )
        reader.start()
        before = client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"]
        with contextlib.suppress(ZeroDivisionError):
            cache.get_or_compute("a", slow, ttl=60)
        until(lambda: found)  # the lease would end much later
        reader.join()
    assert found == [1 if end == "computed" else 2]
    assert client.info("commandstats")["cmdstat_mget"]["calls"] - before <= 6


def test_a_lease_that_was_lost_is_neither_renewed_nor_given_back(client, cache):
    at, opened = Place("shop", "a", ()), link.Link(client)
    first, second = (take(opened, at, ANY, 60_000, 60.0, 600.0) for _ in range(2))
    assert first.renew() is None
    first.give_back()
    assert second.renew() == 20
    opened.close()


def test_a_computation_longer_than_its_lease_keeps_the_lease(server, client):
    answers = cache_worker.crowd(server.data_dir, 4, 4.5, {"lease": 3.0}, {"ttl": 60})
    assert Counter(value for value, _ in answers) == {1: 4}


def hang(data_dir) -> None:
    with connect(None, data_dir) as client, Cache(client, "shop", lease=1.0) as cache:

        def compute():
            client.set("computing", os.getpid())
            time.sleep(60)

        cache.get_or_compute("a", compute, ttl=60)


def test_when_the_computing_process_is_killed_another_takes_over(server, client, cache, counted):
    process = cache_worker.run(hang, server.data_dir)
    until(lambda: client.exists("computing"))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    begun, left = time.monotonic(), client.pttl("pm:computing:shop:a") / 1000
    assert cache.get_or_compute("a", counted, ttl=60) == 1
    assert left - 0.01 < time.monotonic() - begun < 30.0
    assert cache.get("a") == 1


def late(data_dir) -> None:
    with connect(None, data_dir) as client, Cache(client, "shop", lease=0.5) as cache:

        def compute():
            os.kill(os.getpid(), signal.SIGSTOP)
            return "late"

        client.set("late", cache.get_or_compute("a", compute, ttl=60))


def test_a_late_value_of_a_process_that_lost_its_lease_is_ignored(server, client, cache):
    process = cache_worker.run(late, server.data_dir)
    os.waitpid(process.pid, os.WUNTRACED)  # until it has stopped itself
    assert cache.get_or_compute("a", lambda: "new", ttl=60) == "new"
    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    assert client.get("late") == b"late"
    assert cache.get("a") == "new"


def test_an_error_in_the_computation_is_raised_and_the_next_reader_tries(client, cache, counted):
    with pytest.raises(ZeroDivisionError):
        cache.get_or_compute("a", lambda: 1 // 0, ttl=60)
    assert not client.keys("*")
    assert cache.get_or_compute("a", counted, ttl=60) == 1


def test_a_process_that_computes_for_too_long_is_overtaken_by_a_waiter(client, counted):
    begun, end = threading.Event(), threading.Event()
    with Cache(client, "shop", lease=0.3, longest=0.5) as cache:

        def hang():
            begun.set()
            end.wait(60)

        thread = threading.Thread(target=lambda: cache.get_or_compute("a", hang, ttl=60))
        started = time.monotonic()
        thread.start()
        begun.wait(60)
        assert cache.get_or_compute("a", counted, ttl=60) == 1
        assert time.monotonic() - started < 30.0  # and not the minute that the other takes
        end.set()
        thread.join()
        assert cache.get("a") == 1


# Stale values, and early ones


def test_a_stale_value_is_returned_at_once_while_another_computes(client, cache):
    cache.put("a", "old", ttl=0.05, stale_ttl=60)
    until(lambda: cache.get("a") is None)
    begun, end, new = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        end.wait(60)
        return "new"

    thread = threading.Thread(target=lambda: new.append(cache.get_or_compute("a", slow, ttl=60)))
    thread.start()
    begun.wait(60)
    assert cache.get_or_compute("a", never, ttl=60) == "old"
    end.set()
    thread.join()
    assert new == ["new"]
    assert cache.get_or_compute("a", never, ttl=60) == "new"


def test_a_stale_value_whose_tag_was_invalidated_is_never_returned(client, cache, counted):
    cache.put("a", "old", ttl=0.05, stale_ttl=60, tags=["x"])
    cache.invalidate_tag("x")
    assert cache.get_or_compute("a", counted, ttl=60, tags=["x"]) == 1


def test_a_value_is_refreshed_early_at_random_likelier_the_slower_it_is():
    def share(cost: float, left: float) -> float:
        from packmule.coordination.cache.lookup import Found

        found = Found(b"", Entry(b"", b"j", 0, cost, {}, b""), None, left)
        return sum(found.is_due() for _ in range(4000)) / 4000

    assert share(0.0, 0.001) == 0.0
    assert share(1.0, 0.0) == 1.0
    # The chance that -log of a uniform number below one exceeds left / cost is exp(-left / cost).
    for cost, left in ((1.0, 1.0), (1.0, 2.0), (0.1, 0.05)):
        assert abs(share(cost, left) - math.exp(-left / cost)) < 0.05


def test_only_one_reader_refreshes_early_and_others_get_the_value_meanwhile(client, cache):
    cache.put("a", "old", ttl=60)
    raw = client.get("pm:cache:shop:a")
    entry = unpacked(raw)
    costly = Entry(entry.id, entry.kind, 0, 1e9, {}, entry.body)  # so that any reader finds it due
    client.set("pm:cache:shop:a", costly.packed(), ex=60)
    seen = []

    def compute():
        seen.append(cache.get_or_compute("a", never, ttl=60))
        return "new"

    assert cache.get_or_compute("a", compute, ttl=60) == "new"
    assert seen == ["old"]
    assert cache.get("a") == "new"


# Without Redis


def test_without_redis_everything_is_computed_and_logged_once(spare_server, counted, caplog):
    server = spare_server()
    client = redis.Redis.from_url(server.url)
    with Cache(client, "shop") as cache:
        assert cache.get_or_compute("a", counted, ttl=60) == 1
        server.stop()
        begun = time.monotonic()
        assert [cache.get_or_compute("a", counted, ttl=60) for _ in range(50)] == list(range(2, 52))
        assert cache.get("a", "nothing") == "nothing"
        assert cache.put("a", 1, ttl=60) is False
        assert time.monotonic() - begun < 20.0
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith("the cache shop works without Redis: Error 2 connecting to")
        assert caplog.records[0].levelno == logging.WARNING
        for invalidate in (cache.invalidate, cache.invalidate_tag):
            with pytest.raises(redis.ConnectionError):
                invalidate("a")
        server.ensure()
        until(lambda: cache.put("a", "back", ttl=60))
        assert cache.get("a") == "back"
    client.close()


def test_an_outage_during_the_computation_does_not_matter(spare_server, caplog):
    server = spare_server()
    client = redis.Redis.from_url(server.url)
    with Cache(client, "shop") as cache:
        assert cache.get_or_compute("a", lambda: server.stop() or "done", ttl=60) == "done"
        assert "works without Redis" in caplog.text
    client.close()


def test_a_redis_that_does_not_answer_costs_a_second_and_then_nothing(spare_server, counted, monkeypatch):
    monkeypatch.setattr(link, "TIMEOUT", 1.0)
    server = spare_server()
    client = redis.Redis.from_url(server.url)
    with Cache(client, "shop") as cache:
        cache.put("a", 0, ttl=60)
        pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            assert [cache.get_or_compute("a", counted, ttl=60) for _ in range(20)] == list(range(1, 21))
            assert time.monotonic() - begun < 15.0  # each of them would cost a second
        finally:
            os.kill(pid, signal.SIGCONT)
    client.close()


def test_a_restarted_redis_is_found_at_once(spare_server, counted):
    server = spare_server()
    client = redis.Redis.from_url(server.url)
    with Cache(client, "shop") as cache:
        cache.put("a", 0, ttl=60)
        server.stop()
        server.ensure()
        assert cache.get_or_compute("b", counted, ttl=60) == 1
        assert cache.get("b") == 1
    client.close()


def test_a_full_redis_keeps_nothing_and_raises_nothing(spare_server, counted, caplog):
    server = spare_server()
    client = redis.Redis.from_url(server.url)
    client.config_set("maxmemory", "1")
    with Cache(client, "shop") as cache:
        assert [cache.get_or_compute("a", counted, ttl=60) for _ in range(3)] == [1, 2, 3]
    assert "works without Redis" in caplog.text
    client.close()


def test_a_cache_works_in_a_forked_child(client, cache):
    cache.put("a", 1, ttl=60)
    child = os.fork()
    if child == 0:
        os._exit(0 if cache.get("a") == 1 and cache.put("b", 2, ttl=60) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.get("b") == 2


# Functions


def test_a_functions_results_are_kept_by_argument(cache):
    calls = []

    @cache.cached(ttl=60, key="price/{0}/{currency}", tags=["product/{product}"])
    def price(product, currency="eur"):
        """Its price."""
        calls.append((product, currency))
        return {"product": product, currency: 12}

    assert price(7) == price(7, "eur") == price(currency="eur", product=7) == {"product": 7, "eur": 12}
    assert price("7") == {"product": "7", "eur": 12}
    price(7, "usd")
    assert calls == [(7, "eur"), ("7", "eur"), (7, "usd")]
    assert (price.__name__, price.__doc__) == ("price", "Its price.")
    price.invalidate(7)
    price(7)
    cache.invalidate_tag("product/7")
    price(7, "usd")
    assert calls[3:] == [(7, "eur"), (7, "usd")]
    assert cache.get(price.key(7, "usd")) == {"product": 7, "usd": 12}


def test_a_function_can_make_the_key(cache):
    @cache.cached(ttl=60, key=lambda order: f"order/{order['id']}")
    def total(order):
        return order["total"]

    assert total({"id": 1, "total": 5}) == 5
    assert total({"id": 1, "total": 6}) == 5
    assert cache.get("order/1") == 5


def test_a_method_is_cached_by_the_arguments_that_its_key_names(cache):
    class Shop:
        name = "a"

        @cache.cached(ttl=60, key="stock/{item}")
        def stock(self, item):
            return [self.name, item]

    assert Shop().stock(3) == ["a", 3]
    assert cache.get("stock/3") == ["a", 3]


def test_different_arguments_and_functions_never_share_a_key(cache):
    @cache.cached(ttl=60, key="{a}/{b}")
    def pair(a, b):
        return [a, b]

    assert pair("x/y", "z") == ["x/y", "z"]
    assert pair("x", "y/z") == ["x", "y/z"]
    with pytest.raises(ValueError, match="choose another"):

        @cache.cached(ttl=60, key="{c}/{d}")
        def other(c, d):
            return c


def test_unsuitable_functions_and_templates_are_refused(cache):
    async def waits(a):
        return a

    def yields(a):
        yield a

    for function in (waits, yields):
        with pytest.raises(TypeError, match="only plain functions"):
            cache.cached(ttl=60, key="k/{a}")(function)
    for key in ("", "{b}", "{1}", "{a", "{a.real}"):
        with pytest.raises(InvalidKeyTemplate):
            cache.cached(ttl=60, key=key)(lambda a: a)
    with pytest.raises(UnfitValue):
        cache.cached(ttl=60, key="n/{a}")(lambda a: a)(object())
