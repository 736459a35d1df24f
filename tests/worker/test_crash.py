"""SIGKILL at random instants while thousands of jobs run."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

import pytest

from packmule.tests.worker import pool_jobs
from packmule.tests.worker.pools import children_of, ended, lines, pool, until
from packmule.worker.process.claim import MOST

KILLS = 5

pytestmark = pytest.mark.usefixtures("produce")


@pytest.mark.parametrize("threads", [1, 4])
def test_each_job_completes_and_a_kill_repeats_no_more_than_a_claim(server, client, tmp_path, threads):
    dice = random.Random(threads)
    ledger = tmp_path / "ledger"
    ids: list[str] = []
    with pool(server, 2, threads=threads) as process:
        until(lambda: len(children_of(process.pid)) == 2)
        for kill in range(KILLS):
            already = len(lines(ledger))  # counted first, for the jobs may end before this process goes on
            for queue in ("high", "low"):
                calls = [(str(ledger), f"{kill} {queue} {number}") for number in range(1500)]
                ids += pool_jobs.note.options(queue=queue).enqueue_many(calls)
            until(lambda already=already: len(lines(ledger)) > already)
            time.sleep(dice.uniform(0, 0.1))
            os.kill(children_of(process.pid)[0], signal.SIGKILL)  # the older one
        until(lambda: client.zcard("rq:finished:high") + client.zcard("rq:finished:low") == len(ids), 240)
        assert {ended(client, id).status for id in dice.sample(ids, 200)} == {"finished"}
        until(lambda: client.zcard("rq:wip:high") == client.zcard("rq:wip:low") == 0)
    noted = Counter(lines(ledger))
    assert len(noted) == len(ids)
    assert noted.total() - len(ids) <= KILLS * MOST
