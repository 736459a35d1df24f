"""Trimming the index of ended jobs: by number and by bytes."""

from __future__ import annotations

import pytest
from redis import Redis

from packmule.jobs import keys
from packmule.scheduler.leader import NotLeading
from packmule.scheduler.maintenance import index_trimmer
from packmule.scheduler.maintenance.index_trimmer import IndexTrimmer

FINISHED = keys.INDEXES["finished"]


@pytest.fixture(autouse=True)
def small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_trimmer, "ENTRIES_A_CALL", 5)


def add(client: Redis, entries: int, jobs: int = 1, text: str = "") -> None:
    for _ in range(entries):
        client.xadd(FINISHED, {"n": jobs, "e": text})


def test_the_latest_entries_are_kept(client):
    trimmer = IndexTrimmer(client, 100)
    add(client, 90)
    assert (trimmer.trim(), client.xlen(FINISHED)) == (90, 90)
    add(client, 60)
    last = client.xrevrange(FINISHED, count=1)
    assert trimmer.trim() == 60
    assert 100 <= client.xlen(FINISHED) <= 105
    assert client.xrevrange(FINISHED, count=1) == last
    assert trimmer.trim() == 0


def test_entries_count_as_many_jobs_as_they_name(client):
    add(client, 100, jobs=64)
    IndexTrimmer(client, 640).trim()
    assert 10 <= client.xlen(FINISHED) <= 15


def test_long_entries_count_more(client):
    add(client, 100, text="x" * 2560)
    IndexTrimmer(client, 200).trim()
    assert 18 <= client.xlen(FINISHED) <= 25


def test_another_leader_begins_at_the_oldest(client):
    IndexTrimmer(client, 100).trim()
    add(client, 150)
    IndexTrimmer(client, 100).trim()
    assert 100 <= client.xlen(FINISHED) <= 105


def test_a_former_leader_trims_nothing(client):
    add(client, 50)
    client.hset("pm:leader", "term", "8")
    with pytest.raises(NotLeading):
        IndexTrimmer(client, 10).trim("7")
    assert client.xlen(FINISHED) == 50


@pytest.mark.parametrize(
    "number", ["", "many", "-7", "1e300", "nan", "\udcff".encode(errors="surrogateescape")]
)
def test_entries_that_make_no_sense_are_counted_and_trimmed(client, number):
    add(client, 100, jobs=number)
    IndexTrimmer(client, 10).trim()
    assert client.xlen(FINISHED) <= 15


def test_a_key_of_another_type_is_set_aside(client):
    client.set(FINISHED, "garbage")
    assert IndexTrimmer(client, 10).trim() == 0
    assert client.get(f"pm:broken:{FINISHED}") == b"garbage"
