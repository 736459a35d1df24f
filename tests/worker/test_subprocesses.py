"""Processes that a job started end with it where it is interrupted, and with its worker."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from packmule.jobs import reader
from packmule.jobs.control import cancel
from packmule.tests.worker import executor_jobs, pool_jobs
from packmule.tests.worker.pools import DEADLINE, ended, is_alive, lines, pool, until
from packmule.worker.subprocesses import Children

pytestmark = pytest.mark.usefixtures("produce")

WAYS = {
    "inline": (executor_jobs.start_and_wait, {}),
    "threads": (executor_jobs.start_and_wait, {"threads": 4}),
    "isolated": (executor_jobs.start_and_wait_isolated, {}),
}


@pytest.mark.parametrize("how", ["raise", "swallow"])
@pytest.mark.parametrize("way", WAYS)
def test_what_a_job_started_is_killed_when_its_timeout_ends_it(server, client, tmp_path, way, how):
    job, options = WAYS[way]
    notes = tmp_path / "notes"
    with pool(server, **options):
        id = job.options(timeout=2).enqueue(str(notes), how)
        assert ended(client, id).status == "failed"
        (started,) = lines(notes)
        until(lambda: not is_alive(int(started)))
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2


@pytest.mark.parametrize("how", ["raise", "swallow"])
@pytest.mark.parametrize("way", WAYS)
def test_what_a_job_started_is_killed_when_it_is_canceled(server, client, tmp_path, way, how):
    job, options = WAYS[way]
    notes = tmp_path / "notes"
    with pool(server, **options):
        id = job.options(timeout=60).enqueue(str(notes), how)
        until(lambda: lines(notes) and reader.read(client, id).status == "started")
        assert cancel(client, id, DEADLINE) == "stopped"
        (started,) = lines(notes)
        until(lambda: not is_alive(int(started)))


@pytest.mark.parametrize("threads", [1, 4])
def test_what_an_earlier_job_left_behind_outlives_the_interruption_of_a_later_one(
    server, client, tmp_path, threads
):
    left, notes = tmp_path / "left", tmp_path / "notes"
    with pool(server, threads=threads, patience=60):
        ended(client, executor_jobs.start_and_leave.enqueue(str(left)))
        assert ended(client, executor_jobs.start_and_wait.enqueue(str(notes), "raise")).status == "failed"
        until(lambda: not is_alive(int(lines(notes)[0])))
        (earlier,) = map(int, lines(left))
        assert is_alive(earlier)
        os.kill(earlier, signal.SIGKILL)


def test_what_was_left_behind_a_moment_before_is_told_from_what_is_new():
    children = Children()
    with subprocess.Popen(["sleep", "600"]) as earlier:
        children.note()
        with subprocess.Popen(["sleep", "600"]) as new:
            children.kill_new()
            assert new.wait() == -signal.SIGKILL
        assert earlier.poll() is None
        earlier.kill()
