"""Pipelines while they are paused, drained, canceled, retried twice, or while Redis and S3 are away."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from redis import Redis

from packmule.jobs import context, keys, queues, reader
from packmule.jobs.client import Client
from packmule.jobs.flow import Flow
from packmule.jobs.pipelines import Pipeline, step
from packmule.jobs.storage import Storage
from packmule.tests.jobs.s3_server import ENVIRONMENT, LosingNetwork, forget, s3_server
from packmule.tests.network import server_frozen
from packmule.tests.worker import pipeline_jobs
from packmule.tests.worker.pools import children_of, lines, pool, until
from packmule.worker import Worker

pytestmark = pytest.mark.usefixtures("produce")

SOURCE = "uploads/1/a.txt"
PUBLISHED = ["gated/half.txt", "gated/whole.txt", "manifest.json", "upper/upper.txt"]


class Gated:
    """A pipeline whose second step has begun once `notes` has a line, and ends once `gate` is there."""

    def __init__(self, tmp_path) -> None:
        self.folder = tmp_path / "store"
        self.storage = Storage(str(self.folder))
        self.storage.write_bytes(SOURCE, b"one\ntwo")
        self.notes, self.gate = tmp_path / "notes", tmp_path / "gate"
        slow = step(pipeline_jobs.gated, notes=str(self.notes), gate=str(self.gate))
        self.pipeline = Pipeline("simple", pipeline_jobs.upper, slow)

    def begun(self, times: int = 1) -> None:
        until(lambda: len(lines(self.notes)) >= times)

    def published(self, flow) -> list[str]:
        place = f"results/simple/a.txt/{flow.id}/"
        return [name.removeprefix(place) for name in self.storage.names(place)]

    def nothing_is_left(self) -> bool:
        return not self.storage.names("staging/") and not [*self.folder.glob(".tmp/*")]


@pytest.fixture
def gated(tmp_path):
    return Gated(tmp_path)


def test_a_queue_that_is_paused_amidst_holds_the_flow_and_nothing_is_published(server, client, gated):
    flow = gated.pipeline.enqueue(SOURCE)
    with pool(server, storage=gated.folder):
        gated.begun()
        queues.pause(client, "low")  # in which the end is
        gated.gate.touch()
        until(lambda: flow.state().counts.done == 2)
        until(lambda: reader.read(client, f"{flow.id}-2").status == "queued")
        assert gated.published(flow) == []
        queues.resume(client, "low")
        assert flow.wait(60).counts == (3, 3, 0, 0)
    assert gated.published(flow) == PUBLISHED
    assert gated.nothing_is_left()


@pytest.mark.parametrize("grace", [30, 0.3])
def test_a_drain_amidst_a_step_publishes_once_elsewhere(server, client, gated, grace):
    """The step ends at its checkpoint, or, if the grace is short, maybe before."""
    flow = gated.pipeline.enqueue(SOURCE)
    with pool(server, storage=gated.folder, grace=grace) as first:
        gated.begun()
        first.terminate()
        assert first.wait(60) in (0, 128 + signal.SIGTERM)
        assert gated.published(flow) == []
        assert gated.storage.exists(f"staging/{flow.id}/upper/upper.txt")
        gated.gate.touch()
        with pool(server, storage=gated.folder):
            assert flow.wait(60).counts == (3, 3, 0, 0)
    assert len(lines(gated.notes)) == 2
    assert {reader.read(client, f"{flow.id}-{node}").attempts for node in range(3)} == {0}
    assert gated.published(flow) == PUBLISHED
    assert gated.nothing_is_left()


def test_an_outage_of_redis_beyond_the_lease_amidst_a_step_runs_nothing_twice(spare_server, gated):
    server = spare_server()
    with Redis.from_url(server.url) as client:
        flow = gated.pipeline.enqueue(SOURCE, client=Client(client))
        with pool(server, 2, storage=gated.folder):
            gated.begun()
            with server_frozen(server):
                gated.gate.touch()
                time.sleep(keys.LEASE_SECONDS + 1.5)
            assert flow.wait(60).counts == (3, 3, 0, 0)
        assert lines(gated.notes) == ["begun"]
    assert gated.published(flow) == PUBLISHED
    assert gated.nothing_is_left()


def test_steps_in_threads_on_an_event_loop_and_one_at_a_time_are_published_like_others(server, client, gated):
    steps = [pipeline_jobs.upper, step(pipeline_jobs.awaited, reads="upper"), pipeline_jobs.alone]
    flows = [Pipeline("simple", *steps).enqueue(SOURCE) for _ in range(12)]
    with pool(server, 2, storage=gated.folder, threads=4):
        assert {flow.wait(60).counts for flow in flows} == {(4, 4, 0, 0)}
    names = ["alone/alone.txt", "awaited/awaited.txt", "manifest.json", "upper/upper.txt"]
    assert [gated.published(flow) for flow in flows] == [names] * 12
    assert gated.nothing_is_left()


def test_a_kill_in_a_step_that_is_then_canceled_leaves_nothing(server, client, gated):
    flow = gated.pipeline.enqueue(SOURCE)
    with pool(server, storage=gated.folder) as running:
        gated.begun()
        os.kill(children_of(running.pid)[0], signal.SIGKILL)
        gated.begun(2)
        flow.cancel()
        until(lambda: flow.state().ended is not None)
        until(gated.nothing_is_left)
    assert gated.storage.names() == [SOURCE]


def test_a_failed_step_that_two_people_retry_at_once_runs_and_is_published_once(client, gated, tmp_path):
    context.provide(gated.storage)
    failing = step(pipeline_jobs.parts, fails_unless=str(tmp_path / "mended"))
    flow = Pipeline("simple", pipeline_jobs.upper, failing).enqueue(SOURCE)
    worker = Worker(["default", "low"], connection=client)
    worker.work(burst=True)
    assert flow.wait(10).counts == (3, 1, 1, 1)
    (tmp_path / "mended").touch()
    with ThreadPoolExecutor(4) as threads:
        retried = list(threads.map(lambda _: Flow.at(flow.id).retry(), range(4)))
    assert sum(retried) == 1
    Worker(["default", "low"], connection=client).work(burst=True)
    assert flow.wait(10).counts == (3, 3, 0, 0)
    assert gated.published(flow) == ["manifest.json", "parts/0.txt", "parts/1.txt", "upper/upper.txt"]


def test_a_step_in_which_s3_fails_half_way_is_retried_and_published_whole(client, monkeypatch):
    s3fs = pytest.importorskip("s3fs")
    with ExitStack() as closing:
        network = LosingNetwork(closing.enter_context(s3_server()))
        closing.callback(network.close)
        for name, value in (*ENVIRONMENT.items(), ("AWS_ENDPOINT_URL", network.url)):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        forget()
        s3fs.S3FileSystem().mkdir("bucket")
        storage = Storage("s3://bucket/files")
        storage.write_bytes(SOURCE, b"one\ntwo")
        context.provide(storage)
        monkeypatch.setattr(pipeline_jobs, "cut", lambda: setattr(network, "is_down", True))
        flow = Pipeline("simple", pipeline_jobs.upper, step(pipeline_jobs.cut_off, name="cut")).enqueue(
            SOURCE
        )
        Worker(["default", "low"], connection=client).work(burst=True)
        assert flow.wait(10).counts == (3, 1, 1, 1)
        assert "it can't be reached" in reader.read(client, f"{flow.id}-1").reason
        network.is_down = False
        forget()
        assert storage.names("results/") == []
        assert storage.exists(f"staging/{flow.id}/cut/0.txt")
        monkeypatch.setattr(pipeline_jobs, "cut", lambda: None)
        assert Flow.at(flow.id).retry() == 1
        Worker(["default", "low"], connection=client).work(burst=True)
        assert flow.wait(10).counts == (3, 3, 0, 0)
        place = f"results/simple/a.txt/{flow.id}/"
        assert [name.removeprefix(place) for name in storage.names(place)] == [
            "cut/0.txt", "cut/1.txt", "manifest.json", "upper/upper.txt"
        ]  # fmt: skip
        assert storage.names("staging/") == []
