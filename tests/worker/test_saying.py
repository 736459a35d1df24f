"""What jobs say is kept: from each executor, up to a crash, within bounds, and only by who has the job."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections import deque
from contextlib import suppress
from contextvars import copy_context

import msgspec
import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError
from rq import Callback, Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule import current
from packmule.coordination.redis.scripts import Script
from packmule.jobs import context, control, keys, queues, registry, said, watch, wire
from packmule.jobs.client import Client
from packmule.scheduler.maintenance.repair import OrphanRepair
from packmule.tests.worker import talking_jobs
from packmule.tests.worker.pools import DEADLINE, children_of, ended, lines, pool, until
from packmule.tests.worker.test_redis_away import killed
from packmule.worker import Worker
from packmule.worker.options import WorkerOptions
from packmule.worker.order import Strict
from packmule.worker.process import job_records, saying
from packmule.worker.process.call import Call
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.executors.executors import executors_of
from packmule.worker.process.fetcher import Fetcher
from packmule.worker.process.job_log import JobLog
from packmule.worker.process.outcome import Outcome, failed, returned
from packmule.worker.process.performer import Performer, finished
from packmule.worker.rescue import rescue
from packmule.worker.scoreboard import Scoreboard

pytestmark = pytest.mark.usefixtures("produce")


def fetcher_of(client: Redis, name: str = "w1") -> Fetcher:
    return Fetcher(client, name, Strict(["default"]), ["default"], [], lambda claim: None, JobLog())


@pytest.fixture
def fetcher(client: Redis) -> Fetcher:
    return fetcher_of(client)


def claimed(fetcher: Fetcher) -> Claimed:
    (job,) = fetcher.exchange([], 1).jobs
    return job


def hear(fetcher: Fetcher, job: Claimed) -> saying.Said:
    return fetcher.saying.hear(job.id, job.execution, job.attempt)


def line(text: str) -> bytes:
    return said.line(1.0, logging.INFO, text)


def end(fetcher: Fetcher, job: Claimed) -> None:
    fetcher.exchange([finished(job, b"", time.time(), time.time())], 0)


def texts(client: Redis, id: str) -> list[str]:
    return [line.text for line in watch.logs(client, id)]


def chunks(client: Redis, id: str) -> list[object]:
    return list(watch.output(client, id).kept())


@pytest.mark.parametrize(("job", "options"), [("talk", {}), ("talk", {"threads": 4}), ("talk_isolated", {})])
def test_what_a_job_says_is_there_once_it_has_ended(server, client, job, options):
    with pool(server, **options):
        id = getattr(talking_jobs, job).enqueue(3, 2)
        ended(client, id)
        assert texts(client, id) == ["line 0", "line 1", "line 2"]
        assert chunks(client, id) == ["chunk 0 ", "chunk 1 "]
    found = watch.logs(client, id)
    assert [(each.level, each.fields, each.attempt) for each in found][1:] == [
        ("info", {"number": 1}, 1),
        ("info", {"number": 2}, 1),
    ]
    assert abs(found[0].at - time.time()) < 60
    assert found.dropped == 0


def test_async_jobs_and_threads_that_a_job_starts_say_it_in_their_own_logs(server, client):
    with pool(server):
        ids = talking_jobs.talk_async.enqueue_many([(f"j{number}",) for number in range(20)])
        other = talking_jobs.talk_in_a_thread.enqueue()
        for number, id in enumerate(ids):
            ended(client, id)
            assert texts(client, id) == [f"j{number} begins", f"j{number} ends"]
            assert chunks(client, id) == [f"j{number}"]
        ended(client, other)
        assert texts(client, other) == ["from a thread"]


def test_a_thread_that_a_job_left_behind_leaves_nothing_in_the_worker(client):
    with context.Running("id", 1, lambda *_: None, hear=lambda *_: pytest.fail("it has ended")):
        late = copy_context()
    late.run(current.log, "too late")
    assert late.run(context.said) is None


def test_what_a_job_logs_is_kept_with_its_traceback_and_never_fails_it(server, client):
    with pool(server):
        id = talking_jobs.log_all.enqueue()
        assert ended(client, id).status == "finished"
    first, odd, text, failure = watch.logs(client, id)
    assert (first.level, first.text) == ("info", "by logging: 1")
    assert (odd.level, odd.text) == (
        "warning",
        "it doesn't fit: %s %s (it can't be formatted: TypeError)",
    )
    assert text.text == "%s (it can't be formatted: RuntimeError)"
    assert failure.level == "error"
    assert failure.text.startswith("it failed\nTraceback")
    assert failure.text.endswith("ValueError: no such month")


def test_warnings_of_a_program_without_handlers_still_reach_standard_error(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with job_records.kept(logging.INFO):
        logging.getLogger("shop").warning("seen")
    assert capsys.readouterr().err == "seen\n"
    assert logging.getLogger().handlers == []


@pytest.mark.parametrize(("level", "kept"), [(logging.WARNING, 3), (logging.DEBUG, 4), (said.OFF, 0)])
def test_a_level_says_which_lines_are_kept(server, client, level, kept):
    with pool(server, job_log_level=level):
        id, other = talking_jobs.log_all.enqueue(), talking_jobs.talk.enqueue(2)
        ended(client, id)
        ended(client, other)
    assert len(texts(client, id)) == (kept if level != logging.WARNING else 2)
    assert len(texts(client, other)) == (2 if level == logging.DEBUG else 0)
    assert client.exists(keys.log_key(other)) == (level == logging.DEBUG)


def test_lines_of_a_running_job_can_be_read_and_the_lines_of_each_attempt_stay(server, client, tmp_path):
    with pool(server):
        gate = tmp_path / "gate"
        id = talking_jobs.talk_until_told.enqueue(str(gate))
        until(lambda: texts(client, id) == ["begins"] and chunks(client, id) == ["begins"])
        gate.touch()
        ended(client, id)
        assert texts(client, id) == ["begins", "ends"]
        id = talking_jobs.fail_twice.enqueue(str(tmp_path / "runs"))
        assert ended(client, id).status == "finished"
    found = [(each.attempt, each.level, each.text) for each in watch.logs(client, id)]
    assert found == [(number, "warning", f"run {number}") for number in (1, 2, 3)]


def test_lines_that_left_a_process_survive_its_death(server, client, tmp_path):
    with pool(server):
        id = talking_jobs.talk_and_quit.enqueue(str(tmp_path / "died"))
        assert ended(client, id).status == "finished"
    assert texts(client, id) == ["before the death"] * 2


@pytest.mark.parametrize("threads", [1, 4])
def test_however_processes_are_killed_no_line_is_lost_before_a_later_one_or_doubled(server, client, threads):
    number = 40
    with pool(server, 2, threads=threads) as process:
        ids = talking_jobs.count.enqueue_many([(number,)] * 100)
        for _ in range(12):
            time.sleep(0.15)
            with suppress(ProcessLookupError, IndexError):
                os.kill(random.choice(children_of(process.pid)), signal.SIGKILL)
        statuses = [ended(client, id).status for id in ids]
    for id, status in zip(ids, statuses, strict=True):
        runs: dict[str, list[int]] = {}
        for text in texts(client, id):
            run, _, each = text.partition(" ")
            runs.setdefault(run, []).append(int(each))
        assert all(found == list(range(len(found))) for found in runs.values())
        if status == "finished":
            assert len(list(runs.values())[-1]) == number
            assert chunks(client, id)[-number:] == list(range(number))


def test_an_isolated_process_says_all_before_it_dies(server, client):
    with pool(server):
        id = talking_jobs.talk_isolated.enqueue(300, 300, True)
        assert ended(client, id).deaths == 3
    assert texts(client, id) == [f"line {number}" for number in range(300)] * 3
    assert chunks(client, id) == [f"chunk {number} " for number in range(300)] * 3


def test_an_isolated_process_that_is_killed_while_it_speaks_loses_nothing_of_it(tmp_path):
    class Slow:
        level = logging.INFO
        lines = 0

        def line(self, line: bytes) -> None:
            self.lines += 1
            time.sleep(0.01)  # so that the pipe is full when the process is killed

        def chunk(self, chunk: bytes) -> None:
            """Nothing is emitted."""

    slow = Slow()
    performer = Performer(lambda *_: None, lambda *_: None, hear=lambda *_: slow)
    executors = executors_of(performer, Scoreboard(), WorkerOptions(), lambda *_: None, "w")
    data = wire.encode_call(talking_jobs.speak_until_killed.job.name, (str(tmp_path / "said"),), {})
    call = performer.prepare(Claimed("j", "e", "default", data, timeout=1))
    assert isinstance(call, Call)
    done: list[Outcome | None] = []
    executors["isolated"].start(call, lambda _, outcome: done.append(outcome))
    until(lambda: done)
    assert [outcome.status for outcome in done if outcome] == ["failed"]
    assert 0 < len(lines(tmp_path / "said")) <= slow.lines


def test_a_job_that_overran_or_was_canceled_shows_what_it_said(server, client, tmp_path):
    with pool(server):
        late = talking_jobs.talk_too_long.enqueue()
        assert ended(client, late).status == "failed"
        id = talking_jobs.talk_until_told.enqueue(str(tmp_path / "never"), str(tmp_path / "began"))
        until(lambda: lines(tmp_path / "began"))
        assert control.cancel(client, id, DEADLINE) == "stopped"
    assert texts(client, late) == ["too long"]
    assert texts(client, id) == ["begins"]


def test_a_drained_worker_keeps_what_its_jobs_had_said(server, client, tmp_path):
    with pool(server, threads=2, grace=1) as process:
        id = talking_jobs.talk_until_told.enqueue(str(tmp_path / "never"), str(tmp_path / "began"))
        until(lambda: lines(tmp_path / "began"))
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE)
    assert client.hget(keys.job_key(id), "status") == b"queued"
    assert texts(client, id) == ["begins"]


def test_what_is_said_while_redis_is_away_is_there_afterwards(spare_server, tmp_path):
    server = spare_server()
    with Redis.from_url(server.url) as client:
        Client(client).make_default()
        gate = tmp_path / "gate"
        with pool(server):
            id = talking_jobs.talk_until_told.enqueue(str(gate), str(tmp_path / "began"))
            until(lambda: lines(tmp_path / "began"))
            with killed(server, client):
                gate.touch()
                time.sleep(1)
            ended(client, id)
            assert texts(client, id) == ["begins", "ends"]


def test_a_callback_of_rq_says_it_in_its_jobs_log(client):
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    here = "packmule.tests.worker.callback_jobs"
    registry.load([here])
    job = queue.enqueue(f"{here}.body", on_success=Callback(f"{here}.says_so"), result_ttl=300)
    Worker(["default"], name="mule", connection=client).work(burst=True)
    assert [(each.text, each.attempt) for each in watch.logs(client, job.id)] == [("called back", 0)]
    assert 290 < client.ttl(keys.log_key(job.id)) <= 300


def test_rqs_readers_accept_a_job_that_has_said_something(client):
    id = talking_jobs.talk.enqueue()
    Worker(["default"], name="mule", connection=client).work(burst=True)
    job = Job.fetch(id, connection=client, serializer=JSONSerializer)
    assert job.is_finished
    assert job.return_value() is None
    job.delete()
    assert client.exists(keys.log_key(id)) == 1  # RQ knows no keys of ours
    assert OrphanRepair(client).repair() == 1
    assert client.exists(keys.log_key(id)) == 0


@pytest.mark.parametrize("ttl", [0, 300, -1])
def test_what_a_job_said_lives_as_long_as_its_record(client, ttl):
    id = talking_jobs.talk.options(result_ttl=ttl).enqueue(1, 1)
    Worker(["default"], name="mule", connection=client).work(burst=True)
    all_keys = [keys.job_key(id), keys.log_key(id), keys.output_key(id)]
    assert client.exists(*all_keys) == (3 if ttl else 0)
    if ttl:
        assert all(abs(client.ttl(key) - ttl) <= 5 for key in all_keys)


def test_what_only_an_earlier_attempt_said_lives_as_long_as_the_record(client, tmp_path):
    id = talking_jobs.talk_once.options(result_ttl=300).enqueue(str(tmp_path / "ran"))
    Worker(["default"], name="mule", connection=client).work(burst=True)
    assert client.hget(keys.job_key(id), "status") == b"finished"
    assert 290 < client.ttl(keys.log_key(id)) <= 300


def test_a_retry_by_hand_keeps_the_lines_and_a_purge_or_a_cancel_ends_them(client, fetcher):
    id = talking_jobs.talk.options(failure_ttl=300).enqueue()
    job = claimed(fetcher)
    hear(fetcher, job).line(line("a"))
    fetcher.exchange([failed(job, "no", time.time(), time.time())], 0)
    assert 290 < client.ttl(keys.log_key(id)) <= 300
    control.retry(client, id)
    assert client.ttl(keys.log_key(id)) == -1
    assert control.cancel(client, id) == "canceled"
    assert 290 < client.ttl(keys.log_key(id)) <= 300
    control.retry(client, id)
    fetcher.exchange([returned(claimed(fetcher))], 0)
    assert queues.purge(client, "default") == 1
    assert client.exists(keys.job_key(id), keys.log_key(id)) == 0


def test_a_stale_executions_words_are_refused(client, fetcher):
    id = talking_jobs.talk.enqueue()
    job = claimed(fetcher)
    heard = hear(fetcher, job)
    heard.line(line("mine"))
    fetcher.say()
    rescue(client, "w1", "vanished")
    other = fetcher_of(client, "w2")
    second = claimed(other)
    hear(other, second).line(line("theirs"))
    heard.line(line("late"))
    fetcher.say()
    other.say()
    heard.line(line("too late"))
    end(fetcher, job)
    assert texts(client, id) == ["mine", "theirs"]
    end(other, second)
    heard.line(line("after the end"))
    hear(fetcher, job).line(line("by a thread that the job left behind"))
    fetcher.say()
    assert texts(client, id) == ["mine", "theirs"]
    assert fetcher.saying.spoken == other.saying.spoken == {}


def test_a_child_that_a_job_forks_sends_nothing(client, fetcher):
    talking_jobs.talk.enqueue()
    heard = hear(fetcher, claimed(fetcher))
    child = os.fork()
    if not child:
        heard.line(line("in vain"))
        os._exit(any(thread.name == "said" for thread in threading.enumerate()))
    assert os.waitpid(child, 0)[1] == 0


def test_words_that_are_sent_twice_are_kept_once(client, fetcher, monkeypatch):
    id = talking_jobs.talk.enqueue()
    job = claimed(fetcher)
    heard = hear(fetcher, job)
    sends: list[object] = []
    say = type(fetcher._claims).say

    def twice(claims: Claims, words: list[saying.Words]) -> list[str]:
        sends.append(words)
        return say(claims, words) + say(claims, words)

    monkeypatch.setattr(type(fetcher._claims), "say", twice)
    for number in range(3):
        for part in range(200):
            heard.line(line(f"{number}.{part} {'x' * 200}"))
        heard.chunk(said.chunk(number))
        fetcher.say()
    assert len(sends) == 3
    assert texts(client, id) == [f"{n}.{part} {'x' * 200}" for n in range(3) for part in range(200)]
    assert chunks(client, id) == [0, 1, 2]


def test_the_last_lines_and_bytes_are_kept_and_a_reader_knows_how_many_it_lacks(client, fetcher):
    id = talking_jobs.talk.enqueue()
    job = claimed(fetcher)
    heard = hear(fetcher, job)
    for number in range(3000):
        heard.line(line(str(number)))
        if number % 100 == 0:
            fetcher.say()
    fetcher.say()
    found = watch.logs(client, id)
    assert 1000 <= len(found) <= 1000 + saying.ENTRY_BYTES // 262 + 1
    assert [each.text for each in found] == [str(number) for number in range(3000 - len(found), 3000)]
    assert found.dropped == 3000 - len(found)
    for _ in range(200):
        heard.line(line("x" * 8000))
        heard.chunk(said.chunk("y" * 100_000))
    fetcher.say()
    assert client.memory_usage(keys.log_key(id), samples=0) < 320 * 1024
    assert client.memory_usage(keys.output_key(id), samples=0) < 1.3 * 1024 * 1024
    found = watch.logs(client, id)
    assert found.dropped + len(found) == 3200
    output = watch.output(client, id)
    assert len(list(output.kept())) in (10, 11)
    assert output.dropped in (190, 189)


@pytest.mark.parametrize(
    "harm",
    [
        lambda client, key: client.delete(key) and client.set(key, "in the way"),
        lambda client, key: client.xadd(key, {"a": "b"}, "18446744073709551615-3"),
        lambda client, key: client.xadd(key, {"said": "no JSON", "attempt": "x"}, "999-99"),
        lambda client, key: client.xadd(key, {"said": b"\xff[", "attempt": "1"}),
        lambda client, key: client.xdel(key, *[id for id, _ in client.xrange(key)]),
    ],
)
def test_whatever_lies_in_the_way_the_job_ends_and_later_words_are_kept(client, fetcher, harm):
    id = talking_jobs.talk.enqueue()
    job = claimed(fetcher)
    heard = hear(fetcher, job)
    heard.line(line("before"))
    fetcher.say()
    harm(client, keys.log_key(id))
    heard.line(line("after"))
    end(fetcher, job)
    assert client.hget(keys.job_key(id), "status") == b"finished"
    assert texts(client, id)[-1:] == ["after"]


def test_a_record_that_is_none_any_more_does_not_stop_the_worker_of_a_job_that_says_something(
    client, fetcher
):
    id = talking_jobs.talk.enqueue()
    job = claimed(fetcher)
    client.delete(keys.job_key(id))
    client.set(keys.job_key(id), "in the way")
    hear(fetcher, job).line(line("a"))
    fetcher.say()
    hear(fetcher, job).line(line("b"))
    end(fetcher, job)
    assert not client.hexists("pm:claims:w1", id)
    assert client.exists(keys.log_key(id)) == 0


def test_a_job_of_the_id_of_a_deleted_one_begins_a_log_of_its_own(client, fetcher):
    for text in ("old", "new"):
        id = talking_jobs.talk.options(job_id="chosen").enqueue()
        job = claimed(fetcher)
        hear(fetcher, job).line(line(text))
        fetcher.say()
        end(fetcher, job)
        assert texts(client, id) == [text]
        client.delete(keys.job_key(id))
        client.persist(keys.log_key(id))


def test_a_job_that_never_stops_talking_does_not_hold_up_others(client, fetcher, monkeypatch):
    id = talking_jobs.talk.enqueue()
    heard = hear(fetcher, claimed(fetcher))
    send, sends = fetcher._claims.say, 0

    def talk_on(words: list[saying.Words]) -> list[str]:
        nonlocal sends
        sends += 1
        assert sends < 10
        heard.chunk(said.chunk(sends))
        return send(words)

    monkeypatch.setattr(fetcher._claims, "say", talk_on)
    heard.chunk(said.chunk(0))
    fetcher.say()
    assert chunks(client, id) == [0]
    fetcher.say()
    assert chunks(client, id) == [0, 1]


def test_words_that_are_dropped_while_they_are_taken_are_counted_and_no_error():
    class Flooded(deque[bytes]):
        def popleft(self) -> bytes:
            if len(self) == 2:  # another thread adds too much just now, and drops them
                self.clear()
                pieces.dropped += 2
            return super().popleft()

    pieces = saying.Pieces(saying.CHUNKS)
    pieces._kept = Flooded([b"1", b"2", b"3"])
    assert pieces.take() == ((1, 1, 2, "[1]"),)
    pieces.add(b"4")
    assert pieces.take() == ((2, 3, 2, "[4]"),)


def test_a_deleted_job_leaves_nothing_of_what_it_says(client, fetcher):
    id = talking_jobs.talk.enqueue()
    job = claimed(fetcher)
    heard = hear(fetcher, job)
    heard.line(line("before"))
    fetcher.say()
    Job.fetch(id, connection=client, serializer=JSONSerializer).delete()
    heard.line(line("after"))
    fetcher.say()
    end(fetcher, job)
    assert client.exists(keys.job_key(id), keys.log_key(id)) == 0


def test_a_full_memory_delays_what_jobs_say(client, fetcher):
    talking_jobs.talk.enqueue()
    job = claimed(fetcher)
    script = Script("worker.process", "say")
    words = [(job.id, job.execution, 1, [(1, 1, 262, '[[1.0,20,"a"]]')], [])]
    args = [msgspec.msgpack.encode(("w1", "", words))]
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            script(client, [keys.claims_key("w1")], args)
    finally:
        client.config_set("maxmemory", 0)
    assert texts(client, job.id) == []
    assert script(client, [keys.claims_key("w1")], args) == []
    assert texts(client, job.id) == ["a"]
