"""Isolated jobs that must end while all processors are busy: their processes end alone, nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from PIL import Image

from packmule.jobs import control, keys, reader
from packmule.jobs.image import image
from packmule.tests.jobs.image_fuzz import damaged, sources
from packmule.tests.jobs.pictures import saved, with_scans
from packmule.tests.worker import damaged_images, executor_jobs, isolated_jobs
from packmule.tests.worker.pools import DEADLINE, children_of, ended, is_alive, pool, until

pytestmark = pytest.mark.usefixtures("produce")

MOST_MIB = 10
"""How much a process may grow by damaged images of one kind, most of it by the first few."""


@contextmanager
def busy_processors() -> Iterator[None]:
    """Twice as many busy loops as processors."""
    loops = []
    for _ in range(2 * (os.cpu_count() or 1)):
        loop = os.fork()
        if not loop:
            signal.alarm(240)
            while True:
                pass
        loops.append(loop)
    try:
        yield
    finally:
        for loop in loops:
            os.kill(loop, signal.SIGKILL)
            os.waitpid(loop, 0)


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A legal JPEG that decodes for seconds in one call of C code."""
    noise = Image.effect_noise((1250, 1000), 90).convert("RGB").resize((3600, 2770))
    return with_scans(saved(noise, "JPEG", progressive=True), 45)


def test_a_timeout_ends_the_isolated_process_alone_while_all_processors_are_busy(
    server, client, tmp_path, bomb
):
    (tmp_path / "bomb.jpg").write_bytes(bomb)
    with pool(server, 2, storage=tmp_path, queues="high,default") as running:
        until(lambda: client.scard(keys.WORKERS) == 2)
        workers = children_of(running.pid)
        with busy_processors():
            late = [executor_jobs.resist_isolated.enqueue(how) for how in ("number", "blocked", "swallow")]
            late += [
                image.options(timeout=1, retries=0).enqueue("bomb.jpg", [{"width": 3000 + number}])
                for number in range(2)
            ]
            mails = isolated_jobs.mail.enqueue_many(
                [(str(tmp_path / "notes"), str(number)) for number in range(30)]
            )
            infos = [ended(client, id) for id in late]
            assert [ended(client, id).status for id in mails] == ["finished"] * 30
            canceled = image.options(timeout=200).enqueue("bomb.jpg", [{"width": 2000}])
            until(lambda: reader.read(client, canceled).status == "started")
            assert control.cancel(client, canceled, DEADLINE)
            assert ended(client, canceled).status == "stopped"
        assert children_of(running.pid) == workers
        assert ended(client, isolated_jobs.who.enqueue()).status == "finished"
    assert [(info.status, info.deaths) for info in infos] == [("failed", 0)] * 5
    assert all("timeout" in info.reason for info in infos)


@pytest.mark.parametrize("ending", ["grace", "kill the pool"])
def test_images_that_a_pool_cuts_short_go_back_whole_and_run_elsewhere(
    server, client, tmp_path, bomb, ending
):
    (tmp_path / "bomb.jpg").write_bytes(bomb)
    with pool(server, 2, storage=tmp_path, grace=0.1) as running:
        ids = image.enqueue_many([("bomb.jpg", [{"width": 1000 + number}]) for number in range(3)])
        until(lambda: [reader.read(client, id).status for id in ids].count("started") == 2)
        isolated = [child for worker in children_of(running.pid) for child in children_of(worker)]
        running.send_signal(signal.SIGTERM if ending == "grace" else signal.SIGKILL)
        running.wait(DEADLINE)
    until(lambda: not any(map(is_alive, isolated)))
    assert not [each for each in tmp_path.rglob("*") if each.suffix == ".jpg" and each.name != "bomb.jpg"]
    Image.new("RGB", (1200, 900), "red").save(tmp_path / "bomb.jpg")  # which takes less long
    with pool(server, 2, storage=tmp_path):
        infos = [ended(client, id) for id in ids]
        until(lambda: not list((tmp_path / ".tmp").glob("*")))
    assert [(info.status, info.deaths, info.attempts) for info in infos] == [("finished", 0, 0)] * 3


def test_damaged_images_end_no_process_of_the_pool_and_hold_up_no_mail(server, client, tmp_path, bomb):
    (tmp_path / "bomb.jpg").write_bytes(bomb)
    names = []
    for kind, data in sources().items():
        for seed in range(3):
            names.append(f"{kind} {seed}")
            (tmp_path / names[-1]).write_bytes(damaged(data, seed))
    with pool(server, 2, storage=tmp_path, queues="high,default") as running:
        until(lambda: client.scard(keys.WORKERS) == 2)
        workers = children_of(running.pid)
        images = image.enqueue_many([(name, [{"width": 20}]) for name in (*names, "bomb.jpg")])
        mails = isolated_jobs.mail.enqueue_many(
            [(str(tmp_path / "notes"), str(number)) for number in range(30)]
        )
        assert [ended(client, id).status for id in mails] == ["finished"] * 30
        assert not all(reader.read(client, id).has_ended for id in images), "mails come first"
        infos = [ended(client, id) for id in images]
        assert children_of(running.pid) == workers
    assert {info.status for info in infos} == {"finished", "failed"}
    assert {info.deaths for info in infos} == {0}
    assert not list((tmp_path / ".tmp").glob("*"))


def test_damaged_images_of_all_kinds_have_one_process_whose_memory_stays():
    report = damaged_images.run(20)
    assert len(set.union(*(found.processes for found in report.values()))) == 1
    grown = {kind: found.sizes[-1] - found.sizes[0] for kind, found in report.items()}
    assert max(grown.values()) < MOST_MIB, grown
    assert sum(found.failed for found in report.values()) > 10 * len(report)
