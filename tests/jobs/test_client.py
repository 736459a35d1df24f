"""The client: one trip, nothing twice, nothing half, and in the words that RQ reads."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.registry import ScheduledJobRegistry
from rq.serializers import JSONSerializer

from packmule.config import Settings
from packmule.coordination.redis.connection import InvalidClient, connect
from packmule.jobs import delivery, entry, keys, registry, wire
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client, UnknownQueue
from packmule.jobs.control import cancel
from packmule.jobs.entry import JobTooLarge
from packmule.jobs.job_type import InvalidCall, InvalidJob
from packmule.jobs.options import Options
from packmule.tests.jobs import sample_jobs
from packmule.tests.losing_proxy import LosingProxy
from packmule.worker.order import Strict
from packmule.worker.process import outcome, performer
from packmule.worker.process.claim import Claims

QUEUES = ("high", "default", "low")


@pytest.fixture(autouse=True)
def enqueue(client: Redis, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Registered functions enqueue to the test's server, arguments of up to 100 kB."""
    made = Client(client, QUEUES, max_bytes=100_000)
    monkeypatch.setattr(Client, "_default", made)
    return made


def rq_queue(client: Redis, name: str = "default") -> Queue:
    return Queue(name, connection=client, serializer=JSONSerializer)


def rq_job(client: Redis, id: str) -> Job:
    return Job.fetch(id, connection=client, serializer=JSONSerializer)


def server_time(client: Redis) -> float:
    seconds, microseconds = client.time()
    return seconds + microseconds / 1_000_000


def calls_of(client: Redis, command: str) -> int:
    return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def perform_all(client: Redis) -> list[str]:
    """Claim and finish, as a worker does, all that is in the default queue; the ids."""
    claims = Claims(client, "w", Strict(["default"]))
    jobs = claims.finish_and_claim(claims.next_id(), [], 100).jobs
    claims.finish_and_claim(claims.next_id(), [performer.finished(job, b"1", 1.0, 2.0) for job in jobs], 0)
    return [job.id for job in jobs]


# --- what RQ reads


def test_rq_reads_a_job_as_if_it_had_enqueued_it(client):
    before = datetime.now(UTC)
    id = sample_jobs.add.enqueue(1, b=2)
    job = rq_job(client, id)
    assert (job.func_name, job.args, job.kwargs, job.instance) == (
        "packmule.tests.jobs.sample_jobs.add",
        [1],
        {"b": 2},
        None,
    )
    assert job.get_status() is JobStatus.QUEUED
    assert (job.origin, job.timeout, job.description) == (
        "default",
        180,
        "packmule.tests.jobs.sample_jobs.add",
    )
    assert (job.result_ttl, job.failure_ttl, job.ttl) == (None, None, None)
    assert (job.retries_left, job.retry_intervals) == (None, None)
    for instant in (job.created_at, job.enqueued_at):
        assert before <= instant <= datetime.now(UTC)
    assert job.perform() == 3


def test_rqs_queue_finds_the_job(client):
    id = sample_jobs.noop.enqueue()
    queue = rq_queue(client)
    assert queue.job_ids == [id]
    assert queue.fetch_job(id).func_name == "packmule.tests.jobs.sample_jobs.noop"
    assert queue in Queue.all(connection=client, serializer=JSONSerializer)


def test_rq_reads_every_option_of_the_decorator(client):
    job = rq_job(client, sample_jobs.decorated.enqueue("ada"))
    assert (job.origin, job.timeout, job.description) == ("low", 3, "all said")
    assert (job.result_ttl, job.failure_ttl) == (60, 120)
    assert (job.retries_left, job.retry_intervals) == (3, [1, 5])
    assert rq_queue(client, "low").job_ids == [job.id]


def test_options_of_one_enqueue_win_over_the_decorators(client):
    changed = sample_jobs.decorated.options(
        queue="high",
        timeout=timedelta(minutes=10),
        result_ttl=0,
        failure_ttl=-1,
        retries=1,
        retry_intervals=[timedelta(seconds=9)],
        description="this time",
        job_id="order-7",
    )
    assert changed.enqueue("ada") == "order-7"
    job = rq_job(client, "order-7")
    assert (job.origin, job.timeout, job.description) == ("high", 600, "this time")
    assert (job.result_ttl, job.failure_ttl) == (0, -1)
    assert (job.retries_left, job.retry_intervals) == (1, [9])
    assert rq_job(client, sample_jobs.decorated.enqueue("bob")).timeout == 3


def test_a_payload_is_json_and_a_large_one_is_compressed(client):
    small, large = sample_jobs.echo.enqueue("x"), sample_jobs.echo.enqueue("x" * 50_000)
    assert json.loads(client.hget(keys.job_key(small), "data")) == [
        "packmule.tests.jobs.sample_jobs.echo",
        None,
        ["x"],
        {},
    ]
    stored = client.hget(keys.job_key(large), "data")
    assert len(stored) < 500
    assert json.loads(zlib.decompress(stored))[2] == ["x" * 50_000]
    assert rq_job(client, large).args == ["x" * 50_000]


def test_texts_of_any_script_and_binary_arguments_arrive(client):
    job = rq_job(client, sample_jobs.echo.options(description="Grüße 🐴").enqueue("naïve 馬\x00\n"))
    assert (job.args, job.description) == (["naïve 馬\x00\n"], "Grüße 🐴")
    found = registry.find("packmule.tests.jobs.sample_jobs.store")
    job = rq_job(client, sample_jobs.store.enqueue(b"\x00\xff"))
    assert found.bind(job.args, job.kwargs) == ((b"\x00\xff",), {})


# --- round trips and order


def test_an_enqueue_is_one_call_of_the_script(client):
    sample_jobs.noop.enqueue()
    before = calls_of(client, "evalsha")
    sample_jobs.noop.enqueue()
    assert calls_of(client, "evalsha") == before + 1


def test_a_thousand_jobs_are_two_calls_and_stay_in_order(client):
    sample_jobs.noop.enqueue()
    before = calls_of(client, "evalsha")
    ids = sample_jobs.add.enqueue_many([(n,) for n in range(500)] + [{"a": n} for n in range(500)])
    assert calls_of(client, "evalsha") == before + 2
    assert rq_queue(client).job_ids[1:] == ids
    assert len(set(ids)) == 1000
    assert rq_job(client, ids[499]).args == [499]
    assert rq_job(client, ids[999]).kwargs == {"a": 499}


def test_a_call_sent_again_after_its_job_was_canceled_enqueues_nothing(client, enqueue):
    job, call, options = sample_jobs.add.prepare(1)
    sent = enqueue.entries(job, [call], options.over(job.options))
    delivery.deliver(client, sent)
    cancel(client, sent[0].id)
    delivery.deliver(client, sent)
    assert rq_job(client, sent[0].id).get_status() == JobStatus.CANCELED
    assert rq_queue(client).job_ids == []


@pytest.mark.parametrize(("failure_ttl", "traces"), [(-1, 0), (59, 1), (60, 0)])
def test_only_a_job_whose_record_soon_expires_leaves_another_trace(client, failure_ttl, traces):
    sample_jobs.add.options(failure_ttl=failure_ttl).enqueue(1)
    claims = Claims(client, "w", Strict(["default"]))
    (job,) = claims.finish_and_claim(claims.next_id(), [], 1).jobs
    claims.finish_and_claim(claims.next_id(), [outcome.failed(job, "broken", 1.0, 2.0)], 0)
    assert len(client.keys("pm:gone:*")) == traces


def test_one_call_enqueues_jobs_that_have_little_in_common(client, enqueue):
    kept = sample_jobs.only.enqueue(3)

    def entry_of(prepared):
        job, call, options = prepared
        return enqueue.entries(job, [call], options.over(job.options))[0]

    soon = entry_of(sample_jobs.add.options(delay=0.5).prepare(1))
    low = entry_of(sample_jobs.add.options(queue="low").prepare(2))
    other = entry_of(sample_jobs.only.prepare(3))
    with client.pubsub() as notices:
        notices.subscribe(keys.SCHEDULER)
        assert notices.get_message(timeout=60)["type"] == "subscribe"
        holders = delivery.deliver(client, [soon, low, other])
        assert notices.get_message(timeout=60)["data"] == b"0.500"
    assert holders == {other.id: kept}
    assert [rq_job(client, each.id).args for each in (soon, low)] == [[1], [2]]


def test_a_thousand_jobs_at_the_front_stay_in_order_before_what_was_there(client):
    waiting = sample_jobs.noop.enqueue()
    ids = sample_jobs.add.options(at_front=True).enqueue_many([(n,) for n in range(1000)])
    assert rq_queue(client).job_ids == [*ids, waiting]
    assert rq_job(client, ids[0]).args == [0]


def test_large_payloads_are_split_over_calls_and_stay_in_order(client, monkeypatch):
    monkeypatch.setattr(entry, "BYTES_A_TRIP", 10_000)
    before = calls_of(client, "evalsha")
    ids = sample_jobs.echo.enqueue_many([(msgspec.json.encode(list(range(n))).hex(),) for n in range(200)])
    assert calls_of(client, "evalsha") > before + 2
    assert rq_queue(client).job_ids == ids


def test_a_connection_that_turns_replies_into_text_is_refused():
    with pytest.raises(InvalidClient, match="without decode_responses"):
        Client(Redis(decode_responses=True))


def test_no_calls_are_no_jobs(client):
    assert sample_jobs.add.enqueue_many([]) == []
    assert client.dbsize() == 0


def test_a_generator_of_calls_is_taken(client):
    ids = sample_jobs.add.enqueue_many((n,) for n in range(3))
    assert rq_queue(client).job_ids == ids


# --- delays


def test_a_delay_counts_by_the_servers_clock(client, monkeypatch):
    monkeypatch.setattr(entry.time, "time", lambda: 0.0)
    before = server_time(client)
    id = sample_jobs.add.options(delay=30).enqueue(1)
    due = client.zscore(keys.registry_key("scheduled", "default"), id)
    assert before + 30 - 0.001 <= due <= server_time(client) + 30


def test_rq_reads_a_delayed_job(client):
    at = datetime.now(UTC) + timedelta(hours=1)
    id = sample_jobs.add.options(at=at, queue="high").enqueue(1)
    job, scheduled = rq_job(client, id), ScheduledJobRegistry(queue=rq_queue(client, "high"))
    assert job.get_status() is JobStatus.SCHEDULED
    assert job.enqueued_at is None
    assert scheduled.get_job_ids() == [id]
    assert abs(scheduled.get_scheduled_time(id) - at) < timedelta(milliseconds=1)
    assert rq_queue(client, "high").job_ids == []
    assert "high" in [queue.name for queue in Queue.all(connection=client)]


def test_an_instant_in_another_time_zone_is_the_same_instant(client):
    zone = datetime(2030, 6, 1, 12, tzinfo=datetime.strptime("+0200", "%z").tzinfo)
    id = sample_jobs.add.options(at=zone).enqueue(1)
    due = client.zscore(keys.registry_key("scheduled", "default"), id)
    assert due == datetime(2030, 6, 1, 10, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("when", [{"delay": 60}, {"at": datetime(2030, 6, 1, tzinfo=UTC)}])
def test_jobs_delayed_together_are_due_in_order(client, when):
    ids = sample_jobs.add.options(**when).enqueue_many([(n,) for n in range(1000)])
    due = client.zrange(keys.registry_key("scheduled", "default"), 0, -1)
    assert [id.decode() for id in due] == ids


def test_a_delayed_job_remembers_that_it_goes_to_the_front(client):
    id = sample_jobs.add.options(delay=60, at_front=True).enqueue(1)
    assert rq_job(client, id).enqueue_at_front is True
    assert rq_queue(client).job_ids == []


# --- nothing twice


def test_a_job_id_is_enqueued_once_while_its_job_exists(client):
    again = sample_jobs.add.options(job_id="once")
    assert [again.enqueue(1), again.enqueue(2)] == ["once", "once"]
    assert rq_queue(client).job_ids == ["once"]
    assert rq_job(client, "once").args == [1]
    sample_jobs.add.options(job_id="once", delay=60).enqueue(3)
    assert client.exists(keys.registry_key("scheduled", "default")) == 0
    assert perform_all(client) == ["once"]
    again.enqueue(4)
    assert rq_queue(client).job_ids == []


@pytest.mark.parametrize("options", [{"job_id": "gone"}, {}])
@pytest.mark.parametrize("result_ttl", [0, 5])
def test_a_call_sent_again_after_its_job_left_no_record_enqueues_nothing(
    client, monkeypatch, options, result_ttl
):
    sent = []
    send = delivery._enqueue
    monkeypatch.setattr(
        delivery, "_enqueue", lambda *args, **named: sent.append((args, named)) or send(*args, **named)
    )
    call = sample_jobs.noop.options(result_ttl=result_ttl, **options)
    id = call.enqueue()
    assert perform_all(client) == [id]
    client.delete(keys.job_key(id))  # as it is at once, or when five seconds are over
    (args, named) = sent[0]
    assert send(*args, **named) == [1, 0]
    assert rq_queue(client).job_ids == []
    assert 0 < client.ttl(f"pm:gone:{id}") <= 60


def test_a_new_call_with_an_id_whose_job_is_gone_enqueues_it(client):
    again = sample_jobs.noop.options(job_id="nightly", result_ttl=0)
    again.enqueue()
    assert perform_all(client) == ["nightly"]
    again.enqueue()
    assert perform_all(client) == ["nightly"]


@pytest.fixture
def proxy(server, tmp_path) -> Iterator[LosingProxy]:
    made = LosingProxy(tmp_path / "proxy.sock", server.socket_path)
    yield made
    made.close()


@pytest.fixture
def losing(proxy, client, tmp_path, monkeypatch) -> Iterator[LosingProxy]:
    """The proxy, with registered functions enqueueing through it."""
    sample_jobs.noop.enqueue()  # the script is loaded
    perform_all(client)
    with connect(proxy.url, tmp_path) as through:
        monkeypatch.setattr(Client, "_default", Client(through))
        yield proxy


def test_a_command_sent_again_after_its_reply_was_lost_enqueues_once(client, losing):
    losing.to_lose = 2
    id = sample_jobs.add.enqueue(1)
    assert losing.lost == 2
    assert rq_queue(client).job_ids == [id]


def test_a_delayed_job_whose_reply_was_lost_is_scheduled_once(client, losing):
    losing.to_lose = 1
    id = sample_jobs.add.options(delay=60).enqueue(1)
    assert losing.lost == 1
    assert client.zrange(keys.registry_key("scheduled", "default"), 0, -1) == [id.encode()]


@pytest.mark.parametrize("at_front", [False, True])
def test_many_jobs_whose_reply_was_lost_are_enqueued_once_in_order(client, losing, at_front):
    losing.to_lose = 1
    ids = sample_jobs.add.options(at_front=at_front).enqueue_many([(n,) for n in range(600)])
    assert losing.lost == 1
    assert rq_queue(client).job_ids == ids


@pytest.mark.parametrize("result_ttl", [0, 500])
def test_a_job_that_ended_before_its_enqueue_was_sent_again_runs_once(client, losing, result_ttl):
    performed: list[str] = []
    losing.to_lose = 1
    losing.on_loss = lambda: performed.extend(perform_all(client))
    id = sample_jobs.add.options(result_ttl=result_ttl).enqueue(1)
    assert losing.lost == 1
    assert performed == [id]
    assert rq_queue(client).job_ids == []
    assert Job.exists(id, connection=client) is (result_ttl > 0)


# --- nothing half


@pytest.mark.parametrize(
    ("function", "calls", "error"),
    [
        (sample_jobs.add, [(1,), ("2",), (3,)], "argument a: expected `int`, got `str`"),
        (sample_jobs.add, [(1,), {"a": 1, "c": 2}], "unexpected keyword argument 'c'"),
        (sample_jobs.bare, [(1,), (object(),)], "can't be written as JSON"),
        (sample_jobs.bare, [(1,), (float("nan"),)], "not JSON compliant"),
        (sample_jobs.bare, [(1,), ("\ud800",)], "can't be written as JSON"),
        (sample_jobs.bare, [(1,), ({(1, 2): 3},)], "can't be written as JSON"),
        (sample_jobs.choose, [("cover",), ("cover", float("inf"))], "not JSON compliant"),
    ],
)
def test_nothing_is_enqueued_if_any_call_is_invalid(client, function, calls, error):
    with pytest.raises(InvalidCall, match=error):
        function.enqueue_many(calls)
    assert client.dbsize() == 0


def test_an_invalid_call_among_many_is_named_by_its_position():
    with pytest.raises(InvalidCall, match=r"^calls\[2\]: .*: argument a: expected `int`, got `str`$"):
        sample_jobs.add.enqueue_many([(1,), (2,), ("3",), (4,)])
    with pytest.raises(InvalidCall, match=rf"^{sample_jobs.add.job.name}: argument a: "):
        sample_jobs.add.enqueue_many([("3",)])


@pytest.mark.parametrize("given", ["redis://:secret@localhost", b"", 5])
def test_a_client_of_something_that_is_no_server_is_refused(given):
    with pytest.raises(InvalidClient, match=r"give a redis.Redis, or Settings\(redis_url=\.\.\.\)$") as it:
        Client(given)
    assert "secret" not in str(it.value)


@pytest.mark.parametrize("function", [print, "shop.report"])
def test_a_client_enqueues_nothing_that_is_no_job(client, function):
    with pytest.raises(InvalidJob, match=r"is not a job: give a function that is decorated with @job$"):
        Client(client).enqueue(function)
    with pytest.raises(InvalidJob, match="is not a job"):
        Client(client).enqueue_many(function, [()])


def test_an_argument_that_contains_itself_is_refused(client):
    loop: dict[str, object] = {}
    loop["self"] = loop
    with pytest.raises(InvalidCall, match="contains itself"):
        sample_jobs.echo.enqueue(loop)
    assert client.dbsize() == 0


def test_arguments_over_the_limit_are_refused_with_both_sizes_and_the_way_out(client):
    with pytest.raises(
        JobTooLarge,
        match=r"^calls\[1\]: .*\.sample_jobs\.echo: .* 100053 bytes, .* 100000: .*storage.*PACKMULE_",
    ):
        sample_jobs.echo.enqueue_many([("x",), ("x" * 100_000,)])
    assert client.dbsize() == 0
    sample_jobs.echo.enqueue("x" * (100_000 - 53))


def test_no_limit_lets_through_what_a_worker_would_refuse_to_unpack(client, monkeypatch):
    monkeypatch.setattr(wire, "MAX_PAYLOAD_BYTES", 1000)
    with pytest.raises(JobTooLarge, match="may hold 1000"):
        Client(client, max_bytes=10**9).send(sample_jobs.echo.job, [(("x" * 1000,), {})])


def test_a_queue_that_nobody_serves_is_refused_and_those_there_are_named(client):
    with pytest.raises(UnknownQueue, match="no queue is called 'hihg': there are high, default, low"):
        sample_jobs.noop.options(queue="hihg").enqueue()
    assert client.dbsize() == 0


def test_a_client_of_a_connection_enqueues_to_any_queue(client):
    Client(client).send(sample_jobs.noop.job, [((), {})], Options(queue="some"))
    assert len(rq_queue(client, "some").job_ids) == 1


def test_one_job_id_is_not_given_to_many_jobs(client):
    with pytest.raises(InvalidCall, match="one job_id can't name 2 jobs"):
        sample_jobs.add.options(job_id="one").enqueue_many([(1,), (2,)])
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "rq:queue:default"),
        ({"at_front": True}, "rq:queue:default"),
        ({"delay": 5}, "rq:scheduled:default"),
        ({}, "rq:queues"),
        ({"unique": True}, "pm:unique"),
        ({}, "pm:full"),
        ({"unique": True}, "pm:events"),
    ],
)
def test_a_key_of_another_type_is_set_aside_and_the_job_is_enqueued(client, options, key):
    if key == "pm:full":
        client.rpush(key, "in the way")
    else:
        client.set(key, "in the way")
    sample_jobs.noop.options(job_id="once", **options).enqueue()
    assert sample_jobs.noop.options(job_id="once", **options).enqueue() == "once"
    assert Job.fetch("once", client, JSONSerializer).get_status() in ("queued", "scheduled")
    place = "rq:scheduled:default" if "delay" in options else "rq:queue:default"
    assert client.type(place) == (b"zset" if "delay" in options else b"list")
    assert client.smembers("rq:queues") == {b"rq:queue:default"}
    if key not in ("pm:full", "pm:events"):
        assert client.get(f"pm:broken:{key}") == b"in the way"
        assert key.encode() in client.lindex(keys.QUARANTINE, 0)


def test_a_deferred_registry_of_another_type_is_set_aside_and_the_batch_is_made(client):
    client.set("rq:deferred:default", "in the way")
    batch = Batch.create(on_complete=sample_jobs.noop.prepare())
    assert client.zcard("rq:deferred:default") == 1
    client.delete("rq:deferred:default")
    client.set("rq:deferred:default", "in the way")
    batch.seal()
    assert client.llen("rq:queue:default") == 1


def test_a_description_is_cut_to_a_bounded_length(client):
    id = sample_jobs.noop.options(description="x" * 100_000).enqueue()
    assert len(Job.fetch(id, client, JSONSerializer).description) == 1000


@pytest.mark.parametrize("ahead", [-3600, 3600])
@pytest.mark.parametrize("options", [{}, {"delay": 20}])
def test_the_servers_clock_alone_decides_when_a_job_expires(client, monkeypatch, ahead, options):
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + ahead)
    id = sample_jobs.noop.options(expires=40, **options).enqueue()
    expires_at = float(client.hget(keys.job_key(id), "expires_at"))
    assert abs(expires_at - now - 40 - options.get("delay", 0)) < 10


# --- where it goes


def test_a_client_made_the_default_takes_this_processs_enqueues(client, server, monkeypatch):
    monkeypatch.setattr(Client, "_default", None)
    with Client(Settings(data_dir=server.data_dir, queues=("low",))).make_default():
        id = sample_jobs.noop.options(queue="low").enqueue()
        with pytest.raises(UnknownQueue, match="there are low"):
            sample_jobs.noop.enqueue()
    assert rq_queue(client, "low").job_ids == [id]


def test_a_process_without_a_default_client_enqueues_to_the_environments_server(client, server, monkeypatch):
    monkeypatch.setattr(Client, "_default", None)
    monkeypatch.delenv("PACKMULE_REDIS_URL", raising=False)
    monkeypatch.setenv("REDIS_URL", server.url)
    id = sample_jobs.noop.enqueue()
    Client.default().close()
    assert rq_queue(client).job_ids == [id]


def test_a_function_may_enqueue_from_many_threads(client):
    threads = [
        threading.Thread(target=lambda: [sample_jobs.add.enqueue(n) for n in range(50)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = rq_queue(client).job_ids
    assert len(set(ids)) == len(ids) == 400
