"""Ids by their beginnings: found wherever the job is, refused where several begin so, never guessed."""

from __future__ import annotations

import pytest
from redis import Redis

from packmule.jobs import keys, prefixes
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.jobs.prefixes import Ambiguous, batch_id, job_id
from packmule.tests.jobs import sample_jobs

pytestmark = pytest.mark.usefixtures("produce")

ONE, OTHER = "2a9f03b1c4d54e6f8a7b6c5d4e3f2a1b", "2a9f77b1c4d54e6f8a7b6c5d4e3f2a1b"


def enqueued(id: str, **options: object) -> str:
    return sample_jobs.noop.options(job_id=id, **options).enqueue()  # type: ignore[misc]


@pytest.mark.parametrize(
    "options", [{}, {"delay": 60}, {"priority": 60}, {"queue": "low"}, {"at_front": True}], ids=str
)
def test_a_job_is_found_by_its_beginning_wherever_it_waits(client: Redis, options: dict[str, object]) -> None:
    enqueued(ONE, **options)
    assert job_id(client, "2a9f") == job_id(client, "2a9f03b1…") == job_id(client, ONE) == ONE


@pytest.mark.parametrize("status", ["started", "finished", "failed", "deferred", "canceled"])
def test_a_job_is_found_by_its_beginning_in_each_registry(client: Redis, status: str) -> None:
    enqueued("nightly")
    member = f"{ONE}:9e3" if status == "started" else ONE
    client.zadd(keys.registry_key(status, "default"), {member: 1})
    assert job_id(client, "2a9f0") == ONE


def test_a_whole_id_wins_over_longer_ones_and_what_fits_nothing_stays_as_it_is(client: Redis) -> None:
    enqueued("night")
    enqueued("nightly")
    assert job_id(client, "night") == "night"
    assert job_id(client, "nightl") == "nightly"
    for text in ("gone", "nig", "", "…", "\x1b[2J"):
        assert job_id(client, text) == text


def test_a_beginning_of_several_names_the_first_of_them(client: Redis) -> None:
    enqueued(ONE)
    enqueued(OTHER)
    with pytest.raises(Ambiguous, match=r"^2a9f is the beginning of 2 jobs: ") as raised:
        job_id(client, "2a9f")
    assert ONE in str(raised.value) and OTHER in str(raised.value)
    assert job_id(client, "2a9f7") == OTHER
    for number in range(5):
        enqueued(f"2a9f-{number}")
    with pytest.raises(Ambiguous, match=r"the beginning of 7 jobs: .* and 3 more$"):
        job_id(client, "2a9f")


def test_a_short_beginning_is_not_believed_unique_if_more_jobs_are_kept_than_were_looked_at(
    client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefixes, "MOST_OF_A_PLACE", 2)
    for id in ("old", "older", ONE):
        enqueued(id)
    with pytest.raises(Ambiguous, match=f"is the beginning of {ONE} and perhaps of others: .*8 characters"):
        job_id(client, "2a9f")
    assert job_id(client, "2a9f03b1") == ONE
    assert job_id(client, "oldxx") == "oldxx"


def test_lists_of_the_wrong_type_hide_no_other_job(client: Redis) -> None:
    enqueued(ONE)
    client.set(keys.registry_key("failed", "default"), "x")
    client.set(keys.BATCHES, "x")
    assert job_id(client, "2a9f") == ONE
    assert batch_id(client, "2a9f") == "2a9f"


def test_a_batch_is_found_by_its_beginning(client: Redis) -> None:
    with Batch.create("night", client=Client(client)) as batch:
        sample_jobs.noop.options(batch=batch.id).enqueue()
    assert batch_id(client, batch.id[:6]) == batch_id(client, f"{batch.id[:8]}…") == batch.id
    assert batch_id(client, "nowhere") == "nowhere"
