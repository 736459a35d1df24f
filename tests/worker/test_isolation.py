"""Isolated processes: who shares one, what they can reach, and who waits for them."""

from __future__ import annotations

import os
import signal
import socket
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from PIL import Image
from rq import Callback, Queue
from rq.serializers import JSONSerializer

from packmule.jobs import control, keys, reader, sealing
from packmule.jobs.image import image
from packmule.tests.jobs.image_fuzz import damaged, sources
from packmule.tests.network import network
from packmule.tests.worker import executor_jobs, isolated_jobs
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

QUEUES = ("high", "default")


def framed(message: object) -> bytes:
    data = msgspec.msgpack.encode(message)
    return len(data).to_bytes(4, "little") + data


def begun(notes: Path, *texts: str) -> None:
    until(lambda: set(lines(notes)) >= {f"begin {text}" for text in texts})


def test_jobs_that_opt_in_share_a_process_as_often_as_they_allow(server, client):
    with pool(server, ready=60):
        pids = [ended(client, isolated_jobs.who.enqueue(str(number))).result for number in range(6)]
        other = ended(client, executor_jobs.where_isolated.enqueue()).result[0]
        again = ended(client, executor_jobs.where_isolated.enqueue()).result[0]
    assert pids == [pids[0]] * 3 + [pids[3]] * 3
    assert len({pids[0], pids[3], other, again}) == 4
    until(lambda: not any(map(is_alive, pids)))


@pytest.mark.parametrize(
    "what",
    [
        *("folder", "environment", "handler", "signal", "timer", "cpu timer", "mask", "limit", "locale"),
        *(
            "thread",
            "thread called progress",
            "file",
            "output",
            "child",
            "grandchild",
            "error",
            "death",
            "group",
        ),
        pytest.param("processor", marks=pytest.mark.skipif(os.cpu_count() == 1, reason="it has one choice")),
    ],
)
def test_what_a_job_leaves_behind_does_not_reach_the_next_one(server, client, what):
    with pool(server):
        first = ended(client, isolated_jobs.leave.enqueue("nothing")).result
        assert ended(client, isolated_jobs.leave.enqueue(what)).result in (first, None)
        last = ended(client, isolated_jobs.leave.enqueue("nothing")).result
    assert last != first


@pytest.mark.parametrize("how", ["hopeless", "error", "frame"])
def test_a_process_goes_on_after_an_error_that_its_job_declares(server, client, how):
    with pool(server, ready=60):
        first = ended(client, isolated_jobs.refuse.enqueue("nothing")).result
        for _ in range(3):
            assert ended(client, isolated_jobs.refuse.enqueue(how)).reason.endswith(f"Hopeless: {how}")
        last = ended(client, isolated_jobs.refuse.enqueue("nothing")).result
    assert last == first


@pytest.mark.parametrize("how", ["file", "thread", "memory", "group", "timeout", "cancel"])
def test_no_process_goes_on_whose_declared_error_leaves_something_or_had_a_grave_cause(server, client, how):
    with pool(server):
        first = ended(client, isolated_jobs.refuse.enqueue("nothing")).result
        id = isolated_jobs.refuse.options(timeout=1 if how == "timeout" else 60).enqueue(how)
        if how == "cancel":
            until(lambda: reader.read(client, id).status == "started")
            assert control.cancel(client, id, DEADLINE)
        info = ended(client, id)
        last = ended(client, isolated_jobs.refuse.enqueue("nothing")).result
    assert info.deaths == 0
    assert last != first


def test_what_an_isolated_job_started_ends_with_it_in_whatever_session(server, client):
    with pool(server):
        started = ended(client, isolated_jobs.start_session.enqueue()).result
        until(lambda: not is_alive(started))


def test_each_job_of_a_shared_process_has_the_whole_of_its_limits(server, client):
    with pool(server, ready=60):
        pids = [ended(client, isolated_jobs.work.enqueue()).result for _ in range(3)]
        grown = [ended(client, isolated_jobs.work.enqueue("memory")).result for _ in range(2)]
        refused = ended(client, isolated_jobs.work.enqueue("too much"))
    assert len(set(pids)) == 1, "0.6 s of processor time each, of 1 s"
    assert None not in grown
    assert len(set(grown)) == 2, "it keeps what the first one took"
    assert refused.reason.startswith("MemoryError")


def test_a_kept_process_ends_with_its_worker_however_that_ends(server, client):
    for ending in (signal.SIGTERM, signal.SIGKILL):
        with pool(server) as process:
            kept = ended(client, isolated_jobs.who.enqueue()).result
            assert is_alive(kept)
            process.send_signal(ending)
            until(lambda kept=kept: not is_alive(kept))


def test_an_isolated_job_keeps_no_other_from_its_worker_and_the_next_one_keeps_its_place(
    server, client, tmp_path
):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pool(server, queues=",".join(QUEUES)):
        first = isolated_jobs.stay.enqueue(str(notes), str(gate), "first")
        begun(notes, "first")
        second = isolated_jobs.stay.enqueue(str(notes), str(gate), "second")
        third = isolated_jobs.stay.enqueue(str(notes), str(gate), "third")
        mails = isolated_jobs.mail.enqueue_many([(str(notes), str(number)) for number in range(20)])
        assert [ended(client, id).status for id in mails] == ["finished"] * 20
        until(lambda: reader.read(client, first).status == "started")  # which the pool notes
        assert [reader.read(client, id).status for id in (second, third)] == ["queued"] * 2
        waiting = [second.encode(), third.encode()]
        until(lambda: client.lrange(keys.queue_key("default"), 0, -1) == waiting)
        gate.touch()
        assert all(ended(client, id).status == "finished" for id in (first, second, third))
        infos = [reader.read(client, id) for id in (first, second, third)]
    assert [info.deaths for info in infos] == [0, 0, 0]
    order = [line for line in lines(notes) if "mail" not in line]
    assert order == [f"{what} {which}" for which in ("first", "second", "third") for what in ("begin", "end")]


def test_what_is_more_urgent_comes_before_the_isolated_jobs_that_were_claimed_with_a_short_one(
    server, client, tmp_path
):
    notes = tmp_path / "notes"
    ids = isolated_jobs.announce.enqueue_many([(str(notes), text) for text in "abcd"])
    with pool(server, queues=",".join(QUEUES), together=4, stay=60, long=600):
        infos = [ended(client, id) for id in ids]
        until(lambda: len(lines(notes)) == 8)
    assert [(info.status, info.deaths, info.attempts) for info in infos] == [("finished", 0, 0)] * 4
    assert lines(notes) == [f"{what} {text}" for text in "abcd" for what in ("announce", "mail")]


def test_a_worker_that_waits_for_its_isolated_job_is_at_rest(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pool(server, queues=",".join(QUEUES)):
        ids = [isolated_jobs.stay.enqueue(str(notes), str(gate), text) for text in ("a", "b", "c")]
        begun(notes, "a")
        until(lambda: client.llen(keys.queue_key("default")) == 2)
        assert scripts_a_second(client) < 40
        gate.touch()
        assert all(ended(client, id).status == "finished" for id in ids)


def test_a_worker_whose_callback_waits_for_its_isolated_job_is_at_rest(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pool(server, queues=",".join(QUEUES)):
        busy = isolated_jobs.stay.enqueue(str(notes), str(gate), "a")
        begun(notes, "a")
        queue = Queue("default", connection=client, serializer=JSONSerializer)
        callback = Callback("packmule.tests.worker.isolated_jobs.call_back")
        done = queue.enqueue("packmule.tests.worker.isolated_jobs.mail", str(notes), "b", on_success=callback)
        until(
            lambda: (
                done.id.encode() in client.lrange(keys.queue_key("default"), 0, -1)
                and "mail b" in lines(notes)
            )
        )
        assert scripts_a_second(client) < 40
        gate.touch()
        assert ended(client, busy).status == "finished"
        until(lambda: not client.hexists(keys.job_key(done.id), "callback_due"))


def test_another_process_takes_the_isolated_job_that_one_has_no_room_for(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pool(server, 2):
        ids = [isolated_jobs.stay.enqueue(str(notes), str(gate), text) for text in ("a", "b", "c")]
        until(lambda: len(lines(notes)) == 2)  # whichever of them
        gate.touch()
        assert all(ended(client, id).status == "finished" for id in ids)
        assert len({ended(client, id).result for id in ids}) == 3


def test_a_worker_that_is_late_has_its_isolated_process_killed_alone(server, client, tmp_path):
    with pool(server, earlier=-30) as process:  # as if it got no processor time
        until(lambda: client.scard(keys.WORKERS) == 1)
        workers = children_of(process.pid)
        late = ended(client, executor_jobs.resist_isolated.enqueue("swallow"))
        canceled = executor_jobs.resist_isolated.options(timeout=60).enqueue("swallow")
        until(lambda: reader.read(client, canceled).status == "started")
        assert control.cancel(client, canceled, DEADLINE)
        stopped = ended(client, canceled)
        assert children_of(process.pid) == workers
    assert (late.status, late.deaths) == ("failed", 0)
    assert "timeout" in late.reason
    assert (stopped.status, stopped.deaths) == ("stopped", 0)


def test_a_killed_worker_takes_its_isolated_process_along_and_both_jobs_run_again(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pool(server) as process:
        id = isolated_jobs.stay.enqueue(str(notes), str(gate), "a")
        begun(notes, "a")
        (worker,) = children_of(process.pid)
        (isolated,) = children_of(worker)
        os.kill(worker, signal.SIGKILL)
        until(lambda: not is_alive(isolated))
        gate.touch()
        info = ended(client, id)
    assert (info.status, info.deaths) == ("finished", 1)
    assert lines(notes) == ["begin a", "begin a", "end a"]


def test_an_isolated_process_has_no_connection_of_its_worker(server, client):
    with pool(server):
        until(lambda: client.scard(keys.WORKERS) == 1)
        found = ended(client, isolated_jobs.connections.enqueue()).result
    assert found == []


@pytest.mark.skipif(not os.path.exists("/proc/self/ns/net"), reason="the kernel knows no networks")  # noqa: PTH110
def test_a_job_without_network_reaches_files_and_nothing_else(server, client, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening, pool(server):
        port = listening.getsockname()[1]
        sealed = ended(client, isolated_jobs.connect_sealed.enqueue(port, str(tmp_path / "sealed"))).result
        usual = ended(client, isolated_jobs.connect.enqueue(port, str(tmp_path / "usual"))).result
    assert usual == "connected"
    assert (sealed != "connected") is sealing.is_possible()
    assert lines(tmp_path / "sealed") == lines(tmp_path / "usual") == ["written"]


@pytest.mark.skipif(not sealing.is_possible(), reason="the kernel denies namespaces")
def test_a_job_that_connects_first_has_a_process_of_its_own_and_then_leaves_the_network(server, client):
    with socket.create_server(("127.0.0.1", 0)) as listening, pool(server):
        port = listening.getsockname()[1]
        ids = isolated_jobs.connect_first.enqueue_many(
            [(port, first) for first in (False, True, True, False)]
        )
        found = [ended(client, id).result for id in ids]
    assert [before == "connected" for before, _, _ in found] == [False, True, True, False]
    assert all(after != "connected" for _, after, _ in found)
    assert len({pid for _, _, pid in found}) == 4


def test_what_a_killed_isolated_process_left_is_removed_at_once(server, client, tmp_path):
    with pool(server, storage=tmp_path):
        left = Path(ended(client, isolated_jobs.die_while_writing.enqueue()).result)
        until(lambda: not left.exists() and not list((tmp_path / ".tmp").iterdir()))
    assert (tmp_path / "whole").read_bytes() == b"half"


def test_images_that_take_long_leave_each_process_to_mails(server, client, tmp_path):
    noise = Image.effect_noise((2000, 2000), 90).convert("RGB").resize((6600, 6600))
    noise.save(tmp_path / "bomb.jpg", quality=95, progressive=True)  # ten passes over 43 megapixels
    notes = tmp_path / "notes"
    with pool(server, 2, storage=tmp_path, queues=",".join(QUEUES)) as process:
        until(lambda: client.scard(keys.WORKERS) == 2)
        workers = children_of(process.pid)
        bombs = image.enqueue_many([("bomb.jpg", [{"width": 3000 + number}]) for number in range(4)])
        until(lambda: [reader.read(client, id).status for id in bombs].count("started") == 2)
        mails = isolated_jobs.mail.enqueue_many([(str(notes), str(number)) for number in range(40)])
        assert [ended(client, id).status for id in mails] == ["finished"] * 40
        states = [reader.read(client, id).status for id in bombs]
        assert states.count("finished") == 0, states
        assert [ended(client, id).status for id in bombs] == ["finished"] * 4
        assert children_of(process.pid) == workers


def test_a_small_image_is_made_in_a_process_that_made_others(server, client, tmp_path):
    Image.new("RGB", (400, 300), "red").save(tmp_path / "a.jpg")
    with pool(server, storage=tmp_path, queues=",".join(QUEUES)) as process:
        widths = range(50, 58)
        ids = image.enqueue_many([("a.jpg", [{"width": width}]) for width in widths])
        sizes = [ended(client, id).result["renditions"][0]["width"] for id in ids]
        (worker,) = children_of(process.pid)
        assert len(children_of(worker)) == 1, "it waits for more"
    assert sizes == list(widths)


def test_an_image_is_made_in_a_process_that_was_given_damaged_ones(server, client, tmp_path):
    Image.new("RGB", (400, 300), "red").save(tmp_path / "a.jpg")
    names = []
    for kind, data in sources().items():
        names.append(kind)
        (tmp_path / kind).write_bytes(damaged(data, 0))
        (tmp_path / f"{kind} cut").write_bytes(data[: len(data) // 2])
        names.append(f"{kind} cut")
    with pool(server, ready=60, storage=tmp_path) as process:
        assert ended(client, image.enqueue("a.jpg", [{"width": 50}])).status == "finished"
        (worker,) = children_of(process.pid)
        first = children_of(worker)
        ids = image.enqueue_many([(name, [{"width": 20}]) for name in names])
        states = Counter(ended(client, id).status for id in ids)
        assert ended(client, image.enqueue("a.jpg", [{"width": 51}])).status == "finished"
        assert children_of(worker) == first
    assert len(first) == 1
    assert states["failed"] > len(names) // 2


def test_an_image_job_without_network_knows_by_its_one_connection_what_others_made(server, client, tmp_path):
    Image.new("RGB", (400, 300), "red").save(tmp_path / "a.jpg")
    with network(server) as tcp, pool(tcp, storage=tmp_path):
        for number in range(3):
            assert ended(client, image.enqueue("a.jpg", [{"width": 50 + number}])).status == "finished"
        kept = [key for key in client.scan_iter(count=1000) if b"image/" in key]
        accepted = int(client.info("stats")["total_connections_received"])
        for number in range(3, 9):
            assert ended(client, image.enqueue("a.jpg", [{"width": 50 + number}])).status == "finished"
        assert int(client.info("stats")["total_connections_received"]) - accepted < 3
    assert len(kept) == 3


@pytest.mark.parametrize(
    "garbage",
    [
        [255] * 100,
        [4, 0, 0, 0, *b"abcd"],
        [0, 0, 0, 0],
        list(framed(("report", (1,)))),
        list(framed(("result", "x"))),
        list(framed(("line", 7))),
        list(framed(("outcome", {}))),
    ],
    ids=lambda garbage: bytes(garbage[:12]).hex(),
)
def test_garbage_from_an_isolated_process_ends_that_process_alone(server, client, garbage):
    with pool(server) as process:
        until(lambda: client.scard(keys.WORKERS) == 1)
        workers = children_of(process.pid)
        info = ended(client, isolated_jobs.send_garbage.enqueue(garbage))
        assert ended(client, isolated_jobs.who.enqueue()).status == "finished"
        assert children_of(process.pid) == workers
    assert (info.status, info.deaths) == ("failed", 3)
