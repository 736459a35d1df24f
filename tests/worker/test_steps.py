"""Steps, sleeps and waits in real pools: what a run did isn't done again, and a wait holds nothing."""

from __future__ import annotations

import pytest

from packmule.tests.worker import step_jobs
from packmule.tests.worker.pools import ended, lines, pool, until

pytestmark = pytest.mark.usefixtures("produce")


@pytest.mark.parametrize("ends", ["kill", "raise"])
def test_a_run_after_a_crash_or_an_error_goes_on_behind_the_steps(server, client, tmp_path, ends):
    notes = tmp_path / "notes"
    id = step_jobs.order.enqueue(str(notes), ends)
    with pool(server):
        assert ended(client, id).result == ["pay", "pack", "send"]
    assert lines(notes) == ["body", "pay", "pack", "body", "send"]


@pytest.mark.parametrize("job", ["waits", "waits_async", "waits_isolated"])
def test_a_job_that_waits_goes_on_with_the_signals_data(server, client, tmp_path, job):
    notes = tmp_path / "notes"
    handle = getattr(step_jobs, job).enqueue(str(notes))
    with pool(server):
        until(lambda: handle.status == "deferred")
        assert handle.signal("approved", {"by": "ada"}) == "woken"
        result = ended(client, handle).result
    assert {"by": "ada"} in (result, result[-1] if isinstance(result, list) else None)
    assert lines(notes).count("body") == 2
    assert len(lines(notes)) == (5 if job == "waits_async" else 3)
