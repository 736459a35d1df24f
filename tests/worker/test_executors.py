"""The executors: threads, async tasks and isolated processes, performed by real pools."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from packmule.jobs import keys, reader, wire
from packmule.jobs.interrupts import Interrupted, Stopped
from packmule.tests.worker import executor_jobs, pool_jobs
from packmule.tests.worker.pools import DEADLINE, children_of, ended, is_alive, lines, pool, until
from packmule.worker import Worker
from packmule.worker.deadlines import LOOK
from packmule.worker.options import WorkerOptions
from packmule.worker.process.call import Call
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.executors import inline
from packmule.worker.process.executors.executors import executors_of
from packmule.worker.process.executors.fork import FORK_AGAIN_SECONDS
from packmule.worker.process.executors.interruption import Interruption
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Performer
from packmule.worker.process.worker import Worker as ProcessWorker
from packmule.worker.scoreboard import Scoreboard

WHOSE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)

pytestmark = pytest.mark.usefixtures("produce")


def test_threads_run_as_many_jobs_at_once_as_there_are_and_each_keeps_its_result(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pool(server, threads=20):
        sums = pool_jobs.add.enqueue_many([(number,) for number in range(20)])
        calls = [(str(notes), str(gate), str(number)) for number in range(20)]
        together = pool_jobs.note_when_told.enqueue_many(calls)
        until(lambda: sorted(lines(notes)) == sorted(f"begin {number}" for number in range(20)))
        waits = executor_jobs.where.enqueue_many([(0.05,)] * 40)
        gate.touch()
        assert [ended(client, id).result for id in together] == [str(number) for number in range(20)]
        results = [ended(client, id).result for id in waits]
        assert [ended(client, id).result for id in sums] == list(range(1, 21))
    assert len({pid for pid, _ in results}) == 1
    assert 2 < len({name for _, name in results}) <= 20


@pytest.mark.parametrize("kind", ["threads", "async"])
def test_jobs_that_all_end_while_a_worker_looks_for_room_leave_none_waiting(
    client, tmp_path, kind, monkeypatch
):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    look = ProcessWorker._room

    def look_long(worker: ProcessWorker) -> int:
        room = look(worker)
        if not room and worker.completer.running:
            gate.touch()
            until(lambda: not worker.completer.running)
        return room

    monkeypatch.setattr(ProcessWorker, "_room", look_long)
    waits = pool_jobs.note_when_told if kind == "threads" else pool_jobs.wait_until_told
    ids = waits.enqueue_many([(str(notes), str(gate), str(number)) for number in range(6)])
    worker = Worker(["default"], connection=client, options=WorkerOptions(threads=2, tasks=2))
    worker.work(burst=True)
    assert gate.exists()
    assert {reader.read(client, id).status for id in ids} == {"finished"}


def test_async_jobs_run_a_hundred_at_once_in_one_thread(server, client):
    with pool(server, tasks=100):
        until(lambda: client.scard(keys.WORKERS) == 1)
        began = time.monotonic()
        ids = executor_jobs.where_async.enqueue_many([(0.5,)] * 200)
        results = [ended(client, id).result for id in ids]
        assert time.monotonic() - began < 50  # of 100 s of sleep
    assert len({tuple(result) for result in results}) == 1


@pytest.mark.parametrize("job", ["tell_who", "tell_who_async"])
def test_concurrent_jobs_know_their_own_ids(server, client, job):
    with pool(server, threads=10, tasks=10):
        ids = getattr(executor_jobs, job).enqueue_many([(0.3,)] * 20)
        assert [ended(client, id).result for id in ids] == ids
    found = [reader.read(client, id).progress for id in ids]
    assert found == [reader.Progress(2, 2, f"I was {id}") for id in ids]


def test_a_long_plain_job_does_not_delay_running_async_jobs(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    beside = executor_jobs.where_async.enqueue(0.3)
    long = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
    with pool(server):
        assert ended(client, beside).status == "finished"
        until(lambda: lines(notes) == ["begin a"])
        gate.touch()
        assert ended(client, long).result == "a"


def test_an_isolated_job_runs_in_its_own_process_and_its_progress_and_result_arrive(server, client):
    with pool(server) as process:
        own, parent = ended(client, executor_jobs.where_isolated.enqueue()).result
        assert children_of(process.pid) == [parent]
        assert own != parent
        id = executor_jobs.tell_who_isolated.enqueue(0.0)
        record = ended(client, id)
        assert record.result == id
        assert record.progress == reader.Progress(1, 2, f"I was {id}")
        assert client.hget(keys.job_key(id), "checkpoint") == f'{{"at":"{id}"}}'.encode()
        failed = ended(client, executor_jobs.fail_isolated.enqueue())
        assert failed.reason == "ValueError: broken in its own process"
        assert "executor_jobs.py" in failed.error
        assert "perform.py" not in failed.error


def test_neither_another_thread_nor_a_timeout_breaks_what_an_isolated_job_sends(server, client):
    with pool(server, patience=60):
        info = ended(client, executor_jobs.report_while_saving.enqueue())
    assert (info.status, info.deaths) == ("failed", 0)
    assert info.reason == "JobTimeoutException: the job ran longer than its timeout of 1 s"


def test_what_an_isolated_job_printed_is_written_before_its_process_is_ended(server, client, tmp_path):
    notes = tmp_path / "notes"
    with pool(server):
        assert ended(client, executor_jobs.print_slowly.enqueue(str(notes))).status == "finished"
        assert lines(notes)[:1] == ["written"]


def performing(job: str) -> tuple[Callable[[], None], list[Outcome | None]]:
    """What performs a job in its executor, and the outcomes so far."""
    performer = Performer(lambda *_: None, lambda *_: None)
    executors = executors_of(performer, Scoreboard(), WorkerOptions(), lambda *_: None, "w")
    data = wire.encode_call(f"packmule.tests.worker.executor_jobs.{job}", (), {})
    call = performer.prepare(Claimed("j", "e", "default", data))
    assert isinstance(call, Call)
    done: list[Outcome | None] = []

    def perform() -> None:
        before = len(done)
        executors[call.kind].start(call, lambda _, outcome: done.append(outcome))
        until(lambda: len(done) > before)

    return perform, done


@pytest.mark.parametrize(("shortest", "is_marked"), [(0.0, True), (60.0, False)])
def test_only_an_isolated_job_that_was_long_may_be_marked_as_started(monkeypatch, shortest, is_marked):
    monkeypatch.setattr(inline, "MARK_SECONDS", shortest)
    perform, done = performing("do_nothing_isolated")
    perform()
    assert [each.is_marked for each in done if each] == [is_marked]


def test_an_isolated_job_touches_little_memory_besides_what_a_fork_does():
    # In a process of its own: one that has run thousands of tests touches more, whatever it does.
    program = "from packmule.tests.worker.test_executors import touched; print(*touched())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    own, in_child = map(int, done.stdout.split())
    assert in_child < 330
    assert own < 230


def touched() -> tuple[int, int]:
    """How many pages more than a fork an isolated job touches: in the worker, and in its own process."""
    perform, done = performing("do_nothing_isolated")

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    (own, in_child), (own_of_fork, in_forked) = (faults(each) for each in (perform, fork))
    assert [each.status for each in done if each] == ["finished"] * 10
    return own - own_of_fork, in_child - in_forked


def faults(act: Callable[[], None]) -> tuple[int, int]:
    """How many pages an act touches that were not touched since a fork: here, and in its child."""
    counts = []
    for _ in range(10):
        before = [resource.getrusage(whose).ru_minflt for whose in WHOSE]
        act()
        after = [resource.getrusage(whose).ru_minflt for whose in WHOSE]
        counts.append([late - early for early, late in zip(before, after, strict=True)])
    own, childs = zip(*counts, strict=True)
    return min(own), min(childs)


@pytest.mark.parametrize("step", [10**9, 10**7, 10**4])
def test_only_the_isolated_job_fails_that_exceeds_its_max_memory(server, client, step):
    with pool(server) as process:
        until(lambda: client.scard(keys.WORKERS) == 1)
        children = children_of(process.pid)
        record = ended(client, executor_jobs.eat_memory.enqueue(step))
        assert children_of(process.pid) == children
    assert (record.status, record.deaths) == ("failed", 0)
    assert record.reason.startswith("MemoryError")


def test_an_isolated_job_over_its_max_cpu_fails_with_that_reason(server, client):
    with pool(server) as process:
        until(lambda: client.scard(keys.WORKERS) == 1)
        children = children_of(process.pid)
        record = ended(client, executor_jobs.eat_cpu.enqueue())
        assert children_of(process.pid) == children
    assert (record.status, record.deaths) == ("failed", 0)
    assert "more processor time than its max_cpu allows" in record.reason


@pytest.mark.parametrize(
    ("how", "cause"),
    [("kill", "died of SIGKILL"), ("exit", "exited with code 0"), ("segfault", "died of SIGSEGV")],
)
def test_a_job_whose_isolated_process_dies_three_times_fails_and_its_worker_lives(
    server, client, tmp_path, how, cause
):
    with (tmp_path / "log").open("wb") as log, pool(server, stderr=log) as process:
        id = executor_jobs.die_isolated.enqueue(str(tmp_path / "notes"), how)
        once = executor_jobs.die_isolated_once.enqueue(str(tmp_path / "once"))
        record = ended(client, id)
        assert ended(client, once).result == "lived"
        (worker,) = children_of(process.pid)
        assert lines(tmp_path / "notes") == [str(worker)] * 3
    assert "refused" not in (tmp_path / "log").read_text()
    assert (record.status, record.deaths) == ("failed", 3)
    assert cause in record.reason
    assert record.crash["cause"] == record.error
    assert record.crash["peak_memory"] > 2**20
    assert reader.read(client, once).deaths == 1
    assert client.zcard("rq:wip:default") == 0


def test_processes_that_an_isolated_job_leaves_are_killed_at_its_end(server, client):
    with pool(server):
        left = ended(client, executor_jobs.leave_child.enqueue()).result
        until(lambda: not is_alive(left))


def test_isolated_processes_die_with_their_pool(server, client, tmp_path):
    notes = tmp_path / "notes"
    executor_jobs.note_when_told_isolated.enqueue(str(notes), str(tmp_path / "never"), "a")
    with pool(server) as process:
        until(lambda: lines(notes) == ["begin a"])
        (worker,) = children_of(process.pid)
        (isolated,) = children_of(worker)
        process.kill()
        until(lambda: not is_alive(worker) and not is_alive(isolated))


def test_a_drain_waits_for_threads_and_tasks_and_gives_nothing_back_that_ended(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    plain = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "plain")
    beside = executor_jobs.note_when_told_async.enqueue(str(notes), str(gate), "async")
    told = pool_jobs.note_until_stopped.enqueue(str(notes), "told")
    with pool(server, threads=2) as process:
        until(lambda: sorted(lines(notes)) == ["begin async", "begin plain", "begin told"])
        process.terminate()
        assert ended(client, told).result == "told"
        later = pool_jobs.add.enqueue(1)
        gate.touch()
        assert process.wait(DEADLINE) == 0
    assert [reader.read(client, id).result for id in (plain, beside)] == ["plain", "async"]
    assert reader.read(client, later).status == "queued"


@pytest.mark.parametrize("names", [["one"], ["one", "two"]])
def test_jobs_broken_off_as_they_start_all_go_back(names):
    performer = Performer(lambda *_: None, lambda *_: None)
    scoreboard = Scoreboard.of_worker(1, 2)
    ended: list[Outcome | None] = []
    before = signal.getsignal(LOOK)
    executors = executors_of(performer, scoreboard, WorkerOptions(tasks=2), lambda *_: None, "w")
    interruption = Interruption(executors.values(), scoreboard, lambda: None)
    try:
        for execution in names:
            data = wire.encode_call("packmule.tests.worker.executor_jobs.where_async", (60.0,), {})
            call = performer.prepare(Claimed(execution, execution, "default", data))
            assert isinstance(call, Call)
            executors[call.kind].start(call, lambda _, outcome: ended.append(outcome))
        signal.pthread_sigmask(signal.SIG_BLOCK, [LOOK])
        for execution in names:  # all before the signal arrives
            interruption.break_off(Interrupted("lost"), execution)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [LOOK])
        until(lambda: len(ended) == len(names))
        assert {(each.id, each.status) for each in ended} == {(name, "queued") for name in names}
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [LOOK])
        for executor in executors.values():
            executor.close()
        signal.signal(LOOK, before)


@pytest.mark.parametrize(("job", "threads"), [("where", 1), ("where", 2), ("where_async", 1)])
def test_an_interruption_that_comes_before_the_body_is_not_lost(monkeypatch, job, threads):
    performer = Performer(lambda *_: None, lambda *_: None)
    scoreboard = Scoreboard.of_worker(threads, 2)
    options = WorkerOptions(threads=threads, tasks=2)
    executors = executors_of(performer, scoreboard, options, lambda *_: None, "w")
    data = wire.encode_call(f"packmule.tests.worker.executor_jobs.{job}", (60.0,), {})
    call = performer.prepare(Claimed("j", "e", "default", data))
    assert isinstance(call, Call)
    executor, show = executors[call.kind], scoreboard.start

    def show_and_interrupt(*shown: object) -> None:
        show(*shown)
        executor.interrupt("e", Stopped("as soon as it was seen"))

    monkeypatch.setattr(scoreboard, "start", show_and_interrupt)
    ended: list[Outcome | None] = []
    try:
        executor.start(call, lambda _, outcome: ended.append(outcome))
        until(lambda: ended)
        assert [each.status for each in ended] == ["stopped"]
    finally:
        executor.close()


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_an_isolated_job_waits_if_no_process_can_be_forked_for_it(monkeypatch, number):
    perform, done = performing("where_isolated")

    def refuse() -> int:
        raise OSError(number, "no room")

    monkeypatch.setattr(os, "fork", refuse)
    began = time.monotonic()
    perform()
    assert [(each.status, each.delay > 0) for each in done if each] == [("queued", True)]
    assert time.monotonic() - began >= FORK_AGAIN_SECONDS, "or it would be claimed again at once"
