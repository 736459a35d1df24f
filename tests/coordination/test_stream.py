"""Streams: nothing is skipped if a consumer dies, missed events are reported, and bad events stop nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import redis

from packmule.coordination.redis.connection import connect
from packmule.coordination.streams.consumer import Consumer, Later
from packmule.coordination.streams.membership import Membership
from packmule.coordination.streams.stream import READ_ENTRIES, Missed, Stream

WORKER = Path(__file__).with_name("event_worker.py")


@pytest.fixture
def stream(client):
    return Stream(client, "s", max_entries=10_000)


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def running(*consumers, handle):
    """Consumers, each in a thread, until the block ends."""
    stop = threading.Event()
    threads = [threading.Thread(target=each.run, args=(handle, stop)) for each in consumers]
    for thread in threads:
        thread.start()
    try:
        yield stop
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()


def values(events):
    return [event.value for event in events]


def pending(client):
    return client.xpending("s", "g")["pending"]


def dead_letters(client):
    return [json.loads(line) for line in client.lrange("s:dead:g", 0, -1)]


def test_appended_events_are_read_in_order_and_each_has_an_id(stream):
    entry = stream.append([["started", "a"], {"n": 1.5}, None, "größer", b"\x00"])
    events = stream.read()
    assert values(events) == [["started", "a"], {"n": 1.5}, None, "größer", b"\x00"]
    assert [event.id for event in events] == [f"{entry}/{n}" for n in range(5)]
    with pytest.raises(ValueError, match="at least one event"):
        stream.append([])


def test_reading_continues_after_an_event_an_entry_or_a_time(stream):
    first, second = stream.append([1, 2, 3]), stream.append([4])
    assert values(stream.read(f"{first}/1")) == [3, 4]
    assert values(stream.read(f"{first}/2")) == values(stream.read(first)) == [4]
    assert values(stream.read(second)) == []
    assert values(stream.read("1")) == [1, 2, 3, 4]
    assert values(stream.read(count=1)) == [1, 2, 3]
    for wrong in ("", "a", "1-2-3", "1/2/3", "-1", "$x"):
        with pytest.raises(ValueError, match="is not an event"):
            stream.read(wrong)


def test_events_appended_by_a_script_are_read(stream, client):
    client.eval("redis.call('XADD', KEYS[1], '*', 'e', cmsgpack.pack({{'done', 'id', 2}, {}}))", 1, "s")
    client.xadd("s", {"e": msgspec.msgpack.encode([3]), "x": "another field"})
    assert values(stream.read()) == [["done", "id", 2], [], 3]


def test_a_blocking_read_ends_at_the_first_event_or_on_time(stream):
    begun = time.monotonic()
    assert stream.read(block=0.3) == []
    assert 0.3 <= time.monotonic() - begun < 20
    appending = threading.Timer(0.2, stream.append, [[1]])
    appending.start()
    assert values(stream.read(block=60)) == [1]
    appending.join()


def test_a_long_load_never_grows_the_stream_past_its_cap(client):
    stream = Stream(client, "s", max_entries=500)
    for n in range(5000):
        stream.append([n])
        if n % 50 == 0:
            assert client.xlen("s") <= 500 + 100
    assert client.xlen("s") <= 500 + 100
    stream.trim()
    assert client.xlen("s") == 500


def test_entries_that_are_too_old_are_trimmed(client):
    stream = Stream(client, "s", max_entries=500, max_age=3600)
    now = int(client.time()[0] * 1000)
    for age in (7200, 3700, 3500, 10):
        client.xadd("s", {"e": msgspec.msgpack.encode([age])}, id=f"{now - age * 1000}-0")
    assert stream.trim() == 2
    assert values(stream.read()) == [3500, 10]


@pytest.mark.parametrize("bound", [{"max_entries": 0}, {"max_entries": 5, "max_age": 0}])
def test_bounds_that_allow_nothing_are_refused(client, bound):
    with pytest.raises(ValueError, match="more than 0"):
        Stream(client, "s", **bound)


def test_a_follower_overtaken_by_trimming_learns_how_much_it_missed(client, stream):
    stream.append([0])
    events = stream.follow("0")
    assert next(events).value == 0
    for n in range(1, 11):
        stream.append([n])
    client.xtrim("s", maxlen=4, approximate=False)
    assert next(events).value == Missed(6)
    assert [next(events).value for _ in range(4)] == [7, 8, 9, 10]


def test_a_reader_of_a_quiet_stream_that_loses_all_to_age_has_missed_nothing(client, stream):
    stream.append([0])
    events = stream.follow("0")
    assert next(events).value == 0
    client.xtrim("s", maxlen=0, approximate=False)
    stream.append([1])
    assert next(events).value == 1


def test_a_reader_that_returns_with_a_trimmed_id_gets_missed(client, stream):
    ids = [stream.append([n]) for n in range(10)]
    client.xtrim("s", maxlen=4, approximate=False)
    assert values(stream.read(ids[2])) == [Missed(None), 6, 7, 8, 9]
    assert values(stream.read(ids[7])) == [8, 9]
    assert values(stream.read()) == [6, 7, 8, 9]


def test_entries_of_one_millisecond_can_be_missed_too(client, stream):
    for n in range(1, 5):
        client.xadd("s", {"e": msgspec.msgpack.encode([n])}, id=f"5-{n}")
    client.xtrim("s", maxlen=2, approximate=False)
    assert values(stream.read("5-1")) == [Missed(None), 3, 4]


def test_a_reader_of_a_stream_that_lost_all_its_entries_missed_those_after_its_own(client, stream):
    ids = [stream.append([n]) for n in range(3)]
    client.xtrim("s", maxlen=0, approximate=False)
    assert values(stream.read(ids[0])) == [Missed(None)]
    assert values(stream.read(ids[2])) == []


def test_what_a_follower_missed_is_counted_once_and_exactly_from_there(client, stream):
    ids = [stream.append([n]) for n in range(250)]
    client.xtrim("s", maxlen=240, approximate=False)
    events = stream.follow(ids[2])
    assert [next(events).value for _ in range(READ_ENTRIES + 1)] == [Missed(None), *range(10, 110)]
    client.xtrim("s", maxlen=130, approximate=False)
    assert [next(events).value for _ in range(READ_ENTRIES + 1)] == [Missed(10), *range(120, 220)]
    client.xtrim("s", maxlen=20, approximate=False)
    assert [next(events).value for _ in range(21)] == [Missed(10), *range(230, 250)]


def test_a_follower_of_a_stream_that_went_back_goes_on_at_its_end(client, stream):
    stream.append([0])
    events = stream.follow("0")
    assert next(events).value == 0
    client.delete("s")
    for n in range(1, 11):
        client.xadd("s", {"e": msgspec.msgpack.encode([n])}, id=f"5-{n}")
    client.xtrim("s", maxlen=1, approximate=False)
    threading.Timer(0.3, stream.append, [["new"]]).start()
    assert next(events).value == "new"


def test_a_follower_begins_now_and_stops_on_request(stream):
    stream.append(["before"])
    stop = threading.Event()
    events = stream.follow(stop=stop)
    stream.append(["after"])
    assert next(events).value == "after"
    stop.set()
    assert list(events) == []


def test_a_follower_skips_nothing_across_a_restart_and_a_new_stream(spare_server):
    server = spare_server()
    with connect(None, server.data_dir) as client:
        stream = Stream(client, "s", max_entries=1000)
        events = stream.follow("0")
        stream.append([1])
        assert next(events).value == 1
        server.stop()
        stream.append([2])
        assert next(events).value == 2
        client.delete("s")
        threading.Timer(0.3, stream.append, [[3]]).start()
        assert next(events).value == 3
        os.kill(server.pid(), signal.SIGKILL)
        stream.append([4])
        found = next(events).value
        assert found == 4


def test_an_event_that_cannot_be_unpacked_costs_the_others_nothing(client, stream):
    client.xadd("s", {"e": b"\x93\x01\xa1\xff\x02"})
    client.xadd("s", {"e": b"no msgpack"})
    client.xadd("s", {"e": b"\x91" * 100_000})
    client.xadd("s", {"other": b"x"})
    stream.append([3])
    assert values(stream.read()) == [1, 2, 3]


def test_each_event_is_handled_by_one_member_and_acknowledged(client, stream):
    seen = []
    pair = [Consumer(stream, "g", name) for name in ("a", "b")]
    with running(*pair, handle=lambda event: seen.append(event.value)):
        for n in range(100):
            stream.append([2 * n, 2 * n + 1])
        until(lambda: len(seen) >= 200)
        until(lambda: pending(client) == 0)
    assert sorted(seen) == list(range(200))
    other = []
    with running(Consumer(stream, "h", "a"), handle=lambda event: other.append(event.value)):
        until(lambda: len(other) == 200)
    assert other == list(range(200))


def test_a_new_group_may_begin_now(client, stream):
    stream.append(["before"])
    seen = []
    with running(Consumer(stream, "g", "a", since="$"), handle=lambda event: seen.append(event.value)):
        until(lambda: client.exists("s") and client.xinfo_groups("s"))
        stream.append(["after"])
        until(lambda: seen)
    assert seen == ["after"]


@contextmanager
def processes(server, *names):
    started = [
        subprocess.Popen([sys.executable, str(WORKER), server.url, name], stdout=subprocess.PIPE)
        for name in names
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_consumer_killed_between_reading_and_acknowledging_skips_nothing(server, client, stream):
    stream.append([1, "hang", 2])
    for n in range(3, 10):
        stream.append([n])
    with processes(server, "doomed") as (doomed,):
        assert doomed.stdout.readline() == b"1\n"
        assert doomed.stdout.readline() == b"hangs\n"
        assert pending(client) == 8
        doomed.kill()
    seen = []
    heir = Consumer(stream, "g", "heir", min_idle=0.5, forget_after=1.0)
    with running(heir, handle=lambda event: seen.append(event.value)):
        until(lambda: len(seen) >= 10)
        until(lambda: pending(client) == 0)
        until(lambda: [each["name"] for each in client.xinfo_consumers("s", "g")] == [b"heir"])
    assert seen == [1, "hang", *range(2, 10)]


def test_only_the_entry_that_kills_its_consumers_is_set_aside(server, client, stream):
    for each in (1, "killer", 2, 3):
        stream.append([each])
    for name in ("a", "b", "c"):
        with processes(server, name) as (process,):
            assert process.wait(60) == -signal.SIGKILL
    with processes(server, "d"):
        until(lambda: pending(client) == 0)
    [record] = dead_letters(client)
    assert record["events"] == ["killer"]
    assert "not finished in 3 deliveries" in record["reason"]


def test_a_failing_event_is_retried_and_then_set_aside_alone(client, stream):
    seen = []

    def handle(event):
        seen.append(event.value)
        if event.value == "bad":
            raise LookupError("no such account")

    entry = stream.append(["a", "bad", "b"])
    stream.append(["c"])
    with running(Consumer(stream, "g", "one", deliveries=3), handle=handle):
        until(lambda: "c" in seen)
        until(lambda: pending(client) == 0)
    assert seen == ["a", "bad", "bad", "bad", "b", "c"]
    [record] = dead_letters(client)
    assert record["reason"] == "LookupError: no such account"
    assert (record["id"], record["events"], record["deliveries"]) == (f"{entry}/1", ["bad"], 3)
    assert not client.exists("s:rest:g")


def test_an_entry_that_cannot_be_unpacked_is_set_aside_and_the_rest_handled(client, stream):
    seen = []
    client.xadd("s", {"e": b"\x93\x01\xa1\xff\x02"})
    client.xadd("s", {"e": b"\xc1"})
    client.xadd("s", {"x": b"y"})
    stream.append([3])
    with running(Consumer(stream, "g", "one"), handle=lambda event: seen.append(event.value)):
        until(lambda: 3 in seen)
        until(lambda: pending(client) == 0)
    assert seen == [1, 2, 3]
    assert [record["raw"] for record in dead_letters(client)] == ["", "wQ==", "kwGh/wI="]


def test_pauses_grow_while_the_handler_fails(client, stream):
    times = []

    def handle(event):
        times.append(time.monotonic())
        if len(times) < 6:
            raise OSError("away")

    stream.append([1])
    with running(Consumer(stream, "g", "one", deliveries=9), handle=handle):
        until(lambda: len(times) == 6)
    assert times[5] - times[4] > 0.05 * 2**4 / 2
    assert times[5] - times[0] < 30


def test_later_delivers_the_rest_again_without_holding_up_others(client, stream):
    seen = []

    def handle(event):
        seen.append(event.value)
        if event.value == "wait" and seen.count("wait") < 4:
            raise Later(0.1)

    stream.append(["a", "wait", "b"])
    stream.append(["c"])
    with running(Consumer(stream, "g", "one", deliveries=2), handle=handle):
        until(lambda: "b" in seen)
        until(lambda: pending(client) == 0)
    assert [each for each in seen if each != "c"] == ["a", "wait", "wait", "wait", "wait", "b"]
    assert seen.index("c") < seen.index("b")
    assert dead_letters(client) == []


def test_after_a_stop_within_an_entry_the_next_consumer_continues_there(client, stream):
    seen = []
    stream.append(list(range(6)))
    stream.append([6])
    stop = threading.Event()

    def handle(event):
        seen.append(event.value)
        if event.value == 2:
            stop.set()

    Consumer(stream, "g", "one").run(handle, stop)
    assert seen == [0, 1, 2]
    with running(Consumer(stream, "g", "two", min_idle=0.3), handle=lambda event: seen.append(event.value)):
        until(lambda: 6 in seen)
    assert seen == list(range(7))


def members(client, stream, *names, min_idle=60.0):
    made = [Membership(stream, "g", name, "0", min_idle) for name in names]
    made[0].create_group()
    return made


def test_only_a_consumer_that_is_gone_and_holds_nothing_is_forgotten(client, stream):
    holder, gone, other = members(client, stream, "holder", "gone", "other")
    stream.append([1])
    assert len(holder.read(10, 0)) == 1
    gone.read(10, 0.001)
    until(lambda: min(each["idle"] for each in client.xinfo_consumers("s", "g")) > 50)
    other.take_over(3600)
    assert len(client.xinfo_consumers("s", "g")) == 3
    until(lambda: all(each["idle"] > 50 for each in client.xinfo_consumers("s", "g")))
    other.take_over(0.05)
    assert {each["name"] for each in client.xinfo_consumers("s", "g")} == {b"holder", b"other"}


def test_entries_that_are_taken_over_keep_their_number_of_deliveries(client, stream):
    dead, other = members(client, stream, "dead", "other", min_idle=0.001)
    ids = [stream.append([n]) for n in range(3)]
    dead.read(10, 0)
    until(
        lambda: (
            min(each["time_since_delivered"] for each in client.xpending_range("s", "g", "-", "+", 10)) > 5
        )
    )
    other.take_over(3600)
    assert other.held() == dict.fromkeys(ids, 1)


def test_a_takeover_goes_on_behind_many_entries_that_others_hold(client, stream):
    living, dead, other = members(client, stream, "living", "dead", "other")
    with client.pipeline(transaction=False) as pipeline:
        for _ in range(1001):
            pipeline.xadd("s", {"e": msgspec.msgpack.encode([0])})
        pipeline.execute()
    assert len(living.read(1000, 0)) == 1000
    ((id, _),) = dead.read(10, 0)
    client.xclaim("s", "g", "dead", 0, [id], idle=100_000, justid=True)
    other.take_over(3600)
    assert other.held() == {}
    other.take_over(3600)
    assert list(other.held()) == [id]


def test_a_consumer_that_handles_an_entry_slowly_keeps_it(client, stream):
    seen = []

    def handle(event):
        seen.append(event.value)
        time.sleep(0.6)

    pair = [Consumer(stream, "g", name, min_idle=4.0) for name in ("a", "b")]
    stream.append(list(range(8)))
    with running(*pair, handle=handle):
        until(lambda: len(seen) == 8)
        until(lambda: pending(client) == 0)
    assert seen == list(range(8))


@pytest.mark.parametrize("lost", ["group", "stream"])
def test_a_deleted_group_or_stream_is_recreated_and_nothing_skipped(client, stream, lost):
    seen = set()
    with running(Consumer(stream, "g", "one"), handle=lambda event: seen.add(event.value)):
        stream.append([1])
        until(lambda: 1 in seen)
        if lost == "group":
            client.xgroup_destroy("s", "g")
        else:
            client.delete("s")
        stream.append([2])
        until(lambda: 2 in seen)
        stream.append([3])
        until(lambda: 3 in seen)


def test_entries_trimmed_before_they_were_handled_do_not_stop_a_consumer(client, stream):
    seen = []

    def handle(event):
        seen.append(event.value)
        if event.value == 1 and seen.count(1) == 1:
            client.xtrim("s", maxlen=1, approximate=False)
            raise OSError

    for n in (1, 2, 3):
        stream.append([n])
    with running(Consumer(stream, "g", "one"), handle=handle):
        until(lambda: 3 in seen)
        until(lambda: pending(client) == 0)
    assert seen == [1, 3]


def test_a_restart_of_the_server_skips_nothing(spare_server):
    server = spare_server()
    with connect(None, server.data_dir) as client, connect(None, server.data_dir) as other:
        stream = Stream(client, "s", max_entries=1000)
        seen = set()
        consumer = Consumer(Stream(other, "s", max_entries=1000), "g", "one")
        with running(consumer, handle=lambda event: seen.add(event.value)):
            for n in range(30):
                stream.append([n])
                if n % 10 == 5:
                    server.stop()
            until(lambda: seen == set(range(30)))


def test_a_lost_reply_skips_nothing(server, client, stream):
    """Entries delivered to a consumer that never received them, as when a connection breaks."""
    client.xgroup_create("s", "g", id="0", mkstream=True)
    stream.append([1])
    seen = []
    with running(Consumer(stream, "g", "one", min_idle=0.6), handle=lambda event: seen.append(event.value)):
        until(lambda: seen == [1])
        stream.append([2])
        client.xreadgroup("g", "one", {"s": ">"})
        stream.append([3])
        until(lambda: {1, 2, 3} <= set(seen))


def test_a_key_of_another_type_is_an_error_and_not_retried(client, stream):
    client.set("s", "x")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        Consumer(stream, "g", "one").run(print)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        next(stream.follow("0"))
