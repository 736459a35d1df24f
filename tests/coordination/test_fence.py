"""Guarded values: the last holder wins, in Redis by a script and in a database by one condition."""

from __future__ import annotations

import math
import sqlite3

import pytest

from packmule.coordination.locks import fence
from packmule.coordination.locks.fence import Overtaken
from packmule.coordination.redis.connection import connect


def test_a_holder_writes_repeatedly_until_a_later_one_takes_over(client):
    fence.write(client, "a", "one", 5)
    fence.write(client, "a", "two", 5)
    fence.write(client, "a", b"three", 6)
    assert fence.read(client, "a", 6) == b"three"
    with pytest.raises(Overtaken, match="a: a holder with the later token 6 has used it; ours is 5"):
        fence.write(client, "a", "four", 5)
    assert client.get("a") == b"three"


def test_a_read_is_enough_to_refuse_earlier_holders(client):
    fence.write(client, "a", 1, 5)
    assert fence.read(client, "a", 7) == b"1"
    with pytest.raises(Overtaken):
        fence.write(client, "a", 2, 6)
    with pytest.raises(Overtaken):
        fence.read(client, "a", 6)


def test_tokens_are_compared_as_numbers(client):
    fence.write(client, "a", 1, 9)
    assert fence.read(client, "a", 10) == b"1"
    fence.write(client, "a", 2, 100)
    fence.write(client, "b", 1, 2**53 - 2)
    fence.write(client, "b", 2, 2**53 - 1)
    with pytest.raises(Overtaken):
        fence.write(client, "b", 3, 2**53 - 2)


def test_a_values_token_outlives_it(client):
    fence.write(client, "a", 1, 5, ttl=60)
    assert 0 < client.pttl("a") <= 60_000
    assert client.ttl("pm:fenced:{a}") > 86_000
    client.delete("a")
    with pytest.raises(Overtaken):
        fence.write(client, "a", 1, 4, ttl=1)
    assert fence.read(client, "a", 6) is None
    assert client.ttl("pm:fenced:{a}") > 86_000
    fence.write(client, "b", 1, 5)
    assert client.ttl("pm:fenced:{b}") == -1


def test_a_full_memory_refuses_no_further_read_of_a_holder(spare_server):
    with connect(None, spare_server().data_dir) as client:
        fence.write(client, "a", 1, 5)
        client.config_set("maxmemory", 1)
        assert fence.read(client, "a", 5) == b"1"


@pytest.mark.parametrize("token", [0, -1, 2**53])
def test_an_impossible_token_is_refused(client, token):
    with pytest.raises(ValueError, match="is not a fencing token"):
        fence.write(client, "a", 1, token)


@pytest.mark.parametrize("ttl", [0, -1, math.nan, math.inf])
def test_an_invalid_ttl_is_refused(client, ttl):
    with pytest.raises(ValueError, match="a number of seconds above zero"):
        fence.write(client, "a", 1, 5, ttl=ttl)
    with pytest.raises(ValueError, match="needs a key"):
        fence.read(client, "", 5)


def test_a_database_row_can_be_guarded_too():
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE stock (id INTEGER PRIMARY KEY, pieces INTEGER, fence INTEGER)")
    database.execute("INSERT INTO stock VALUES (1, 10, 0)")
    claim = "UPDATE stock SET fence = :fence WHERE id = 1 AND fence < :fence"
    write = "UPDATE stock SET pieces = :pieces WHERE id = 1 AND fence = :fence"
    assert database.execute(claim, {"fence": 5}).rowcount == 1
    assert database.execute(claim, {"fence": 6}).rowcount == 1
    assert database.execute(write, {"pieces": 9, "fence": 5}).rowcount == 0
    assert database.execute(write, {"pieces": 8, "fence": 6}).rowcount == 1
    assert database.execute(claim, {"fence": 5}).rowcount == 0
    assert database.execute("SELECT pieces, fence FROM stock").fetchall() == [(8, 6)]
    database.close()
