"""Reading jobs back: progress, results and errors, and corrupt records."""

from __future__ import annotations

import pickle
import threading
import time
import zlib
from base64 import b64encode

import msgspec
import pytest
from redis import Redis
from redis.exceptions import ResponseError
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.jobs import cluster, copying, keys, queues, reader, wire
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.jobs.job_filter import JobFilter
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.reader import NoSuchJob, Progress
from packmule.jobs.search import search
from packmule.tests.jobs import sample_jobs
from packmule.worker.order import Strict
from packmule.worker.process import outcome, performer
from packmule.worker.process.claim import Claims
from packmule.worker.scoreboard import RunningJob
from packmule.worker.started import Marks


@pytest.fixture(autouse=True)
def enqueueing(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "_default", Client(client))


@pytest.fixture
def claims(client: Redis) -> Claims:
    return Claims(client, "w1", Strict(["default"]))


def finish(claims: Claims, result: object = None, error: str | None = None, ended: float = 20.0) -> str:
    """Claim the next job and acknowledge its end, as a worker does; return its id."""
    (job,) = claims.finish_and_claim(claims.next_id(), [], 1).jobs
    if error is None:
        end = performer.finished(job, msgspec.json.encode(result), 10.0, ended)
    else:
        end = outcome.failed(job, error, 10.0, ended)
    claims.finish_and_claim(claims.next_id(), [end], 0)
    return job.id


def start(claims: Claims) -> None:
    """Claim the next job and mark it as started."""
    (job,) = claims.finish_and_claim(claims.next_id(), [], 1).jobs
    Marks(claims.client).mark("w1", [RunningJob(0, job.id, job.execution, 0.0, float("inf"), False)], 1.0)


def test_a_waiting_job_is_read_with_its_call(client):
    id = sample_jobs.decorated.options(queue="default").enqueue("ada")
    info = reader.read(client, id)
    assert (info.id, info.name, info.args, info.kwargs) == (
        id,
        "packmule.tests.jobs.sample_jobs.decorated",
        ["ada"],
        {},
    )
    assert (info.status, info.queue, info.description) == ("queued", "default", "all said")
    assert (info.timeout, info.retries_left, info.attempts, info.deaths) == ("3", 3, 0, 0)
    assert (info.started_at, info.ended_at, info.worker) == (None, None, None)
    assert (info.progress, info.result, info.error, info.reason) == (None, None, None, None)
    assert not info.has_ended
    assert wire.time_seconds(info.created_at) == pytest.approx(time.time(), abs=60)


def test_a_job_is_read_in_one_trip(client):
    id = sample_jobs.noop.enqueue()
    reader.read(client, id)
    (connection,) = client.connection_pool._available_connections
    sent: list[object] = []
    send = connection.send_packed_command
    connection.send_packed_command = lambda command, *rest, **named: (
        sent.append(command),
        send(command, *rest, **named),
    )
    reader.read(client, id)
    del connection.send_packed_command
    assert len(sent) == 1


def test_progress_is_read_as_it_was_counted(client):
    id = sample_jobs.noop.enqueue()
    client.hset(keys.progress_key(id), mapping={"done": 30.0, "total": 40.0, "message": "resizing"})
    progress = reader.read(client, id).progress
    assert progress == Progress(30, 40, "resizing")
    assert progress.percent == 75


@pytest.mark.parametrize(
    ("progress", "percent"),
    [
        (Progress(3, None, ""), None),
        (Progress(0, 0, ""), None),
        (Progress(5, 4, ""), 100),
        (Progress(0, 4, ""), 0),
    ],
)
def test_percent_is_known_with_a_total_and_never_above_100(progress, percent):
    assert progress.percent == percent


@pytest.mark.parametrize("result", [7, "ü", [1, {"a": None}], {"rows": 2}, 0, "", False])
def test_a_result_is_read_as_it_was_returned(client, claims, result):
    id = sample_jobs.noop.enqueue()
    assert finish(claims, result) == id
    info = reader.read(client, id)
    assert (info.status, info.result, info.has_ended) == ("finished", result, True)
    assert (info.error, info.worker) == (None, "w1")
    assert info.ended_at == "1970-01-01T00:00:20.000000Z"
    assert Job.fetch(id, client, JSONSerializer).return_value() == result


def test_an_error_and_its_reason_are_read(client, claims):
    id = sample_jobs.noop.enqueue()
    finish(claims, error='Traceback:\n  File "a.py", line 1\nValueError: it is broken\n')
    info = reader.read(client, id)
    assert (info.status, info.has_ended, info.result) == ("failed", True, None)
    assert info.error.startswith("Traceback:")
    assert info.reason == "ValueError: it is broken"


def test_the_result_is_that_of_the_last_attempt(client, claims):
    id = sample_jobs.noop.options(retries=1, retry_intervals=[0]).enqueue()
    finish(claims, error="ValueError: first")
    info = reader.read(client, id)
    assert (info.status, info.reason, info.attempts) == ("queued", "ValueError: first", 1)
    finish(claims, result="at last")
    info = reader.read(client, id)
    assert (info.status, info.result, info.error) == ("finished", "at last", None)


def test_an_unknown_job_id_is_named_in_the_error(client):
    with pytest.raises(NoSuchJob, match="no job has the id nowhere"):
        reader.read(client, "nowhere")
    assert reader.read_if_there(client, "nowhere") is None


def test_a_job_that_rq_enqueued_is_read(client):
    job = Queue("mail", connection=client, serializer=JSONSerializer).enqueue(
        "shop.send", "ada", copies=2, job_timeout="5m"
    )
    info = reader.read(client, job.id)
    assert (info.name, info.args, info.kwargs) == ("shop.send", ["ada"], {"copies": 2})
    assert (info.queue, info.timeout) == ("mail", "300")


# --- waiting


def test_a_wait_ends_when_the_job_does(client, claims):
    id = sample_jobs.noop.enqueue()
    ending = threading.Timer(0.2, finish, (claims, "done"))
    ending.start()
    assert reader.wait(client, id, timeout=60).result == "done"
    ending.join()


def test_a_wait_that_times_out_reports_the_status(client):
    id = sample_jobs.noop.enqueue()
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=rf"^job {id} is still queued after 200 ms$"):
        reader.wait(client, id, timeout=0.2)
    assert 0.2 <= time.monotonic() - began < 60


def test_a_wait_with_a_timeout_of_zero_returns_an_ended_job(client, claims):
    id = sample_jobs.noop.enqueue()
    finish(claims, error="ValueError: no")
    assert reader.wait(client, id, timeout=0).status == "failed"


def test_a_wait_for_a_job_that_leaves_no_record_raises_no_such_job(client, claims):
    id = sample_jobs.noop.options(result_ttl=0).enqueue()
    ending = threading.Timer(0.1, finish, (claims,))
    ending.start()
    with pytest.raises(NoSuchJob):
        reader.wait(client, id, timeout=60)
    ending.join()


# --- lists and counts


def test_ended_jobs_are_listed_with_the_newest_first(client, claims):
    ids = sample_jobs.noop.enqueue_many([()] * 2)
    for _ in ids:
        finish(claims)
        seconds = client.time()[0]
        deadline = time.monotonic() + 60
        while client.time()[0] == seconds:  # RQ's scores are whole seconds
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert reader.ids(client, "default", "finished", 10) == ids[::-1]
    assert reader.ids(client, "default", "finished", 1) == [ids[1]]


def test_waiting_and_scheduled_jobs_are_listed_with_the_next_first(client):
    waiting = sample_jobs.noop.enqueue_many([()] * 3)
    late = sample_jobs.noop.options(delay=60).enqueue()
    soon = sample_jobs.noop.options(delay=30).enqueue()
    assert reader.ids(client, "default", "queued", 2) == waiting[:2]
    assert reader.ids(client, "default", "scheduled", 10) == [soon, late]


def test_started_jobs_are_listed_by_their_ids_alone(client, claims):
    id = sample_jobs.noop.enqueue()
    start(claims)
    assert reader.ids(client, "default", "started", 10) == [id]


def test_stopped_jobs_are_found_among_the_failed_ones(client):
    failed, stopped, other = sample_jobs.noop.enqueue_many([()] * 3)
    for at, id in enumerate((failed, stopped, other, "gone")):
        client.zadd(keys.registry_key("failed", "default"), {id: at})
    for id in (stopped, other):
        client.hset(keys.job_key(id), "status", "stopped")
    assert reader.ids(client, "default", "stopped", 10) == [other, stopped]
    assert reader.ids(client, "default", "stopped", 1) == [other]
    assert set(reader.ids(client, "default", "failed", 10)) == {failed, stopped, other, "gone"}
    assert reader.ids(client, "low", "stopped", 10) == []


def test_depths_count_every_status_and_clean_nothing_up(client, claims):
    sample_jobs.noop.enqueue_many([()] * 6)
    sample_jobs.noop.options(delay=60).enqueue()
    finish(claims)
    finish(claims, error="ValueError")
    start(claims)
    client.zadd("rq:wip:default", {"abandoned:x": 1})
    client.zadd("rq:finished:default", {"expired": 1})
    for _ in range(2):
        assert queues.depths(client, ["default", "empty"])["default"] == {
            "queued": 3,
            "scheduled": 1,
            "started": 2,
            "finished": 2,
            "failed": 1,
            "deferred": 0,
            "canceled": 0,
        }
    assert client.zscore("rq:wip:default", "abandoned:x") == 1
    assert set(queues.depths(client, ["empty"])["empty"].values()) == {0}


def test_all_queues_that_were_enqueued_to_are_listed(client):
    sample_jobs.noop.options(queue="mail").enqueue()
    sample_jobs.noop.options(queue="image", delay=60).enqueue()
    Queue("rqs", connection=client, serializer=JSONSerializer).enqueue("shop.send")
    assert queues.names(client) == ["image", "mail", "rqs"]


def test_workers_are_listed_until_their_record_expires(client):
    assert cluster.workers(client) == []
    for name in ("w2", "w1"):
        key = keys.worker_key(name)
        client.sadd(keys.WORKERS, key)
        client.hset(
            key,
            mapping={"state": "busy", "queues": "high,low", "current_job": "j1", "successful_job_count": 3},
        )
    client.sadd(keys.WORKERS, keys.worker_key("gone"))
    first, second = cluster.workers(client)
    assert (first["name"], second["name"]) == ("w1", "w2")
    assert (first["state"], first["queues"], first["current_job"]) == ("busy", "high,low", "j1")
    assert (first["done"], first["failed"]) == (3, 0)


def test_a_worker_whose_lease_has_ended_is_busy_no_more(client):
    for name, ends_in in (("w1", 60), ("w2", -60)):
        client.sadd(keys.WORKERS, keys.worker_key(name))
        client.hset(keys.worker_key(name), mapping={"state": "busy", "current_job": "j1"})
        client.zadd(keys.LEASES, {name: time.time() + ends_in})
    first, second = cluster.workers(client)
    assert (first["state"], first["current_job"]) == ("busy", "j1")
    assert (second["state"], second["current_job"]) == ("vanished", "")


def test_one_worker_is_read_with_what_it_says_of_itself(client):
    key = keys.worker_key("a/b %")
    fields = {"state": "idle", "hostname": "host", "pid": 7, "threads": 4, "tasks": "x", "memory": -1}
    client.sadd(keys.WORKERS, key)
    with pytest.raises(cluster.NoSuchWorker, match="no worker is called a/b %"):
        cluster.worker(client, "a/b %")
    client.hset(key, mapping={**fields, "release": b"\xff"})
    found = cluster.worker(client, "a/b %")
    assert (found["host"], found["pid"], found["release"]) == ("host", 7, "\ufffd")
    assert (found["threads"], found["tasks"], found["memory"]) == (4, 0, 0), "what is no number counts as 0"
    with pytest.raises(cluster.NoSuchWorker):
        cluster.worker(client, "gone")


def test_workers_whose_keys_have_other_types_are_left_out(client):
    client.sadd(keys.WORKERS, keys.worker_key("w1"), keys.worker_key("w2"))
    client.set(keys.worker_key("w1"), "x")
    client.hset(keys.worker_key("w2"), "state", "idle")
    client.set(keys.QUIET, "x")
    assert [each["name"] for each in cluster.workers(client)] == ["w2"]
    client.set(keys.WORKERS, "x")
    assert cluster.workers(client) == []


def test_the_jobs_that_a_worker_holds_are_named_without_its_marks(client):
    assert cluster.claimed(client, ["v", "w"], 10) == [[], []]
    client.hset(keys.claims_key("w"), mapping={"j1": "e1", "j2": "e2", ".mark": "1", ".waiters": "3"})
    client.set(keys.claims_key("x"), "of another type")
    first, second, third = cluster.claimed(client, ["v", "w", "x"], 10)
    assert (first, sorted(second), third) == ([], ["j1", "j2"], [])
    assert [len(each) for each in cluster.claimed(client, ["w"], 1)] == [1]
    client.hset(keys.job_key("j2"), "status", "started")
    client.set(keys.job_key("j1"), "of another type")
    assert cluster.performed(client, ["v", "w", "x"]) == [[], ["j2"], []]


def test_the_server_reports_its_kind_and_version(client):
    server = cluster.server(client)
    assert server["server"] == "valkey"
    assert server["version"][0].isdigit()
    assert server["clients"] >= 1


# --- corrupt records


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data", b"\x80\x05nonsense"),
        ("data", b"not zlib"),
        ("data", b"[" * 100_000),
        ("status", b"\xff"),
        ("attempts", b"many"),
        ("attempts", "²".encode()),
        ("deaths", b"--5"),
        ("retries_left", b"1" * 5000),
        ("retries_left", b"-1"),
        (b"\xff\xfe", b"a name that is no text"),
        ("created_at", b"yesterday"),
        ("crash", b'{"cause": ' + b"[" * 100_000),
    ],
)
def test_a_corrupt_record_is_still_read(client, field, value):
    id = sample_jobs.noop.enqueue()
    client.hset(keys.job_key(id), field, value)
    info = reader.read(client, id)
    assert (info.id, info.queue) == (id, "default")
    assert (info.attempts, info.deaths, info.retries_left) == (0, 0, 0)
    assert info.name == "packmule.tests.jobs.sample_jobs.noop" or info.name.startswith("(the payload is")


def test_a_pickled_job_is_known_by_its_description_and_never_opened(client, monkeypatch):
    def opened(*args, **kwargs):
        raise AssertionError("a pickle was opened")

    job = Queue("default", connection=client).enqueue("shop.report", "2026-11", token="s3cret")
    client.xadd(keys.results_key(job.id), {"type": 1, "return_value": b64encode(pickle.dumps(1))})
    monkeypatch.setattr(pickle, "loads", opened)
    info = reader.read(client, job.id)
    assert (info.name, info.args, info.kwargs, info.is_pickled) == ("shop.report", [], {}, True)
    assert info.unread == "the payload is a pickle: enqueue with RQ's JSONSerializer"
    assert info.result == "(a result that is not JSON)"
    assert search(client, JobFilter(name="report")).jobs == [], "a description is no proof"
    with pytest.raises(InvalidCall, match=f"job {job.id} can't be copied: the payload is a pickle"):
        copying.copy(Client(client), job.id, {})


@pytest.mark.parametrize(
    ("description", "name"),
    [
        ("shop.report('a', token='b')", "shop.report"),
        ("shop.report", "shop.report"),
        ("nightly", ""),
        ("of ada@example.org (twice)", ""),
        ("shop.re\x1bport(1)", ""),
        ("a." * 5000 + "b()", ""),
        ("", ""),
    ],
)
def test_a_description_may_name_the_function(description, name):
    assert wire.called(description) == name


@pytest.mark.parametrize("key", [keys.job_key, keys.results_key, keys.progress_key])
def test_a_key_of_another_type_is_not_a_job(client, key):
    id = sample_jobs.noop.enqueue()
    client.delete(key(id))
    client.set(key(id), "in the way")
    with pytest.raises(NoSuchJob, match=f"job {id} can't be read"):
        reader.read(client, id)
    assert reader.read_if_there(client, id) is None


def test_a_server_that_refuses_does_not_make_a_job_unknown(client):
    id = sample_jobs.noop.enqueue()
    client.acl_setuser("stranger", enabled=True, nopass=True, categories=["+@all"], commands=["-hgetall"])
    socket = client.connection_pool.connection_kwargs["server"].socket_path
    with Redis(unix_socket_path=str(socket), username="stranger", password="") as stranger:
        with pytest.raises(ResponseError, match="permission"):
            reader.read(stranger, id)
        with pytest.raises(ResponseError, match="permission"):
            Batch(stranger, "b").state()
    client.acl_deluser("stranger")


@pytest.mark.parametrize(
    "counters_", [{"done": "x"}, {"done": "1", "total": "x"}, {"message": "no count"}, {b"\xff": b"\xff"}]
)
def test_corrupt_progress_is_read_as_none(client, counters_):
    id = sample_jobs.noop.enqueue()
    client.hset(keys.progress_key(id), mapping=counters_)
    assert reader.read(client, id).progress is None


@pytest.mark.parametrize(
    "value", ["not base64!", b64encode(b"\x80pickle"), b64encode(b"[" * 100_000), b"\xff"]
)
def test_an_unreadable_result_is_replaced_by_a_note(client, value):
    id = sample_jobs.noop.enqueue()
    client.xadd(keys.results_key(id), {"return_value": value})
    assert reader.read(client, id).result == "(a result that is not JSON)"


@pytest.mark.parametrize("value", ["not base64!", b64encode(b"not zlib"), b"\xff"])
def test_an_unreadable_error_is_replaced_by_a_note(client, value):
    id = sample_jobs.noop.enqueue()
    client.xadd(keys.results_key(id), {"exc_string": value})
    assert reader.read(client, id).error == "(an error text that can't be read)"


def test_an_error_text_that_unpacks_without_end_is_cut(client, monkeypatch):
    monkeypatch.setattr(wire, "MAX_PAYLOAD_BYTES", 1000)
    id = sample_jobs.noop.enqueue()
    client.xadd(keys.results_key(id), {"exc_string": b64encode(zlib.compress(b"x" * 1_000_000))})
    assert reader.read(client, id).error == "x" * 1000


def test_an_id_that_is_not_utf8_does_not_stop_a_list(client):
    id = sample_jobs.noop.enqueue()
    client.lpush(keys.queue_key("default"), b"\xff\xfe")
    assert reader.ids(client, "default", "queued", 10)[1] == id
