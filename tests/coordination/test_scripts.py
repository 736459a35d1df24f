"""Scripts: called by hash in one round trip, and sent whole if the server lacks them."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from redis.exceptions import ResponseError

from packmule.coordination.redis import library
from packmule.coordination.redis.scripts import Script


@pytest.fixture
def lead() -> Script:
    return Script("scheduler", "lead")


def calls_of(client, command: str) -> int:
    return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_a_script_runs_on_a_server_that_has_never_seen_it(client, lead):
    client.script_flush()
    assert lead(client, ["leader"], ["me", 1, 60_000]) == 1
    assert client.hget("leader", "name") == b"me"


def test_a_script_that_the_server_knows_is_one_command(client, lead):
    lead(client, ["leader"], ["me", 1, 60_000])
    before = calls_of(client, "evalsha"), calls_of(client, "eval")
    lead(client, ["leader"], ["me", 1, 60_000])
    assert (calls_of(client, "evalsha"), calls_of(client, "eval")) == (before[0] + 1, before[1])


def test_a_script_is_sent_whole_only_once(client, lead):
    client.script_flush()
    before = calls_of(client, "eval")
    for _ in range(3):
        lead(client, ["leader"], ["me", 1, 60_000])
    assert calls_of(client, "eval") == before + 1


def test_many_calls_take_one_round_trip_and_each_has_its_reply_or_error(client, lead):
    calls = [(["a"], ["me", 1, 9]), (["b"], ["me", "no term", 9]), (["a"], ["you", 0, 9])]
    client.script_flush()
    for _ in range(2):
        first, error, last = lead.each(client, calls)
        assert (first, last) == (1, 0)
        assert isinstance(error, ResponseError)
        assert "compare" in str(error)
    assert client.hget("a", "name") == b"me"
    assert lead.each(client, []) == []


def test_the_hash_matches_the_servers(client, lead):
    loaded = client.script_load(lead.source)
    assert (loaded.decode() if isinstance(loaded, bytes) else loaded) == lead.sha


def test_an_error_in_a_script_is_raised_without_running_it_twice(client, lead):
    before = calls_of(client, "hget")
    with pytest.raises(ResponseError, match="compare"):
        lead(client, ["leader"], ["me", "no term", 60_000])
    assert calls_of(client, "hget") == before + 1


def test_a_script_can_be_called_from_many_threads_after_the_server_forgot_it(client, lead):
    client.script_flush()
    led: list[object] = []
    threads = [
        threading.Thread(target=lambda n=n: led.append(lead(client, ["leader"], [f"t{n}", 1, 60_000])))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert led == [1] * 8


def test_a_missing_script_is_reported_at_creation():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.lua"):
        Script("scheduler", "nowhere")


def test_a_child_that_was_forked_while_a_thread_assembled_a_script_can_run_it(client, monkeypatch):
    begun, may_end, assembled = threading.Event(), threading.Event(), library.assembled

    def slowly(package: str, name: str) -> str:
        begun.set()
        may_end.wait()
        return assembled(package, name)

    monkeypatch.setattr(library, "assembled", slowly)
    thread = threading.Thread(target=lambda: Script("scheduler", "lead").sha)
    thread.start()
    begun.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        library.assembled = assembled
        os._exit(0 if Script("scheduler", "lead").sha else 1)
    may_end.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
