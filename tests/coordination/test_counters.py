"""Counters: exact from any number of processes, read as text, and gone after a while."""

from __future__ import annotations

import threading

import pytest

from coordination import counters


def test_what_is_stored_is_read_as_text(client):
    counters.store(client, "c", {"done": 3, "total": 4.5, "message": "größer"})
    assert counters.read(client, "c") == {"done": "3", "total": "4.5", "message": "größer"}


def test_storing_again_changes_what_is_named_and_keeps_the_rest(client):
    counters.store(client, "c", {"done": 1, "message": "begin"})
    counters.store(client, "c", {"done": 2})
    assert counters.read(client, "c") == {"done": "2", "message": "begin"}


def test_counters_that_are_not_there_are_empty(client):
    assert counters.read(client, "nowhere") == {}


def test_counters_are_kept_for_a_day_from_the_last_change_unless_said(client):
    counters.store(client, "c", {"done": 1}, keep=5)
    assert 0 < client.ttl("c") <= 5
    counters.increment(client, "c", "done")
    assert 86_390 < client.ttl("c") <= 86_400


def test_an_increment_returns_the_new_value_and_starts_at_zero(client):
    assert counters.increment(client, "c", "sent") == 1
    assert counters.increment(client, "c", "sent", 2.5) == 3.5
    assert counters.increment(client, "c", "sent", -1) == 2.5


def test_increments_from_many_threads_are_all_counted(client):
    def count() -> None:
        for _ in range(100):
            counters.increment(client, "c", "done")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.read(client, "c") == {"done": "800"}


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"caf\xe9"])
def test_what_is_no_text_is_read_all_the_same(client, raw):
    client.hset("c", raw, raw)
    ((name, value),) = counters.read(client, "c").items()
    assert "\ufffd" in name
    assert "\ufffd" in value
