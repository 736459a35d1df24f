"""Commands are encoded as redis-py does, but no number reaches the C code that a signal could crash."""

from __future__ import annotations

import subprocess
import sys

import pytest
import redis
from redis.connection import HiredisRespSerializer

from packmule.coordination.redis import command_packer
from packmule.coordination.redis.command_packer import CommandPacker
from packmule.coordination.redis.connection import connect


@pytest.mark.parametrize(
    "command",
    [
        ("GET", b"key"),
        ("CLIENT SETNAME", "a"),
        (b"CONFIG GET", "save"),
        ("SET", "ключ", b"\x00\xff", "PX", 60_000),
        ("ZADD", "key", 1.5, "a", -0.0, "b", 1e300, "c", float("inf"), "d"),
        ("SET", "key", bytearray(b"a"), memoryview(b"b"), 2**70, -1),
        ("PING",),
    ],
)
def test_a_command_is_encoded_as_redis_py_does(command):
    assert CommandPacker().pack(*command) == HiredisRespSerializer().pack(*command)


@pytest.mark.parametrize("value", [None, True, [], object()])
def test_a_value_that_is_neither_text_nor_a_number_is_refused_as_redis_py_does(value):
    for packer in (CommandPacker(), HiredisRespSerializer()):
        with pytest.raises(redis.DataError, match="must be str, int, float or bytes"):
            packer.pack("SET", "key", value)


@pytest.fixture
def packed(monkeypatch):
    """The arguments of all commands that hiredis is asked to encode."""
    seen = []
    write = command_packer._write

    def record(arguments):
        seen.extend(arguments)
        return write(arguments)

    monkeypatch.setattr(command_packer, "_write", record)
    return seen


def test_hiredis_gets_nothing_but_text_and_bytes_from_our_clients(server, client, packed):
    with connect(server.url, server.data_dir) as by_url:
        for each in (client, by_url):
            with each.pipeline() as pipe:
                pipe.zadd("scores", {"a": 1.5, "b": 2})
                pipe.expire("scores", 60)
                pipe.execute()
            assert each.zrangebyscore("scores", 1, 2.5) == [b"a", b"b"]
            assert each.eval("return ARGV[1] + ARGV[2]", 1, "key", 1, 2.5) == 3
            assert each.blpop(["none"], timeout=0.01) is None
    assert b"ZADD" in packed
    assert {type(each) for each in packed} == {str, bytes}


INTERRUPTED = """
import signal
from pathlib import Path

import redis

from packmule.coordination.redis import command_packer, connection

class Interruption(Exception):
    pass

def interrupt(signum, frame):
    global count, is_packing
    if is_packing:
        is_packing = False
        count += 1
        raise Interruption

if %(ours)r:
    (client,) = connection.lock_clients(["redis://localhost"], None, Path())
else:
    client = redis.Redis()
    command_packer.protect_all_clients()
packing = client.connection_pool.make_connection()
count, is_packing = 0, False
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
while count < 5000:
    try:
        is_packing = True
        while True:
            packing.pack_command("ZADD", "key", *[1.5, "a", 2**70, "b", 3, "c"] * 50)
    except Interruption:
        pass
signal.setitimer(signal.ITIMER_REAL, 0)
print(count)
"""


@pytest.mark.parametrize("whose", ["ours", "anybody's"])
def test_thousands_of_interruptions_end_no_process_that_packs_numbers(whose):
    code = INTERRUPTED % {"ours": whose == "ours"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) >= 5000


@pytest.mark.parametrize(("text", "packed"), [("a\udcff", b"a\xff"), ("\ud800", b"\xed\xa0\x80")])
def test_texts_that_are_no_utf_8_are_written_as_the_bytes_that_they_stand_for(
    text: str, packed: bytes
) -> None:
    assert command_packer.pack("GET", text) == b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(packed), packed)
    assert command_packer.pack("GET", b"\xff", text).endswith(
        b"$1\r\n\xff\r\n$%d\r\n%s\r\n" % (len(packed), packed)
    )
