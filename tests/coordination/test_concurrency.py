"""Concurrency limits: never more holders than slots, and a vanished holder counts until its lease ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from packmule.coordination.keys import KeyTaken
from packmule.coordination.limits.concurrency import ConcurrencyLimit, NoFreeSlot
from packmule.coordination.redis.connection import connect
from packmule.worker.rescue import server_time


def until(condition, seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_there_are_as_many_holders_at_once_as_slots(client):
    limit = ConcurrencyLimit(client, "imports", slots=2, lease=30)
    first, _ = limit.acquire("acme"), limit.acquire("acme")
    with pytest.raises(NoFreeSlot, match="acme already has 2 at once") as refused:
        limit.acquire("acme")
    assert 25 < refused.value.retry_after <= 30
    limit.acquire("another")
    limit.release(first)
    limit.acquire("acme")


def test_a_refusal_tells_when_the_first_lease_ends(client):
    ConcurrencyLimit(client, "imports", slots=2, lease=30).acquire("acme")
    shorter = ConcurrencyLimit(client, "imports", slots=2, lease=5)
    shorter.acquire("acme")
    with pytest.raises(NoFreeSlot) as refused:
        shorter.acquire("acme")
    assert 0 < refused.value.retry_after <= 5


def test_a_block_holds_a_slot_and_frees_it_even_if_it_fails(client):
    limit = ConcurrencyLimit(client, "imports", slots=1, lease=30)
    with pytest.raises(KeyError), limit.hold("acme") as slot:
        assert 25 < slot.until - time.monotonic() <= 30
        with pytest.raises(NoFreeSlot):
            limit.acquire("acme")
        raise KeyError
    assert not client.keys("*")


def test_an_ended_lease_no_longer_counts_and_its_holder_changes_nothing(client):
    limit = ConcurrencyLimit(client, "imports", slots=2, lease=0.05)
    longer = ConcurrencyLimit(client, "imports", slots=2, lease=30)
    longer.acquire("acme")
    stale = limit.acquire("acme")
    until(lambda: client.zscore(limit.key("acme"), stale.holder) < server_time(client))
    assert limit.renew(stale) is None
    slot = longer.acquire("acme")
    assert limit.renew(stale) is None
    limit.release(stale)
    with pytest.raises(NoFreeSlot):
        longer.acquire("acme")
    longer.release(slot)


def test_a_renewed_lease_starts_over(client):
    limit = ConcurrencyLimit(client, "imports", slots=1, lease=3.0)
    first = limit.acquire("acme")
    ends = client.zscore(limit.key("acme"), first.holder)
    time.sleep(0.5)
    slot = limit.renew(first)
    assert slot.until > first.until + 0.4
    assert client.zscore(limit.key("acme"), slot.holder) > ends + 0.4
    longer = ConcurrencyLimit(client, "imports", slots=1, lease=60)
    assert longer.renew(slot)
    until(lambda: server_time(client) > ends)
    with pytest.raises(NoFreeSlot):
        limit.acquire("acme")


def test_a_key_expires_with_its_last_lease(client):
    ConcurrencyLimit(client, "imports", slots=3, lease=30).acquire("acme")
    shorter = ConcurrencyLimit(client, "imports", slots=3, lease=5)
    slot = shorter.acquire("acme")
    assert 25_000 < client.pttl("pm:slots:imports:acme") <= 30_001
    assert shorter.renew(slot)
    assert 25_000 < client.pttl("pm:slots:imports:acme") <= 30_001
    slot = ConcurrencyLimit(client, "short", slots=3, lease=0.05).acquire("acme")
    ConcurrencyLimit(client, "short", slots=3, lease=0.1).renew(slot)
    until(lambda: not client.exists("pm:slots:short:acme"))


def test_the_clients_clock_does_not_matter(client, monkeypatch):
    limit = ConcurrencyLimit(client, "imports", slots=1, lease=30)
    limit.acquire("acme")
    for clock in ("time", "time_ns", "monotonic", "monotonic_ns"):
        monkeypatch.setattr(time, clock, lambda: 10**10)
    with pytest.raises(NoFreeSlot):
        limit.acquire("acme")


def test_a_repeated_command_takes_no_second_slot(client, monkeypatch):
    limit = ConcurrencyLimit(client, "imports", slots=1, lease=30)
    monkeypatch.setattr("uuid.uuid4", lambda: type("Same", (), {"hex": "same"}))
    limit.acquire("acme")
    limit.acquire("acme")
    assert client.zcard(limit.key("acme")) == 1


def test_a_key_with_a_foreign_value_is_named(client):
    limit = ConcurrencyLimit(client, "imports", slots=1, lease=30)
    slot = limit.acquire("acme")
    client.set(limit.key("acme"), "in the way")
    for call in (lambda: limit.acquire("acme"), lambda: limit.renew(slot), lambda: limit.release(slot)):
        with pytest.raises(KeyTaken, match="pm:slots:imports:acme holds a value that is not a sorted set"):
            call()


@pytest.mark.parametrize("slots", [0, -1, True, 1.5, "2", 10**9])
def test_an_invalid_number_of_slots_is_refused(client, slots):
    with pytest.raises(ValueError, match="give a whole number"):
        ConcurrencyLimit(client, "imports", slots=slots, lease=30)


@pytest.mark.parametrize("lease", [0, -1, 1e-9, float("nan"), float("inf"), "30", None])
def test_an_invalid_lease_is_refused(client, lease):
    with pytest.raises(ValueError, match="give a number of seconds"):
        ConcurrencyLimit(client, "imports", slots=1, lease=lease)


def contend(data_dir, ends: float) -> None:
    """Hold slots until all were held at once, and hundreds of times."""
    with connect(None, data_dir) as client:
        limit = ConcurrencyLimit(client, "race", slots=3, lease=60)
        while time.time() < ends and not (client.exists("full") and client.llen("seen") > 300):
            try:
                with limit.hold("all"):
                    holders = client.incr("holders")
                    client.lpush("seen", holders)
                    if holders == 3:
                        client.set("full", 1)
                    client.decr("holders")
            except NoFreeSlot:
                pass


def test_processes_never_hold_more_slots_than_there_are(server, client):
    forked = multiprocessing.get_context("fork")
    ends = time.time() + 60
    processes = [forked.Process(target=contend, args=(server.data_dir, ends)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seen = [int(number) for number in client.lrange("seen", 0, -1)]
    assert len(seen) > 300
    assert max(seen) == 3
    assert not client.exists("pm:slots:race:all")


def vanish(data_dir) -> None:
    with connect(None, data_dir) as client, ConcurrencyLimit(client, "race", slots=1, lease=5.0).hold("all"):
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_slot_of_a_killed_holder_is_free_when_its_lease_ends(server, client):
    process = multiprocessing.get_context("fork").Process(target=vanish, args=(server.data_dir,))
    process.start()
    process.join()
    limit = ConcurrencyLimit(client, "race", slots=1, lease=5.0)
    with pytest.raises(NoFreeSlot) as refused:
        limit.acquire("all")
    assert 0 < refused.value.retry_after <= 5.0
    time.sleep(refused.value.retry_after + 0.001)
    limit.acquire("all")
