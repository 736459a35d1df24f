"""Searching jobs: what a page has, in which order, and what the index may get wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest
from redis import Redis

from packmule.jobs import control, index, keys, search, wire
from packmule.jobs.client import Client
from packmule.jobs.job_filter import InvalidFilter, JobFilter
from packmule.tests.jobs import sample_jobs
from packmule.tests.jobs.ending import end
from packmule.worker.process import outcome, performer, statistics
from packmule.worker.process.failure import failure_of
from packmule.worker.rescue import rescue

ADD = "packmule.tests.jobs.sample_jobs.add"


@pytest.fixture(autouse=True)
def at_once(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished jobs are indexed in the step that ends them."""
    Client(client).make_default()
    monkeypatch.setattr(statistics, "MOST_AN_ENTRY", 1)


def found(client: Redis, limit: int = 50, **wanted: object) -> list[str]:
    """The ids of all pages in turn; none is longer than `limit`."""
    ids: list[str] = []
    cursor = None
    for _ in range(200):
        page = search.search(client, JobFilter(**wanted), limit, cursor)  # type: ignore[arg-type]
        assert len(page.jobs) <= limit
        ids += [info.id for info in page.jobs]
        cursor = page.cursor
        if cursor is None:
            return ids
    raise AssertionError("the pages don't end")


def test_pages_of_all_queues_and_statuses_have_each_job_once(client, claims):
    for number in range(30):
        queue = ("high", "default", "low")[number % 3]
        sample_jobs.add.options(queue=queue, job_id=f"j{number}").enqueue(number)
    ended = end(claims)
    failing = sample_jobs.add.enqueue_many([{"a": each} for each in range(5)])
    assert end(claims, "ValueError: no") == failing
    waiting = sample_jobs.add.enqueue(1)
    for limit in (1, 7, 35, 50):
        ids = found(client, limit)
        assert sorted(ids) == sorted([*ended, *failing, waiting])


def test_filters_are_combined(client, claims):
    mine = sample_jobs.add.options(queue="low").enqueue(7, b=8)
    sample_jobs.add.options(queue="high").enqueue(7, b=8)
    sample_jobs.add.options(queue="low").enqueue(7, b=9)
    sample_jobs.noop.options(queue="low").enqueue()
    for end_all in (lambda: None, lambda: end(claims), lambda: None):
        end_all()
        for name in ("add", "sample_jobs.add", ADD):
            assert found(client, name=name, queue="low", args={"a": "7", "b": "8"}) == [mine]
        assert found(client, name="dd") == found(client, name="add", args={"c": "7"}) == []
        assert found(client, id=mine[:20]) == [mine]


def test_jobs_are_found_by_their_error_and_status(client, claims):
    sample_jobs.noop.enqueue()
    end(claims, "ZeroDivisionError: division by zero")
    wrong = [sample_jobs.noop.enqueue()]
    end(claims, "Traceback\n  x\nshop.errors.NoSuchMonth: 13")
    wrong += sample_jobs.noop.enqueue_many([()])
    end(claims)
    assert found(client, error="NoSuchMonth") == wrong[:1]
    assert found(client, error="NoSuchMonth", status="stopped") == []
    assert found(client, status="finished") == wrong[1:]
    assert len(found(client, status="failed")) == 2


def test_jobs_are_found_by_their_time(client, claims):
    first, second, third = (sample_jobs.noop.enqueue() for _ in range(3))
    times = []
    for _ in range(3):
        (job,) = claims.finish_and_claim(claims.next_id(), [], 1).jobs
        times.append(time.time())
        claims.finish_and_claim(claims.next_id(), [performer.finished(job, b"", times[-1], times[-1])], 0)
    assert set(found(client, since=times[1] - 0.0001)) == {third, second}
    until = datetime.fromtimestamp(times[1] + 0.0001, UTC)
    assert set(found(client, until=until)) == {second, first}
    assert found(client, since=times[1] - 0.0001, until=until) == [second]
    assert found(client, since=time.time() + 5) == []


def test_a_waiting_scheduled_or_canceled_job_and_one_behind_another_are_found(client):
    waiting = sample_jobs.noop.enqueue()
    later = sample_jobs.noop.options(delay=60).enqueue()
    gone = sample_jobs.noop.enqueue()
    control.cancel(client, gone)
    client.hset(keys.groups_key("default"), "g", waiting)
    client.rpush(keys.group_key("default", "g"), behind := sample_jobs.noop.enqueue())
    client.lrem(keys.queue_key("default"), 1, behind)
    assert set(found(client)) == {waiting, later, gone, behind}
    assert found(client, status="scheduled") == [later]
    assert set(found(client, status="queued")) == {waiting, behind}


def test_a_job_that_runs_again_is_found_as_it_is_now(client, claims):
    id = sample_jobs.noop.enqueue()
    end(claims, "ValueError: no")
    control.retry(client, id)
    assert found(client, status="failed") == []
    assert found(client) == found(client, status="queued") == [id]
    end(claims, "ValueError: no")
    assert found(client) == found(client, status="failed") == [id]
    client.delete(keys.job_key(id))
    assert found(client) == []


def test_jobs_that_the_index_lacks_are_found_in_the_registries(client, claims):
    ids = sample_jobs.noop.enqueue_many([()] * 40)
    end(claims, "ValueError: no")
    client.xtrim(keys.INDEXES["failed"], 20)
    assert set(found(client)) == set(ids)
    client.delete(keys.INDEXES["failed"])
    assert set(found(client, error="ValueError")) == set(ids)
    assert sorted(found(client, limit=7)) == sorted(ids)


@pytest.mark.parametrize("limit", [3, 10, 50])
def test_jobs_of_other_workers_among_indexed_ones_come_once(client, claims, limit):
    ids = list(sample_jobs.noop.enqueue_many([()] * 30))
    end(claims)
    for id, _ in client.xrange(keys.INDEXES["finished"])[::3]:
        client.xdel(keys.INDEXES["finished"], id)
    pages = found(client, limit)
    assert sorted(pages) == sorted(ids)


def test_a_look_is_bounded_and_goes_on_from_its_cursor(client, claims, monkeypatch):
    rare = sample_jobs.add.enqueue(1)
    sample_jobs.noop.enqueue_many([()] * 60)
    end(claims)
    client.delete(keys.registry_key("finished", "default"))
    monkeypatch.setattr(index, "MOST_LOOKS", 40)
    page = search.search(client, JobFilter(name="add"))
    assert not page.jobs
    assert page.cursor
    assert page.back_to and time.time() - 60 < page.back_to < time.time()
    assert found(client, name="add") == [rare]


def test_more_waiting_jobs_than_a_search_looks_at_are_said_to_be_there(client):
    assert not search.search(client).is_partial
    sample_jobs.noop.enqueue_many([()] * (search.MOST_IN_A_PLACE + 1))
    page = search.search(client)
    assert (len(page.jobs), page.is_partial) == (50, True)


def test_a_search_looks_at_so_many_records_and_shares_them_among_the_places(client, monkeypatch):
    few = sample_jobs.noop.options(queue="high").enqueue_many([()] * 2)
    for queue in ("default", "low"):
        sample_jobs.noop.options(queue=queue).enqueue_many([()] * 30)
    looked: list[str] = []
    look_at = search.look_at

    def counting(client: Redis, groups: list[tuple[list[str], list[str]]], *given: object) -> object:
        looked.extend(id for ids, _ in groups for id in ids)
        return look_at(client, groups, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(search, "look_at", counting)
    monkeypatch.setattr(search, "MOST_LOOKS", 20)
    page = search.search(client)
    assert (len(looked), len(page.jobs), page.is_partial) == (20, 20, True)
    counts = Counter(info.queue for info in page.jobs)
    assert counts == {"high": 2, "default": 9, "low": 9}
    assert set(few) < {info.id for info in page.jobs}


def test_pages_go_on_and_end_without_any_time_to_look(client, claims, monkeypatch):
    monkeypatch.setattr(search, "LONGEST", 0.0)
    monkeypatch.setattr(index, "LEAST_LOOKS", 2)
    ids = list(sample_jobs.noop.enqueue_many([()] * 9))
    end(claims)
    wrong = list(sample_jobs.noop.enqueue_many([()] * 4))
    end(claims, "ValueError: no")
    assert sorted(found(client)) == sorted([*wrong, *ids])
    assert found(client, error="KeyError") == []


def test_finished_jobs_are_collected_and_failures_are_not(client, claims, monkeypatch):
    monkeypatch.setattr(statistics, "MOST_AN_ENTRY", 64)
    for interval in ("INTERVAL", "INDEX_INTERVAL"):
        monkeypatch.setattr(statistics, interval, 3600.0)
    claims.statistics.clear_index()
    claims.statistics.clear()

    def claim_and(end: Callable[..., outcome.Outcome], *given: object) -> None:
        sample_jobs.noop.enqueue_many([()] * 2)
        (job,) = claims.finish_and_claim(claims.next_id(), [], 1).jobs
        claims.finish_and_claim(claims.next_id(), [end(job, *given, 1.0, 1.0)], 1)

    claim_and(performer.finished, b"")
    assert not client.exists(*keys.INDEXES.values())
    claim_and(outcome.failed, "ValueError: no")
    assert [client.xlen(key) for key in keys.INDEXES.values()] == [1, 1]
    claim_and(performer.finished, b"")
    claims.send_statistics()
    assert client.xlen(keys.INDEXES["finished"]) == 2


def test_a_job_that_kills_its_processes_is_in_the_index(client, claims):
    id = sample_jobs.noop.enqueue()
    for _ in range(3):
        (job,) = claims.finish_and_claim(claims.next_id(), [], 1).jobs
        rescue(client, "w1", "died", "packmule.WorkerDied: signal 9", [job.execution])
    client.delete(keys.registry_key("failed", "default"))
    assert found(client, name="noop", error="WorkerDied") == [id]
    assert found(client, error="ValueError") == []


def test_a_key_of_another_type_stops_neither_a_worker_nor_a_search(client, claims):
    for key in keys.INDEXES.values():
        client.set(key, "garbage")
    ids = [sample_jobs.noop.enqueue()]
    assert found(client) == ids
    end(claims)
    ids.append(sample_jobs.noop.enqueue())
    assert sorted(found(client)) == sorted(ids)
    end(claims, "ValueError: no")
    assert sorted(found(client)) == sorted(ids)
    assert client.xlen(keys.INDEXES["finished"]) == client.xlen(keys.INDEXES["failed"]) == 1


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\xff\xfe", b"\xc1", msgspec.msgpack.encode([["a"], [], ["a", "b", "c", 7]]), b"\x91" * 5000],
)
def test_entries_that_make_no_sense_are_passed_over(client, claims, garbage):
    key = keys.INDEXES["finished"]
    client.xadd(key, {"e": garbage})
    id = sample_jobs.noop.enqueue()
    end(claims)
    client.xadd(key, {"n": garbage, "e": garbage})
    client.xadd(key, {"other": "fields"})
    assert found(client) == [id]
    client.set(keys.job_key("text"), "no record")
    client.xadd(key, {"n": 1, "e": msgspec.msgpack.encode([["noop", "default", "", "text", str(id)]])})
    assert found(client) == [id]


def test_times_that_are_garbage_hide_no_job(client):
    client.sadd(keys.QUEUES, keys.queue_key("low"))
    record = {"data": wire.encode_call("f", (), {}), "origin": "low", "status": "queued"}
    for id, at in {"a": "yesterday", "b": "9999999-01-01", "c": b"\xff", "d": ""}.items():
        client.hset(keys.job_key(id), mapping=record | {"created_at": at, "ended_at": at})
        client.rpush(keys.queue_key("low"), id)
    assert set(found(client, limit=2)) == {"a", "b", "c", "d"}


def test_a_filter_that_makes_no_sense_is_refused():
    for wrong in (
        {"status": "sleeping"},
        {"since": "yesterday"},
        {"until": float("nan")},
        {"args": {"a": 1}},
        {"name": 7},
        {"fingerprint": 7},
    ):
        with pytest.raises(InvalidFilter):
            JobFilter(**wrong)


def test_a_page_that_makes_no_sense_is_refused(client):
    for limit, cursor in ((0, None), (1001, None), (50, "x"), (50, ""), (50, "-1"), (50, "9" * 17)):
        with pytest.raises(search.InvalidPage):
            search.search(client, limit=limit, cursor=cursor)
    assert search.search(client, cursor="9999999999999999-\udcff").jobs == []


def record(client: Redis, ids: list[str], at: float, state: str = "finished") -> None:
    """Write the records of jobs that ended at a time, and nothing that names them."""
    said = wire.time_text(at)
    fields = {"data": wire.encode_call("f", (), {}), "origin": "low", "status": state}
    for id in ids:
        client.hset(keys.job_key(id), mapping=fields | {"created_at": said, "ended_at": said})


def name(client: Redis, id: str, at: str, state: str = "finished") -> None:
    """Add an entry that names a job."""
    entry = msgspec.msgpack.encode([["f", "low", "", id]])
    client.xadd(keys.INDEXES[state], {"n": 1, "e": entry}, id=at)


def test_a_job_that_ended_twice_comes_once(client):
    record(client, ["a", "b", "c"], 940.0)
    for id, at in (("a", 870_000), ("c", 940_000), ("b", 940_001), ("a", 940_002)):
        name(client, id, f"{at}-0")
    for limit in (1, 2, 50):
        assert found(client, limit) == ["a", "b", "c"]


def test_jobs_of_one_moment_come_once_in_pages_and_parts_of_any_size(client, monkeypatch):
    ids = [f"j{number}" for number in range(9, 0, -1)]
    record(client, ids, 1000.0)
    for number, id in enumerate(ids):
        name(client, id, f"{1000_000 + number // 7}-{number}")
    for entries in (1, 2, 4, 16):
        monkeypatch.setattr(index, "FEWEST_ENTRIES", entries)
        monkeypatch.setattr(index, "LOOKS_A_TRIP", entries)
        for limit in (1, 2, 5, 50):
            assert found(client, limit) == [f"j{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9)]


def test_a_bounded_look_in_one_index_brings_nothing_older_from_others(client, monkeypatch):
    finished = [f"j{number:02}" for number in range(30)]
    for number, id in enumerate(finished):
        record(client, [id], 1000.0 + number)
        name(client, id, f"{1000_000 + 1000 * number}-0")
    record(client, ["failed"], 1010.5, "failed")
    name(client, "failed", "1010500-0", "failed")
    monkeypatch.setattr(index, "MOST_LOOKS", 8)
    expected = [*finished[:11], "failed", *finished[11:]]
    assert found(client) == expected[::-1]


def test_waiting_jobs_of_all_priorities_are_found(client):
    ids = [sample_jobs.noop.options(priority=priority).enqueue() for priority in (-100, -1, 0, 1, 100)]
    assert sorted(found(client, status="queued")) == sorted(ids)


def test_jobs_are_found_by_the_fingerprint_of_their_error(client, claims):
    ids = list(sample_jobs.noop.enqueue_many([()] * 3))
    for _ in ids:
        (job,) = claims.finish_and_claim(claims.next_id(), [], 1).jobs
        now, failure = time.time(), failure_of(ValueError("no"), "noop")
        ended = outcome.failed(job, "ValueError: no", now, now, failure=failure)
        claims.finish_and_claim(claims.next_id(), [ended], 0)
    sample_jobs.noop.enqueue()
    end(claims, "ValueError: no")
    control.retry(client, ids[0])
    assert sorted(found(client, 1, fingerprint=failure.fingerprint)) == sorted(ids[1:])
    assert sorted(found(client, fingerprint=failure.fingerprint, status="failed")) == sorted(ids[1:])
    assert found(client, fingerprint="f" * 12) == found(client, fingerprint="*\n") == []


def test_jobs_are_found_by_the_text_of_their_errors(client, claims):
    wrong = sample_jobs.add.enqueue_many([{"a": 1}])
    end(claims, "ValueError: The Shelf is empty")
    other = sample_jobs.add.enqueue_many([{"a": 2}])
    end(claims, "OSError: the disk is full")
    sample_jobs.add.enqueue(3)
    end(claims)
    assert found(client, error="shelf") == found(client, error="shelf is") == wrong
    assert found(client, error="the ") == [*other, *wrong]
    assert found(client, error="valueerror: the shelf") == wrong
    assert found(client, error="Shelf") == found(client, error="shelf", status="stopped") == []
    assert found(client, error="OSError") == found(client, error="full", name="add") == other
