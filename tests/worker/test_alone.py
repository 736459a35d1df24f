"""A worker without a pool supports what RQ's own does: commands, signals, options and callbacks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from redis import Redis
from rq import Callback, Queue, Retry, get_current_job
from rq.command import send_kill_horse_command, send_shutdown_command, send_stop_job_command
from rq.job import Job
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from packmule.errors import UsageError
from packmule.jobs import reader, registry, stacks
from packmule.tests.worker import callback_jobs, pool_jobs  # noqa: F401  registers jobs
from packmule.tests.worker.pools import until
from packmule.worker import Worker
from packmule.worker.options import WorkerOptions
from packmule.worker.process.call import Call
from packmule.worker.process.executors.inline import InlineExecutor
from packmule.worker.process.outcome import Outcome
from packmule.worker.rq_adapter import ECHO_SECONDS


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Workers in this process take signals; afterwards they mean what they did."""
    taken = (signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGURG)
    handlers = [signal.getsignal(each) for each in taken]
    yield
    for each, handler in zip(taken, handlers, strict=True):
        signal.signal(each, handler)


@pytest.fixture
def queue(client: Redis) -> Queue:
    registry.load(
        [],
        [
            f"packmule.tests.worker.pool_jobs.{name}"
            for name in (
                "callback",
                "called_back",
                "out_of_time",
                "again",
                "again_async",
                "knows_itself",
                "knows_itself_async",
                "knows_itself_in_a_thread",
                "sleep_long",
                "sleep_through_a_signal",
                "clean_up_slowly",
                "terminates_its_child",
                "sleep_async",
            )
        ],
    )
    return Queue("default", connection=client, serializer=JSONSerializer)


@pytest.fixture
def worker(client: Redis) -> Worker:
    return Worker(["default"], name="mule", connection=client)


def once_started(job: Job, do: Callable[[], object]) -> threading.Thread:
    """Does something as soon as the job is running, beside the worker."""

    def wait_and_do() -> None:
        deadline = time.monotonic() + 60
        while job.get_status(refresh=True) != "started" and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # from its claim to its body
        do()

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    return thread


def test_a_job_is_stopped_by_rqs_command(queue, worker, client):
    job = queue.enqueue("packmule.tests.worker.pool_jobs.sleep_long")
    other = queue.enqueue("packmule.tests.worker.pool_jobs.add", 1)
    thread = once_started(job, lambda: send_stop_job_command(client, job.id, JSONSerializer))
    worker.work(burst=True)
    thread.join()
    assert job.get_status(refresh=True) == "stopped"
    assert "the job was canceled" in job.latest_result().exc_string
    assert FailedJobRegistry(queue=queue).get_job_ids() == [job.id]
    assert StartedJobRegistry(queue=queue).get_job_ids() == []
    assert other.get_status(refresh=True) == "finished"


def test_it_answers_with_the_stacks_of_its_threads(queue, worker, client):
    job, found = queue.enqueue("packmule.tests.worker.pool_jobs.sleep_long"), list[stacks.StackDump]()

    def is_asleep() -> bool:
        found.append(stacks.ask(client, "mule", 60))
        return "in sleep_long" in found[-1].text

    def ask_and_stop() -> None:
        until(is_asleep)
        send_stop_job_command(client, job.id, JSONSerializer)

    thread = once_started(job, ask_and_stop)
    worker.work(burst=True)
    thread.join()
    assert found[-1].jobs == (job.id,)
    assert job.get_status(refresh=True) == "stopped"


@pytest.mark.parametrize("executor", ["sleep_async", "sleep_isolated"])
def test_commands_reach_every_executor(queue, client, executor):
    stopped = queue.enqueue(f"packmule.tests.worker.pool_jobs.{executor}")
    thread = once_started(stopped, lambda: send_stop_job_command(client, stopped.id, JSONSerializer))
    Worker(["default"], name="mule", connection=client).work(burst=True)
    thread.join()
    assert stopped.get_status(refresh=True) == "stopped"

    killed = queue.enqueue(f"packmule.tests.worker.pool_jobs.{executor}", retry=Retry(max=1, interval=60))
    thread = once_started(killed, lambda: send_kill_horse_command(client, "mule"))
    Worker(["default"], name="mule", connection=client).work(burst=True)
    thread.join()
    assert killed.get_status(refresh=True) == "scheduled"
    assert "killed by a command" in killed.latest_result().exc_string


def test_a_command_that_arrives_before_the_jobs_body_interrupts_it(queue, client, monkeypatch):
    job = queue.enqueue(
        "packmule.tests.worker.pool_jobs.sleep_long",
        on_stopped=Callback("packmule.tests.worker.pool_jobs.called_back"),
    )
    worker = Worker(["default"], name="mule", connection=client)
    perform = InlineExecutor.perform

    def stop_and_perform(executor: InlineExecutor, call: Call, body: Callable[[Call], Outcome]) -> Outcome:
        if call.job.due is None:
            assert worker.process.interruption.stop(job.id)
            time.sleep(0.3)  # and the signal comes while no body runs
        return perform(executor, call, body)

    monkeypatch.setattr(InlineExecutor, "perform", stop_and_perform)
    worker.work(burst=True)
    assert job.get_status(refresh=True) == "stopped"


def test_a_job_is_interrupted_although_a_system_call_missed_the_first_signal(queue, worker):
    job = queue.enqueue("packmule.tests.worker.pool_jobs.sleep_through_a_signal", job_timeout=1)
    worker.work(burst=True)
    assert job.get_status(refresh=True) == "failed"


def test_a_job_that_cleans_up_is_interrupted_once(queue, worker):
    job = queue.enqueue("packmule.tests.worker.pool_jobs.clean_up_slowly", job_timeout=1)
    worker.work(burst=True)
    assert job.get_status(refresh=True) == "failed"
    assert job.latest_result().exc_string.count("\nrq.timeouts.JobTimeoutException") == 1


def test_a_failure_callback_may_take_its_time_after_the_jobs_timeout(queue, client, worker):
    job = queue.enqueue(
        "packmule.tests.worker.pool_jobs.sleep_long",
        job_timeout=1,
        on_failure=Callback("packmule.tests.worker.pool_jobs.out_of_time"),
    )
    worker.work(burst=True)
    assert job.get_status(refresh=True) == "failed"
    assert client.get("out-of-time") == b"JobTimeoutException"


def test_the_stopped_callback_is_called_and_no_other(queue, worker, client):
    job = queue.enqueue(
        "packmule.tests.worker.pool_jobs.sleep_long",
        on_stopped=Callback("packmule.tests.worker.pool_jobs.called_back"),
        on_failure=Callback("packmule.tests.worker.pool_jobs.called_back"),
    )
    thread = once_started(job, lambda: send_stop_job_command(client, job.id, JSONSerializer))
    worker.work(burst=True)
    thread.join()
    assert job.get_status(refresh=True) == "stopped"
    assert client.lrange("called-back", 0, -1) == [b"2 arguments"]
    assert StartedJobRegistry(queue=queue).get_job_ids() == []
    assert job.get_executions() == []


def test_a_command_to_stop_another_job_changes_nothing(queue, worker, client):
    job = queue.enqueue("packmule.tests.worker.pool_jobs.sleep", 0.5)
    other = queue.enqueue("packmule.tests.worker.pool_jobs.add", 1)
    client.hset(other.key, "worker_name", "mule")
    thread = once_started(job, lambda: send_stop_job_command(client, other.id, JSONSerializer))
    worker.work(burst=True)
    thread.join()
    assert [each.get_status(refresh=True) for each in (job, other)] == ["finished", "finished"]


def test_a_killed_job_fails_and_its_retries_hold(queue, client):
    killed = []
    worker = Worker(
        ["default"],
        name="mule",
        connection=client,
        work_horse_killed_handler=lambda *what: killed.append(what),
    )
    job = queue.enqueue("packmule.tests.worker.pool_jobs.sleep_long", retry=Retry(max=1, interval=60))
    thread = once_started(job, lambda: send_kill_horse_command(client, "mule"))
    worker.work(burst=True)
    thread.join()
    assert job.get_status(refresh=True) == "scheduled"
    assert [(what[0].id, what[2]) for what in killed] == [(job.id, signal.SIGKILL)]


def test_commands_that_make_no_sense_are_ignored_by_a_lone_worker(queue, worker, client):
    job = queue.enqueue("packmule.tests.worker.pool_jobs.sleep_long")

    def send() -> None:
        for text in (
            "",
            "[]",
            '{"command": 1}',
            '{"command": "dance"}',
            '{"command": "stop-job", "job_id": 1}',
            b'{"command": "\xff"}',
            b'{"command": "dance", "a": ' + b"[" * 100_000,
        ):
            client.publish(worker.pubsub_channel_name, text)
        send_stop_job_command(client, job.id, JSONSerializer)

    thread = once_started(job, send)
    worker.work(burst=True)
    thread.join()
    assert job.get_status(refresh=True) == "stopped"


def test_the_shutdown_command_ends_an_idle_worker(worker, client):
    def shut_down() -> None:
        until(lambda: client.pubsub_numsub(worker.pubsub_channel_name)[0][1])
        send_shutdown_command(client, "mule")

    thread = threading.Thread(target=shut_down)
    thread.start()
    assert worker.work() is False
    thread.join()
    assert BaseWorker.all(connection=client) == []
    assert worker.shutdown_requested_date


def test_a_second_signal_gives_the_running_job_back(queue, client):
    job = queue.enqueue(
        "packmule.tests.worker.pool_jobs.sleep_long",
        on_success=Callback("packmule.tests.worker.pool_jobs.callback"),
    )
    plain = queue.enqueue("packmule.tests.worker.pool_jobs.sleep_long")
    isolated = queue.enqueue("packmule.tests.worker.pool_jobs.sleep_isolated")

    def stop_twice(worker: Worker) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: worker._told_to_stop_at)
        time.sleep(ECHO_SECONDS + 0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    for running, left in ((job, [job.id, plain.id]), (plain, [plain.id, job.id]), (isolated, [isolated.id])):
        client.delete(queue.key)
        client.rpush(queue.key, *left)
        worker = Worker(["default"], name="mule", connection=client)
        thread = once_started(running, partial(stop_twice, worker))
        with pytest.raises(SystemExit):
            worker.work()
        thread.join()
        assert queue.get_job_ids() == left
        assert running.get_status(refresh=True) == "queued"
        assert running.get_executions() == []
    assert StartedJobRegistry(queue=queue).get_job_ids() == []


def test_what_the_program_has_started_outlives_the_interruption_of_its_workers_first_job(queue, worker):
    with subprocess.Popen(["sleep", "600"]) as earlier:
        job = queue.enqueue("packmule.tests.worker.pool_jobs.sleep_long", job_timeout=1)
        worker.work(burst=True)
        assert job.get_status(refresh=True) == "failed"
        assert earlier.poll() is None
        earlier.kill()


def test_a_process_that_a_job_started_can_be_terminated(queue, worker):
    job = queue.enqueue("packmule.tests.worker.pool_jobs.terminates_its_child")
    worker.work(burst=True)
    assert job.return_value() == -signal.SIGTERM


def test_rqs_scheduler_ends_even_if_it_has_just_started(queue, client):
    for _ in range(4):
        queue.enqueue("packmule.tests.worker.pool_jobs.add", 1)
        Worker(["default"], connection=client).work(max_jobs=1, with_scheduler=True)
    assert client.keys("rq:scheduler-lock:*") == []


def test_exception_handlers_are_called(queue, client, tmp_path):
    seen = []
    handler = lambda job, *exception: seen.append((job.id, exception[0]))  # noqa: E731
    job = queue.enqueue("packmule.tests.worker.pool_jobs.give_up", str(tmp_path / "notes"))
    Worker(["default"], connection=client, exception_handlers=[handler]).work(burst=True)
    assert seen == [(job.id, KeyError)]
    assert job.get_status(refresh=True) == "failed"


def test_the_workers_own_result_ttl_is_used(queue, client):
    job = queue.enqueue("packmule.tests.worker.pool_jobs.add", 1)
    Worker(["default"], connection=client, default_result_ttl=5000).work(burst=True)
    assert 4000 < client.ttl(job.key) <= 5000


def test_a_handler_hears_of_an_isolated_process_that_died(queue, client, tmp_path):
    killed = []
    handler = lambda *what: killed.append(what[0].id)  # noqa: E731
    job = queue.enqueue("packmule.tests.worker.pool_jobs.dies_isolated_once", str(tmp_path / "notes"))
    Worker(["default"], connection=client, work_horse_killed_handler=handler).work(burst=True)
    assert killed == [job.id]
    assert job.get_status(refresh=True) == "finished"


def test_workers_leave_no_descriptor_open_and_may_work_again(queue, client):
    names = ("knows_itself_async", "knows_itself_isolated", "knows_itself_in_a_thread")
    open_at_ends = []
    for _ in range(10):
        worker = Worker(["default"], connection=client, options=WorkerOptions(threads=2))
        for _ in range(2):
            jobs = [queue.enqueue(f"packmule.tests.worker.pool_jobs.{name}") for name in names]
            assert worker.work(burst=True)
            assert {job.get_status() for job in jobs} == {"finished"}
        os.kill(os.getpid(), signal.SIGTERM)  # whose handler wakes a worker that works no more
        open_at_ends.append(len(list(Path("/proc/self/fd").iterdir())))
    # A connection may have come or gone, but none for each worker.
    assert open_at_ends[-1] < open_at_ends[0] + len(open_at_ends), open_at_ends


def test_an_option_that_has_no_counterpart_is_refused_in_one_line(client):
    with pytest.raises(UsageError, match="omit disable_default_exception_handler"):
        Worker(["default"], connection=client, disable_default_exception_handler=True)


def test_an_isolated_callback_is_bounded(queue, client):
    """A callback that is registered with limits keeps them, and ends no worker."""
    job = queue.enqueue(
        "packmule.tests.worker.callback_jobs.body",
        on_success=Callback("packmule.tests.worker.callback_jobs.fills_memory"),
    )
    Worker(["default"], connection=client).work(burst=True)
    assert client.lrange("calls", 0, -1) == [b"body", b"fills"]
    assert job.get_status(refresh=True) == "finished"
    assert not client.hexists(job.key, "callback_due")


@pytest.mark.parametrize("function", ["again", "again_async"])
def test_a_job_that_returns_a_retry_runs_again(queue, worker, function):
    job = queue.enqueue(f"packmule.tests.worker.pool_jobs.{function}", 2)
    worker.work(burst=True)
    assert [result.type.name for result in job.results()] == ["MAX_RETRIES_EXCEEDED", "RETRIED", "RETRIED"]
    assert "more often than it allows" in reader.read(worker.connection, job.id).error
    assert job.number_of_retries is None
    job.refresh()
    assert job.number_of_retries == 2
    assert job.get_status(refresh=True) == "failed"
    assert StartedJobRegistry(queue=queue).get_job_ids() == []


def test_a_job_knows_itself_by_rqs_function(queue, worker):
    jobs = [queue.enqueue("packmule.tests.worker.pool_jobs.knows_itself", number) for number in range(5)]
    worker.work(burst=True)
    assert get_current_job() is None
    for number, job in enumerate(jobs):
        job.refresh()
        assert job.return_value() == [job.id, "Job", "started", True]
        assert job.meta == {"number": number}


def test_a_job_knows_itself_in_every_executor(queue, client):
    functions = ("knows_itself_async", "knows_itself_isolated", "knows_itself_in_a_thread")
    jobs = [
        queue.enqueue(f"packmule.tests.worker.pool_jobs.{function}")
        for function in functions
        for _ in range(3)
    ]
    Worker(["default"], connection=client, options=WorkerOptions(threads=3)).work(burst=True)
    assert [job.return_value(refresh=True) for job in jobs] == [[job.id, True] for job in jobs]


def test_dependents_of_a_job_with_a_result_ttl_of_zero_are_enqueued(queue, worker):
    parent = queue.enqueue("packmule.tests.worker.pool_jobs.add", 1, result_ttl=0)
    child = queue.enqueue("packmule.tests.worker.pool_jobs.add", 2, depends_on=parent)
    worker.work(burst=True)
    assert child.get_status(refresh=True) == "finished"


def test_a_burst_with_a_scheduler_performs_what_is_due(queue, worker):
    job = queue.enqueue_in(timedelta(seconds=-1), "packmule.tests.worker.pool_jobs.add", 1)
    assert worker.work(burst=True, with_scheduler=True)
    assert job.get_status(refresh=True) == "finished"


def test_queues_take_turns_with_the_round_robin_strategy(client, queue):
    queues = [Queue(name, connection=client, serializer=JSONSerializer) for name in ("a", "b", "c")]
    jobs = [each.enqueue("packmule.tests.worker.pool_jobs.add", 1) for each in queues for _ in range(3)]
    Worker(queues, connection=client).work(burst=True, dequeue_strategy="round_robin")
    in_order = sorted(jobs, key=lambda job: job.refresh() or job.started_at)
    assert "".join(job.origin for job in in_order) == "abcabcabc"


def test_the_started_registry_names_a_job_of_rqs_once(queue, worker, client):
    job = queue.enqueue(
        "packmule.tests.worker.pool_jobs.sleep_long",
        on_success=Callback("packmule.tests.worker.pool_jobs.callback"),
    )
    seen = []

    def look_and_stop() -> None:
        seen.extend(client.zrange("rq:wip:default", 0, -1, withscores=True))
        send_stop_job_command(client, job.id, JSONSerializer)

    thread = once_started(job, look_and_stop)
    worker.work(burst=True)
    thread.join()
    ((name, score),) = seen
    assert name.startswith(f"{job.id}:".encode())
    assert score > time.time() + timedelta(days=300).total_seconds()


def test_a_corrupt_record_of_rqs_stops_no_worker(queue, worker, client):
    for _ in range(8):
        queue.enqueue("packmule.tests.worker.pool_jobs.add", 1)  # and so it comes in one claim, unmarked
    corrupt = queue.enqueue(
        "packmule.tests.worker.pool_jobs.add",
        1,
        on_success=Callback("packmule.tests.worker.pool_jobs.callback"),
    )
    client.hset(corrupt.key, "created_at", "yesterday")
    good = queue.enqueue(
        "packmule.tests.worker.pool_jobs.add",
        1,
        on_success=Callback("packmule.tests.worker.pool_jobs.callback"),
    )
    worker.work(burst=True)
    assert good.get_status(refresh=True) == "finished"
    assert client.hget(corrupt.key, "status") == b"finished"
    assert client.get("called-back") == b"yes"


def test_a_job_with_a_callback_that_overwrites_its_own_record_stops_no_worker(queue, worker, client):
    job = queue.enqueue(
        "packmule.tests.worker.pool_jobs.overwrite_itself",
        on_success=Callback("packmule.tests.worker.pool_jobs.callback"),
    )
    good = queue.enqueue(
        "packmule.tests.worker.pool_jobs.add",
        1,
        on_success=Callback("packmule.tests.worker.pool_jobs.callback"),
    )
    worker.work(burst=True)
    assert good.get_status(refresh=True) == "finished"
    assert job.id in {json.loads(entry)["job_id"] for entry in client.lrange("pm:quarantine", 0, -1)}


def test_expired_ids_leave_rqs_registries(queue, worker, client):
    client.zadd("rq:finished:default", {"long-gone": 1})
    worker.work(burst=True)
    assert FinishedJobRegistry(queue=queue).get_job_ids(cleanup=False) == []


def test_a_subclass_that_trusts_all_performs_pickles_and_unregistered_functions(client):
    class Trusting(Worker):
        trusts_all = True

    job = Queue("default", connection=client).enqueue(pool_jobs.not_registered)
    Trusting(["default"], connection=client).work(burst=True)
    assert job.get_status(refresh=True) == "finished"
