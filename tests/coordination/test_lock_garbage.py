"""Lock nodes whose keys hold garbage: a lock is still granted, counted and released."""

from __future__ import annotations

import time

import pytest

from packmule.coordination.locks import grants
from packmule.coordination.locks.redlock import NotAcquired, Redlock

NOW = 1_000_000 * int(time.time())
GARBAGE = ["no number", "-7", "1e3", b"\xff\xfe", str(2**53 - 1), str(2**53), str(2**63 - 1), "9" * 40, ""]


@pytest.fixture
def redlock(client, request) -> Redlock:
    made = Redlock([client], timeout=2.0)
    request.addfinalizer(made.close)
    return made


@pytest.mark.parametrize("counter", GARBAGE)
def test_a_counter_that_is_no_token_begins_again_with_the_clock(client, redlock, counter):
    client.set(grants.keys("a")[1], counter)
    with redlock.acquire("a", wait=0) as lock:
        assert lock.fence >= NOW
        client.set(grants.keys("a")[1], counter)
        lock.extend()
        assert client.get(grants.keys("a")[1]) == str(lock.fence).encode()
        assert client.ttl(grants.keys("a")[1]) > 0
        client.set(grants.keys("a")[1], counter)
    assert client.get(grants.keys("a")[1]) == str(lock.fence).encode()
    assert client.ttl(grants.keys("a")[1]) > 0
    with redlock.acquire("a", wait=0) as later:
        assert later.fence == lock.fence + 1


def test_a_counter_of_another_type_begins_again_too(client, redlock):
    client.rpush(grants.keys("a")[1], "x")
    with redlock.acquire("a", wait=0) as lock:
        assert lock.fence >= NOW
        client.delete(grants.keys("a")[1])
        client.rpush(grants.keys("a")[1], "x")
    assert client.get(grants.keys("a")[1]) == str(lock.fence).encode()
    assert client.get(grants.keys("a")[0]) is None


def test_what_lies_in_a_locks_place_without_an_end_is_no_lock(client, redlock):
    client.set(grants.keys("text")[0], "garbage")
    client.rpush(grants.keys("list")[0], "garbage")
    client.rpush(grants.keys("list that ends")[0], "garbage")
    client.pexpire(grants.keys("list that ends")[0], 60_000)
    client.set(grants.keys("held")[0], "another's", px=60_000)
    for name in ("text", "list", "list that ends"):
        with redlock.acquire(name, wait=0) as lock:
            assert 0 < client.pttl(grants.keys(name)[0]) <= 10_000
            client.delete(grants.keys(name)[0])
            client.rpush(grants.keys(name)[0], "garbage")
            lock.extend()
            assert lock.fence > 0
        assert not client.exists(grants.keys(name)[0])
    with pytest.raises(NotAcquired):
        redlock.acquire("held", wait=0)
