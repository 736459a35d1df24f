"""Handles: an id that can be waited for, read and steered, from threads and from coroutines."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
import time

import pytest
from redis import ConnectionPool, Redis, UnixDomainSocketConnection

import packmule
from packmule.config import Settings
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import entry, keys, wire
from packmule.jobs.client import Client
from packmule.jobs.control import NotCanceled
from packmule.jobs.handle import JobCanceled, JobHandle, JobHandles, JobRaised
from packmule.jobs.reader import NoSuchJob
from packmule.tests.jobs import sample_jobs
from packmule.worker.order import Strict
from packmule.worker.process import outcome, performer
from packmule.worker.process.claim import Claims


@pytest.fixture(autouse=True)
def own(client: Redis, monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client(client)
    monkeypatch.setattr(Client, "_default", made)
    return made


def perform(client: Redis, value: bytes = b"7", error: str | None = None) -> None:
    """Claim all jobs and end each with `value`, or with `error`."""
    claims = Claims(client, "w", Strict(["default"]))
    jobs = claims.finish_and_claim(claims.next_id(), [], 100).jobs
    outcomes = [
        performer.finished(job, value, 1.0, 2.0) if error is None else outcome.failed(job, error, 1.0, 2.0)
        for job in jobs
    ]
    claims.finish_and_claim(claims.next_id(), outcomes, 0)


def test_a_handle_is_the_id_wherever_a_text_is_taken(client):
    handle = sample_jobs.noop.enqueue()
    assert client.exists(keys.job_key(handle)) == 1
    assert (isinstance(handle, str), f"{handle}", {handle: 1}[str(handle)]) == (True, str(handle), 1)
    assert json.loads(json.dumps([handle])) == [handle]
    for plain in (pickle.loads(pickle.dumps(handle)), copy.deepcopy(handle), str(handle)):
        assert (plain, type(plain)) == (handle, str)


def test_a_handle_may_be_an_argument_an_option_and_a_result(client, own):
    first = sample_jobs.noop.enqueue()
    second = sample_jobs.echo.options(job_id=JobHandle("chosen", own)).enqueue({"after": first, first: 1})
    assert second.refresh().args == [{"after": first, first: 1}]
    assert sample_jobs.noop.options(job_id=second).enqueue() == "chosen"
    assert wire.encode_json([first]) == json.dumps([first]).encode()


def test_a_job_that_waits_has_a_status_and_no_progress(client):
    handle = sample_jobs.add.enqueue(1)
    assert (handle.status, handle.progress, handle.refresh().args) == ("queued", None, [1])
    with pytest.raises(TimeoutError, match=f"job {handle} is still queued"):
        handle.wait(0)
    assert sample_jobs.add.options(delay=60).enqueue(1).status == "scheduled"


def test_the_result_is_what_the_job_returned(client):
    handle = sample_jobs.add.enqueue(1)
    performing = threading.Timer(0.1, perform, (client,))
    performing.start()
    assert handle.result(timeout=60) == 7
    performing.join()
    assert handle.wait().status == "finished"


def test_the_result_of_a_failed_job_raises_its_error(client):
    handle = sample_jobs.add.enqueue(1)
    perform(client, error="Traceback\n  line\nshop.OutOfStock: no horses left")
    with pytest.raises(
        JobRaised, match=f"job {handle} .*sample_jobs.add.* failed: OutOfStock: no horses"
    ) as it:
        handle.result()
    assert it.value.traceback.startswith("Traceback\n")
    assert isinstance(it.value, packmule.errors.JobFailed)


def test_a_canceled_job_has_no_result_and_may_be_retried(client):
    handle = sample_jobs.add.enqueue(1)
    assert handle.cancel() == "canceled"
    with pytest.raises(JobCanceled, match="was canceled"):
        handle.result()
    handle.retry()
    assert handle.status == "queued"


def test_a_handle_of_no_job_says_so(own):
    handle = own.job("nobody")
    for look in (handle.refresh, handle.wait, handle.result, handle.cancel, handle.retry):
        with pytest.raises(NoSuchJob, match="nobody"):
            look()


@pytest.mark.parametrize(
    ("field", "value"), [("timeout", b"soon"), ("created_at", b"yesterday"), ("origin", b"\xff")]
)
def test_a_corrupt_job_that_waits_for_others_is_not_canceled(client, field, value):
    handle = sample_jobs.noop.enqueue()
    client.hset(keys.job_key(handle), mapping={"status": "deferred", field: value})
    with pytest.raises(NotCanceled, match=f"job {handle} can't be canceled: its record is corrupt"):
        handle.cancel()


def test_an_argument_may_be_called_function(client):
    handle = asyncio.run(sample_jobs.call_back.aenqueue(function="a"))
    assert handle.refresh().kwargs == {"function": "a"}


def test_many_handles_know_which_calls_made_no_job(client, own):
    handles = sample_jobs.only.enqueue_many([(1,), (2,), (1,)])
    assert isinstance(handles, JobHandles)
    assert handles.held == {2}
    assert handles[0] == handles[2] != handles[1]
    assert [handle.status for handle in handles] == ["queued"] * 3
    assert all(handle.client is own for handle in handles)
    assert sample_jobs.only.enqueue_many([(3,)]).held == frozenset()


def test_coroutines_enqueue_and_get_results_without_blocking_the_loop(client):
    async def main() -> list[object]:
        handle = await sample_jobs.add.aenqueue(1)
        many = await sample_jobs.add.options(queue="low").aenqueue_many([(1,), (2,)])
        assert (await handle.astatus(), await handle.aprogress(), len(many)) == ("queued", None, 2)
        waiting = asyncio.create_task(handle.aresult(timeout=60))
        for _ in range(10):  # a loop that is blocked would stand still until the timeout
            await asyncio.sleep(0.01)
        assert not waiting.done()
        await asyncio.to_thread(perform, client)
        result = await waiting
        assert await many[0].acancel() == "canceled"
        await many[0].aretry()
        return [result, (await handle.await_end()).status, (await many[0].arefresh()).status]

    assert asyncio.run(main()) == [7, "finished", "queued"]


class Held(UnixDomainSocketConnection):
    """A connection that is held at one moment of an enqueue until its gate opens."""

    def __init__(self, moment, there, gate, **options):
        super().__init__(**options)
        self.moment, self.there, self.gate = moment, there, gate

    def connect(self):
        self._hold("connecting")
        super().connect()

    def send_packed_command(self, command, check_health=True):
        super().send_packed_command(command, check_health)
        if any(b"EVALSHA" in part for part in command):
            self._hold("sent")

    def _hold(self, moment):
        if moment == self.moment:
            self.there.set()
            assert self.gate.wait(60)


def hang_up(server, moment, enqueue) -> None:
    """Cancel what `enqueue` makes of a client at this `moment`, and wait for the end of its thread."""
    there, gate = threading.Event(), threading.Event()
    held = {"moment": moment, "there": there, "gate": gate, "path": str(server.socket_path)}

    async def main(producer: Client) -> None:
        enqueueing = asyncio.create_task(enqueue(producer))
        assert await asyncio.to_thread(there.wait, 60)
        enqueueing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await enqueueing
        gate.set()

    with Redis.from_pool(ConnectionPool(connection_class=Held, **held)) as own:
        asyncio.run(main(Client(own)))


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(("moment", "jobs"), [("connecting", 0), ("sent", 1)])
def test_a_cancelled_coroutine_enqueues_only_what_was_sent_before(server, client, moment, jobs, durable):
    sample_jobs.noop.options(queue="low").enqueue()  # the server knows the script now
    job = sample_jobs.noop.options(durable=durable)
    hang_up(server, moment, lambda producer: producer.aenqueue(job))
    assert client.llen("rq:queue:default") == jobs


def test_many_jobs_of_a_cancelled_coroutine_stop_at_a_round_trip(server, client):
    sample_jobs.noop.options(queue="low").enqueue()
    hang_up(server, "sent", lambda producer: producer.aenqueue_many(sample_jobs.noop, [()] * 2_000))
    assert client.llen("rq:queue:default") == entry.JOBS_A_TRIP


def test_a_hundred_coroutines_wait_while_other_threads_work(client):
    async def main() -> None:
        handles = await sample_jobs.noop.aenqueue_many([()] * 100)
        waiting = [asyncio.create_task(handle.aresult(timeout=60)) for handle in handles]
        await asyncio.sleep(0.2)
        assert await asyncio.to_thread(lambda: "free") == "free"
        await asyncio.to_thread(perform, client)
        assert await asyncio.gather(*waiting) == [7] * 100

    asyncio.run(main())


def test_a_coroutine_that_waits_too_long_gets_a_timeout(client):
    async def main() -> None:
        handle = await sample_jobs.noop.aenqueue()
        with pytest.raises(TimeoutError, match=f"job {handle} has not ended after 50 ms"):
            await handle.aresult(timeout=0.05)

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began >= 0.05


def test_two_clients_work_side_by_side(client, own, spare_server):
    elsewhere: EmbeddedServer = spare_server()
    with Client(Settings(redis_url=elsewhere.url, queues=("reports",))) as reports:
        there = reports.enqueue(sample_jobs.add.options(queue="reports", job_id="one"), 1)
        here = own.enqueue(sample_jobs.add.options(job_id="one"), 2)
        assert there == here == "one"
        assert (there.refresh().args, here.refresh().args) == ([1], [2])
        assert (there.client, here.client) == (reports, own)
        many = reports.enqueue_many(sample_jobs.add.options(queue="reports"), [(1,), {"a": 2}])
        assert [handle.refresh().queue for handle in many] == ["reports", "reports"]
        assert Client.default() is own
        assert asyncio.run(reports.aenqueue(sample_jobs.noop.options(queue="reports"))).status == "queued"


def test_a_client_connects_when_it_is_first_used_and_again_after_it_was_closed(server):
    made = Client(Settings(data_dir=server.data_dir))
    assert "redis" not in vars(made)
    made.close()
    handle = made.enqueue(sample_jobs.noop)
    made.close()
    assert "redis" not in vars(made)
    assert handle.status == "queued"
    made.close()


def test_threads_that_use_a_client_first_share_one_connection(server):
    together = threading.Barrier(8)
    seen = []

    def look() -> None:
        together.wait()
        seen.append(made.redis)

    with Client(Settings(data_dir=server.data_dir)) as made:
        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {id(each) for each in seen} == {id(made.redis)}


def test_a_client_leaves_a_connection_that_it_was_handed_open(client):
    with Client(client) as made:
        made.enqueue(sample_jobs.noop)
    assert client.ping()
