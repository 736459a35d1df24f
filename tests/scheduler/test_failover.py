"""Schedulers are killed, frozen and cut off; each tick is still enqueued once, or skipped for a reason."""

from __future__ import annotations

import os
import random

from packmule.tests.scheduler import tick_faults

FAULTS = int(os.environ.get("PACKMULE_TEST_TICK_FAULTS", "9"))
SCHEDULES = 20


def test_every_tick_is_enqueued_once_or_skipped_whatever_happens_to_leaders_and_lock_nodes():
    seed = random.randrange(10**6)
    report = tick_faults.run(FAULTS, SCHEDULES, seed)
    print(f"seed {seed}\n{report}")
    assert report.broken == []
    assert report.ticks["enqueued"] > SCHEDULES * report.seconds / 4
    assert report.ticks["skipped"] > 0
