"""Isolated jobs that wait for a place, or for memory, while other things happen to them and their workers."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import Image
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.jobs import control, keys, reader
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import Counts
from packmule.jobs.client import Client
from packmule.jobs.host_shares import HostMemory
from packmule.jobs.image import image
from packmule.jobs.queues import pause, resume
from packmule.tests.worker import batch_jobs, isolated_jobs
from packmule.tests.worker.pools import children_of, ended, is_alive, lines, pool, until
from packmule.tests.worker.test_host_shares import ALL, said
from packmule.tests.worker.test_redis_away import LONG_SECONDS, frozen, killed

PLACE = {"isolated": 1, "queues": "high,default"}
"""The options of a pool whose isolated jobs have one place."""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def waiting(client: Redis, notes: Path, gate: Path, *texts: str) -> list[str]:
    """Jobs of which the first has the only place, and the others wait for it in their queue."""
    ids = [isolated_jobs.stay.enqueue(str(notes), str(gate), texts[0])]
    until(lambda: f"begin {texts[0]}" in lines(notes))
    ids += [isolated_jobs.stay.enqueue(str(notes), str(gate), text) for text in texts[1:]]
    until(lambda: client.llen(keys.queue_key("default")) == len(texts) - 1)
    return ids


def made(folder: Path, width: int) -> bool:
    return any(each.name.startswith(f"a-{width}x") for each in folder.glob("renditions/*/*"))


@pytest.mark.parametrize("fault", [killed, frozen])
def test_an_outage_longer_than_the_lease_harms_no_image_and_none_that_waits(spare_server, tmp_path, fault):
    server, memory = spare_server(), HostMemory(ALL, tmp_path)
    Image.new("RGB", (400, 300), "red").save(tmp_path / "a.jpg")
    with Redis.from_url(server.url) as client:
        Client(client).make_default()
        memory.take(ALL)
        with pool(server, 3, isolated=2, storage=tmp_path, image_memory=ALL) as running:
            until(lambda: client.scard(keys.WORKERS) == 3)
            workers = children_of(running.pid)
            ids = [image.enqueue("a.jpg", [{"width": width}]) for width in (10, 20)]
            until(lambda: all("waits for" in said(client, id) for id in ids))
            ids += [image.enqueue("a.jpg", [{"width": width}]) for width in (30, 40)]
            until(lambda: client.llen(keys.queue_key("default")) == 2)
            with fault(server, client):
                memory.give_back()
                began = time.monotonic()
                until(lambda: made(tmp_path, 10) and made(tmp_path, 20))  # while nobody can be told
                time.sleep(max(0.0, LONG_SECONDS - (time.monotonic() - began)))
            infos = [ended(client, id) for id in ids]
            assert children_of(running.pid) == workers
    assert [(info.status, info.deaths, info.attempts) for info in infos] == [("finished", 0, 0)] * 4
    for info, width in zip(infos, (10, 20, 30, 40), strict=True):
        [rendition] = info.result["renditions"]
        with Image.open(tmp_path / rendition["path"]) as picture:
            picture.load()
            assert picture.width == width
    assert len(list(tmp_path.glob("renditions/*/*"))) == 4
    assert not list((tmp_path / ".tmp").iterdir())


def test_a_batch_whose_members_wait_for_a_place_counts_each_and_calls_back_once(
    server, client, produce, notes, gate
):
    done = isolated_jobs.report_isolated.prepare(str(notes), "done")
    well = batch_jobs.report.prepare(str(notes), "well")
    with pool(server, 3, **PLACE), Batch.create(on_complete=done, on_success=well) as batch:
        first, *_ = waiting(client, notes, gate, "outside")
        jobs = [
            isolated_jobs.stay.options(batch=batch.id),
            batch_jobs.double_isolated.options(batch=batch.id),
        ]
        inside = [jobs[0].enqueue(str(notes), str(gate), str(number)) for number in range(3)]
        inside += [jobs[1].enqueue(number) for number in range(5)]
        canceled = jobs[1].enqueue(9)
        control.cancel(client, canceled)
        batch.seal()
        assert batch.state().counts == Counts(9, 0, 0, 1)
        gate.touch()
        assert batch.wait(60).counts == Counts(9, 8, 0, 1)
        assert [ended(client, id).status for id in (first, *inside)] == ["finished"] * 9
        until(lambda: any(line.startswith("done") for line in lines(notes)))
    told = [line for line in lines(notes) if not line.startswith(("begin", "end"))]
    assert told == ["done: 8 done, 0 failed, 1 canceled"]


def test_a_canceled_or_paused_job_gets_no_place_and_the_others_go_on(server, client, produce, notes, gate):
    with pool(server, 2, **PLACE):
        until(lambda: client.scard(keys.WORKERS) == 2)
        first, second, third, fourth = waiting(client, notes, gate, *"abcd")
        control.cancel(client, second)
        assert ended(client, second).status == "canceled"
        pause(client, "default")
        gate.touch()
        assert ended(client, first).status == "finished"
        mails = isolated_jobs.mail.enqueue_many([(str(notes), str(number)) for number in range(20)])
        assert [ended(client, id).status for id in mails] == ["finished"] * 20
        assert [reader.read(client, id).status for id in (third, fourth)] == ["queued"] * 2
        resume(client, "default")
        assert [ended(client, id).status for id in (third, fourth)] == ["finished"] * 2
    order = [line for line in lines(notes) if "mail" not in line]
    assert order[::2] == [line.replace("end", "begin") for line in order[1::2]], "one at a time"
    assert {*order[::2]} == {"begin a", "begin c", "begin d"}


def test_a_pool_that_is_killed_while_its_places_are_taken_leaves_them_to_the_next(
    server, client, produce, notes, gate
):
    with pool(server, 2, **PLACE) as running:
        until(lambda: client.scard(keys.WORKERS) == 2)
        ids = waiting(client, notes, gate, *"abc")
        holder = next(worker for worker in children_of(running.pid) if children_of(worker))
        (isolated,) = children_of(holder)
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not is_alive(isolated) and not is_alive(holder))
    with pool(server, 2, **PLACE):
        gate.touch()
        infos = [ended(client, id) for id in ids]
    assert [(info.status, info.attempts) for info in infos] == [("finished", 0)] * 3
    assert sorted(lines(notes)) == sorted(
        ["begin a", *(f"{what} {which}" for which in "abc" for what in ("begin", "end"))]
    )


def test_a_pool_that_is_killed_while_its_images_wait_for_memory_waits_for_none(
    server, client, produce, tmp_path
):
    Image.new("RGB", (400, 300), "red").save(tmp_path / "a.jpg")
    memory, options = HostMemory(ALL, tmp_path), {"storage": tmp_path, "image_memory": ALL}
    memory.take(ALL)
    with pool(server, 2, **options) as running, ExitStack() as stack:
        ids = image.enqueue_many([("a.jpg", [{"width": width}]) for width in (10, 20)])
        until(lambda: all("waits for" in said(client, id) for id in ids))
        isolated = [child for worker in children_of(running.pid) for child in children_of(worker)]
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not any(map(is_alive, isolated)))
        memory.take(ALL)  # it stands behind nobody
        stack.callback(memory.give_back)
    with pool(server, 2, **options):
        infos = [ended(client, id) for id in ids]
    assert [(info.status, info.attempts) for info in infos] == [("finished", 0)] * 2
    assert [info.result["renditions"][0]["width"] for info in infos] == [10, 20]


def test_an_image_that_stock_rq_enqueued_by_name_waits_for_its_place_like_others(
    server, client, produce, tmp_path, notes, gate
):
    Image.new("RGB", (400, 300), "red").save(tmp_path / "a.jpg")
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    with pool(server, 2, storage=tmp_path, **PLACE):
        first, *_ = waiting(client, notes, gate, "a")
        jobs = [
            queue.enqueue("packmule.jobs.image.image", "a.jpg", [{"width": width}], out=f"out{width}")
            for width in (10, 20)
        ]
        assert [reader.read(client, job.id).status for job in jobs] == ["queued"] * 2
        gate.touch()
        assert {ended(client, id).status for id in (first, *(job.id for job in jobs))} == {"finished"}
    for job, width in zip(jobs, (10, 20), strict=True):
        result = Job.fetch(job.id, connection=client, serializer=JSONSerializer).return_value()
        assert result["renditions"][0]["width"] == width
        with Image.open(tmp_path / result["renditions"][0]["path"]) as picture:
            assert picture.width == width
