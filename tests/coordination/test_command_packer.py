"""Commands are encoded as redis-py does, but no number reaches the C code that a signal could crash."""

from __future__ import annotations

import hiredis
import pytest
import redis
from redis.connection import HiredisRespSerializer

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
    write = hiredis.pack_command

    def record(arguments):
        seen.extend(arguments)
        return write(arguments)

    monkeypatch.setattr(hiredis, "pack_command", record)
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
