"""Shares of a machine: how many isolated jobs run in a pool, and what their images take together."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from PIL import Image
from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from packmule.jobs import control, keys, reader
from packmule.jobs.host_shares import HostMemory, Shares
from packmule.jobs.image import image
from packmule.tests.worker import isolated_jobs
from packmule.tests.worker.pools import (
    DEADLINE,
    children_of,
    ended,
    is_alive,
    lines,
    pool,
    scripts_a_second,
    until,
)

pytestmark = pytest.mark.usefixtures("produce")

ALL = 256 * 1024 * 1024


@contextmanager
def process(act: Callable[[], object]) -> Iterator[int]:
    """A process that does this, and then waits; killed at the end."""
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            act()
            time.sleep(600)
        os._exit(1)
    try:
        yield pid
    finally:
        kill(pid)


def kill(pid: int) -> None:
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def taker(folder: Path, size: int, name: str) -> Callable[[], None]:
    """Takes memory, and notes it."""

    def take() -> None:
        HostMemory(ALL, folder).take(size)
        with (folder / "notes").open("a") as notes:
            notes.write(f"{name}\n")

    return take


def said(client: Redis, id: str) -> str:
    progress = reader.read(client, id).progress
    return progress.message if progress else ""


def is_taken(folder: Path) -> bool:
    """Whether the processes under test leave no byte free, or one of them has the turn."""
    file = os.open(folder / f"packmule-memory-{os.geteuid()}", os.O_RDWR)
    try:
        return not Shares(file, 1, first=256).has_free
    finally:
        os.close(file)


def test_shares_are_taken_all_or_none_and_a_killed_process_leaves_none_taken(tmp_path):
    shares, taken, given, free = Shares.of_pool(3), *(tmp_path / name for name in ("taken", "given", "free"))
    with process(lambda: shares.take(2) and taken.touch()) as holder:
        until(taken.exists)
        assert not shares.take(2)
        assert shares.has_free
        assert shares.take()
        shares.give_back()
        kill(holder)
        assert shares.take(3)
        with process(lambda: (shares.give_back(), given.touch())):
            until(given.exists)
            with process(lambda: free.write_text(f"{shares.has_free}")):
                until(lambda: lines(free) == ["False"])
    shares.give_back()


def test_memory_comes_to_who_waits_longest_and_small_jobs_pass_no_large_one(tmp_path):
    notes = tmp_path / "notes"
    with process(taker(tmp_path, ALL * 3 // 4, "first")) as first:
        until(lambda: lines(notes) == ["first"])
        with process(taker(tmp_path, ALL * 2, "more than all")) as large:
            until(lambda: is_taken(tmp_path))
            with process(taker(tmp_path, 1, "small")):
                time.sleep(0.3)  # a span in which it would have come
                assert lines(notes) == ["first"]
                kill(first)
                until(lambda: lines(notes) == ["first", "more than all"])
                kill(large)
                until(lambda: lines(notes) == ["first", "more than all", "small"])


def test_memory_is_given_back_and_taken_anew(tmp_path):
    mine, other = HostMemory(ALL, tmp_path), HostMemory(ALL, tmp_path)
    for size in (1, ALL, ALL // 2, 0):
        mine.take(size)
    mine.take(ALL)
    mine.give_back()
    mine.give_back()
    other.take(ALL)
    other.give_back()


def test_whoever_needs_less_than_before_keeps_that_and_gives_back_the_rest(tmp_path):
    mine, notes = HostMemory(ALL, tmp_path), tmp_path / "notes"
    mine.take(ALL)
    mine.take(ALL // 2 - 1)
    with process(taker(tmp_path, ALL // 2 - 1, "half")):
        until(lambda: lines(notes) == ["half"])
        with process(taker(tmp_path, 1, "more")) as more:
            time.sleep(0.3)  # a span in which it would have come; a look by this process would free its locks
            assert lines(notes) == ["half"]
            mine.take(ALL // 4)
            until(lambda: lines(notes) == ["half", "more"])
            kill(more)
    mine.give_back()


def test_pools_with_different_folders_for_temporary_files_share_no_memory(tmp_path):
    mine, strangers = tmp_path / "mine", tmp_path / "strangers"
    mine.mkdir()
    strangers.mkdir()
    with process(taker(strangers, ALL, "theirs")), process(taker(mine, ALL, "mine")):
        until(lambda: lines(strangers / "notes") == ["theirs"] and lines(mine / "notes") == ["mine"])


@pytest.mark.parametrize("what", ["folder", "link"])
def test_what_stands_where_the_file_should_be_stops_no_job(tmp_path, caplog, what):
    path = tmp_path / f"packmule-memory-{os.geteuid()}"
    path.mkdir() if what == "folder" else path.symlink_to(tmp_path / "elsewhere")
    memory = HostMemory(ALL, tmp_path)
    memory.take(1)
    memory.give_back()
    assert "memory isn't shared out" in caplog.text
    assert not (tmp_path / "elsewhere").exists()


def test_a_pool_performs_as_many_isolated_jobs_at_once_as_it_may(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pool(server, 3, isolated=2, queues="high,default"):
        until(lambda: client.scard(keys.WORKERS) == 3)
        ids = [isolated_jobs.stay.enqueue(str(notes), str(gate), text) for text in "ab"]
        until(lambda: len(lines(notes)) == 2)
        ids += [isolated_jobs.stay.enqueue(str(notes), str(gate), text) for text in "cdef"]
        mails = isolated_jobs.mail.enqueue_many([(str(notes), str(number)) for number in range(30)])
        assert [ended(client, id).status for id in mails] == ["finished"] * 30
        until(lambda: client.llen(keys.queue_key("default")) == 4)
        gate.touch()
        assert [ended(client, id).status for id in ids] == ["finished"] * 6
    running, most = 0, 0
    for line in lines(notes):
        running += line.startswith("begin") - line.startswith("end")
        most = max(most, running)
    assert most == 2


def test_a_worker_that_waits_for_a_place_is_at_rest_and_gets_it_while_its_holder_is_busy(
    server, client, tmp_path
):
    notes, gate, other = tmp_path / "notes", tmp_path / "gate", tmp_path / "other"
    with pool(server, 2, isolated=1, queues="high,default") as running:
        until(lambda: client.scard(keys.WORKERS) == 2)
        ids = [isolated_jobs.stay.enqueue(str(notes), str(gate), "a")]
        until(lambda: lines(notes) == ["begin a"])
        holder, waiting = sorted(children_of(running.pid), key=lambda worker: not children_of(worker))
        ids += [isolated_jobs.hold.enqueue(str(notes)) for _ in range(2)]
        until(lambda: {f"hold {holder}", f"hold {waiting}"} <= {*lines(notes)})
        ids += [isolated_jobs.stay.enqueue(str(notes), str(other), "b")]
        (tmp_path / f"notes-{waiting}").touch()
        until(lambda: reader.read(client, ids[3]).status == "queued")
        assert scripts_a_second(client) < 40
        gate.touch()
        until(lambda: "begin b" in lines(notes))
        (tmp_path / f"notes-{holder}").touch()
        other.touch()
        assert [ended(client, id).status for id in ids] == ["finished"] * 4


def test_singletons_and_limits_hold_while_jobs_wait_for_a_place(server, client, tmp_path):
    with pool(server, 3, isolated=1, queues="high,default"):
        ids = [
            job.enqueue(str(tmp_path / "notes"), str(number))
            for number in range(4)
            for job in (isolated_jobs.single, isolated_jobs.limited)
        ]
        infos = [ended(client, id) for id in ids]
    assert [(info.status, info.deaths, info.attempts) for info in infos] == [("finished", 0, 0)] * 8
    noted = lines(tmp_path / "notes")
    assert noted[::2] == [line.replace("end", "begin") for line in noted[1::2]], "one at a time"


def test_a_place_of_a_killed_process_is_free_for_the_others(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pool(server, 2, isolated=1) as running:
        until(lambda: client.scard(keys.WORKERS) == 2)
        for number in range(3):
            id = isolated_jobs.stay.enqueue(str(notes), str(gate), str(number))
            until(lambda: f"begin {number}" in lines(notes))  # noqa: B023
            holder = next(worker for worker in children_of(running.pid) if children_of(worker))
            os.kill(holder, signal.SIGKILL)
            until(lambda: not is_alive(holder))  # noqa: B023
            until(lambda: lines(notes).count(f"begin {number}") == 2)  # noqa: B023
            gate.touch()
            assert ended(client, id).status == "finished"
            gate.unlink()


def test_a_killed_isolated_process_gives_its_place_back(server, client, tmp_path):
    with pool(server, 2, isolated=1):
        died = isolated_jobs.leave.enqueue("death")
        assert ended(client, died).status == "failed"
        assert ended(client, isolated_jobs.who.enqueue()).status == "finished"


def test_a_pool_drains_while_isolated_jobs_wait_for_a_place(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pool(server, 2, isolated=1) as running:
        until(lambda: client.scard(keys.WORKERS) == 2)
        ids = [isolated_jobs.stay.enqueue(str(notes), str(gate), "a")]
        until(lambda: lines(notes) == ["begin a"])
        ids += [isolated_jobs.stay.enqueue(str(notes), str(gate), text) for text in "bc"]
        until(lambda: client.llen(keys.queue_key("default")) == 2)
        running.send_signal(signal.SIGTERM)
        until(lambda: client.scard(keys.WORKERS) == 1)
        gate.touch()
        assert running.wait(DEADLINE) == 0
    assert lines(notes) == ["begin a", "end a"]
    assert {*client.lrange(keys.queue_key("default"), 0, -1)} == {id.encode() for id in ids[1:]}


def test_threads_and_async_jobs_go_on_beside_isolated_ones_that_wait_for_a_place(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pool(server, 2, isolated=1, threads=4, queues="high,default"):
        ids = [isolated_jobs.stay.enqueue(str(notes), str(gate), "a")]
        until(lambda: lines(notes) == ["begin a"])
        ids += [isolated_jobs.stay.enqueue(str(notes), str(gate), text) for text in "bc"]
        mails = isolated_jobs.mail.enqueue_many([(str(notes), str(number)) for number in range(50)])
        assert [ended(client, id).status for id in mails] == ["finished"] * 50
        assert lines(notes).count("begin b") == 0
        gate.touch()
        assert [ended(client, id).status for id in ids] == ["finished"] * 3


def test_stock_rq_beside_takes_isolated_jobs_that_wait_for_a_place(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pool(server, 2, isolated=1):
        until(lambda: client.scard(keys.WORKERS) == 2)
        first = isolated_jobs.stay.enqueue(str(notes), str(gate), "a")
        until(lambda: lines(notes) == ["begin a"])
        others = [isolated_jobs.who.enqueue(text) for text in "bcd"]
        queue = Queue("default", connection=client, serializer=JSONSerializer)
        SimpleWorker([queue], connection=client, serializer=JSONSerializer).work(burst=True)
        assert {ended(client, id).result for id in others} == {os.getpid()}
        gate.touch()
        assert ended(client, first).status == "finished"


def test_an_image_that_waits_for_memory_holds_up_no_mail_and_can_be_canceled_or_given_back(
    server, client, tmp_path
):
    Image.new("RGB", (400, 300), "red").save(tmp_path / "a.jpg")
    notes, memory = tmp_path / "notes", HostMemory(ALL, tmp_path)
    options = {"storage": tmp_path, "image_memory": ALL, "queues": "high,default"}
    memory.take(ALL)
    with pool(server, 2, **options) as running:
        ids = image.enqueue_many([("a.jpg", [{"width": width}]) for width in (10, 20)])
        until(lambda: all("waits for" in said(client, id) for id in ids))
        mails = isolated_jobs.mail.enqueue_many([(str(notes), str(number)) for number in range(30)])
        assert [ended(client, id).status for id in mails] == ["finished"] * 30
        control.cancel(client, ids[0])
        assert ended(client, ids[0]).status == "stopped"
        running.send_signal(signal.SIGTERM)
        assert running.wait(DEADLINE) == 0
    info = reader.read(client, ids[1])
    assert (info.status, info.deaths) == ("queued", 0)
    with pool(server, 2, **options):
        until(lambda: reader.read(client, ids[1]).status == "started")
        memory.give_back()
        assert ended(client, ids[1]).result["renditions"][0]["width"] == 20


def test_images_that_are_larger_than_the_shared_memory_are_made_one_after_the_other(server, client, tmp_path):
    for kind in ("png", "jpg", "tiff"):
        Image.effect_noise((1500, 1000), 40).convert("RGB").save(tmp_path / f"a.{kind}")
    wishes = [{"width": 300}, {"width": 900, "format": "webp", "trim": 5}]
    with pool(server, 3, storage=tmp_path, image_memory=1_000_000):
        ids = image.enqueue_many(
            [(f"a.{kind}", wishes, str(number)) for number in range(3) for kind in ("png", "jpg", "tiff")]
        )
        assert [ended(client, id).status for id in ids] == ["finished"] * 9
