"""The model of the state machine: after any steps, each job is in one place and all counts are exact."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from redis import Redis

from packmule.tests.model.machine import Machine

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "80"))
"""More are for a long run, each time others: the environment says how many."""

IS_LONG = "MODEL_EXAMPLES" in os.environ


@pytest.mark.timeout(1200)  # a failed example is made short for up to five minutes
def test_after_any_steps_every_job_has_one_place_and_all_comes_to_rest(client: Redis):
    Machine.server = client
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=50,
            derandomize=not IS_LONG,
            database=None,
            deadline=None,
            print_blob=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
