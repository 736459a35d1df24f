"""Watching what a job says: as it comes, to its end, from a cursor, and through outages."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest
from redis import Redis

from packmule.config import Settings
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.errors import Unavailable
from packmule.jobs import keys, said, watch
from packmule.jobs.client import Client
from packmule.jobs.handle import JobHandle
from packmule.jobs.reader import NoSuchJob
from packmule.jobs.watch import Watch
from packmule.tests.network import server_frozen
from packmule.tests.worker import talking_jobs
from packmule.tests.worker.pools import pool, until
from packmule.tests.worker.test_redis_away import killed


@pytest.fixture
def handle(client: Redis) -> JobHandle:
    return JobHandle("j1", Client(client))


def write(client: Redis, chunks: str, number: int) -> None:
    """As a worker does: an entry of chunks, each a letter, that ends with this number."""
    client.hset(keys.job_key("j1"), mapping={"status": "started"})
    entry = {"by": f"e-{number}", "attempt": 1, "said": json.dumps(list(chunks))}
    client.xadd(keys.output_key("j1"), entry, f"{10 * number}-{number}")


def client_of(server: EmbeddedServer) -> Client:
    return Client(Settings(redis_url=server.url))


def end(client: Redis) -> None:
    client.hset(keys.job_key("j1"), "status", "finished")


def read_into(found: Watch[Any], read: list[Any]) -> threading.Thread:
    """A thread that reads until the job ends."""

    def follow() -> None:
        for each in found:
            read.append(each)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    return thread


def test_a_watcher_gets_what_is_kept_and_what_comes_until_the_end(client, handle):
    write(client, "ab", 2)
    read: list[str] = []
    thread = read_into(found := handle.output(), read)
    until(lambda: read == ["a", "b"])
    write(client, "c", 3)
    until(lambda: read == ["a", "b", "c"])
    assert thread.is_alive()
    write(client, "d", 4)
    end(client)
    thread.join(60)
    assert not thread.is_alive()
    assert (read, found.dropped, found.cursor) == (["a", "b", "c", "d"], 0, "40-4/4")


def test_a_coroutine_watches_without_a_thread_and_its_connection_is_closed(client, handle):
    write(client, "ab", 2)
    connections = len(client.client_list())

    async def follow() -> list[str]:
        read = []
        async for each in handle.output():
            read.append(each)
            if each == "b":
                await asyncio.to_thread(write, client, "cd", 4)
            if each == "d":
                await asyncio.to_thread(end, client)
        return read

    assert asyncio.run(asyncio.wait_for(follow(), 60)) == ["a", "b", "c", "d"]
    until(lambda: len(client.client_list()) <= connections)


def test_a_watcher_that_leaves_closes_its_connection(client, handle):
    write(client, "ab", 2)
    connections = len(client.client_list())
    for each in handle.output():
        assert each == "a"
        break
    until(lambda: len(client.client_list()) <= connections)


def test_another_watcher_goes_on_from_a_cursor_in_the_middle_of_an_entry(client, handle):
    write(client, "abc", 3)
    write(client, "def", 6)
    end(client)
    found = handle.output()
    for each in found:
        if each == "d":
            break
    assert found.cursor == "30-3/4"
    assert list(handle.output(found.cursor)) == ["e", "f"]
    client.xtrim(keys.output_key("j1"), minid="40", approximate=False)
    assert list(handle.output("10-1/2")) == ["d", "e", "f"]


def test_a_watcher_that_comes_late_knows_what_it_lacks(client, handle):
    write(client, "abc", 3)
    write(client, "fg", 7)  # two were dropped before these
    write(client, "h", 8)
    client.xdel(keys.output_key("j1"), "30-3")
    end(client)
    assert list(found := handle.output()) == ["f", "g", "h"]
    assert found.dropped == 5
    assert list(found := handle.output("30-3/3")) == ["f", "g", "h"]
    assert found.dropped == 2
    assert list(found := handle.output("70-7/7")) == ["h"]
    assert found.dropped == 0


def test_a_long_output_comes_whole_and_in_order(client, handle):
    for number in range(1, 101):
        write(client, "x" * 50, 50 * number)
    end(client)
    assert len(list(handle.output())) == 5000
    assert len(list(handle.output().kept())) == 5000


@pytest.mark.parametrize("cursor", ["0", "$", "1-1", "a-b/c", "1-1/1\n", ""])
def test_a_cursor_of_another_form_is_refused(handle, cursor):
    with pytest.raises(watch.InvalidCursor, match="is not a cursor"):
        handle.output(cursor)


def test_a_level_that_is_none_is_refused(handle):
    for call in (handle.logs, handle.follow_logs):
        with pytest.raises(said.UnknownLevel, match="use one of debug, info, warning, error, critical"):
            call("loud")


def test_there_is_no_such_job(client, handle):
    for read in (handle.logs, lambda: list(handle.output()), lambda: list(handle.output().kept())):
        with pytest.raises(NoSuchJob):
            read()
    client.hset(keys.job_key("j1"), "status", "started")
    for key in (keys.log_key("j1"), keys.output_key("j1"), keys.job_key("j1")):
        client.delete(key)
        client.set(key, "in the way")
    with pytest.raises(NoSuchJob, match="can't be read"):
        handle.logs()
    with pytest.raises(NoSuchJob, match="can't be read"):
        list(handle.output())


def test_a_job_that_is_deleted_meanwhile_has_ended(client, handle):
    write(client, "a", 1)
    thread = read_into(handle.output(), read := [])
    until(lambda: read)
    client.delete(keys.job_key("j1"), keys.output_key("j1"))
    thread.join(60)
    assert not thread.is_alive()


GARBAGE = [
    {b"said": b"[", b"attempt": b"1"},
    {b"said": b"\xff", b"attempt": b"1"},
    {b"said": b"[" * 5000, b"attempt": b"1"},
    {b"said": b"{}", b"attempt": b"1"},
    {b"said": b'["x"]', b"attempt": b"9" * 5000},
    {b"said": b'["x"]'},
    {b"other": b"x"},
]


@pytest.mark.parametrize("fields", GARBAGE)
def test_an_entry_that_is_garbage_is_left_out(client, handle, fields):
    write(client, "a", 1)
    client.xadd(keys.output_key("j1"), fields, "20-2")
    write(client, "b", 3)
    end(client)
    assert list(handle.output()) == ["a", "b"]


def test_lines_that_are_garbage_are_left_out(client, handle):
    lines = [
        '[1.5,20,"a",{"n":1}]',
        '["x",20,"a"]',
        "[]",
        "{}",
        "1",
        "[1,30,5]",
        '[2,35,"b",[]]',
        '[3,1,"c"]',
    ]
    client.hset(keys.job_key("j1"), "status", "finished")
    client.xadd(keys.log_key("j1"), {"by": "e-1", "attempt": 3, "said": f"[{','.join(lines)}]"}, "99-8")
    found = [(1.5, "info", "a", {"n": 1}, 3), (2.0, "warning", "b", {}, 3), (3.0, "debug", "c", {}, 3)]
    assert handle.logs() == found
    assert handle.logs("warning") == found[1:2]
    assert list(handle.follow_logs("info")) == found[:2]
    assert asyncio.run(handle.alogs()) == found


def test_a_watcher_survives_an_outage(spare_server):
    server = spare_server()
    with client_of(server) as client:
        write(client.redis, "a", 1)
        read: list[str] = []
        thread = read_into(client.job("j1").output(), read)
        until(lambda: read == ["a"])
        with killed(server, client.redis):
            time.sleep(0.5)
        write(client.redis, "b", 2)
        until(lambda: read == ["a", "b"])
        with server_frozen(server):
            time.sleep(0.5)
        write(client.redis, "c", 3)
        end(client.redis)
        thread.join(60)
        assert read == ["a", "b", "c"]


def test_a_server_that_is_away_at_first_is_an_error(spare_server):
    server = spare_server()
    with client_of(server) as client, killed(server, client.redis), pytest.raises(Unavailable):
        list(client.job("j1").output())


def test_a_watcher_sees_a_real_job_end(server, client, tmp_path):
    Client(client).make_default()
    gate = tmp_path / "gate"
    with pool(server):
        handle = talking_jobs.talk_until_told.enqueue(str(gate))
        thread = read_into(handle.output(), read := [])
        lines: list[object] = []
        other = read_into(handle.follow_logs(), lines)
        until(lambda: read == ["begins"] and len(lines) == 1)
        gate.touch()
        thread.join(60)
        other.join(60)
        assert read == ["begins", "ends"]
        assert [line.text for line in lines] == ["begins", "ends"]
