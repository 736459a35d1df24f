"""Stack dumps: what the threads of a worker do, whatever keeps them, and without a harm to its jobs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from packmule.jobs import cluster, keys, stacks
from packmule.jobs.cluster import NoSuchWorker
from packmule.jobs.stacks import NoStacks, StackDump
from packmule.tests.worker import executor_jobs, pool_jobs
from packmule.tests.worker.pools import DEADLINE, children_of, ended, lines, pool, until
from packmule.worker.stacks import MOST_BYTES, MOST_FRAMES, Stacks, stacks_of_threads

pytestmark = pytest.mark.usefixtures("produce")

PATIENCE = DEADLINE
"""Seconds for an answer: others may use the machine."""


def the_worker(client: Redis) -> str:
    until(lambda: len(cluster.workers(client)) == 1)
    return cluster.workers(client)[0]["name"]


def asked_until(client: Redis, fits: Callable[[StackDump], object]) -> StackDump:
    """Ask again until the dump fits: on a busy machine a thread may not answer in time."""
    name, found = the_worker(client), list[StackDump]()

    def fitting() -> bool:
        found.append(stacks.ask(client, name, PATIENCE))
        return bool(fits(found[-1]))

    until(fitting)
    return found[-1]


def test_each_thread_is_shown_by_its_name_and_jobs_go_on(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    ids = [pool_jobs.note_when_told.enqueue(str(notes), str(gate), text) for text in "ab"]
    with pool(server, threads=2):
        until(lambda: len(lines(notes)) == 2)
        dump = asked_until(client, lambda dump: dump.is_whole)
        assert dump.text.count("in note_when_told") == 2
        assert "the worker:\n\nThread MainThread (most recent call first):" in dump.text
        assert "Thread completer" in dump.text
        assert "Thread stacks" not in dump.text
        assert set(dump.jobs) == set(ids)
        assert str(notes) not in dump.text
        assert 0 < client.ttl(keys.stacks_key(the_worker(client))) <= stacks.TTL
        gate.touch()
        assert [ended(client, id).result for id in ids] == ["a", "b"]
    assert sorted(lines(notes)) == ["begin a", "begin b", "end a", "end b"]


def test_a_job_that_keeps_the_interpreters_lock_is_shown(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    os.mkfifo(gate)
    id = executor_jobs.keep_the_lock.enqueue(str(notes), str(gate))
    with pool(server):
        until(lambda: lines(notes) == ["begins"])
        dump = asked_until(client, lambda dump: "in keep_the_lock" in dump.text)
        assert "holds Python's lock in C code" in dump.text
        assert not dump.is_whole
        assert lines(notes) == ["begins"]
        os.close(os.open(gate, os.O_WRONLY))
        assert ended(client, id).status == "finished"
        # Its thread answers late what nobody asks any more: that is no answer to the next question.
        again = asked_until(client, lambda dump: dump.is_whole)
        assert "keep_the_lock" not in again.text
    assert lines(notes) == ["begins", "ends"]


def test_an_isolated_job_writes_the_stack_of_its_own_process(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    id = executor_jobs.note_when_told_isolated.enqueue(str(notes), str(gate), "a")
    with pool(server):
        until(lambda: lines(notes) == ["begin a"])
        dump = asked_until(client, lambda dump: dump.is_whole)
        _, _, forked = dump.text.partition("forked from it, its main thread:")
        assert "in note_when_told_isolated" in forked
        gate.touch()
        assert ended(client, id).result == "a"


def test_a_program_that_a_job_has_started_is_left_alone(server, client, tmp_path):
    id = executor_jobs.start_and_leave.enqueue(str(tmp_path / "child"))
    with pool(server):
        assert ended(client, id).status == "finished"
        dump = asked_until(client, lambda dump: dump.is_whole)
        assert "forked from it" not in dump.text
        for pid in map(int, lines(tmp_path / "child")):
            os.kill(pid, signal.SIGKILL)  # it still runs


def test_a_stopped_process_is_said_to_be_one_and_answers_when_it_goes_on(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    id = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
    with pool(server, frozen=600) as process:
        until(lambda: lines(notes) == ["begin a"])
        (frozen,) = children_of(process.pid)
        os.kill(frozen, signal.SIGSTOP)
        threads = list(Path(f"/proc/{frozen}/task").glob("*/status"))
        until(lambda: all("State:\tT" in each.read_text() for each in threads))
        dump = stacks.ask(client, the_worker(client), PATIENCE)
        assert "It did not answer within 1.2 s: it is stopped by a signal." in dump.text
        assert not dump.is_whole
        os.kill(frozen, signal.SIGCONT)
        dump = asked_until(client, lambda dump: dump.is_whole)
        assert dump.text.count("in note_when_told") == 1
        gate.touch()
        assert ended(client, id).result == "a"


def test_a_pool_that_does_not_answer_and_a_worker_that_is_gone_are_said(server, client):
    with pool(server) as process:
        name = the_worker(client)
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(NoStacks, match=r"did not answer within 0\.3 s: its pool is stopped"):
            stacks.ask(client, name, 0.3)
        os.kill(process.pid, signal.SIGCONT)
        asked_until(client, lambda dump: "in Worker._wait" in dump.text)
    client.zadd(keys.LEASES, {name: 1})
    with pytest.raises(NoStacks, match="its lease has ended"):
        stacks.ask(client, name)
    with pytest.raises(NoSuchWorker):
        stacks.ask(client, "nobody")


def test_a_worker_that_ends_while_it_is_asked_is_said_to_be_gone(client, monkeypatch):
    client.sadd(keys.WORKERS, keys.worker_key("w1"))
    client.hset(keys.worker_key("w1"), "state", "busy")
    client.zadd(keys.LEASES, {"w1": time.time() + 60})
    monkeypatch.setattr(stacks, "send_command", lambda *_: client.delete(keys.WORKERS))
    with pytest.raises(NoSuchWorker, match="no worker is called w1"):
        stacks.ask(client, "w1", 0.1)
    client.set(keys.WORKERS, "of another type")
    with pytest.raises(NoSuchWorker):
        stacks.ask(client, "w1", 0.1)


@pytest.mark.parametrize(
    "record", [b"", b"\xff", b"{}", b"[" * 100_000, b'{"id": 1, "at": 0, "text": ""}', b"null", b"x" * 10**6]
)
def test_a_corrupt_record_is_none(client, record):
    client.set(keys.stacks_key("w"), record)
    assert stacks.read(client, "w") is None
    client.delete(keys.stacks_key("w"))
    client.rpush(keys.stacks_key("w"), record)
    assert stacks.read(client, "w") is None
    stacks.store(client, "w", StackDump("1", 0.0, "x"))
    assert stacks.read(client, "w") == StackDump("1", 0.0, "x")
    stacks.store(client, "w", StackDump("1", 0.0, "x", ("a", "y" * 50_000, *["b"] * 2_000)))
    found = stacks.read(client, "w")
    assert found and found.jobs[:2] == ("a", "b") and len(found.jobs) <= stacks.MOST_JOBS


def test_a_deep_stack_is_cut_and_odd_names_do_not_break_it():
    seen = []

    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        else:
            thread = threading.Thread(target=lambda: seen.append(stacks_of_threads()))
            thread.start()
            thread.join()

    here = {}
    exec(compile("def odd(call): call()", "\udcff\x1b.py", "exec"), here)
    here["odd"](lambda: deep(200))
    main = seen[0].partition("\n\n")[0]
    assert main.count("\n") <= MOST_FRAMES + 1
    assert main.rstrip().endswith("...")


def test_what_a_terminal_makes_a_process_write_is_forgotten():
    one = Stacks()
    try:
        os.write(one._file, b"x" * (MOST_BYTES + 1))
        one.bound()
        assert one.written() == ""
    finally:
        one.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a signal to one thread")
def test_no_worker_is_harmed_by_many_questions(server, client):
    ids = [pool_jobs.add.enqueue(number) for number in range(500)]
    with pool(server, threads=4):
        name = the_worker(client)
        for _ in range(20):
            stacks.ask(client, name, PATIENCE)
        assert [ended(client, id).result for id in ids] == [number + 1 for number in range(500)]
        assert the_worker(client) == name
